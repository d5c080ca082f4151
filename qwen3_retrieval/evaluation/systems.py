"""The built-in systems: rankings from cached vectors and scores, timings from fresh calls."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from qwen3_core.base import normalised
from qwen3_core.common.validation import check_dimensions
from qwen3_core.prompts import DEFAULT_TASK
from qwen3_retrieval.evaluation.lexical import Lexical, top
from qwen3_retrieval.evaluation.models import Models
from qwen3_retrieval.evaluation.result import Latency, Setting

RRF: Final = 60
"""Constant of reciprocal rank fusion (Cormack, Clarke and Büttcher, SIGIR 2009)."""

BLOCK: Final = 2**24
"""Question-passage scores in memory at a time: 64 MiB of float32."""


@dataclass(frozen=True)
class Ranking:
    """A system's result for one question."""

    passages: np.ndarray
    """Positions of passages, best first: (n,) int."""
    scores: np.ndarray | None = None
    """The reranker's log-odds of these passages, (n,) float64, or None."""


class Systems:
    """Runs settings of one pair of models on some questions and passages."""

    def __init__(
        self, texts: Sequence[str], questions: Sequence[str], models: Models, lexical: Lexical
    ) -> None:
        """Store the parts; vectors and scores are computed on demand.

        Args:
            texts: The passages.
            questions: The questions.
            models: The pair of models.
            lexical: The BM25 index of the passages.
        """
        self.models = models
        self._lexical = lexical
        self._texts = texts
        self._questions = questions
        self._documents: tuple[object, np.ndarray] | None = None
        self._found: dict[tuple[object, ...], list[np.ndarray]] = {}
        self._cosines: dict[tuple[object, ...], list[np.ndarray]] = {}

    def rank(self, setting: Setting, questions: Sequence[int]) -> list[Ranking]:
        """The results of these questions."""
        candidates = [found[: setting.k] for found in self._first(setting, questions)]
        if not setting.rerank:
            return [Ranking(found) for found in candidates]
        pairs = [
            (self._questions[q], self._texts[i])
            for q, found in zip(questions, candidates, strict=True)
            for i in found
        ]
        scores = self.models.scores(pairs, _task(setting), setting.max_length)
        rankings, start = [], 0
        for found in candidates:
            own = scores[start : start + len(found)]
            start += len(found)
            order = np.argsort(-own, kind="stable")
            rankings.append(Ranking(found[order], own[order]))
        return rankings

    def cosines(self, setting: Setting, questions: Sequence[int]) -> list[np.ndarray]:
        """The cosines of at least `k` dense candidates, in their order."""
        self._dense(setting, setting.k)
        return [self._cosines[_key(setting)][q] for q in questions]

    def latency(self, setting: Setting, questions: Sequence[int]) -> dict[str, Latency]:
        """Time of each stage, for questions one by one, with nothing else running."""
        rows = [self._time(setting, q) for q in questions]
        stages = {stage: [row[stage] for row in rows] for stage in rows[0]}
        stages["total"] = [sum(row.values()) for row in rows]
        return {stage: latency(seconds) for stage, seconds in stages.items()}

    def tokens(self, setting: Setting, rankings: Sequence[tuple[int, Ranking]]) -> float | None:
        """Mean tokens of query and passages that the models read per question."""
        total = 0
        for q, ranking in rankings:
            texts: list[str] = []
            if setting.first != "bm25":
                texts.append(self._questions[q])
            if setting.rerank:
                texts += [self._questions[q], *(self._texts[i] for i in ranking.passages)]
            for text in texts:
                count = self.models.tokens(text)
                if count is None:
                    return None
                total += min(count, setting.max_length or count)
        return total / max(len(rankings), 1)

    def index_bytes(self, setting: Setting) -> int:
        """Bytes of the indexes that it searches."""
        size = 0 if setting.first == "dense" else self._lexical.size
        if setting.first != "bm25":
            width = setting.dimensions or self.full_dimensions
            size += len(self._texts) * width * 4
        return size

    @property
    def full_dimensions(self) -> int:
        """Length of the model's own vectors."""
        return int(self.models.document_vectors(self._texts[:1], None).shape[1])

    def _first(self, setting: Setting, questions: Sequence[int]) -> list[np.ndarray]:
        if setting.first == "bm25":
            return self._bm25(setting.k, questions)
        dense = self._dense(setting, setting.k)
        if setting.first == "dense":
            return [dense[q] for q in questions]
        lexical = self._bm25(setting.k, questions)
        return [
            fuse([dense[q][: setting.k], found[: setting.k]])
            for q, found in zip(questions, lexical, strict=True)
        ]

    def _bm25(self, k: int, questions: Sequence[int]) -> list[np.ndarray]:
        found = self._found.setdefault(("bm25", k), [])
        if not found:
            found += [self._lexical.search(text, k) for text in self._questions]
        return [found[q] for q in questions]

    def _dense(self, setting: Setting, k: int) -> list[np.ndarray]:
        """The passages nearest to each question, at least k if there are as many."""
        key = _key(setting)
        known = self._found.get(key)
        if known is not None and (not known or len(known[0]) >= min(k, len(self._texts))):
            return known
        documents = self._vectors(setting)
        queries = _slice(
            self.models.query_vectors(self._questions, setting.instruction, setting.max_length),
            setting.dimensions,
        )
        found: list[np.ndarray] = []
        cosines: list[np.ndarray] = []
        step = max(1, BLOCK // len(documents))
        for start in range(0, len(queries), step):
            for row in queries[start : start + step] @ documents.T:
                best = top(row, k)
                found.append(best)
                cosines.append(row[best])
        self._found[key], self._cosines[key] = found, cosines
        return found

    def _vectors(self, setting: Setting) -> np.ndarray:
        """The passages' vectors; the last result is cached."""
        key = (setting.dimensions, setting.max_length)
        if self._documents is None or self._documents[0] != key:
            self._documents = None
            full = self.models.document_vectors(self._texts, setting.max_length)
            check_dimensions(setting.dimensions, full.shape[1])
            self._documents = (key, _slice(full, setting.dimensions))
        return self._documents[1]

    def _time(self, setting: Setting, q: int) -> dict[str, float]:
        """Seconds of each stage for one question."""
        query, stages = self._questions[q], {}
        if setting.first != "dense":
            begin = time.perf_counter()
            self._lexical.search(query, setting.k)
            stages["bm25"] = time.perf_counter() - begin
        if setting.first != "bm25":
            stages["embed"] = self.models.time_query(query, setting.instruction, setting.max_length)
            documents = self._vectors(setting)
            vector = _slice(
                self.models.query_vectors([query], setting.instruction, setting.max_length),
                setting.dimensions,
            )[0]
            begin = time.perf_counter()
            top(documents @ vector, setting.k)
            stages["search"] = time.perf_counter() - begin
        if setting.rerank:
            texts = [self._texts[i] for i in self._first(setting, [q])[0][: setting.k]]
            if texts:
                stages["rerank"] = self.models.time_reranking(
                    query, texts, _task(setting), setting.max_length
                )
            else:
                stages["rerank"] = 0.0
        return stages


def fuse(rankings: Sequence[np.ndarray], constant: int = RRF) -> np.ndarray:
    """Reciprocal rank fusion: all items of any ranking, best first; ties keep their order."""
    scores: dict[int, float] = {}
    for ranking in rankings:
        for rank, i in enumerate(ranking, 1):
            scores[int(i)] = scores.get(int(i), 0.0) + 1 / (constant + rank)
    return np.array(sorted(scores, key=lambda i: -scores[i]), dtype=np.int64)


def spread(total: int, count: int) -> list[int]:
    """`count` positions, spread evenly over `total`."""
    count = min(total, count)
    return [i * total // count for i in range(count)]


def latency(seconds: Sequence[float]) -> Latency:
    """Percentiles in milliseconds."""
    p50, p95 = np.percentile(np.array(seconds) * 1000, [50, 95])
    return Latency(round(float(p50), 3), round(float(p95), 3), len(seconds))


def _key(setting: Setting) -> tuple[object, ...]:
    return ("dense", setting.dimensions, setting.instruction, setting.max_length)


def _task(setting: Setting) -> str:
    """The reranker's instruction; its prompt always has one, so None becomes the default."""
    return setting.instruction or DEFAULT_TASK


def _slice(vectors: np.ndarray, dimensions: int | None) -> np.ndarray:
    """The first dimensions, normalised again, like those of `Embedder(dimensions=...)`."""
    if dimensions is None or dimensions >= vectors.shape[1]:
        return vectors
    return normalised(vectors[:, :dimensions], "the model")
