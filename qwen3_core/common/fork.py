"""What a forked child has to do differently: the parent's locks and threads do not work there."""

import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
Reset = Callable[[], None]

_forking_thread: int | None = None
"""In a forked child, the identifier of the thread that forked: the only one that still runs."""


def after_fork_in_child(reset: Reset) -> Reset:
    """Decorate a function that a forked child calls first.

    Only the forking thread exists in the child. Locks that other threads held are never released,
    and worker threads do not run.
    """
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=reset)
    return reset


@after_fork_in_child
def _note_forking_thread() -> None:
    global _forking_thread
    _forking_thread = threading.get_ident()


def has_forked() -> bool:
    """Whether the calling thread ran in the parent process before a fork.

    GNU's OpenMP waits for ever for threads that it had there: such a thread must not compute.
    """
    return threading.get_ident() == _forking_thread


def compute(function: Callable[[], T]) -> T:
    """Call a function that computes with torch, on a new thread if the calling one has forked."""
    if not has_forked():
        return function()
    with ThreadPoolExecutor(1) as executor:
        return executor.submit(function).result()
