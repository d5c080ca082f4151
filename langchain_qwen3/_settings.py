"""The settings that every component has, and how a call overrides one."""

from collections.abc import Mapping
from enum import Enum
from pathlib import Path
from typing import Any, Final, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, model_validator
from pydantic_core import InitErrorDetails, PydanticCustomError

from qwen3_core.common.hints import by_name, one_model, suggest
from qwen3_core.common.validation import check_query
from qwen3_core.remote import Server
from qwen3_core.settings import Dtype
from qwen3_core.tokenizer import TruncationWarning as TruncationWarning

T = TypeVar("T")


class Unset(Enum):
    """The type of `UNSET`."""

    UNSET = "UNSET"

    def __repr__(self) -> str:
        return self.value


UNSET: Final = Unset.UNSET
"""What an argument is that a call does not give, where None means something else."""

TopN = int | Unset | None
"""A call's `top_n`: `UNSET` is the component's own, None is all."""

Threshold = float | Unset | None
"""A call's `score_threshold`: `UNSET` is the component's own, None is none."""


def override(given: T | Unset, own: T) -> T:
    """What a call gave, or the component's own setting if it gave nothing."""
    return own if isinstance(given, Unset) else given


def check_question(query: object, title: str) -> str:
    """Return a query that is a string with something in it.

    A ValueError here is a `pydantic.ValidationError`: LangGraph's `ToolNode`, and with it the
    agents of LangChain, send it back to the LLM as a mistake in its tool call. Any other error
    would end the run.

    Args:
        query: The value to check.
        title: The class that was asked.

    Raises:
        TypeError: If it is not a string.
        pydantic.ValidationError: If it is blank or holds a lone surrogate (a ValueError).
    """
    try:
        return check_query(query)
    except ValueError as error:
        kind = PydanticCustomError("query", "{why}", {"why": str(error)})
        line = InitErrorDetails(type=kind, loc=("query",), input=None)
        raise ValidationError.from_exception_data(title, [line], hide_input=True) from None


class CheckpointSettings(BaseModel):
    """Fields of a component that runs a Qwen3 checkpoint.

    Values are checked when they are given, at construction and at assignment alike; the model
    itself is loaded at first use. Components with equal settings share one loaded model.
    """

    model_config = ConfigDict(
        extra="forbid",
        validate_assignment=True,
        use_attribute_docstrings=True,
        hide_input_in_errors=True,  # a key may be among the input
    )

    @model_validator(mode="before")
    @classmethod
    def _know_names(cls, given: Any) -> Any:
        given = one_model(given, "model")
        suggest(given, cls.model_fields)
        return given

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:  # noqa: ARG004 - for __init__
        """Refuse a model's name without `model=`."""
        by_name(cls, args, "model=...")
        return super().__new__(cls)

    @property
    def model_name(self) -> str | Path:
        """The same as `model`, as other components call it."""
        return self.model

    @model_name.setter
    def model_name(self, value: str | Path) -> None:
        self.model = value

    model: str | Path
    """Name on the Hugging Face Hub, local folder, or "tiny" for the bundled model."""

    instruction: str | None = None
    """What queries ask for: a sentence, or a task name of `qwen3_core.prompts.TASKS`.
    None: the checkpoint's own prompt if it has one, else "Given a web search query, retrieve
    relevant passages that answer the query"."""

    revision: str | None = None
    """Branch, tag or commit on the Hugging Face Hub."""

    device: str = "auto"
    """Where to run: "cpu", "cuda", "cuda:1", "mps"; "auto" is CUDA, else MPS, else the CPU."""

    dtype: Dtype = "auto"
    """What to compute in: "auto" is bfloat16 where the hardware has it, else float32; or by name,
    "bfloat16", "float32", "float16"."""

    max_length: int | None = None
    """Tokens read of one input, its instruction included; the rest is cut with a warning.
    None: 8192, or what the model has if that is less."""

    pack_tokens: int | None = None
    """Token budget of one forward pass: lower it when memory is short. None: by device."""

    timeout: float | None = None
    """Seconds that one call may take, waiting for its turn included, loading the model not; then it
    raises TimeoutError. None: as long as it takes."""

    base_url: str | None = None
    """Where a server's API begins, such as "http://localhost:8000/v1": the model then runs there,
    and `model` is its name there. None: the model runs in this process."""

    api_key: SecretStr | None = Field(default=None, exclude=True)
    """The server's key. None: `QWEN3_API_KEY` from the environment. It does not travel in
    pickles."""

    server: Server | str | None = None
    """What the server is, "vllm" for example, or a `Server` with more settings. None: it is
    asked."""

    show_progress: bool = False
    """Show a progress bar on stderr."""

    def __getstate__(self) -> dict[Any, Any]:
        """Without the key, which would be readable in a pickle."""
        state = super().__getstate__()
        return state | {"__dict__": state["__dict__"] | {"api_key": None}}

    def __setattr__(self, name: str, value: Any) -> None:
        """Set a field; a refused value leaves the old one in place (pydantic alone keeps it)."""
        before = dict(self.__dict__)
        try:
            super().__setattr__(name, value)
        except (TypeError, ValueError):
            self.__dict__.update(before)
            raise

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """A copy with some fields changed; unlike pydantic's, the changes are checked and count."""
        del deep  # settings are plain values
        return type(self)(**{**dict(self), **one_model(update or {}, "model")})
