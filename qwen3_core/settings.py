"""Settings of a model, and the checks that do not need the model."""

from pathlib import Path
from typing import Final, Literal, get_args

from qwen3_core.common.validation import ArgumentError, got, is_count, is_number

ModelKind = Literal["embedding", "reranker"]
"""The use of a checkpoint."""

Dtype = Literal["auto", "bfloat16", "float32", "float16", "int8"]
"""The dtype of the computation; "auto" is bfloat16 where the hardware supports it, else float32.
With "int8" the linear layers run in 8-bit integers, on CPUs with VNNI instructions, and everything
else as with "auto"."""

TINY: Final = "tiny"
"""Name of the bundled models: a small pair of the same architecture for tests and first steps."""

BUNDLED: Final[dict[ModelKind, Path]] = {
    kind: Path(__file__).parent / TINY / kind for kind in get_args(ModelKind)
}
"""Folders of its checkpoints."""

DEFAULT_EMBEDDING_MODEL: Final = "Qwen/Qwen3-Embedding-0.6B"
DEFAULT_RERANKER_MODEL: Final = "Qwen/Qwen3-Reranker-0.6B"

DEFAULT_MAX_LENGTH: Final = 8192
"""Tokens read of one input, as in every official example (QwenLM/Qwen3-Embedding)."""


def matching_reranker(embedding_model: str) -> str:
    """The default reranker for an embedding model: "tiny" for "tiny"."""
    return TINY if embedding_model == TINY else DEFAULT_RERANKER_MODEL


def check_settings(
    *,
    dtype: str,
    max_length: int | None = None,
    pack_tokens: int | None = None,
    timeout: float | None = None,
) -> None:
    """Check the settings that can be checked without the model.

    Raises:
        ValueError: If a value is out of range.
    """
    if dtype not in get_args(Dtype):
        msg = f"unknown dtype {dtype!r}: use one of {', '.join(map(repr, get_args(Dtype)))}"
        raise ArgumentError(msg, "dtype")
    for name, value in (("max_length", max_length), ("pack_tokens", pack_tokens)):
        if value is not None and not is_count(value):
            msg = f"{name} must be a number of tokens, at least 1, or None, but {got(value)}"
            raise ArgumentError(msg, name)
    if timeout is not None and not (is_number(timeout) and timeout > 0):
        msg = f"timeout must be a number of seconds above 0, or None, but {got(timeout, float)}"
        raise ArgumentError(msg, "timeout")
