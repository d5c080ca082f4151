"""One thread that runs a model for all callers, and mixes their work into full packs."""

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
"""While interactive work keeps coming, waiting bulk work gets half of every so-many-th pack."""

GIVE_BACK_EVERY = 60.0
"""Seconds of service after which memory that was freed goes back to the operating system. The C
library would keep it, in more and smaller pieces from hour to hour; it takes milliseconds."""

QUEUE_CHARACTERS = 2**21
"""Text of all callers that an engine holds as token ids at a time, for interactive and for bulk
work each; about half a million tokens of English. Other callers wait before they tokenise."""


class EngineClosedError(RuntimeError):
    """The engine was closed, or the interpreter is exiting, before the work was done."""


@dataclass(frozen=True, slots=True)
class Stats:
    """What an engine has done since it was loaded; times in seconds."""

    requests: int = 0
    """Requests computed to their end; cancelled and failed ones do not count."""
    sequences: int = 0
    """Sequences computed."""
    tokens: int = 0
    """Tokens computed; a prefix counts where it is laid, not where it is known already."""
    packs: int = 0
    """Forward passes."""
    compute_time: float = 0.0
    """Time spent in forward passes."""
    wait_time: float = 0.0
    """Time that requests spent in the queue before their first pack began, summed."""
    queued_requests: int = 0
    """Requests that wait or are under way now."""
    queued_tokens: int = 0
    """Tokens that wait now."""
    pack_tokens: int = 0
    """Token budget of a pack."""

    @property
    def tokens_per_second(self) -> float:
        """Tokens computed per second of computing; 0 before the first pack."""
        return self.tokens / self.compute_time if self.compute_time else 0.0

    @property
    def pack_fill(self) -> float:
        """Mean share of the token budget that packs used; above 1 if sequences exceed it."""
        return self.tokens / (self.packs * self.pack_tokens) if self.packs else 0.0


class _Request(Work):
    """A caller's sequences, the result so far, and the future that the caller holds."""

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
        """Seconds of the packs that held some of it."""
        self.span: Span | None = None

    def settle(self, error: BaseException | None = None) -> None:
        """Give the future its result or an error, unless the caller has cancelled it."""
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

    Interactive work (queries, reranking) overtakes bulk work (documents). The pack that is running
    is finished first, so that interactive work waits for one pack at most.

    Callers may be event loops, which must not wait: the lock is held for a few instructions at a
    time, and packs are put together outside it.
    """

    def __init__(self, encoder: "Encoder", name: str) -> None:
        self._encoder = encoder
        self._name = name
        self._stats = Stats(pack_tokens=encoder.pack_tokens)
        self._most_tokens = sys.maxsize
        """Of a pack, once memory was short; it stays so."""
        self._reset()
        _workers.add(self)

    def _reset(self) -> None:
        """Be as new, with nothing queued: what a forked child needs, which has no such thread."""
        self._changed = threading.Condition()
        self._queued: dict[_Request, None] = {}  # in the order they came; the lock guards it
        self._packs_without_bulk = 0
        self._gave_back = time.monotonic()
        self._closed = False
        self._admissions = {bulk: Admission(QUEUE_CHARACTERS) for bulk in (False, True)}
        self._thread: threading.Thread | None = None

    def admission(self, *, bulk: bool) -> Admission:
        """Where callers request admission, in characters of text, before they tokenise it."""
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
            sequences: What to encode.
            bulk: Let interactive work overtake it.
            pack_tokens: Token budget of the packs that hold some of the sequences; by default the
                encoder's. Of the requests that share a pack, the smallest budget counts.
            on_progress: Called in the worker's thread after each pack that holds some of the
                sequences, with their number.

        Returns:
            A future of (n, hidden_size) float32, in the order of `sequences`. Cancelling it takes
            what has not run yet out of the queue. It raises FloatingPointError if a state is not
            finite, EngineClosedError if the engine closes first, or what the forward pass raised.

        Raises:
            EngineClosedError: If the engine is closed already.
            ValueError: If a sequence has no token of its own.
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
                    # Not a daemon: one that returns from torch while the interpreter finalises is
                    # ended by Python in a way that C++ answers with abort().
                    self._thread = threading.Thread(target=self._run, name=name, daemon=False)
                    self._thread.start()
                self._changed.notify()
        if closed:
            error = self._closed_error()
            request.settle(error)
            raise error
        return request.future

    def stats(self) -> Stats:
        """What has been done so far, and what waits now."""
        with self._changed:
            stats, queued = self._stats, list(self._queued)
        return replace(
            stats,
            queued_requests=len(queued),
            queued_tokens=sum(request.waiting_tokens for request in queued),
        )

    def close(self, *, wait: bool = True) -> None:
        """Fail what is queued with EngineClosedError, and end after the pack that is running.

        Args:
            wait: Return when the thread has ended.
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
        msg = f"the engine of {self._name!r} was closed; make a new component to go on"
        if _exiting:
            msg = f"the interpreter is exiting: the engine of {self._name!r} is closed"
        return EngineClosedError(msg)

    def _run(self) -> None:
        try:
            self._work()
        finally:  # whatever ended it, nobody must wait for it any more
            self.close(wait=False)

    def _work(self) -> None:
        while (pack := self._wait_for_pack()) is not None:
            if not pack.members:  # all that waited was cancelled
                continue
            begin = time.perf_counter()
            try:
                states = self._encoder.run(pack)
            except BaseException as error:  # noqa: BLE001 - it belongs to the callers
                failure = self._split(pack, error)
                for request in dict(pack.members) if failure else ():
                    self._finish(request, failure)
            else:
                self._deliver(pack, states, begin)
            self._give_back_freed()

    def _split(self, pack: Pack[_Request], error: BaseException) -> BaseException | None:
        """Put a pack for which memory was short back into the queue, to be computed in halves.

        Returns:
            What to tell the callers, if it cannot be helped.
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
        """Keep a process that serves for hours from growing, see `GIVE_BACK_EVERY`."""
        if time.monotonic() - self._gave_back >= GIVE_BACK_EVERY:
            from qwen3_core.model.buffers import give_back_freed

            give_back_freed()
            self._gave_back = time.monotonic()

    def _wait_for_pack(self) -> Pack[_Request] | None:
        """The next pack, once there is work; None when the engine is closed."""
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
        """Whose turn it is, and for how many tokens."""
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
        """Hand out the rows of a pack, and finish the requests that have all of theirs."""
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
            except Exception as error:  # noqa: BLE001 - it is that caller's
                self._finish(request, error)
            else:
                if not request.left:
                    self._finish(request)

    def _count(
        self, pack: Pack[_Request], counts: dict[_Request, int], begin: float, took: float
    ) -> None:
        """Add a pack to the statistics and to the log."""
        new = [request for request in counts if request.waited is None]
        for request in new:
            request.waited = begin - request.submitted
        for request in counts:
            request.computed += took
        stats = self._stats  # which nobody else changes
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
        """Take a request out of its queue and settle its future."""
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
"""Whether workers start no more: nothing would end their threads."""


def close_workers() -> None:
    """Close all workers of the process, for good: the interpreter is exiting."""
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
        # GNU OpenMP's threads do not survive a fork, and a child that counts on them waits for
        # ever. PyTorch's own data loader runs its forked workers on one thread, too.
        sys.modules["torch"].set_num_threads(1)
