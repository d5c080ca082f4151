"""What a forked child does first: locks and threads of its parent are of no use to it."""

import os
from collections.abc import Callable

Reset = Callable[[], None]


def after_fork_in_child(reset: Reset) -> Reset:
    """Decorate a function that a forked child calls before anything else.

    Only the forking thread exists in the child. A lock that another thread held there is never
    released, and a thread that work was queued for never runs.
    """
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=reset)
    return reset
