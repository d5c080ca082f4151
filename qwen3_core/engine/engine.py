"""One loaded model per process for all that ask for the same one, loaded at first use."""

import asyncio
import contextlib
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import numpy as np

from qwen3_core.common.fork import after_fork_in_child
from qwen3_core.engine import shutdown as leaving  # noqa: F401 - closes engines when the interpreter exits
from qwen3_core.engine.admission import Gate
from qwen3_core.engine.worker import Stats, Worker
from qwen3_core.model.packing import TokenSequence
from qwen3_core.prompts import resolve_instruction
from qwen3_core.settings import DEFAULT_MAX_LENGTH, Dtype, Kind, check_settings

if TYPE_CHECKING:
    from qwen3_core.model.description import Description
    from qwen3_core.model.encoder import Encoder
    from qwen3_core.model.loading import Checkpoint

T = TypeVar("T")

Job = Generator["Future[Any]", Any, T]
"""A call in steps: it yields what it waits for, is sent the outcome, and returns its result.

Its first step loads the model if need be and gets in line; a timeout counts from its end.
"""

WINDOW_CHARACTERS = 2**17
"""Text that one call tokenises and submits at a time, about 30,000 tokens of English. Two such
windows are under way, so that memory does not grow with the number of documents."""

INLINE_CHARACTERS = 500
"""Text that a coroutine tokenises by itself, in about 0.1 ms; handing it to a thread costs as much.
An event loop may begin hundreds of calls in one round."""


class Engine:
    """A checkpoint on its device and the thread that runs it; get one by `open_engine`."""

    def __init__(self, checkpoint: "Checkpoint", encoder: "Encoder") -> None:
        self.name = checkpoint.name
        self.folder = checkpoint.folder
        self.tokenizer = checkpoint.tokenizer
        self.head = checkpoint.head
        self.description = checkpoint.description
        self.after_pooling = checkpoint.after_pooling
        self.max_positions = checkpoint.max_positions
        self.encoder = encoder
        self.worker = Worker(encoder, checkpoint.name)
        # The thread keeps the model alive; it ends when nobody holds the engine any more.
        weakref.finalize(self, self.worker.close, wait=False).atexit = False


_engines: weakref.WeakValueDictionary[tuple[object, ...], Engine] = weakref.WeakValueDictionary()
_opening = threading.Lock()


def open_engine(
    model: str,
    kind: Kind,
    *,
    revision: str | None = None,
    device: str = "auto",
    dtype: Dtype = "auto",
) -> Engine:
    """The engine for a model: the one this process holds already, or a newly loaded one.

    It is released when nobody holds it any more. Arguments and errors as in
    `qwen3_core.model.loading.load`, and of `qwen3_core.model.int8_check` where that is the dtype.
    """
    # Imported here, and not above, so that importing a framework's package loads no torch.
    from qwen3_core.model.encoder import Encoder
    from qwen3_core.model.int8_check import int8_encoder
    from qwen3_core.model.loading import load, resolve_device, resolve_dtype

    asked = (model, kind, revision, device, dtype)
    device = resolve_device(device)
    int8 = dtype == "int8"
    found = (model, kind, revision, device, str(resolve_dtype(dtype, device)), int8)
    with _opening:
        engine = _engines.get(found)
        if engine is None:
            checkpoint = load(model, kind, revision=revision, device=device, dtype=dtype)
            encoder = int8_encoder(checkpoint) if int8 else Encoder(checkpoint.model)
            engine = _engines[found] = Engine(checkpoint, encoder)
        _engines[asked] = engine
        return engine


def held_engine(
    model: str, kind: Kind, *, revision: str | None, device: str, dtype: Dtype
) -> Engine | None:
    """The engine for a model if this process holds it already; loads nothing, not even torch."""
    return _engines.get((model, kind, revision, device, dtype))


@after_fork_in_child
def _reset_in_child() -> None:
    """A lock that some other thread of the parent held would never be released here."""
    global _opening
    _opening = threading.Lock()


class Component:
    """What embedder and reranker share: settings, checked at once, and a model, loaded when needed.

    It pickles and copies as its settings; the copy shares the engine, or loads one where none is.
    """

    def __init__(
        self,
        kind: Kind,
        model: str | Path,
        *,
        revision: str | None,
        device: str,
        dtype: Dtype,
        max_length: int | None,
        instruction: str | None,
        pack_tokens: int | None,
        timeout: float | None,
    ) -> None:
        check_settings(dtype=dtype, max_length=max_length, pack_tokens=pack_tokens, timeout=timeout)
        self._given = None if instruction is None else resolve_instruction(instruction)
        self._max_length = max_length
        self._pack_tokens = pack_tokens
        self._timeout = timeout
        self._source: dict[str, Any] = {
            "model": str(model),
            "kind": kind,
            "revision": revision,
            "device": device,
            "dtype": dtype,
        }
        # Held from now on, so that replacing a component by its like does not load the model again.
        self._engine = held_engine(**self._source)

    @property
    def engine(self) -> Engine:
        """The loaded model; loads it if need be.

        Raises:
            OSError: If the model cannot be found or read.
            ValueError: If it is not a Qwen3 model of the right kind, or has fewer positions than
                `max_length`.
        """
        engine = self._engine or open_engine(**self._source)
        if self._max_length is not None and self._max_length > engine.max_positions:
            msg = (
                f"max_length={self._max_length} is more than the {engine.max_positions} tokens "
                f"that {engine.name!r} was made for"
            )
            raise ValueError(msg)
        self._engine = engine
        return engine

    @property
    def description(self) -> "Description":
        """What the checkpoint says of itself; reads small files, and loads nothing.

        Raises:
            OSError: If a file cannot be found, downloaded or read.
            ValueError: If the checkpoint is of no use here.
        """
        if self._engine is not None:
            return self._engine.description
        from qwen3_core.model.description import describe

        return describe(self._source["model"], self._source["kind"], self._source["revision"])

    @property
    def max_length(self) -> int:
        """Tokens read of one input; loads the model.

        As given, else 8192, or what the checkpoint says or has positions for if that is less.
        """
        if self._max_length is not None:
            return self._max_length
        engine = self.engine
        said = engine.description.max_length or DEFAULT_MAX_LENGTH
        return min(DEFAULT_MAX_LENGTH, said, engine.max_positions)

    def stats(self) -> Stats:
        """What the engine has done, for all who share it; loads the model."""
        return self.engine.worker.stats()

    def close(self) -> None:
        """Let go of the engine, which goes with its last user; the next call opens it again."""
        self._engine = None

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_engine": None}

    def _encode(
        self,
        texts: Sequence[str],
        sequences_of: Callable[[slice], list[TokenSequence]],
        *,
        bulk: bool,
        progress: Callable[[int], object] | None,
    ) -> Job[np.ndarray]:
        """Encode texts window by window, the next one queued while the last is computed.

        Args:
            texts: What windows are measured by.
            sequences_of: The token sequences of one window of the texts.
            bulk: Let interactive work overtake it.
            progress: Called with the number of texts after each pack.

        Returns:
            (n, hidden_size) float32.
        """
        engine = self.engine
        out = np.empty((len(texts), engine.encoder.hidden_size), dtype=np.float32)
        pending: deque[tuple[slice, Future[np.ndarray]]] = deque()
        gate = engine.worker.gate(bulk=bulk)
        try:
            for window in windows(texts):
                size = sum(map(len, texts[window]))
                yield from _enter(gate, size)
                try:
                    future = engine.worker.submit(
                        sequences_of(window),
                        bulk=bulk,
                        pack_tokens=self._pack_tokens,
                        on_progress=progress,
                    )
                except BaseException:
                    gate.leave(size)
                    raise
                # When it is done, and not when it is collected: this job may be waiting to enter.
                future.add_done_callback(partial(_leave, gate, size))
                pending.append((window, future))
                if len(pending) > 1:
                    yield from _collect(pending, out)
            while pending:
                yield from _collect(pending, out)
        finally:
            for _, future in pending:
                future.cancel()
        return out

    def _run(self, job: Job[T]) -> T:
        """Run a job to its end in this thread."""
        try:
            future = next(job)
            deadline = None if self._timeout is None else time.monotonic() + self._timeout
            while True:
                left = None if deadline is None else max(deadline - time.monotonic(), 0)
                try:
                    outcome = future.result(left)
                except FutureTimeoutError:
                    raise self._timeout_error() from None
                future = job.send(outcome)
        except StopIteration as stop:
            result: T = stop.value
            return result
        finally:
            job.close()  # cancels what it still waits for

    async def _arun(self, job: Job[T], size: int) -> T:
        """Run a job to its end without blocking the event loop.

        Args:
            job: The job.
            size: Characters of text that it has to tokenise.
        """
        loaded = self._engine is not None
        inline = loaded and size <= INLINE_CHARACTERS
        try:
            step = _step(job, None) if loaded else await _step_in_thread(job, None)
            try:
                async with asyncio.timeout(self._timeout):
                    while isinstance(step, Future):
                        outcome = step.result() if step.done() else await asyncio.wrap_future(step)
                        step = (
                            _step(job, outcome) if inline else await _step_in_thread(job, outcome)
                        )
            except TimeoutError:
                raise self._timeout_error() from None
            return step.value
        finally:
            with contextlib.suppress(ValueError):  # it is running in a thread, which closes it
                job.close()

    def _timeout_error(self) -> TimeoutError:
        msg = f"{self._source['model']!r} gave no result within timeout={self._timeout} seconds"
        return TimeoutError(msg)


@dataclass(frozen=True, slots=True)
class _Done(Generic[T]):
    """A job's result."""

    value: T


def _step(job: Job[T], outcome: Any) -> "Future[Any] | _Done[T]":
    """Send a job on; returns what it waits for next, or its result."""
    try:
        return job.send(outcome)
    except StopIteration as stop:  # could not pass through a future
        return _Done(stop.value)


async def _step_in_thread(job: Job[T], outcome: Any) -> "Future[Any] | _Done[T]":
    """`_step` in another thread; if the caller is cancelled meanwhile, the job is closed there."""
    step = asyncio.ensure_future(asyncio.to_thread(_step, job, outcome))
    try:
        return await asyncio.shield(step)
    except asyncio.CancelledError:

        def close(step: "asyncio.Future[Any]") -> None:
            if not step.cancelled():
                step.exception()  # retrieved, so that asyncio does not complain of it
            job.close()

        step.add_done_callback(close)
        raise


def windows(texts: Sequence[str]) -> Iterator[slice]:
    """Consecutive slices of about `WINDOW_CHARACTERS` each, of one text at least."""
    begin, size = 0, 0
    for end, text in enumerate(texts):
        if size and size + len(text) > WINDOW_CHARACTERS:
            yield slice(begin, end)
            begin, size = end, 0
        size += len(text)
    if begin < len(texts):
        yield slice(begin, len(texts))


def _enter(gate: Gate, size: int) -> Job[None]:
    """Wait to be let in; whoever gives up while waiting is taken out of the line."""
    admitted = gate.enter(size)
    try:
        yield admitted
    except BaseException:
        if not admitted.cancel() and admitted.exception() is None:
            gate.leave(size)
        raise


def _leave(gate: Gate, size: int, _: "Future[Any]") -> None:
    gate.leave(size)


def _collect(pending: "deque[tuple[slice, Future[np.ndarray]]]", out: np.ndarray) -> Job[None]:
    """Wait for the oldest window and put its rows where they belong."""
    window, future = pending[0]
    outcome = yield future
    out[window] = outcome
    pending.popleft()
