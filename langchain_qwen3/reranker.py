"""`Qwen3Reranker`: ranks retrieved documents by Qwen3-Reranker's scores."""

import logging
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Final, Literal, Self, overload

from langchain_core.callbacks import Callbacks
from langchain_core.cross_encoders import BaseCrossEncoder
from langchain_core.documents import BaseDocumentCompressor, Document
from langchain_core.runnables import RunnableConfig, RunnableLambda
from pydantic import Field, PrivateAttr, field_validator, model_validator

from langchain_qwen3._settings import UNSET, CheckpointSettings, Threshold, TopN, Unset, override
from qwen3_core.common.docstrings import DESCRIPTIONS, fields_documented
from qwen3_core.common.validation import check_order, check_threshold, check_top_n
from qwen3_core.components import RerankerMethods, make_reranker, settings_of
from qwen3_core.metadata import check_metadata_keys, with_metadata
from qwen3_core.ranking import Ranked, sigmoid
from qwen3_core.remote import RemoteReranker
from qwen3_core.reranker import Reranker
from qwen3_core.settings import DEFAULT_RERANKER_MODEL

logger = logging.getLogger(__name__)

WANTED = "documents must be a list of strings or Documents"


@dataclass(frozen=True, slots=True)
class RankedDocument(Ranked):
    """A document's result in a ranking, with the document."""

    document: str | Document
    """The document, unchanged."""


class ScoredMetadata(dict[str, Any]):
    """Metadata with scores, which are ignored when two such documents are compared.

    A document that is found for two questions has two scores. `MultiQueryRetriever` and others
    remove duplicates by equality, so they still return it once.
    """

    SCORES: ClassVar = ("relevance_score", "relevance_log_odds", "retrieval_score")

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, ScoredMetadata):
            return super().__eq__(other)
        return self._bare() == other._bare()

    def __ne__(self, other: object) -> bool:
        return not self == other

    __hash__ = None

    def _bare(self) -> dict[str, Any]:
        return {name: value for name, value in self.items() if name not in self.SCORES}


class _RerankerSettings(CheckpointSettings, RerankerMethods):
    """Base of the compressor and the cross encoder."""

    model: str | Path = Field(default=DEFAULT_RERANKER_MODEL, description=DESCRIPTIONS["model"])

    _reranker: Reranker | RemoteReranker = PrivateAttr()

    @model_validator(mode="after")
    def _configure(self) -> Self:
        self._reranker = make_reranker(self.model, **settings_of(self))
        return self

    @property
    def reranker(self) -> Reranker | RemoteReranker:
        """The reranker behind this component, with methods that LangChain's interface lacks.

        If the model runs in this process, `component.reranker.stats()` returns the engine's
        statistics.
        """
        return self._reranker


@fields_documented
class Qwen3Reranker(_RerankerSettings, BaseDocumentCompressor):
    """Qwen3-Reranker as a LangChain document compressor.

    It reads query and document together and returns the probability that the document answers the
    query. Each pair is scored alone: other documents in the list do not change its score. Use it
    wherever LangChain takes a compressor, or call `rerank` directly.

    Callbacks and traces show the step as a run named "Qwen3Reranker".

    Example:
        ```python
        ContextualCompressionRetriever(
            base_compressor=Qwen3Reranker(top_n=3),
            base_retriever=vectorstore.as_retriever(search_kwargs={"k": 10}),
        )
        ```

    Raises:
        pydantic.ValidationError: If a setting is out of range or unknown (a ValueError).
    """

    top_n: int | None = None
    """The number of results to keep, at least 1. None: all."""

    score_threshold: float | None = Field(default=None, description=DESCRIPTIONS["score_threshold"])

    score_metadata: bool = Field(default=True, description=DESCRIPTIONS["score_metadata"])

    metadata_keys: Sequence[str] | None = None
    """Metadata that the model reads before the page content, such as `["title"]`, one "key: value"
    per line (`qwen3_core.metadata`). None: those of the store in a `Qwen3TwoStageRetriever` over
    `open_milvus`, else none."""

    @field_validator("metadata_keys", mode="before")
    @classmethod
    def _check_keys(cls, keys: Any) -> tuple[str, ...] | None:
        try:
            return check_metadata_keys(keys)
        except TypeError as error:  # pydantic reports ValueErrors only
            raise ValueError(str(error)) from None

    @model_validator(mode="after")
    def _check_limits(self) -> Self:
        check_top_n(self.top_n)
        check_threshold(self.score_threshold)
        return self

    @overload
    def rerank(
        self,
        documents: Sequence[str | Document],
        query: str,
        *,
        top_n: TopN = UNSET,
        instruction: str | None = None,
        score_threshold: Threshold = UNSET,
        return_documents: Literal[False] = False,
    ) -> list[Ranked]: ...

    @overload
    def rerank(
        self,
        documents: Sequence[str | Document],
        query: str,
        *,
        top_n: TopN = UNSET,
        instruction: str | None = None,
        score_threshold: Threshold = UNSET,
        return_documents: Literal[True],
    ) -> list[RankedDocument]: ...

    def rerank(
        self,
        documents: Sequence[str | Document],
        query: str,
        *,
        top_n: TopN = UNSET,
        instruction: str | None = None,
        score_threshold: Threshold = UNSET,
        return_documents: bool = False,
    ) -> list[Ranked] | list[RankedDocument]:
        """Rank documents, best first; ties keep their order.

        Args:
            documents: Texts or Documents; an empty text is scored like any other. Texts have no
                metadata.
            query: The query; not blank.
            top_n: Replaces the reranker's own; None keeps all.
            instruction: Replaces the reranker's own.
            score_threshold: Replaces the reranker's own; None keeps all.
            return_documents: Whether each result contains its document, unchanged.

        Returns:
            Results with `index` (the position in `documents`), `score` (a probability from 0 to 1)
            and `log_odds`, and on request `document`; [] for no documents, without loading the
            model.

        Raises:
            TypeError: If the query or a document has the wrong type.
            ValueError: If the query is blank, an argument is out of range, a text contains a lone
                surrogate, or a value of `metadata_keys` is neither string nor number.
            OSError: If the model cannot be found or read.
        """
        candidates, texts = _texts(documents, query, self.metadata_keys or ())
        options = self._options(top_n, instruction, score_threshold)
        ranking = self._reranker.rerank(texts, query, **options, show_progress=self.show_progress)
        return _with_documents(ranking, candidates) if return_documents else ranking

    @overload
    async def arerank(
        self,
        documents: Sequence[str | Document],
        query: str,
        *,
        top_n: TopN = UNSET,
        instruction: str | None = None,
        score_threshold: Threshold = UNSET,
        return_documents: Literal[False] = False,
    ) -> list[Ranked]: ...

    @overload
    async def arerank(
        self,
        documents: Sequence[str | Document],
        query: str,
        *,
        top_n: TopN = UNSET,
        instruction: str | None = None,
        score_threshold: Threshold = UNSET,
        return_documents: Literal[True],
    ) -> list[RankedDocument]: ...

    async def arerank(
        self,
        documents: Sequence[str | Document],
        query: str,
        *,
        top_n: TopN = UNSET,
        instruction: str | None = None,
        score_threshold: Threshold = UNSET,
        return_documents: bool = False,
    ) -> list[Ranked] | list[RankedDocument]:
        """Like `rerank`, without blocking the event loop."""
        candidates, texts = _texts(documents, query, self.metadata_keys or ())
        options = self._options(top_n, instruction, score_threshold)
        ranking = await self._reranker.arerank(
            texts, query, **options, show_progress=self.show_progress
        )
        return _with_documents(ranking, candidates) if return_documents else ranking

    def compress_documents(
        self,
        documents: Sequence[Document],
        query: str,
        callbacks: Callbacks | None = None,
        *,
        top_n: TopN = UNSET,
        instruction: str | None = None,
        score_threshold: Threshold = UNSET,
        score_metadata: bool | Unset = UNSET,
        metadata_keys: Sequence[str] | Unset | None = UNSET,
    ) -> list[Document]:
        """Rank documents by relevance to the query, best first; ties keep their order.

        Args:
            documents: The candidates; they are not modified.
            query: The query; not blank.
            callbacks: Handlers that see the step as a run.
            top_n: Replaces the reranker's own; None keeps all.
            instruction: Replaces the reranker's own.
            score_threshold: Replaces the reranker's own; None keeps all.
            score_metadata: Replaces the reranker's own.
            metadata_keys: Replaces the reranker's own.

        Returns:
            Copies (same id and class). With `score_metadata` their metadata has two more entries:
            `relevance_score`, a probability from 0 to 1, and `relevance_log_odds`, its log-odds,
            which still distinguish documents where the probability saturates near 0 or 1.

        Raises:
            TypeError: If the query or a document has the wrong type.
            ValueError: As in `rerank`.
            OSError: If the model cannot be found or read.
        """
        options = self._options(top_n, instruction, score_threshold)
        written = override(score_metadata, self.score_metadata)
        keys = check_metadata_keys(override(metadata_keys, self.metadata_keys))
        step, summary = self._step(documents, query, options, written, keys)
        return step.invoke(summary, RunnableConfig(callbacks=callbacks))

    async def acompress_documents(
        self,
        documents: Sequence[Document],
        query: str,
        callbacks: Callbacks | None = None,
        *,
        top_n: TopN = UNSET,
        instruction: str | None = None,
        score_threshold: Threshold = UNSET,
        score_metadata: bool | Unset = UNSET,
        metadata_keys: Sequence[str] | Unset | None = UNSET,
    ) -> list[Document]:
        """Like `compress_documents`, without blocking the event loop."""
        options = self._options(top_n, instruction, score_threshold)
        written = override(score_metadata, self.score_metadata)
        keys = check_metadata_keys(override(metadata_keys, self.metadata_keys))
        step, summary = self._step(documents, query, options, written, keys)
        return await step.ainvoke(summary, RunnableConfig(callbacks=callbacks))

    def _options(
        self, top_n: TopN, instruction: str | None, score_threshold: Threshold
    ) -> dict[str, Any]:
        """Keyword arguments of the core's `rerank` for one call."""
        return {
            "top_n": override(top_n, self.top_n),
            "instruction": instruction,
            "score_threshold": override(score_threshold, self.score_threshold),
        }

    def _step(
        self,
        documents: Sequence[Document],
        query: str,
        options: dict[str, Any],
        written: bool,
        keys: tuple[str, ...] | None,
    ) -> tuple[RunnableLambda[dict[str, Any], list[Document]], dict[str, Any]]:
        """The rerank step as a Runnable, so that it is a run of its own, and the run's input.

        The input has the number of candidates only: the first stage's run shows the candidates.
        """
        check_order(documents, query)
        candidates: list[Document] = _listed(documents, WANTED)
        for i, document in enumerate(candidates):
            if not isinstance(document, Document):
                msg = (
                    f"documents[{i}] must be a Document, got {type(document).__name__}; "
                    "rerank() takes plain strings"
                )
                raise TypeError(msg)
        _, texts = _texts(candidates, query, keys or ())

        def step(_: dict[str, Any]) -> list[Document]:
            ranking = self._reranker.rerank(
                texts, query, **options, show_progress=self.show_progress
            )
            return [_scored(candidates[ranked.index], ranked, written) for ranked in ranking]

        async def astep(_: dict[str, Any]) -> list[Document]:
            ranking = await self._reranker.arerank(
                texts, query, **options, show_progress=self.show_progress
            )
            return [_scored(candidates[ranked.index], ranked, written) for ranked in ranking]

        shown = options["instruction"] or self._reranker.instruction
        summary = {"query": query, "documents": len(texts), **options, "instruction": shown}
        return RunnableLambda(step, astep, name=type(self).__name__), summary


@fields_documented
class Qwen3CrossEncoder(_RerankerSettings, BaseCrossEncoder):
    """Qwen3-Reranker as a LangChain cross encoder, for components that need one.

    `CrossEncoderReranker(model=Qwen3CrossEncoder())` works, but drops the scores; `Qwen3Reranker`
    keeps them.

    Raises:
        pydantic.ValidationError: If a setting is out of range or unknown (a ValueError).
    """

    def score(self, text_pairs: list[tuple[str, str]]) -> list[float]:
        """Score (query, document) pairs: the probability, from 0 to 1, of each pair's relevance.

        Pairs with the same query share its computation.

        Raises:
            TypeError: If an item is not a pair, or a text is not a string.
            ValueError: If a query is blank or a text contains a lone surrogate.
            OSError: If the model cannot be found or read.
        """
        pairs = _listed(text_pairs, "text_pairs must be a list of (query, document) pairs")
        for i, pair in enumerate(pairs):
            # A string of two letters would also unpack.
            if not isinstance(pair, (tuple, list)) or len(pair) != 2:
                msg = f"text_pairs[{i}] must be a (query, document) pair, got {pair!r:.80}"
                raise TypeError(msg)
        log_odds = self._reranker.score_pairs(pairs, show_progress=self.show_progress)
        probabilities: list[float] = sigmoid(log_odds).tolist()
        return probabilities


def _listed(values: object, wanted: str) -> list[Any]:
    """The values as a list; for other types raises TypeError, which begins with `wanted`."""
    if isinstance(values, (str, bytes, Document)) or not isinstance(values, Iterable):
        msg = f"{wanted}, got {type(values).__name__}: {values!r:.80}"
        raise TypeError(msg)
    return list(values)


def _texts(
    documents: Sequence[str | Document], query: str, keys: Sequence[str]
) -> tuple[list[str | Document], list[str]]:
    """The documents as a list, and what the model reads of them.

    The core refuses values that are not texts.
    """
    check_order(documents, query)
    candidates = _listed(documents, WANTED)
    texts = [
        with_metadata(d.page_content, d.metadata, keys) if isinstance(d, Document) else d
        for d in candidates
    ]
    return candidates, texts


def _with_documents(ranking: list[Ranked], documents: list[str | Document]) -> list[RankedDocument]:
    return [RankedDocument(r.index, r.score, r.log_odds, documents[r.index]) for r in ranking]


def _scored(document: Document, ranked: Ranked, written: bool) -> Document:
    if not written:
        return document.model_copy(update={"metadata": dict(document.metadata)})
    scores = {"relevance_score": ranked.score, "relevance_log_odds": ranked.log_odds}
    return with_scores(document, scores)


_replaced: Final[set[str]] = set()
"""Keys whose replacement was logged in this process."""


def with_scores(
    document: Document, scores: Mapping[str, float], later: Collection[str] = ()
) -> Document:
    """A copy of a document with scores in its metadata.

    An entry of the document's own under such a name is replaced, which is logged once.

    Args:
        document: The document.
        scores: The scores.
        later: Names of scores that a later step writes.
    """
    if not isinstance(document.metadata, ScoredMetadata):
        for key in {*scores, *later} & document.metadata.keys() - _replaced:
            _replaced.add(key)
            logger.warning(
                "the documents' own metadata %r is replaced by the score of that name: rename the "
                "key, or set score_metadata=False. (Said once.)",
                key,
            )
    return document.model_copy(update={"metadata": ScoredMetadata({**document.metadata, **scores})})
