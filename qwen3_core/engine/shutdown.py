"""Interpreter exit: running searches may finish, new ones are refused.

Milvus Lite's server runs in this process, in an executor of `concurrent.futures`. At exit,
`concurrent.futures` shuts all executors down and then waits for their threads. A search that
reaches Lite's server in between gets no answer and retries for ever, so the interpreter hangs. This
module's hook runs before that of `concurrent.futures`. It closes the engines, refuses new searches,
and waits for running ones.
"""

# This module registers its own hook on import; the hook registered last runs first.
import concurrent.futures.thread  # noqa: F401
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from qwen3_core.common.fork import after_fork_in_child
from qwen3_core.engine.worker import EngineClosedError, close_workers

PATIENCE = 5.0
"""Seconds that the exit waits for running searches: far more than Milvus Lite needs for one."""


class _Searches:
    """The number of running searches, and whether the interpreter is exiting."""

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.under_way = 0
        self.leaving = False


_searches = _Searches()


@contextmanager
def search() -> Iterator[None]:
    """Context of a vector store search: the interpreter's exit waits until it ends.

    Raises:
        EngineClosedError: If the interpreter is exiting already.
    """
    searches = _searches
    with searches.changed:
        if searches.leaving:
            msg = "the interpreter is exiting: new searches are refused"
            raise EngineClosedError(msg)
        searches.under_way += 1
    try:
        yield
    finally:
        with searches.changed:
            searches.under_way -= 1
            searches.changed.notify_all()


def _leave() -> None:
    with _searches.changed:
        _searches.leaving = True
    close_workers()  # so that no search waits for its query's vector
    with _searches.changed:
        _searches.changed.wait_for(lambda: not _searches.under_way, PATIENCE)


@after_fork_in_child
def _reset_in_child() -> None:
    """Reset the count: the parent's searches do not run here."""
    global _searches
    _searches = _Searches()


# Runs before the interpreter joins threads: an executor's threads may be callers that wait for a
# queue, and a worker's thread ends only when the worker is closed. `concurrent.futures` uses the
# same hook.
threading._register_atexit(_leave)  # type: ignore[attr-defined] # noqa: SLF001
