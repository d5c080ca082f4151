"""Fields that embedder and reranker share, and the marker for "not given in this call"."""

from collections.abc import Mapping
from enum import Enum
from pathlib import Path
from typing import Any, Final, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, model_validator
from pydantic_core import InitErrorDetails, PydanticCustomError

from qwen3_core.common.docstrings import DESCRIPTIONS
from qwen3_core.common.hints import by_name, check_names, one_model
from qwen3_core.common.validation import check_query
from qwen3_core.remote import Server
from qwen3_core.settings import Dtype

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
        check_names(given, cls, cls.model_fields)
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

    model: str | Path = Field(description=DESCRIPTIONS["model"])
    instruction: str | None = Field(default=None, description=DESCRIPTIONS["instruction"])
    revision: str | None = Field(default=None, description=DESCRIPTIONS["revision"])
    device: str = Field(default="auto", description=DESCRIPTIONS["device"])
    dtype: Dtype = Field(default="auto", description=DESCRIPTIONS["dtype"])
    max_length: int | None = Field(default=None, description=DESCRIPTIONS["max_length"])
    pack_tokens: int | None = Field(default=None, description=DESCRIPTIONS["pack_tokens"])
    timeout: float | None = Field(default=None, description=DESCRIPTIONS["timeout"])
    base_url: str | None = Field(default=None, description=DESCRIPTIONS["base_url"])
    api_key: SecretStr | None = Field(
        default=None, exclude=True, description=DESCRIPTIONS["api_key"]
    )
    server: Server | str | None = Field(default=None, description=DESCRIPTIONS["server"])
    show_progress: bool = Field(default=False, description=DESCRIPTIONS["show_progress"])

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
