"""Relevance of documents to a query: encoder, one dot product, log-odds, probability."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from qwen3_core.engine import Component, Job
from qwen3_core.packing import Ids, TokenSequence
from qwen3_core.progress import progress_bar
from qwen3_core.prompts import resolve_instruction
from qwen3_core.settings import DEFAULT_RERANKER_MODEL, Dtype
from qwen3_core.validation import check_query, check_text, check_texts, check_threshold, check_top_n

QUERY_SHARE = 0.5
"""Share of `max_length` that a query may take before it is cut, so that it never pushes the
document out."""


@dataclass(frozen=True, slots=True)
class Ranked:
    """One document's place in a ranking."""

    index: int
    """Position of the document in the caller's list."""
    score: float
    """Probability of "yes, relevant", from 0 to 1. Saturates; compare log-odds near the ends."""
    log_odds: float
    """logit(yes) - logit(no); the score is its sigmoid."""


def sigmoid(log_odds: np.ndarray) -> np.ndarray:
    """Probability of log-odds, without overflow: float64 of the same shape."""
    positive = 1 / (1 + np.exp(-np.abs(log_odds.astype(np.float64))))
    result: np.ndarray = np.where(log_odds >= 0, positive, 1 - positive)
    return result


def rank(
    log_odds: Sequence[float] | np.ndarray,
    *,
    top_n: int | None = None,
    score_threshold: float | None = None,
) -> list[Ranked]:
    """Order documents by log-odds, best first; equal ones keep their order.

    Args:
        log_odds: One finite number per document.
        top_n: Keep at most so many; None keeps all.
        score_threshold: Then drop those whose score is below it (a score equal to it stays).

    Raises:
        ValueError: If `top_n` is below 1, the threshold not in [0, 1], or a number not finite.
    """
    check_top_n(top_n)
    check_threshold(score_threshold)
    values = np.asarray(log_odds, dtype=np.float64)
    if not np.isfinite(values).all():
        bad = int(np.flatnonzero(~np.isfinite(values))[0])
        msg = f"the log-odds of document {bad} are {values[bad]}: scores must be finite"
        raise ValueError(msg)
    scores = sigmoid(values)
    best = np.argsort(-values, kind="stable")[:top_n]
    ranking = [Ranked(int(i), float(scores[i]), float(values[i])) for i in best]
    return [r for r in ranking if score_threshold is None or r.score >= score_threshold]


class Reranker(Component):
    """A Qwen3 reranking model.

    It reads query and document together and answers whether the document meets the query. Scores
    are per pair: other documents in the list do not change them.

    Safe to share between threads. The model is loaded at first use and shared by all components
    that name the same one.
    """

    def __init__(
        self,
        model: str | Path = DEFAULT_RERANKER_MODEL,
        *,
        revision: str | None = None,
        device: str = "auto",
        dtype: Dtype = "auto",
        max_length: int | None = None,
        instruction: str | None = None,
        pack_tokens: int | None = None,
        timeout: float | None = None,
    ) -> None:
        """Check the settings; nothing is loaded yet.

        Args:
            model: Hub name such as "Qwen/Qwen3-Reranker-0.6B", local folder, or "tiny".
            revision: Branch, tag or commit on the hub.
            device: "auto", "cpu", "cuda", "cuda:1", "mps".
            dtype: "auto" (bfloat16 where the hardware has it, else float32), or by name.
            max_length: Tokens of one prompt (frame, instruction, query, document); default 8192, or
                what the model has if that is less.
            instruction: Sentence or task name (`qwen3_core.prompts.TASKS`).
            pack_tokens: Token budget of one forward pass; default by device.
            timeout: Seconds that one call may take, waiting included; None: as long as it takes.

        Raises:
            ValueError: If an argument is out of range. Whether the model exists, is of the right
                kind and long enough shows when it is loaded.
        """
        super().__init__(
            "reranker",
            model,
            revision=revision,
            device=device,
            dtype=dtype,
            max_length=max_length,
            instruction=instruction,
            pack_tokens=pack_tokens,
            timeout=timeout,
        )

    def rerank(
        self,
        query: str,
        documents: Iterable[str],
        *,
        top_n: int | None = None,
        score_threshold: float | None = None,
        instruction: str | None = None,
        show_progress: bool = False,
    ) -> list[Ranked]:
        """Documents by relevance to the query, best first; equal ones keep their order.

        Args:
            query: What is asked; not blank.
            documents: The candidates' texts; an empty text is scored like any other.
            top_n: Keep at most so many; None keeps all.
            score_threshold: Then drop those whose score is below it.
            instruction: Sentence or task name in place of the reranker's own.
            show_progress: Show a progress bar on stderr.

        Raises:
            TypeError: If query or a document is not a string.
            ValueError: If the query is blank, an argument is out of range, or a text holds a lone
                surrogate.
        """
        check_top_n(top_n)
        check_threshold(score_threshold)
        log_odds = self.score(
            query, documents, instruction=instruction, show_progress=show_progress
        )
        return rank(log_odds, top_n=top_n, score_threshold=score_threshold)

    async def arerank(
        self,
        query: str,
        documents: Iterable[str],
        *,
        top_n: int | None = None,
        score_threshold: float | None = None,
        instruction: str | None = None,
        show_progress: bool = False,
    ) -> list[Ranked]:
        """Like `rerank`, without blocking the event loop."""
        check_top_n(top_n)
        check_threshold(score_threshold)
        pairs = _pairs(query, documents)
        job = self._score(pairs, self._task(instruction), show_progress)
        log_odds = await self._arun(job, _size(pairs))
        return rank(log_odds, top_n=top_n, score_threshold=score_threshold)

    def score(
        self,
        query: str,
        documents: Iterable[str],
        *,
        instruction: str | None = None,
        show_progress: bool = False,
    ) -> np.ndarray:
        """Log-odds of each document's relevance to one query: (n,) float32, in the given order.

        Arguments and errors as in `rerank`.
        """
        pairs = _pairs(query, documents)
        return self._run(self._score(pairs, self._task(instruction), show_progress))

    def score_pairs(
        self,
        pairs: Iterable[tuple[str, str]],
        *,
        instruction: str | None = None,
        show_progress: bool = False,
    ) -> np.ndarray:
        """Log-odds of (query, document) pairs: (n,) float32, in the given order.

        Pairs with the same query share its computation. Errors as in `rerank`.
        """
        task, checked = self._check_pairs(pairs, instruction)
        return self._run(self._score(checked, task, show_progress))

    async def ascore_pairs(
        self,
        pairs: Iterable[tuple[str, str]],
        *,
        instruction: str | None = None,
        show_progress: bool = False,
    ) -> np.ndarray:
        """Like `score_pairs`, without blocking the event loop."""
        task, checked = self._check_pairs(pairs, instruction)
        return await self._arun(self._score(checked, task, show_progress), _size(checked))

    def _task(self, instruction: str | None) -> str:
        return self.instruction if instruction is None else resolve_instruction(instruction)

    def _check_pairs(
        self, pairs: Iterable[tuple[str, str]], instruction: str | None
    ) -> tuple[str, list[tuple[str, str]]]:
        return self._task(instruction), [
            (check_query(query), check_text(document, f"pairs[{i}][1]"))
            for i, (query, document) in enumerate(pairs)
        ]

    def _score(
        self, pairs: list[tuple[str, str]], task: str, show_progress: bool
    ) -> Job[np.ndarray]:
        if not pairs:
            return np.empty(0, dtype=np.float32)
        engine = self.engine
        prefixes: dict[str, Ids] = {}

        def sequences_of(window: slice) -> list[TokenSequence]:
            by_query: dict[str, list[int]] = {}
            for i in range(window.start, window.stop):
                by_query.setdefault(pairs[i][0], []).append(i)
            sequences: dict[int, TokenSequence] = {}
            cut: list[int] = []
            for query, members in by_query.items():
                if query not in prefixes:
                    prefixes[query] = self._prefix(task, query)
                prefix = prefixes[query]
                rows, cut_here = engine.tokenizer.rerank_documents(
                    [pairs[i][1] for i in members], self.max_length - len(prefix)
                )
                cut += [members[j] for j in cut_here]
                for i, row in zip(members, rows, strict=True):
                    sequences[i] = TokenSequence(prefix, row)
            self._warn_documents(cut)
            return [sequences[i] for i in range(window.start, window.stop)]

        documents = [document for _, document in pairs]
        with progress_bar("Reranking", len(pairs), show_progress) as progress:
            hidden = yield from self._encode(documents, sequences_of, bulk=False, progress=progress)
        log_odds: np.ndarray = hidden @ engine.head
        return log_odds

    def _prefix(self, instruction: str, query: str) -> Ids:
        """The frame up to the document, with the query cut to its share if it is longer."""
        tokenizer = self.engine.tokenizer
        prefix = tokenizer.rerank_prefix(instruction, query)
        limit = int(self.max_length * QUERY_SHARE)
        frame = tokenizer.rerank_frame(instruction)
        if self.max_length - limit - frame < 1:
            msg = (
                f"max_length={self.max_length} leaves no room for a document: the frame and the "
                f"instruction take {frame} tokens and the query may take {limit}; "
                "raise max_length or shorten the instruction"
            )
            raise ValueError(msg)
        length = len(prefix) + len(tokenizer.rerank_suffix) - frame
        if length <= limit:
            return prefix
        self._warn_cut(
            f"the query takes {length} tokens; only the first {limit}, half of "
            f"max_length={self.max_length}, are read, so that the document keeps its room."
        )
        return tokenizer.rerank_prefix(instruction, tokenizer.cut_text(query, limit))

    def _warn_documents(self, cut: list[int]) -> None:
        if cut:
            self._warn_cut(
                f"{len(cut)} documents (first: documents[{min(cut)}]) do not fit into "
                f"max_length={self.max_length} tokens beside query and instruction; the rest of "
                "them is not read. Split them, or raise max_length."
            )


def _size(pairs: list[tuple[str, str]]) -> int:
    """Characters that the pairs hold."""
    return sum(len(query) + len(document) for query, document in pairs)


def _pairs(query: str, documents: Iterable[str]) -> list[tuple[str, str]]:
    """One query with each of its documents, checked."""
    texts = check_texts(documents, "documents")
    query = check_query(query)
    return [(query, text) for text in texts]
