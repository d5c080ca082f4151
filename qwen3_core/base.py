"""What embedders and rerankers can be asked for, wherever the model runs.

The model runs in this process (`qwen3_core.embedder`, `qwen3_core.reranker`) or on a server
(`qwen3_core.remote`). Both check their input here, and differ in how they get the answer.
"""

import warnings
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Coroutine, Iterable, Iterator
from typing import Any, Self, TypeVar

import numpy as np

from qwen3_core.common.validation import (
    check_iterable,
    check_order,
    check_query,
    check_text,
    check_texts,
    check_threshold,
    check_top_n,
    is_count,
)
from qwen3_core.fingerprint import Fingerprint
from qwen3_core.prompts import resolve_instruction
from qwen3_core.ranking import Ranked, rank
from qwen3_core.tokenizer import Qwen3Tokenizer, TruncationWarning

T = TypeVar("T")

Call = Coroutine[Any, Any, T]
"""A call that is ready to run: `_run` runs it for a thread, `_arun` in an event loop."""


WARM_UP = "warm up"
"""What `warm_up` asks."""


class TextModel(ABC):
    """What embedders and rerankers share: an instruction, a token limit, and how calls run."""

    _given: str | None
    """The instruction given for all calls, as a sentence."""

    _warned = False
    """Whether the warning of cut texts was given."""

    @property
    def instruction(self) -> str:
        """The sentence given, else the published default."""
        return resolve_instruction(self._given)

    @property
    @abstractmethod
    def max_length(self) -> int:
        """Tokens read of one input."""

    @abstractmethod
    def close(self) -> None:
        """Let go of the model; the next call gets hold of it again."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def warm_up(self) -> None:
        """Answer one short text, so that no caller waits for the model to load.

        A model in this process is loaded, and computes once. A server is looked at and checked.
        Errors as in a first call.
        """
        self._run(self._trial())

    async def awarm_up(self) -> None:
        """Like `warm_up`, without blocking the event loop."""
        await self._arun(self._trial())

    @abstractmethod
    def _trial(self) -> Call[np.ndarray]:
        """A call with one short text."""

    def count_tokens(self, texts: Iterable[str]) -> list[int]:
        """The tokens of each text alone, whole: neither prompt nor end-of-text token counts.

        It needs the tokenizer, and loads no weights.

        Raises:
            TypeError: If a text is not a string.
            ValueError: If a text holds a lone surrogate.
            OSError: If the tokenizer cannot be found or read.
        """
        checked = check_texts(texts, "texts")
        return [len(ids) for ids in self._tokenizer_alone().encode_many(checked)]

    @abstractmethod
    def _tokenizer_alone(self) -> Qwen3Tokenizer:
        """The model's tokenizer; loads no weights."""

    @abstractmethod
    def _run(self, call: Call[T]) -> T:
        """Run a call, and block this thread until it ends."""

    @abstractmethod
    async def _arun(self, call: Call[T]) -> T:
        """Run a call without blocking the event loop."""

    def _task(self, instruction: str | None) -> str | None:
        """The instruction given for one call or for all; None if none was."""
        return self._given if instruction is None else resolve_instruction(instruction)

    def _warn_cut(self, message: str) -> None:
        """Warn, once per component, that a text is longer than what is read of it."""
        if not self._warned:
            self._warned = True
            warnings.warn(f"{message} (Said once.)", TruncationWarning, stacklevel=2)


class BaseEmbedder(TextModel):
    """Turns queries, behind an instruction, and documents, without one, into unit vectors."""

    @property
    @abstractmethod
    def dimensions(self) -> int:
        """Length of the vectors."""

    @property
    @abstractmethod
    def fingerprint(self) -> Fingerprint:
        """What the vectors of documents are made with; for it nothing is loaded but `dimensions`.

        Its `max_length` is the one asked for, also where the model has fewer positions.
        """

    @abstractmethod
    def _documents(self, texts: list[str], show_progress: bool, first: int = 0) -> Call[np.ndarray]:
        """Embed documents; `first` is the position of the first one, for a warning."""

    def _trial(self) -> Call[np.ndarray]:
        return self._queries([WARM_UP], self._given, False)

    @abstractmethod
    def _queries(
        self, texts: list[str], task: str | None, show_progress: bool
    ) -> Call[np.ndarray]: ...

    def embed_documents(self, texts: Iterable[str], *, show_progress: bool = False) -> np.ndarray:
        """Vectors of documents, without instruction.

        Args:
            texts: The documents; an empty text is allowed and gets the vector of "no text".
            show_progress: Show a progress bar on stderr.

        Returns:
            (n, dimensions) float32, each row of length 1.

        Raises:
            TypeError: If a text is not a string.
            ValueError: If a text holds a lone surrogate.
            TimeoutError: If it takes longer than `timeout`.
        """
        return self._run(self._documents(check_texts(texts, "documents"), show_progress))

    async def aembed_documents(
        self, texts: Iterable[str], *, show_progress: bool = False
    ) -> np.ndarray:
        """Like `embed_documents`, without blocking the event loop."""
        documents = check_texts(texts, "documents")
        return await self._arun(self._documents(documents, show_progress))

    def embed_stream(self, texts: Iterable[str], *, batch_size: int = 1024) -> Iterator[np.ndarray]:
        """Vectors of documents that do not fit in memory, batch by batch in their order.

        The texts are taken as they are needed, and each batch is computed when it is asked for.

        Args:
            texts: The documents, from a generator for example.
            batch_size: Texts of a batch; the last one may have fewer.

        Yields:
            (batch_size, dimensions) float32, each row of length 1.

        Raises:
            TypeError: If `texts` is a string or not iterable; when it is reached, for a text that
                is not a string.
            ValueError: If `batch_size` is not a positive integer; when it is reached, for a text
                that holds a lone surrogate.
            TimeoutError: If a batch takes longer than `timeout`.
        """
        batches = _batches(texts, batch_size)
        return (self._run(self._documents(batch, False, first)) for first, batch in batches)

    def aembed_stream(
        self, texts: Iterable[str], *, batch_size: int = 1024
    ) -> AsyncIterator[np.ndarray]:
        """Like `embed_stream`, without blocking the event loop, for `async for`."""
        batches = _batches(texts, batch_size)

        async def embed() -> AsyncIterator[np.ndarray]:
            for first, batch in batches:
                yield await self._arun(self._documents(batch, False, first))

        return embed()

    def embed_queries(
        self,
        queries: Iterable[str],
        *,
        instruction: str | None = None,
        show_progress: bool = False,
    ) -> np.ndarray:
        """Vectors of queries, each behind the instruction.

        Args:
            queries: The queries, none of them blank.
            instruction: Sentence or task name in place of the embedder's own and of the
                checkpoint's prompt.
            show_progress: Show a progress bar on stderr.

        Returns:
            (n, dimensions) float32, each row of length 1.

        Raises:
            TypeError: If a query is not a string.
            ValueError: If a query is blank or holds a lone surrogate, or the instruction leaves no
                room for a query within `max_length`.
            TimeoutError: If it takes longer than `timeout`.
        """
        task, texts = self._check_queries(queries, instruction)
        return self._run(self._queries(texts, task, show_progress))

    async def aembed_queries(
        self,
        queries: Iterable[str],
        *,
        instruction: str | None = None,
        show_progress: bool = False,
    ) -> np.ndarray:
        """Like `embed_queries`, without blocking the event loop."""
        task, texts = self._check_queries(queries, instruction)
        return await self._arun(self._queries(texts, task, show_progress))

    def _check_queries(
        self, queries: Iterable[str], instruction: str | None
    ) -> tuple[str | None, list[str]]:
        texts = check_texts(queries, "queries")
        return self._task(instruction), [check_query(query) for query in texts]


class BaseReranker(TextModel):
    """Scores documents by how well they meet a query."""

    @abstractmethod
    def _score(
        self, pairs: list[tuple[str, str]], task: str | None, show_progress: bool
    ) -> Call[np.ndarray]: ...

    def _trial(self) -> Call[np.ndarray]:
        return self._score([(WARM_UP, WARM_UP)], self._given, False)

    def rerank(
        self,
        documents: Iterable[str],
        query: str,
        *,
        top_n: int | None = None,
        score_threshold: float | None = None,
        instruction: str | None = None,
        show_progress: bool = False,
    ) -> list[Ranked]:
        """Documents by relevance to the query, best first; equal ones keep their order.

        Args:
            documents: The candidates' texts; an empty text is scored like any other.
            query: What is asked; not blank.
            top_n: Keep at most so many; None keeps all.
            score_threshold: Then drop those whose score is below it.
            instruction: Sentence or task name in place of the reranker's own.
            show_progress: Show a progress bar on stderr.

        Raises:
            TypeError: If query or a document is not a string.
            ValueError: If the query is blank, an argument is out of range, or a text holds a lone
                surrogate.
            TimeoutError: If it takes longer than `timeout`.
        """
        check_top_n(top_n)
        check_threshold(score_threshold)
        log_odds = self.score(
            documents, query, instruction=instruction, show_progress=show_progress
        )
        return rank(log_odds, top_n=top_n, score_threshold=score_threshold)

    async def arerank(
        self,
        documents: Iterable[str],
        query: str,
        *,
        top_n: int | None = None,
        score_threshold: float | None = None,
        instruction: str | None = None,
        show_progress: bool = False,
    ) -> list[Ranked]:
        """Like `rerank`, without blocking the event loop."""
        check_top_n(top_n)
        check_threshold(score_threshold)
        pairs = _pairs(documents, query)
        log_odds = await self._arun(self._score(pairs, self._task(instruction), show_progress))
        return rank(log_odds, top_n=top_n, score_threshold=score_threshold)

    def score(
        self,
        documents: Iterable[str],
        query: str,
        *,
        instruction: str | None = None,
        show_progress: bool = False,
    ) -> np.ndarray:
        """Log-odds of each document's relevance to one query: (n,) float32, in the given order.

        Arguments and errors as in `rerank`.
        """
        pairs = _pairs(documents, query)
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
        return await self._arun(self._score(checked, task, show_progress))

    def _check_pairs(
        self, pairs: Iterable[tuple[str, str]], instruction: str | None
    ) -> tuple[str | None, list[tuple[str, str]]]:
        return self._task(instruction), [
            (check_query(query), check_text(document, f"pairs[{i}][1]"))
            for i, (query, document) in enumerate(pairs)
        ]


def _batches(texts: Iterable[str], size: int) -> Iterator[tuple[int, list[str]]]:
    """Texts in lists of `size`, each with the position of its first text; arguments are checked."""
    if not is_count(size):
        msg = f"batch_size must be a positive integer, got {size!r}"
        raise ValueError(msg)
    check_iterable(texts, "texts")

    def batches() -> Iterator[tuple[int, list[str]]]:
        batch: list[str] = []
        for i, text in enumerate(texts):
            batch.append(check_text(text, f"texts[{i}]"))
            if len(batch) == size:
                yield i + 1 - size, batch
                batch = []
        if batch:
            yield i + 1 - len(batch), batch

    return batches()


def _pairs(documents: Iterable[str], query: str) -> list[tuple[str, str]]:
    """One query with each of its documents, checked."""
    check_order(documents, query)
    texts = check_texts(documents, "documents")
    query = check_query(query)
    return [(query, text) for text in texts]


def normalised(vectors: np.ndarray, source: str, hint: str = "", first: int = 0) -> np.ndarray:
    """Vectors scaled to length 1.

    Args:
        vectors: (n, dimensions) float32.
        source: Who returned them, for an error.
        hint: What may be the cause, for an error.
        first: Position of the first one's text, for an error.

    Raises:
        FloatingPointError: If one has length 0 and so no direction, or holds NaN or infinity.
    """
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    bad = np.flatnonzero(~(np.isfinite(norms[:, 0]) & (norms[:, 0] > 0)))
    if bad.size:
        msg = f"{source} returned a vector of length {norms[bad[0], 0]} for text {first + bad[0]}"
        raise FloatingPointError(f"{msg}: {hint}" if hint else msg)
    scaled: np.ndarray = vectors / norms
    return scaled
