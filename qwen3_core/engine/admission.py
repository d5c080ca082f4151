"""Back-pressure: lets so much text at a time into an engine, first come, first served."""

import threading
from collections import deque
from concurrent.futures import Future


class Gate:
    """Admits callers until what they brought in reaches a capacity; the others wait their turn."""

    def __init__(self, capacity: int) -> None:
        """Set it up.

        Args:
            capacity: How much may be inside, in the unit of `enter`'s sizes. Something larger than
                that is let in alone.
        """
        self.capacity = capacity
        self.inside = 0
        self._waiting: deque[tuple[int, Future[None]]] = deque()
        self._closed: BaseException | None = None
        self._lock = threading.Lock()

    def enter(self, size: int) -> "Future[None]":
        """Ask to be let in; the future is done when it is so.

        Whoever was let in must `leave`. Cancelling the future takes the caller out of the line; if
        that fails because it was let in just then, it must `leave`.
        """
        future: Future[None] = Future()
        with self._lock:
            self._waiting.append((size, future))
        self._admit()
        return future

    def leave(self, size: int) -> None:
        """Make room for others."""
        with self._lock:
            self.inside -= size
        self._admit()

    def close(self, error: BaseException) -> None:
        """Turn away all who wait, now and later, with an error."""
        with self._lock:
            self._closed = error
        self._admit()

    def _admit(self) -> None:
        while True:
            with self._lock:
                if not self._waiting:
                    return
                size, future = self._waiting[0]
                full = self.inside and self.inside + size > self.capacity
                if full and self._closed is None and not future.cancelled():
                    return
                self._waiting.popleft()
                if not future.set_running_or_notify_cancel():
                    continue
                if self._closed is None:
                    self.inside += size
            # Outside the lock, because callbacks of the future run here.
            if self._closed is None:
                future.set_result(None)
            else:
                future.set_exception(self._closed)
