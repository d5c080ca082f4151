"""How a local call waits: by blocking its thread, or without blocking the event loop.

A call is a coroutine that waits only through this module. `run_here` runs it synchronously: it
blocks wherever it waits, and so never suspends. Any event loop can await it instead. An abandoned
call cancels its own work, in the thread that runs it.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from concurrent.futures import Future
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, TypeVar

from qwen3_core.inputs import in_thread_if_long

T = TypeVar("T")


@dataclass
class _Blocking:
    """A call that blocks its thread."""

    deadline: float | None = None
    """The time limit, on the monotonic clock."""


_blocking: ContextVar[_Blocking | None] = ContextVar("_blocking", default=None)
"""Set while `run_here` runs a call; None in a coroutine of an event loop."""


def run_here(call: Coroutine[Any, Any, T]) -> T:
    """Run a call to its end in this thread; it blocks a running event loop."""
    token = _blocking.set(_Blocking())
    try:
        call.send(None)
    except StopIteration as stop:
        result: T = stop.value
        return result
    finally:
        _blocking.reset(token)
        call.close()
    msg = "a local call awaited something other than qwen3_core.engine.waiting"
    raise RuntimeError(msg)


@contextlib.asynccontextmanager
async def time_limit(seconds: float | None) -> AsyncIterator[None]:
    """Raise TimeoutError if the block still waits after `seconds`; None: no limit."""
    blocking = _blocking.get()
    if blocking is None:
        async with asyncio.timeout(seconds):
            yield
    else:
        blocking.deadline = None if seconds is None else time.monotonic() + seconds
        yield


async def result_of(future: "Future[T]") -> T:
    """The result of a future; a call that ends earlier cancels the future."""
    blocking = _blocking.get()
    try:
        if blocking is not None:
            end = blocking.deadline
            return future.result(None if end is None else max(end - time.monotonic(), 0))
        if not future.done():
            await _until_done(future)
        return future.result()
    except BaseException:
        future.cancel()
        raise


async def _until_done(future: "Future[Any]") -> None:
    """Wait for a future without blocking the event loop.

    `asyncio.wrap_future` does the same, but logs a traceback if the loop is closed by then.
    """
    loop = asyncio.get_running_loop()
    done = asyncio.Event()

    def wake(_: "Future[Any]") -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: nothing waits any more
            loop.call_soon_threadsafe(done.set)

    future.add_done_callback(wake)
    await done.wait()


async def computed(size: int, function: Callable[[], T]) -> T:
    """Call a function that reads `size` characters, without blocking an event loop."""
    return await in_thread_if_long(size, function) if _blocking.get() is None else function()
