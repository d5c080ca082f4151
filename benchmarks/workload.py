"""Requests of three kinds, their serial answers, and the distance of other answers from these."""

import itertools
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np

RequestKind = Literal["query", "documents", "rerank"]

QUERIES: Mapping[RequestKind, int] = {"query": 100}
"""The shortest calls."""

SHORT: Mapping[RequestKind, int] = {"query": 70, "rerank": 30}
"""Requests of chains while a user waits; in percent."""

MIXED: Mapping[RequestKind, int] = {"query": 60, "rerank": 25, "documents": 15}
"""The same, with callers that index documents; in percent."""

WORDS = """
milvus vector search index segment storage object query node memory disk cluster replica
shard insert delete flush compaction snapshot schema field partition collection metric
cosine distance neighbour graph recall latency throughput cache batch stream filter scalar
hybrid dense sparse rerank passage document answer question token model embed release
kubernetes container log metadata broker message channel time stamp consistency level bound
weak strong session version backup restore import export user role password limit
""".split()  # noqa: SIM905 - a list of 80 lines would be no clearer


@dataclass(frozen=True)
class Sizes:
    """How long texts are, in words, and how many go into a call: lowest and highest."""

    query: tuple[int, int]
    passage: tuple[int, int]
    passages: tuple[int, int]
    document: tuple[int, int]
    documents: tuple[int, int]


SIZES = Sizes((5, 14), (20, 50), (2, 6), (60, 160), (8, 24))
SMALL_SIZES = Sizes((5, 14), (15, 40), (2, 3), (40, 100), (2, 6))
"""Sizes for models that take seconds per pack."""


@dataclass(frozen=True)
class Request:
    """One call; a query has no documents, documents have no query."""

    kind: RequestKind
    query: str
    documents: tuple[str, ...]


class Answers(Protocol):
    """A system that answers requests: vectors (n, dimensions), or log-odds (n,) for reranking."""

    def answer(self, request: Request) -> np.ndarray:
        """Answer in this thread."""

    async def aanswer(self, request: Request) -> np.ndarray:
        """Answer without blocking the event loop."""


class Workload:
    """A pool of distinct requests, with their serial answers."""

    def __init__(self, sizes: Sizes, *, each: int, seed: int = 0) -> None:
        """Write the requests, `each` of every kind."""
        rng = random.Random(seed)

        def text(words: tuple[int, int]) -> str:
            return " ".join(rng.choices(WORDS, k=rng.randint(*words)))

        def texts(words: tuple[int, int], count: tuple[int, int]) -> tuple[str, ...]:
            return tuple(text(words) for _ in range(rng.randint(*count)))

        self.requests = [
            request
            for _ in range(each)
            for request in (
                Request("query", text(sizes.query), ()),
                Request("documents", "", texts(sizes.document, sizes.documents)),
                Request("rerank", text(sizes.query), texts(sizes.passage, sizes.passages)),
            )
        ]
        self.expected: list[np.ndarray] = []

    def answer_serially(self, system: Answers) -> None:
        """Compute every request's answer separately."""
        self.expected = [system.answer(request) for request in self.requests]

    def sample(self, mix: Mapping[RequestKind, int], count: int, seed: int) -> list[int]:
        """Numbers of requests, drawn at random by kind."""
        rng = random.Random(seed)
        by_kind = {
            kind: [i for i, request in enumerate(self.requests) if request.kind == kind]
            for kind in mix
        }
        kinds = rng.choices(list(mix), weights=list(mix.values()), k=count)
        return [rng.choice(by_kind[kind]) for kind in kinds]

    def distance(self, number: int, answer: np.ndarray) -> float:
        """Largest difference between an answer and the serial one; infinite if the shapes differ.

        For vectors of length 1 it is the length of the difference, which does not depend on how
        many dimensions they have; for log-odds the difference itself.
        """
        return distance(answer, self.expected[number])

    def least_distance_between(self, kind: RequestKind) -> float:
        """Least distance between the serial answers to two requests of a kind.

        The tolerance must be far below it, so that another caller's answer is detected.
        """
        rows = [
            np.atleast_2d(expected[0])
            for request, expected in zip(self.requests, self.expected, strict=True)
            if request.kind == kind
        ]
        return min(distance(a, b) for a, b in itertools.combinations(rows, 2))


def distance(found: np.ndarray, expected: np.ndarray) -> float:
    """Largest row-wise distance of two answers; infinite if their shapes differ."""
    if found.shape != expected.shape:
        return float("inf")
    difference = found - expected
    rows = np.abs(difference) if difference.ndim == 1 else np.linalg.norm(difference, axis=1)
    return float(rows.max())


def percentiles(values: Sequence[float]) -> dict[str, float]:
    """p50, p95, p99 and the largest; nan if there are no values."""
    if not values:
        return dict.fromkeys(("p50", "p95", "p99", "max"), float("nan"))
    p50, p95, p99, largest = np.percentile(values, [50, 95, 99, 100])
    return {"p50": float(p50), "p95": float(p95), "p99": float(p99), "max": float(largest)}
