"""One loaded model per process for all that ask for the same one, loaded at first use."""

import threading
import warnings
import weakref
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qwen3_core.prompts import resolve_instruction
from qwen3_core.settings import DEFAULT_MAX_LENGTH, Dtype, Kind, check_settings
from qwen3_core.tokenizer import TruncationWarning

if TYPE_CHECKING:
    from qwen3_core.encoder import Encoder
    from qwen3_core.loading import Checkpoint


class Engine:
    """A checkpoint on its device and the encoder that runs it; get one by `open_engine`."""

    def __init__(self, checkpoint: "Checkpoint", encoder: "Encoder") -> None:
        self.name = checkpoint.name
        self.tokenizer = checkpoint.tokenizer
        self.head = checkpoint.head
        self.max_positions = checkpoint.max_positions
        self.encoder = encoder


_engines: weakref.WeakValueDictionary[tuple[object, ...], Engine] = weakref.WeakValueDictionary()
_opening = threading.Lock()


def open_engine(
    model: str,
    kind: Kind,
    *,
    revision: str | None = None,
    device: str = "auto",
    dtype: Dtype = "auto",
    pack_tokens: int | None = None,
) -> Engine:
    """The engine for a model: the one this process holds already, or a newly loaded one.

    It is released when nobody holds it any more. Arguments and errors as in
    `qwen3_core.loading.load` and `qwen3_core.encoder.Encoder`.
    """
    # Imported here, and not above, so that importing a framework's package loads no torch.
    from qwen3_core.encoder import Encoder
    from qwen3_core.loading import load

    key = (model, kind, revision, device, dtype, pack_tokens)
    with _opening:
        engine = _engines.get(key)
        if engine is None:
            checkpoint = load(model, kind, revision=revision, device=device, dtype=dtype)
            engine = Engine(checkpoint, Encoder(checkpoint.model, pack_tokens))
            _engines[key] = engine
        return engine


class Component:
    """What embedder and reranker share: settings, checked at once, and a model, loaded when needed.

    It pickles and copies as its settings; the copy shares the engine, or loads one where none is.
    """

    def __init__(
        self,
        kind: Kind,
        model: str | Path,
        *,
        revision: str | None,
        device: str,
        dtype: Dtype,
        max_length: int | None,
        instruction: str | None,
        pack_tokens: int | None,
    ) -> None:
        check_settings(dtype=dtype, max_length=max_length, pack_tokens=pack_tokens)
        self.instruction = resolve_instruction(instruction)
        self._max_length = max_length
        self._source: dict[str, Any] = {
            "model": str(model),
            "kind": kind,
            "revision": revision,
            "device": device,
            "dtype": dtype,
            "pack_tokens": pack_tokens,
        }
        self._engine: Engine | None = None
        self._warned = False

    @property
    def engine(self) -> Engine:
        """The loaded model; loads it if need be.

        Raises:
            OSError: If the model cannot be found or read.
            ValueError: If it is not a Qwen3 model of the right kind, or has fewer positions than
                `max_length`.
        """
        if self._engine is None:
            engine = open_engine(**self._source)
            if self._max_length is not None and self._max_length > engine.max_positions:
                msg = (
                    f"max_length={self._max_length} is more than the {engine.max_positions} tokens "
                    f"that {engine.name!r} was made for"
                )
                raise ValueError(msg)
            self._engine = engine
        return self._engine

    @property
    def max_length(self) -> int:
        """Tokens read of one input: as given, else 8192 or what the model has; loads the model."""
        return self._max_length or min(DEFAULT_MAX_LENGTH, self.engine.max_positions)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_engine": None}

    def _warn_cut(self, message: str) -> None:
        """Say once per component that a text is longer than what is read of it."""
        if not self._warned:
            self._warned = True
            warnings.warn(f"{message} (Said once.)", TruncationWarning, stacklevel=4)
