"""The settings of every component, and their overrides in a call."""

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
"""Default of an argument that was not given, where None has another meaning."""

TopN = int | Unset | None
"""A call's `top_n`: `UNSET` takes the component's own, None keeps all."""

Threshold = float | Unset | None
"""A call's `score_threshold`: `UNSET` takes the component's own, None applies none."""


def override(given: T | Unset, own: T) -> T:
    """The call's argument, or the component's own setting if it was not given."""
    return own if isinstance(given, Unset) else given


def check_question(query: object, title: str) -> str:
    """Return `query` if it is a string that is not blank.

    The ValueError is a `pydantic.ValidationError`, because LangGraph's `ToolNode`, and so
    LangChain's agents, report that to the LLM as a mistake in its tool call. Any other error would
    end the run.

    Args:
        query: The value to check.
        title: The class that received the query.

    Raises:
        TypeError: If it is not a string.
        pydantic.ValidationError: If it is blank or contains a lone surrogate (a ValueError).
    """
    try:
        return check_query(query)
    except ValueError as error:
        kind = PydanticCustomError("query", "{why}", {"why": str(error)})
        line = InitErrorDetails(type=kind, loc=("query",), input=None)
        raise ValidationError.from_exception_data(title, [line], hide_input=True) from None


class CheckpointSettings(BaseModel):
    """Fields of a component that runs a Qwen3 checkpoint.

    Values are checked at construction and at assignment. The model is loaded at first use.
    Components with equal settings share one loaded model.
    """

    model_config = ConfigDict(
        extra="forbid",
        validate_assignment=True,
        use_attribute_docstrings=True,
        hide_input_in_errors=True,  # the input may contain a key
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
        """Alias of `model`, the name in other components."""
        return self.model

    @model_name.setter
    def model_name(self, value: str | Path) -> None:
        self.model = value

    model: str | Path
    """Name on the Hugging Face Hub, local folder, or "tiny" for the bundled model."""

    instruction: str | None = None
    """The task of queries: a sentence, or a task name from `qwen3_core.prompts.TASKS`.
    None: the checkpoint's own prompt if it has one, else "Given a web search query, retrieve
    relevant passages that answer the query"."""

    revision: str | None = None
    """Branch, tag or commit on the Hugging Face Hub."""

    device: str = "auto"
    """The device: "cpu", "cuda", "cuda:1", "mps"; "auto" takes CUDA, else MPS, else the CPU."""

    dtype: Dtype = "auto"
    """The dtype: "auto" is bfloat16 where the hardware supports it, else float32; or a name,
    "bfloat16", "float32", "float16"; "int8" is faster and slightly less exact, on CPUs with VNNI
    instructions."""

    max_length: int | None = None
    """Tokens read of one input, instruction included; longer inputs are truncated with a warning.
    None: 8192, or the model's own limit if that is less."""

    pack_tokens: int | None = None
    """Token budget of one forward pass; lower it if memory is short. None: by device."""

    timeout: float | None = None
    """Seconds until a call raises TimeoutError, including time in the queue, excluding loading of
    the model. None: no limit."""

    base_url: str | None = None
    """Base URL of a server's API, such as "http://localhost:8000/v1". The model then runs on that
    server, and `model` is its name there. None: the model runs in this process."""

    api_key: SecretStr | None = Field(default=None, exclude=True)
    """The server's key. None: `QWEN3_API_KEY` from the environment. Pickles do not contain it."""

    server: Server | str | None = None
    """The server's kind, such as "vllm", or a `Server` with more settings. None: detected."""

    show_progress: bool = False
    """Show a progress bar on stderr."""

    def __getstate__(self) -> dict[Any, Any]:
        """The state without the key, which would be readable in a pickle."""
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
        """A copy with some fields changed; unlike pydantic's, changes are checked and applied."""
        del deep  # settings are plain values
        return type(self)(**{**dict(self), **one_model(update or {}, "model")})
