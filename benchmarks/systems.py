"""The systems under load: the shared engine, and the same encoder behind one lock."""

import asyncio
import copy
import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass

import numpy as np

from benchmarks.workload import Request, RequestKind, Workload
from qwen3_core import Embedder, Reranker
from qwen3_core.engine.engine import Engine
from qwen3_core.engine.local import LocalModel
from qwen3_core.engine.worker import Worker
from qwen3_core.model.packing import TokenSequence, Work
from qwen3_core.settings import Dtype


@dataclass(frozen=True)
class Pair:
    """The two checkpoints of a run."""

    embedding: str
    reranker: str
    dtype: Dtype


class Shared:
    """One embedder and one reranker; all callers share their engines."""

    name = "engine"

    def __init__(self, pair: Pair) -> None:
        self.embedder = Embedder(pair.embedding, dtype=pair.dtype)
        self.reranker = Reranker(pair.reranker, dtype=pair.dtype)

    def answer(self, request: Request) -> np.ndarray:
        """Answer in this thread."""
        if request.kind == "query":
            return self.embedder.embed_queries([request.query])
        if request.kind == "documents":
            return self.embedder.embed_documents(request.documents)
        return self.reranker.score(request.documents, request.query)

    async def aanswer(self, request: Request) -> np.ndarray:
        """Answer without blocking the event loop."""
        if request.kind == "query":
            return await self.embedder.aembed_queries([request.query])
        if request.kind == "documents":
            return await self.embedder.aembed_documents(request.documents)
        pairs = [(request.query, document) for document in request.documents]
        return await self.reranker.ascore_pairs(pairs)

    def tokens(self, request: Request) -> int:
        """Tokens that a model without shared prefixes would read for a request."""
        tokenizer, length = self.embedder.engine.tokenizer, 2**20
        if request.kind == "query":
            prefix = tokenizer.embedding_prefix(self.embedder.instruction)
            rows, _ = tokenizer.embedding_queries([request.query], length)
        elif request.kind == "documents":
            prefix = ()
            rows, _ = tokenizer.embedding_documents(request.documents, length)
        else:
            tokenizer = self.reranker.engine.tokenizer
            prefix = tokenizer.rerank_prefix(self.reranker.instruction, request.query)
            rows, _ = tokenizer.rerank_documents(request.documents, length)
        return sum(len(prefix) + len(row) for row in rows)


class Locked:
    """The same components and weights; each call is computed separately, in its own thread.

    Tokenising happens outside the lock, which favours this peer: a transformers tokenizer, which
    threads must not share, would have to be inside.
    """

    name = "one lock"

    def __init__(self, shared: Shared) -> None:
        lock = threading.Lock()

        class LockedEmbedder(Embedder):
            engine = locked(shared.embedder, lock)

        class LockedReranker(Reranker):
            engine = locked(shared.reranker, lock)

        self._system = copy.copy(shared)
        self._system.embedder = LockedEmbedder("locked")
        self._system.reranker = LockedReranker("locked")

    def answer(self, request: Request) -> np.ndarray:
        """Answer in this thread, once the lock is free."""
        return self._system.answer(request)

    async def aanswer(self, request: Request) -> np.ndarray:
        """Answer in a thread of the event loop's executor."""
        return await asyncio.to_thread(self.answer, request)


def locked(component: LocalModel, lock: threading.Lock) -> Engine:
    """A component's engine with a lock in place of its worker."""
    engine = copy.copy(component.engine)
    engine.worker = LockedWorker(engine, lock)
    return engine


class LockedWorker(Worker):
    """No thread and no queue: `submit` computes in the caller's thread, under the lock."""

    def __init__(self, engine: Engine, lock: threading.Lock) -> None:
        super().__init__(engine.encoder, engine.name)
        self._packer = engine.encoder
        self._lock = lock

    def submit(
        self,
        sequences: Sequence[TokenSequence],
        *,
        bulk: bool = False,
        pack_tokens: int | None = None,
        on_progress: Callable[[int], object] | None = None,
    ) -> "Future[np.ndarray]":
        """Compute the sequences; the future is done."""
        del bulk, on_progress
        work = Work(sequences)
        result = np.empty((len(sequences), self._packer.hidden_size), dtype=np.float32)
        with self._lock:
            while work.waiting:
                line = ([work], pack_tokens or self._packer.pack_tokens)
                pack = self._packer.next_pack([line])
                for (_, index), state in zip(pack.members, self._packer.run(pack), strict=True):
                    result[index] = state
        future: Future[np.ndarray] = Future()
        future.set_result(result)
        return future


class Waiting:
    """A control: threads use the engine; coroutines sleep instead and get the serial answer.

    Holds of the event loop are then not caused by the engine's code in that loop.
    """

    name = "no calls from the event loop"

    def __init__(
        self, shared: Shared, workload: Workload, sleeps: Mapping[RequestKind, float]
    ) -> None:
        """Set the sleep, in seconds, by kind of request."""
        self._shared = shared
        self._sleeps = sleeps
        self._answers = dict(zip(workload.requests, workload.expected, strict=True))

    def answer(self, request: Request) -> np.ndarray:
        """Answer in this thread."""
        return self._shared.answer(request)

    async def aanswer(self, request: Request) -> np.ndarray:
        """Answer without the engine."""
        await asyncio.sleep(self._sleeps[request.kind])
        return self._answers[request]


System = Shared | Locked | Waiting


class PackLog(logging.Handler):
    """Context manager that records the workers' log entry of each pack."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.packs: list[tuple[int, float]] = []
        """Tokens and seconds of each pack."""
        self._logger = logging.getLogger("qwen3_core.engine.worker")
        self._level, self._propagate = self._logger.level, self._logger.propagate

    def emit(self, record: logging.LogRecord) -> None:
        """Store a record about a pack."""
        if isinstance(record.args, tuple) and len(record.args) == 5:
            _, tokens, _, _, took = record.args
            self.packs.append((int(str(tokens)), float(str(took))))

    def __enter__(self) -> "PackLog":
        self._logger.addHandler(self)
        self._logger.setLevel(logging.DEBUG)
        self._logger.propagate = False
        return self

    def __exit__(self, *_: object) -> None:
        self._logger.removeHandler(self)
        self._logger.setLevel(self._level)
        self._logger.propagate = self._propagate
