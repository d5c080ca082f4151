"""Threads and coroutines that send requests and check answers, and a clock in their event loop."""

import asyncio
import gc
import itertools
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Generator, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.workload import Answers, RequestKind, Workload
from qwen3_core import EngineClosedError

TICK = 0.001
"""Sleep of the event loop's clock, in seconds."""

PATIENCE = 120.0
"""Seconds after the last request until unanswered requests count as lost."""


@dataclass(frozen=True, slots=True)
class Answer:
    """The result of one request."""

    ticket: int
    kind: RequestKind
    took: float
    """Seconds from the call to the answer."""
    distance: float
    """Distance from the serial answer."""


@dataclass(frozen=True, slots=True)
class Tick:
    """An event loop clock's record since its last tick; all times in seconds."""

    late: float
    """Delay of the tick."""
    ours: float
    """Wall time in all steps of the calls under test."""
    ours_cpu: float
    """The same in CPU time of the loop's thread, without other threads and processes."""
    collecting: float
    """Time of garbage collections in any thread; they stop all threads."""
    queueing: float
    """Time that the loop's thread was ready but had no processor; nan except on Linux."""


def queued_for_processor() -> float:
    """Seconds that this thread has waited for a processor so far; nan if unknown."""
    try:
        _, waited, _ = Path("/proc/thread-self/schedstat").read_text(encoding="ascii").split()
    except (OSError, ValueError):
        return float("nan")
    return int(waited) / 1e9


class LoopClock:
    """Sleeps `TICK` seconds repeatedly in an event loop, and records a `Tick` each time."""

    def __init__(self) -> None:
        self.ticks: list[Tick] = []
        self._ours = self._ours_cpu = self._collecting = 0.0
        self._collection_began = 0.0
        self._queued = 0.0

    async def run(self, seconds: float | None = None) -> None:
        """Tick until cancelled, or for so many seconds."""
        gc.callbacks.append(self._note_collection)
        self._queued = queued_for_processor()
        try:
            end = None if seconds is None else time.perf_counter() + seconds
            while end is None or time.perf_counter() < end:
                due = time.perf_counter() + TICK
                await asyncio.sleep(TICK)
                late = time.perf_counter() - due
                queued = queued_for_processor()
                queueing, self._queued = queued - self._queued, queued
                self.ticks.append(
                    Tick(late, self._ours, self._ours_cpu, self._collecting, queueing)
                )
                self._ours = self._ours_cpu = self._collecting = 0.0
        finally:
            gc.callbacks.remove(self._note_collection)

    def add_step(self, wall: float, cpu: float) -> None:
        """Record a step of a call under test."""
        self._ours += wall
        self._ours_cpu += cpu

    def _note_collection(self, phase: str, _: object) -> None:
        if phase == "start":
            self._collection_began = time.perf_counter()
        else:
            self._collecting += time.perf_counter() - self._collection_began


@dataclass
class Outcome:
    """The results of a run; all times in seconds."""

    issued: int = 0
    answers: list[Answer] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    took: float = 0.0
    clock: LoopClock = field(default_factory=LoopClock)
    """Clock of the coroutines' event loop."""

    def wrong(self, tolerance: Callable[[RequestKind], float]) -> int:
        """Answers farther from the serial one than the tolerance for their kind."""
        return sum(not answer.distance <= tolerance(answer.kind) for answer in self.answers)

    @property
    def doubled(self) -> int:
        """Answers beyond the first to one request."""
        counts = Counter(answer.ticket for answer in self.answers)
        return sum(count - 1 for count in counts.values())

    @property
    def lost(self) -> int:
        """Requests that got neither an answer nor an error."""
        answered = len({answer.ticket for answer in self.answers})
        return self.issued - answered - len(self.failures)

    def times(self, kind: RequestKind) -> list[float]:
        """Seconds that calls of a kind took."""
        return [answer.took for answer in self.answers if answer.kind == kind]


class Callers:
    """A fixed number of callers; each sends one request at a time."""

    def __init__(self, workload: Workload, *, threads: int, coroutines: int) -> None:
        self.workload = workload
        self._threads = threads
        self._coroutines = coroutines

    def run(
        self,
        system: Answers,
        requests: Iterable[int],
        *,
        seconds: float | None = None,
        pause: float = 0.0,
        stagger: float = 0.0,
        background: Iterable[int] = (),
        background_threads: int = 0,
        daemon: bool = True,
    ) -> Outcome:
        """Give requests to free callers.

        Args:
            system: The system under test.
            requests: Numbers of requests of the workload.
            seconds: Give out no requests after this time.
            pause: Seconds that a caller waits before each request, at random with this mean.
            stagger: Seconds over which the coroutines make their first call, one after another;
                at 0 all do in one round of the event loop.
            background: Requests that other threads send meanwhile, one after the other, until
                the callers are done; they count among the answers.
            background_threads: How many such threads.
            daemon: Whether the interpreter may exit without the threads.
        """
        outcome = Outcome()
        numbers = itertools.count()
        tickets = _Tickets(requests, seconds, numbers)
        behind = _Tickets(background, None, numbers)
        threads = [
            threading.Thread(target=self._call, args=(system, source, rest, outcome), daemon=daemon)
            for source, rest, count in (
                (tickets, pause, self._threads),
                (behind, 0.0, background_threads),
            )
            for _ in range(count)
        ]
        begin = time.perf_counter()
        for thread in threads:
            thread.start()
        asyncio.run(self._call_in_loop(system, tickets, pause, stagger, outcome))
        deadline = time.monotonic() + PATIENCE
        for thread in threads[: self._threads]:
            thread.join(max(deadline - time.monotonic(), 0))
        outcome.took = time.perf_counter() - begin
        behind.stop()
        for thread in threads[self._threads :]:
            thread.join(max(deadline - time.monotonic(), 0))
        outcome.issued = tickets.issued + behind.issued
        return outcome

    def _call(self, system: Answers, tickets: "_Tickets", pause: float, outcome: Outcome) -> None:
        for ticket, number in tickets:
            time.sleep(pause and random.expovariate(1 / pause))
            begin = time.perf_counter()
            try:
                answer = system.answer(self.workload.requests[number])
            except EngineClosedError as error:  # the process is ending
                outcome.failures.append(repr(error))
                return
            except Exception as error:  # noqa: BLE001 - it is counted
                outcome.failures.append(repr(error))
            else:
                self._keep(outcome, ticket, number, time.perf_counter() - begin, answer)

    async def _acall(
        self,
        system: Answers,
        tickets: "_Tickets",
        pause: float,
        wait: float,
        outcome: Outcome,
    ) -> None:
        await asyncio.sleep(wait)
        for ticket, number in tickets:
            await asyncio.sleep(pause and random.expovariate(1 / pause))
            begin = time.perf_counter()
            try:
                call = system.aanswer(self.workload.requests[number])
                answer = await _Watched(call, outcome.clock)
            except EngineClosedError as error:  # the process is ending
                outcome.failures.append(repr(error))
                return
            except Exception as error:  # noqa: BLE001 - it is counted
                outcome.failures.append(repr(error))
            else:
                self._keep(outcome, ticket, number, time.perf_counter() - begin, answer)

    def _keep(
        self, outcome: Outcome, ticket: int, number: int, took: float, answer: np.ndarray
    ) -> None:
        kind = self.workload.requests[number].kind
        distance = self.workload.distance(number, answer)
        outcome.answers.append(Answer(ticket, kind, took, distance))

    async def _call_in_loop(
        self,
        system: Answers,
        tickets: "_Tickets",
        pause: float,
        stagger: float,
        outcome: Outcome,
    ) -> None:
        clock = asyncio.ensure_future(outcome.clock.run())
        callers = [
            asyncio.ensure_future(
                self._acall(system, tickets, pause, stagger * i / self._coroutines, outcome)
            )
            for i in range(self._coroutines)
        ]
        waiting: set[asyncio.Future[None]] = set(callers)
        while waiting and time.monotonic() - tickets.last < PATIENCE:
            _, waiting = await asyncio.wait(waiting, timeout=1)
        clock.cancel()


class _Tickets:
    """Distributes numbered requests to many callers."""

    def __init__(
        self, requests: Iterable[int], seconds: float | None, numbers: Iterator[int]
    ) -> None:
        self.issued = 0
        self.last = time.monotonic()
        self._requests = iter(requests)
        self._numbers = numbers
        self._end = None if seconds is None else self.last + seconds
        self._stopped = False
        self._lock = threading.Lock()

    def stop(self) -> None:
        """Stop the distribution."""
        self._stopped = True

    def __iter__(self) -> Iterator[tuple[int, int]]:
        while (ticket := self._take()) is not None:
            yield ticket

    def _take(self) -> tuple[int, int] | None:
        with self._lock:
            now = time.monotonic()
            if self._stopped or (self._end is not None and now > self._end):
                return None
            request = next(self._requests, None)
            if request is None:
                return None
            self.issued += 1
            self.last = now
            return next(self._numbers), request


class _Watched:
    """Awaits a call and notes how long each of its steps holds the event loop."""

    def __init__(self, call: Coroutine[Any, Any, np.ndarray], clock: LoopClock) -> None:
        self._call = call
        self._clock = clock

    def __await__(self) -> Generator[Any, Any, np.ndarray]:
        steps = self._call.__await__()
        sent: Any = None
        error: BaseException | None = None
        while True:
            begin, cpu = time.perf_counter(), time.thread_time()
            try:
                waits_for = steps.send(sent) if error is None else steps.throw(error)
            except StopIteration as stop:
                answer: np.ndarray = stop.value
                return answer
            finally:
                self._clock.add_step(time.perf_counter() - begin, time.thread_time() - cpu)
            sent = error = None
            try:
                sent = yield waits_for
            except BaseException as thrown:  # noqa: BLE001 - the call shall see it
                error = thrown
