"""The settings that the embedding model and the reranker share."""

from collections.abc import Mapping
from typing import Any, Self

from llama_index.core.bridge.pydantic import ConfigDict, Field, SecretStr, model_validator
from llama_index.core.schema import BaseComponent

from qwen3_core.common.hints import by_name, one_model, suggest
from qwen3_core.remote import Server
from qwen3_core.settings import Dtype


class CheckpointSettings(BaseComponent):
    """Fields of a component that runs a Qwen3 checkpoint.

    Those that choose or run the model are fixed; `model_copy(update={...})` gives an object with
    others. Components with equal settings share one loaded model.
    """

    model_config = ConfigDict(
        extra="forbid",
        use_attribute_docstrings=True,
        hide_input_in_errors=True,  # a key may be among the input
    )

    @model_validator(mode="before")
    @classmethod
    def _know_names(cls, given: Any) -> Any:
        given = one_model(given, cls._model_field())
        suggest(given, cls.model_fields)
        return given

    @classmethod
    def _model_field(cls) -> str:
        """Which of `model` and `model_name`, which are one setting, is the field."""
        return "model" if "model" in cls.model_fields else "model_name"

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:  # noqa: ARG004 - for __init__
        """Refuse a model's name without `model=`."""
        by_name(cls, args, "model=...")
        return super().__new__(cls)

    revision: str | None = Field(default=None, frozen=True)
    """Branch, tag or commit on the hub."""
    device: str = Field(default="auto", frozen=True)
    """"auto", "cpu", "cuda", "cuda:1", "mps"."""
    dtype: Dtype = Field(default="auto", frozen=True)
    """"auto" (bfloat16 where the hardware has it, else float32), or by name."""
    max_length: int | None = Field(default=None, frozen=True)
    """Tokens read of one text, instruction included; default 8192, or what the model has."""
    instruction: str | None = None
    """What queries are for: a sentence, or a task's name (`qwen3_core.prompts.TASKS`); by default
    the checkpoint's own prompt if it has one, else the official web search sentence."""
    pack_tokens: int | None = Field(default=None, frozen=True)
    """Token budget of one forward pass; default by device."""
    timeout: float | None = Field(default=None, frozen=True)
    """Seconds that one call may take, waiting for its turn included, loading the model not; then it
    raises TimeoutError. Default no limit."""
    base_url: str | None = Field(default=None, frozen=True)
    """Where a server's API begins, such as "http://localhost:8000/v1": the model then runs there,
    and its name here is its name there. By default it runs in this process."""
    api_key: SecretStr | None = Field(default=None, frozen=True, exclude=True)
    """The server's key; by default `QWEN3_API_KEY` from the environment. It travels neither in
    pickles nor in `to_dict`."""
    server: Server | str | None = Field(default=None, frozen=True)
    """What the server is, "vllm" for example, or a `Server` with more settings; by default it is
    asked."""

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """A copy with some settings changed and checked; an equal model is shared, not loaded."""
        del deep  # settings are plain values
        return type(self)(**{**dict(self), **one_model(update or {}, self._model_field())})

    def __getstate__(self) -> dict[str, Any]:
        """Without the key, which would be readable in a pickle."""
        state: dict[str, Any] = super().__getstate__()
        return state | {"__dict__": state["__dict__"] | {"api_key": None}}
