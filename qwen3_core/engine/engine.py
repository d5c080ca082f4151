"""One loaded model per process for all components that name it, loaded at first use."""

import threading
import weakref
from typing import TYPE_CHECKING

from qwen3_core.common.fork import after_fork_in_child, compute
from qwen3_core.engine import shutdown  # noqa: F401 - closes engines when the interpreter exits
from qwen3_core.engine.worker import Worker
from qwen3_core.settings import Dtype, ModelKind

if TYPE_CHECKING:
    from qwen3_core.model.encoder import Encoder
    from qwen3_core.model.loading import Checkpoint


class Engine:
    """A checkpoint on its device and the thread that runs it; get one by `open_engine`."""

    def __init__(self, checkpoint: "Checkpoint", encoder: "Encoder") -> None:
        self.name = checkpoint.name
        self.folder = checkpoint.folder
        self.tokenizer = checkpoint.tokenizer
        self.head = checkpoint.head
        self.description = checkpoint.description
        self.files = checkpoint.description.states()
        """The state of its files when it was loaded."""
        self.after_pooling = checkpoint.after_pooling
        self.max_positions = checkpoint.max_positions
        self.encoder = encoder
        self.worker = Worker(encoder, checkpoint.name)
        # The thread keeps the model alive. It ends when the engine has no references left.
        weakref.finalize(self, self.worker.close, wait=False).atexit = False


_engines: weakref.WeakValueDictionary[tuple[object, ...], Engine] = weakref.WeakValueDictionary()
_opening = threading.Lock()


def open_engine(
    model: str,
    kind: ModelKind,
    *,
    revision: str | None = None,
    device: str = "auto",
    dtype: Dtype = "auto",
) -> Engine:
    """The engine for a model: the one this process holds already, or a newly loaded one.

    It is closed when it has no references left. Arguments and errors are those of
    `qwen3_core.model.loading.load`; with dtype "int8" also those of `qwen3_core.model.int8_check`.
    """
    # Imported here, so that importing a framework's package does not load torch.
    import torch

    from qwen3_core.model.buffers import release_threads
    from qwen3_core.model.encoder import Encoder
    from qwen3_core.model.int8_check import int8_encoder
    from qwen3_core.model.loading import load, resolve_device, resolve_dtype

    key = (model, kind, revision, device, dtype)
    device = resolve_device(device)
    int8 = dtype == "int8"
    found = (model, kind, revision, device, str(resolve_dtype(dtype, device)), int8)
    with _opening:
        engine = _engines.get(found)
        if engine is None:

            def read() -> Engine:
                with torch.device("cpu"):  # whatever the program's default device is
                    checkpoint = load(model, kind, revision=revision, device=device, dtype=dtype)
                    encoder = int8_encoder(checkpoint) if int8 else Encoder(checkpoint.model)
                release_threads()  # this thread's: the engine's own thread computes from now on
                return Engine(checkpoint, encoder)

            engine = _engines[found] = compute(read)
        _engines[key] = engine
        return engine


def held_engine(
    model: str, kind: ModelKind, *, revision: str | None, device: str, dtype: Dtype
) -> Engine | None:
    """The engine for a model if this process holds one; loads nothing, not even torch."""
    return _engines.get((model, kind, revision, device, dtype))


@after_fork_in_child
def _reset_in_child() -> None:
    """Replace the lock: another thread of the parent may have held it."""
    global _opening
    _opening = threading.Lock()
