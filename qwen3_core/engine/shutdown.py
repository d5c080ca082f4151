"""Leaving the interpreter: searches that are under way may end, no new one begins.

Milvus Lite's server runs in this process, in an executor of `concurrent.futures`. That shuts all
executors down at exit, and then waits for their threads. A search that reaches Lite's server in
between gets no answer and tries again for ever, and the interpreter with it. So this module's hook,
which runs before that of `concurrent.futures`, closes the engines, turns new searches away, and
waits for those that are under way.
"""

# It registers its own hook when it is imported; the hook registered last runs first.
import concurrent.futures.thread  # noqa: F401
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from qwen3_core.common.fork import after_fork_in_child
from qwen3_core.engine.worker import EngineClosedError, close_workers

PATIENCE = 5.0
"""Seconds that the exit waits for searches under way: far more than Milvus Lite takes for one."""


class _Searches:
    """How many searches are under way, and whether the interpreter is exiting."""

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.under_way = 0
        self.leaving = False


_searches = _Searches()


@contextmanager
def search() -> Iterator[None]:
    """Around the search of a vector store: the interpreter's exit waits until it ends.

    Raises:
        EngineClosedError: If the interpreter is exiting already.
    """
    searches = _searches
    with searches.changed:
        if searches.leaving:
            msg = "the interpreter is exiting: no search begins any more"
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
    close_workers()  # so that a search does not wait for its query's vector
    with _searches.changed:
        _searches.changed.wait_for(lambda: not _searches.under_way, PATIENCE)


@after_fork_in_child
def _reset_in_child() -> None:
    """None of the parent's searches is under way here."""
    global _searches
    _searches = _Searches()


# Before the interpreter joins threads: those of an executor may be callers that wait for a queue,
# and a worker's ends only when it is closed. The hook is the one that `concurrent.futures` uses.
threading._register_atexit(_leave)  # type: ignore[attr-defined] # noqa: SLF001
