"""The settings that the embedding model and the reranker share."""

from collections.abc import Mapping
from typing import Any, Self

from llama_index.core.bridge.pydantic import ConfigDict, Field, SecretStr, model_validator
from llama_index.core.schema import BaseComponent

from qwen3_core.common.docstrings import DESCRIPTIONS
from qwen3_core.common.hints import by_name, check_names, one_model
from qwen3_core.remote import Server
from qwen3_core.settings import Dtype


class CheckpointSettings(BaseComponent):
    """Fields of a component that runs a Qwen3 checkpoint.

    Settings that choose or run the model are fixed; `model_copy(update={...})` returns a copy with
    other values. Components with equal settings share one loaded model.
    """

    model_config = ConfigDict(
        extra="forbid",
        use_attribute_docstrings=True,
        hide_input_in_errors=True,  # the input may contain a key
    )

    @model_validator(mode="before")
    @classmethod
    def _know_names(cls, given: Any) -> Any:
        given = one_model(given, cls._model_field())
        check_names(given, cls, cls.model_fields)
        return given

    @classmethod
    def _model_field(cls) -> str:
        """The field's name, `model` or `model_name`; both names mean the same setting."""
        return "model" if "model" in cls.model_fields else "model_name"

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:  # noqa: ARG004 - for __init__
        """Refuse a model's name without `model=`."""
        by_name(cls, args, "model=...")
        return super().__new__(cls)

    revision: str | None = Field(default=None, frozen=True, description=DESCRIPTIONS["revision"])
    device: str = Field(default="auto", frozen=True, description=DESCRIPTIONS["device"])
    dtype: Dtype = Field(default="auto", frozen=True, description=DESCRIPTIONS["dtype"])
    max_length: int | None = Field(
        default=None, frozen=True, description=DESCRIPTIONS["max_length"]
    )
    instruction: str | None = Field(default=None, description=DESCRIPTIONS["instruction"])
    pack_tokens: int | None = Field(
        default=None, frozen=True, description=DESCRIPTIONS["pack_tokens"]
    )
    timeout: float | None = Field(default=None, frozen=True, description=DESCRIPTIONS["timeout"])
    base_url: str | None = Field(default=None, frozen=True, description=DESCRIPTIONS["base_url"])
    api_key: SecretStr | None = Field(
        default=None, frozen=True, exclude=True, description=DESCRIPTIONS["api_key"]
    )
    server: Server | str | None = Field(
        default=None, frozen=True, description=DESCRIPTIONS["server"]
    )

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """A copy with some settings changed and checked; an equal model is shared."""
        del deep  # settings are plain values
        return type(self)(**{**dict(self), **one_model(update or {}, self._model_field())})

    def __getstate__(self) -> dict[str, Any]:
        """The state without the key, which would be readable in a pickle."""
        state: dict[str, Any] = super().__getstate__()
        return state | {"__dict__": state["__dict__"] | {"api_key": None}}
