"""Two-stage search over passages in memory, each stage timed."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from qwen3_core.embedder import Embedder
from qwen3_core.ranking import Ranked
from qwen3_core.remote import RemoteEmbedder, RemoteReranker
from qwen3_core.reranker import Reranker
from qwen3_retrieval.demo.passages import Passage


@dataclass(frozen=True, eq=False)
class Corpus:
    """Passages and their vectors."""

    passages: list[Passage]
    vectors: np.ndarray
    """(passages, dimensions) float32, each row of length 1."""


@dataclass(frozen=True)
class Result:
    """What both stages found."""

    candidates: list[Passage]
    """In the order of dense search, best first."""
    similarities: list[float]
    """Cosine of each candidate with the question."""
    ranking: list[Ranked]
    """All candidates in the reranker's order."""
    seconds: dict[str, float] = field(default_factory=dict)
    """Stage -> time it took."""


class Searcher:
    """An embedder and a reranker; may be shared by threads as they may."""

    def __init__(
        self, embedder: Embedder | RemoteEmbedder, reranker: Reranker | RemoteReranker
    ) -> None:
        self._embedder = embedder
        self._reranker = reranker

    def index(self, passages: Sequence[Passage]) -> Corpus:
        """Embed passages."""
        vectors = self._embedder.embed_documents([passage.text for passage in passages])
        return Corpus(list(passages), vectors)

    def search(self, corpus: Corpus, question: str, k: int, instruction: str | None) -> Result:
        """The `k` passages nearest to a question, and how the reranker orders them.

        Args:
            corpus: Where to search.
            question: Not blank.
            k: Candidates, at least 1; fewer come back if the corpus has fewer.
            instruction: Task name or sentence for both models; None for theirs.

        Raises:
            ValueError: If the question is blank or the instruction an unknown name.
        """
        start = time.perf_counter()
        query = self._embedder.embed_queries([question], instruction=instruction)[0]
        embedded = time.perf_counter()
        similarities = corpus.vectors @ query
        best = np.argsort(-similarities, kind="stable")[:k]
        found = time.perf_counter()
        candidates = [corpus.passages[i] for i in best]
        ranking = self._reranker.rerank(
            [passage.text for passage in candidates], question, instruction=instruction
        )
        seconds = {
            "embed the question": embedded - start,
            f"search {len(corpus.passages):,} passages": found - embedded,
            f"rerank {len(candidates)}": time.perf_counter() - found,
        }
        return Result(candidates, similarities[best].tolist(), ranking, seconds)
