"""Back-pressure: callers are admitted, first come, first served, up to a capacity of text."""

import threading
from collections import deque
from concurrent.futures import Future


class Admission:
    """Admits callers until their text reaches a capacity; the others wait in a queue."""

    def __init__(self, capacity: int) -> None:
        """Start empty.

        Args:
            capacity: The largest sum of sizes admitted at a time, in the unit of `request`'s sizes.
                A larger request is admitted alone.
        """
        self.capacity = capacity
        self.admitted = 0
        """Sum of the admitted sizes that were not released yet."""
        self._waiting: deque[tuple[int, Future[None]]] = deque()
        self._closed: BaseException | None = None
        self._lock = threading.Lock()

    def request(self, size: int) -> "Future[None]":
        """Request admission; the future completes once admitted.

        An admitted caller must call `release`. Cancelling the future withdraws the request. If it
        cannot be cancelled, the caller was admitted and must call `release`.
        """
        future: Future[None] = Future()
        with self._lock:
            self._waiting.append((size, future))
        self._admit()
        return future

    def withdraw(self, size: int, request: "Future[None]") -> None:
        """Withdraw a request, whether it is waiting, admitted or refused."""
        if not request.cancel() and request.exception() is None:
            self.release(size)

    def release(self, size: int) -> None:
        """Release an admitted size, and admit waiting callers."""
        with self._lock:
            self.admitted -= size
        self._admit()

    def close(self, error: BaseException) -> None:
        """Refuse all waiting and future requests with an error."""
        with self._lock:
            self._closed = error
        self._admit()

    def _admit(self) -> None:
        while True:
            with self._lock:
                if not self._waiting:
                    return
                size, future = self._waiting[0]
                full = self.admitted and self.admitted + size > self.capacity
                if full and self._closed is None and not future.cancelled():
                    return
                self._waiting.popleft()
                if not future.set_running_or_notify_cancel():
                    continue
                if self._closed is None:
                    self.admitted += size
            # Outside the lock, because the future's callbacks run here.
            if self._closed is None:
                future.set_result(None)
            else:
                future.set_exception(self._closed)
