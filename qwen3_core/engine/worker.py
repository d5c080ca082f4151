"""One thread that runs a model for all callers and batches their work into full packs."""

import contextlib
import logging
import sys
import threading
import time
import weakref
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import Future, InvalidStateError
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from qwen3_core.common.fork import after_fork_in_child
from qwen3_core.engine.admission import Admission
from qwen3_core.engine.telemetry import Span, start_span
from qwen3_core.model.packing import Line, Pack, TokenSequence, Work

if TYPE_CHECKING:
    from qwen3_core.model.encoder import Encoder

logger = logging.getLogger(__name__)

BULK_TURN = 8
"""While interactive work keeps coming, waiting bulk work gets half of every 8th pack."""

GIVE_BACK_EVERY = 60.0
"""Seconds between calls that return freed memory to the operating system. The C library would keep
it, more and more fragmented over hours. A call takes milliseconds."""

QUEUE_CHARACTERS = 2**21
"""Characters of text that an engine admits at a time, separately for interactive and bulk work:
about half a million tokens of English. Other callers wait before they tokenise."""


class EngineClosedError(RuntimeError):
    """The engine was closed, or the interpreter is exiting, before the work was done."""


@dataclass(frozen=True, slots=True)
class Stats:
    """Statistics of an engine since it was loaded; times in seconds."""

    requests: int = 0
    """Completed requests; cancelled and failed ones do not count."""
    sequences: int = 0
    """Sequences computed."""
    tokens: int = 0
    """Tokens computed; cached prefix tokens do not count."""
    packs: int = 0
    """Forward passes."""
    compute_time: float = 0.0
    """Time spent in forward passes."""
    wait_time: float = 0.0
    """Total time that requests spent in the queue before their first pack began."""
    queued_requests: int = 0
    """Requests that are waiting or running now."""
    queued_tokens: int = 0
    """Tokens that are waiting now."""
    pack_tokens: int = 0
    """Token budget of a pack."""

    @property
    def tokens_per_second(self) -> float:
        """Tokens computed per second of compute time; 0 before the first pack."""
        return self.tokens / self.compute_time if self.compute_time else 0.0

    @property
    def pack_fill(self) -> float:
        """Mean share of the token budget that packs used; above 1 if sequences exceed it."""
        return self.tokens / (self.packs * self.pack_tokens) if self.packs else 0.0


class _Request(Work):
    """A caller's sequences, the rows computed so far, and the caller's future."""

    def __init__(
        self,
        sequences: Sequence[TokenSequence],
        hidden_size: int,
        *,
        bulk: bool,
        pack_tokens: int,
        on_progress: Callable[[int], object] | None,
    ) -> None:
        super().__init__(sequences)
        self.bulk = bulk
        self.result = np.empty((len(sequences), hidden_size), dtype=np.float32)
        self.left = len(sequences)
        self.pack_tokens = pack_tokens
        self.future: Future[np.ndarray] = Future()
        self.on_progress = on_progress
        self.submitted = time.perf_counter()
        self.waited: float | None = None
        """Seconds in the queue before its first pack began; None before that."""
        self.computed = 0.0
        """Compute time, in seconds, of the packs that contained some of it."""
        self.span: Span | None = None

    def settle(self, error: BaseException | None = None) -> None:
        """Set the future's result or error, unless the caller cancelled it."""
        if self.span is not None:
            self.span.set_attribute("qwen3.wait_seconds", self.waited or 0.0)
            self.span.set_attribute("qwen3.compute_seconds", self.computed)
            if error is not None:
                self.span.record_exception(error)
            self.span.end()
        with contextlib.suppress(InvalidStateError):
            if error is None:
                self.future.set_result(self.result)
            else:
                self.future.set_exception(error)


class Worker:
    """A thread that owns an encoder; it starts with the first request.

    Interactive work (queries, reranking) overtakes bulk work (documents). The running pack is
    finished first, so interactive work waits for at most one pack.

    Callers may be event loops, which must not block: the lock is held for a few instructions at a
    time, and packs are composed outside it.
    """

    def __init__(self, encoder: "Encoder", name: str) -> None:
        self._encoder = encoder
        self._name = name
        self._stats = Stats(pack_tokens=encoder.pack_tokens)
        self._most_tokens = sys.maxsize
        """Pack limit, lowered for good after an out-of-memory error."""
        self._reset()
        _workers.add(self)

    def _reset(self) -> None:
        """Reset to an empty state without a thread (also after a fork)."""
        self._changed = threading.Condition()
        self._queued: dict[_Request, None] = {}  # in order of arrival; guarded by the lock
        self._packs_without_bulk = 0
        self._gave_back = time.monotonic()
        self._closed = False
        self._admissions = {bulk: Admission(QUEUE_CHARACTERS) for bulk in (False, True)}
        self._thread: threading.Thread | None = None

    def admission(self, *, bulk: bool) -> Admission:
        """The queue where callers request admission, in characters, before they tokenise."""
        return self._admissions[bulk]

    def submit(
        self,
        sequences: Sequence[TokenSequence],
        *,
        bulk: bool = False,
        pack_tokens: int | None = None,
        on_progress: Callable[[int], object] | None = None,
    ) -> "Future[np.ndarray]":
        """Queue sequences.

        Args:
            sequences: The sequences to encode.
            bulk: Whether interactive work may overtake it.
            pack_tokens: Token budget of the packs that contain some of the sequences; by default
                the encoder's. The smallest budget of the requests in a pack applies.
            on_progress: Called in the worker's thread after each pack that contains some of the
                sequences, with their number.

        Returns:
            A future of (n, hidden_size) float32, in the order of `sequences`. Cancelling it removes
            what has not run yet from the queue. It raises FloatingPointError if a state is not
            finite, EngineClosedError if the engine closes first, or the forward pass's error.

        Raises:
            EngineClosedError: If the engine is closed already.
            ValueError: If a sequence has no token after its prefix.
        """
        budget = pack_tokens or self._encoder.pack_tokens
        request = _Request(
            sequences,
            self._encoder.hidden_size,
            bulk=bulk,
            pack_tokens=budget,
            on_progress=on_progress,
        )
        if not sequences:
            request.settle()
            return request.future
        request.span = start_span(
            "qwen3.encode", model=self._name, sequences=len(sequences), bulk=bulk
        )
        with self._changed:
            closed = self._closed or _exiting
            if not closed:
                self._queued[request] = None
                if self._thread is None:
                    name = f"qwen3 {self._name}"
                    # Not a daemon: Python kills a daemon thread that returns from torch while the
                    # interpreter finalises, and C++ then calls abort().
                    self._thread = threading.Thread(target=self._run, name=name, daemon=False)
                    self._thread.start()
                self._changed.notify()
        if closed:
            error = self._closed_error()
            request.settle(error)
            raise error
        return request.future

    def stats(self) -> Stats:
        """Statistics so far, and the queue now."""
        with self._changed:
            stats, queued = self._stats, list(self._queued)
        return replace(
            stats,
            queued_requests=len(queued),
            queued_tokens=sum(request.waiting_tokens for request in queued),
        )

    def close(self, *, wait: bool = True) -> None:
        """Fail queued requests with EngineClosedError, and end after the running pack.

        Args:
            wait: Whether to wait until the thread has ended.
        """
        with self._changed:
            self._closed = True
            queued = list(self._queued)
            self._queued.clear()
            self._changed.notify()
        for request in queued:
            request.settle(self._closed_error())
        for admission in self._admissions.values():
            admission.close(self._closed_error())
        if wait and self._thread not in (None, threading.current_thread()):
            self._thread.join()

    def _closed_error(self) -> EngineClosedError:
        msg = f"the engine of {self._name!r} was closed; create a new component"
        if _exiting:
            msg = f"the interpreter is exiting: the engine of {self._name!r} is closed"
        return EngineClosedError(msg)

    def _run(self) -> None:
        try:
            self._work()
        finally:  # no caller may wait for a thread that has ended
            self.close(wait=False)

    def _work(self) -> None:
        while (pack := self._wait_for_pack()) is not None:
            if not pack.members:  # all waiting requests were cancelled
                continue
            begin = time.perf_counter()
            try:
                states = self._encoder.run(pack)
            except BaseException as error:  # noqa: BLE001 - passed to the callers
                failure = self._split(pack, error)
                for request in dict(pack.members) if failure else ():
                    self._finish(request, failure)
            else:
                self._deliver(pack, states, begin)
            self._give_back_freed()

    def _split(self, pack: Pack[_Request], error: BaseException) -> BaseException | None:
        """After an out-of-memory error, queue the pack's sequences again, for smaller packs.

        Returns:
            The error for the callers; None if the pack was split.
        """
        from qwen3_core.model.buffers import is_out_of_memory

        if not is_out_of_memory(error):
            return error
        self._encoder.free_memory()
        tokens, reason = len(pack.ids), (str(error) or "no reason given").partition("\n")[0]
        if len(pack.members) == 1:
            msg = (
                f"{self._name!r} has not enough memory on {self._encoder.device} for one sequence "
                f"of {tokens} tokens ({reason}): lower max_length, split the text, or use a "
                "smaller model, dtype='bfloat16' or a device with more memory"
            )
            return MemoryError(msg)
        for request, count in Counter(request for request, _ in pack.members).items():
            request.give_back(count)
        self._most_tokens = tokens // 2
        self._stats = replace(self._stats, pack_tokens=self._most_tokens)
        logger.warning(
            "%s: not enough memory for a pack of %d tokens (%s); from now on %d",
            self._name,
            tokens,
            reason,
            self._most_tokens,
        )
        return None

    def _give_back_freed(self) -> None:
        """Return freed memory to the operating system now and then, see `GIVE_BACK_EVERY`."""
        if time.monotonic() - self._gave_back >= GIVE_BACK_EVERY:
            from qwen3_core.model.buffers import give_back_freed

            give_back_freed()
            self._gave_back = time.monotonic()

    def _wait_for_pack(self) -> Pack[_Request] | None:
        """Wait for work and return the next pack; None when the engine is closed."""
        with self._changed:
            while not (self._queued or self._closed):
                self._changed.wait()
            if self._closed:
                return None
            queued = list(self._queued)
        waiting: list[_Request] = []
        for request in queued:
            if request.future.cancelled():
                self._finish(request)
            else:
                waiting.append(request)
        return self._encoder.next_pack(self._lines(waiting))

    def _lines(self, waiting: list[_Request]) -> list[Line[_Request]]:
        """The queues to draw from, in order, with the pack's token limit after each."""
        queues = [[r for r in waiting if r.bulk is bulk] for bulk in (False, True)]
        queues = [queue for queue in queues if queue]
        budgets = [
            min(self._most_tokens, *(request.pack_tokens for request in queue)) for queue in queues
        ]
        if len(queues) < 2:
            self._packs_without_bulk = 0
            return list(zip(queues, budgets, strict=True))
        interactive, bulk = queues
        self._packs_without_bulk += 1
        if self._packs_without_bulk < BULK_TURN:
            return [(interactive, budgets[0])]
        self._packs_without_bulk = 0
        return [(interactive, max(min(budgets) // 2, 1)), (bulk, min(budgets))]

    def _deliver(self, pack: Pack[_Request], states: np.ndarray, begin: float) -> None:
        """Copy a pack's rows to its requests, and finish the requests that are complete."""
        took = time.perf_counter() - begin
        counts: dict[_Request, int] = {}
        overflowed: dict[_Request, int] = {}
        finite = np.isfinite(states).all(axis=1)
        for (request, index), state, good in zip(pack.members, states, finite, strict=True):
            request.result[index] = state
            counts[request] = counts.get(request, 0) + 1
            if not good:
                overflowed.setdefault(request, index)
        self._count(pack, counts, begin, took)
        for request, count in counts.items():
            request.left -= count
            try:
                if request in overflowed:
                    raise self._overflow_error(overflowed[request])
                if request.on_progress is not None:
                    request.on_progress(count)
            except Exception as error:  # noqa: BLE001 - passed to that caller
                self._finish(request, error)
            else:
                if not request.left:
                    self._finish(request)

    def _count(
        self, pack: Pack[_Request], counts: dict[_Request, int], begin: float, took: float
    ) -> None:
        """Record a pack in the statistics and the log."""
        new = [request for request in counts if request.waited is None]
        for request in new:
            request.waited = begin - request.submitted
        for request in counts:
            request.computed += took
        stats = self._stats  # only this thread changes it
        self._stats = replace(
            stats,
            requests=stats.requests + sum(r.left == count for r, count in counts.items()),
            sequences=stats.sequences + len(pack.members),
            tokens=stats.tokens + len(pack.ids),
            packs=stats.packs + 1,
            compute_time=stats.compute_time + took,
            wait_time=stats.wait_time + sum(request.waited or 0.0 for request in new),
        )
        logger.debug(
            "%s: pack of %d tokens, %d sequences, %d requests, took %.3f s",
            self._name,
            len(pack.ids),
            len(pack.members),
            len(counts),
            took,
        )

    def _overflow_error(self, index: int) -> FloatingPointError:
        msg = (
            f"{self._name!r} returned NaN or infinity for input {index} in {self._encoder.dtype}; "
            "use dtype='bfloat16' or 'float32'"
        )
        return FloatingPointError(msg)

    def _finish(self, request: _Request, error: BaseException | None = None) -> None:
        """Remove a request from its queue and settle its future."""
        with self._changed:
            self._queued.pop(request, None)
        logger.debug(
            "%s: request of %d sequences waited %.3f s, its packs took %.3f s",
            self._name,
            len(request.sequences),
            request.waited or 0.0,
            request.computed,
        )
        request.settle(error)


_workers: "weakref.WeakSet[Worker]" = weakref.WeakSet()
_exiting = False
"""Whether the interpreter is exiting: workers no longer start, since nothing would end them."""


def close_workers() -> None:
    """Close all workers of the process for good, because the interpreter is exiting."""
    global _exiting
    _exiting = True
    for worker in list(_workers):
        worker.close()


@after_fork_in_child
def _reset_in_child() -> None:
    global _exiting
    _exiting = False
    workers = list(_workers)
    for worker in workers:
        worker._reset()  # noqa: SLF001 - this module's own
    if workers and "torch" in sys.modules:
        # GNU OpenMP's threads do not survive a fork, and a child that uses them hangs. PyTorch's
        # data loader also runs its forked workers on one thread.
        sys.modules["torch"].set_num_threads(1)
