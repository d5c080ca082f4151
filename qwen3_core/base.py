"""Base classes and public methods of embedders and rerankers, wherever the model runs.

The model runs in this process (`qwen3_core.embedder`, `qwen3_core.reranker`) or on a server
(`qwen3_core.remote`). Both check their input here. They differ in how they compute the result.
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
"""A call that is ready to run: `_run` blocks a thread for it, `_arun` awaits it."""


WARM_UP = "warm up"
"""The text that `warm_up` computes."""


class TextModel(ABC):
    """Base of embedders and rerankers: an instruction, a token limit, and how calls run."""

    _given: str | None
    """The instruction for all calls, as a sentence; None for the default."""

    _warned = False
    """Whether the truncation warning was issued."""

    @property
    def instruction(self) -> str:
        """The instruction given, as a sentence; by default the published one."""
        return resolve_instruction(self._given)

    @property
    @abstractmethod
    def max_length(self) -> int:
        """Tokens read of one input."""

    @abstractmethod
    def close(self) -> None:
        """Release the model; the next call opens it again."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def warm_up(self) -> None:
        """Compute one short text, so that no caller waits for the model to load.

        A model in this process is loaded and run once. A server is queried and checked. Raises the
        errors of a first call.
        """
        self._run(self._trial())

    async def awarm_up(self) -> None:
        """Like `warm_up`, without blocking the event loop."""
        await self._arun(self._trial())

    @abstractmethod
    def _trial(self) -> Call[np.ndarray]:
        """A call with one short text."""

    def count_tokens(self, texts: Iterable[str]) -> list[int]:
        """Count the tokens of each whole text, without prompt and end-of-text token.

        This loads the tokenizer, and no weights.

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
        """The instruction of this call, else of all calls; None for the default."""
        return self._given if instruction is None else resolve_instruction(instruction)

    def _warn_cut(self, message: str) -> None:
        """Warn, once per component, that a text was truncated."""
        if not self._warned:
            self._warned = True
            warnings.warn(f"{message} (Said once.)", TruncationWarning, stacklevel=2)


class BaseEmbedder(TextModel):
    """Embeds queries, with an instruction, and documents, without one, as unit vectors."""

    @property
    @abstractmethod
    def dimensions(self) -> int:
        """Length of the vectors."""

    @property
    @abstractmethod
    def fingerprint(self) -> Fingerprint:
        """Model and settings that produce the document vectors; loads no more than `dimensions`.

        Its `max_length` is the requested one, even where the model has fewer positions.
        """

    @abstractmethod
    def _documents(self, texts: list[str], show_progress: bool, first: int = 0) -> Call[np.ndarray]:
        """Embed documents; `first` is the position of the first one, used in warnings."""

    def _trial(self) -> Call[np.ndarray]:
        return self._queries([WARM_UP], self._given, False)

    @abstractmethod
    def _queries(
        self, texts: list[str], task: str | None, show_progress: bool
    ) -> Call[np.ndarray]: ...

    def embed_documents(self, texts: Iterable[str], *, show_progress: bool = False) -> np.ndarray:
        """Embed documents, without instruction.

        Args:
            texts: The documents; an empty text is embedded like any other.
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
        """Embed documents that do not fit in memory, in batches, in order.

        Texts are consumed lazily. Each batch is computed when it is requested.

        Args:
            texts: The documents, such as a generator.
            batch_size: Texts per batch; the last batch may have fewer.

        Yields:
            (batch_size, dimensions) float32, each row of length 1.

        Raises:
            TypeError: If `texts` is a string or not iterable; during iteration, if a text is not a
                string.
            ValueError: If `batch_size` is not a positive integer; during iteration, if a text
                contains a lone surrogate.
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
        """Embed queries, each with the instruction before it.

        Args:
            queries: The queries; blank queries are refused.
            instruction: Sentence or task name that replaces the embedder's own and the
                checkpoint's prompt.
            show_progress: Show a progress bar on stderr.

        Returns:
            (n, dimensions) float32, each row of length 1.

        Raises:
            TypeError: If a query is not a string.
            ValueError: If a query is blank or contains a lone surrogate, or the instruction leaves
                no room for a query within `max_length`.
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
    """Scores documents by their relevance to a query."""

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
        """Rank documents by relevance to the query, best first; ties keep their order.

        Args:
            documents: The candidates' texts; an empty text is scored like any other.
            query: The query; not blank.
            top_n: The number of documents to keep; None keeps all.
            score_threshold: Documents with a lower score are dropped after that.
            instruction: Sentence or task name that replaces the reranker's own.
            show_progress: Show a progress bar on stderr.

        Raises:
            TypeError: If the query or a document is not a string.
            ValueError: If the query is blank, an argument is out of range, or a text contains a
                lone surrogate.
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

        Arguments and errors are those of `rerank`.
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

        Pairs with the same query share its computation. Errors are those of `rerank`.
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
    """Split texts into lists of `size`, each with its first text's position; checks arguments."""
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
    """The pairs of one query with its documents, after all checks."""
    check_order(documents, query)
    texts = check_texts(documents, "documents")
    query = check_query(query)
    return [(query, text) for text in texts]


def normalised(vectors: np.ndarray, source: str, hint: str = "", first: int = 0) -> np.ndarray:
    """Scale vectors to length 1.

    Args:
        vectors: (n, dimensions) float32.
        source: The model or server that returned them, for the error message.
        hint: A possible cause, for the error message.
        first: Position of the first vector's text, for the error message.

    Raises:
        FloatingPointError: If a vector has length 0, or contains NaN or infinity.
    """
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    bad = np.flatnonzero(~(np.isfinite(norms[:, 0]) & (norms[:, 0] > 0)))
    if bad.size:
        msg = f"{source} returned a vector of length {norms[bad[0], 0]} for text {first + bad[0]}"
        raise FloatingPointError(f"{msg}: {hint}" if hint else msg)
    scaled: np.ndarray = vectors / norms
    return scaled
