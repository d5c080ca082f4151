"""An event loop in a background thread, so that blocking calls use the same asynchronous code."""

import asyncio
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

from qwen3_core.common.fork import after_fork_in_child

T = TypeVar("T")

_lock = threading.Lock()
_loop: asyncio.AbstractEventLoop | None = None


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end; it also works inside a running event loop, and blocks it."""
    future = asyncio.run_coroutine_threadsafe(coroutine, _running_loop())
    try:
        return future.result()
    except BaseException:  # also KeyboardInterrupt: the caller no longer waits
        future.cancel()
        raise


def _running_loop() -> asyncio.AbstractEventLoop:
    """The process's background loop, started at first use."""
    global _loop
    with _lock:
        if _loop is None:
            _loop = asyncio.new_event_loop()
            threading.Thread(target=_loop.run_forever, name="qwen3 http", daemon=True).start()
        return _loop


@after_fork_in_child
def _reset_in_child() -> None:
    """Forget the loop: its thread does not exist in the child."""
    global _lock, _loop
    _lock, _loop = threading.Lock(), None
