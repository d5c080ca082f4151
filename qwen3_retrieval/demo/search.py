"""Two-stage search over passages in memory; times each stage."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from qwen3_core.embedder import Embedder
from qwen3_core.remote import RemoteEmbedder, RemoteReranker
from qwen3_core.reranker import Reranker
from qwen3_retrieval.comparison import Move, moves
from qwen3_retrieval.demo.passages import Excerpt


@dataclass(frozen=True, eq=False)
class Corpus:
    """Excerpts and their vectors."""

    passages: list[Excerpt]
    vectors: np.ndarray
    """(passages, dimensions) float32, each row of length 1."""


@dataclass(frozen=True)
class Result:
    """The results of both stages."""

    moves: list[Move[Excerpt]]
    """All candidates, in the reranker's order."""
    seconds: dict[str, float] = field(default_factory=dict)
    """Stage -> duration."""


class Searcher:
    """An embedder and a reranker; thread-safe like them."""

    def __init__(
        self, embedder: Embedder | RemoteEmbedder, reranker: Reranker | RemoteReranker
    ) -> None:
        self._embedder = embedder
        self._reranker = reranker

    def index(self, passages: Sequence[Excerpt]) -> Corpus:
        """Embed passages."""
        vectors = self._embedder.embed_documents([passage.text for passage in passages])
        return Corpus(list(passages), vectors)

    def search(self, corpus: Corpus, question: str, k: int, instruction: str | None) -> Result:
        """The `k` passages nearest to a question, and the reranker's order of them.

        Args:
            corpus: The corpus to search.
            question: The question; not blank.
            k: Number of candidates, at least 1; fewer if the corpus has fewer passages.
            instruction: Task name or sentence for both models; None for their defaults.

        Raises:
            ValueError: If the question is blank, or the instruction is an unknown name.
        """
        start = time.perf_counter()
        query = self._embedder.embed_queries([question], instruction=instruction)[0]
        embedded = time.perf_counter()
        cosines = corpus.vectors @ query
        best = np.argsort(-cosines, kind="stable")[:k]
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
        return Result(moves(candidates, cosines[best], ranking), seconds)
