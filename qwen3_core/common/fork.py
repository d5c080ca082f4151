"""Resets module state in a forked child, where the parent's locks and threads do not work."""

import os
from collections.abc import Callable

Reset = Callable[[], None]


def after_fork_in_child(reset: Reset) -> Reset:
    """Decorate a function that a forked child calls first.

    Only the forking thread exists in the child. Locks that other threads held are never released,
    and worker threads do not run.
    """
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=reset)
    return reset
