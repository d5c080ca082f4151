"""Qwen3-Reranker as a LlamaIndex node postprocessor."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from llama_index.core.bridge.pydantic import Field, PrivateAttr, field_validator
from llama_index.core.callbacks import CBEventType, EventPayload
from llama_index.core.instrumentation import get_dispatcher  # type: ignore[attr-defined]
from llama_index.core.instrumentation.events.rerank import ReRankEndEvent, ReRankStartEvent
from llama_index.core.postprocessor.types import BaseNodePostprocessor
from llama_index.core.schema import BaseNode, MetadataMode, NodeWithScore, QueryBundle

from llama_index_qwen3._settings import CheckpointSettings
from qwen3_core.common.docstrings import DESCRIPTIONS, fields_documented
from qwen3_core.common.validation import check_query, check_threshold, check_top_n
from qwen3_core.components import RerankerMethods, make_reranker, settings_of
from qwen3_core.ranking import Ranked
from qwen3_core.remote import RemoteReranker
from qwen3_core.reranker import Reranker
from qwen3_core.settings import DEFAULT_RERANKER_MODEL

RETRIEVAL_SCORE = "retrieval_score"
"""Metadata key of the first stage's score, if it is kept."""

_dispatcher = get_dispatcher(__name__)


@fields_documented
class Qwen3Rerank(CheckpointSettings, RerankerMethods, BaseNodePostprocessor):
    """Ranks retrieved nodes by the probability that they answer the query, best first.

    It returns new `NodeWithScore` objects whose score is that probability, from 0 to 1; its input
    is not modified. Ties keep their order. The model is loaded at first use, and shared by all
    components of the process that name the same one. Objects are thread-safe and can be copied and
    pickled.

    Settings that choose or run the model are fixed; `model_copy(update={...})` returns a copy with
    other values.

    Example:
        ```python
        from llama_index_qwen3 import Qwen3Rerank

        engine = index.as_query_engine(
            similarity_top_k=50, node_postprocessors=[Qwen3Rerank(top_n=5)]
        )
        ```

    Raises:
        ValueError: If a setting is out of range. The model itself is checked at first use, which
            raises OSError or ValueError.
    """

    model: str = Field(
        default=DEFAULT_RERANKER_MODEL, frozen=True, description=DESCRIPTIONS["model"]
    )
    top_n: int | None = None
    """The number of results to keep, at least 1. None: all."""
    score_threshold: float | None = Field(default=None, description=DESCRIPTIONS["score_threshold"])
    metadata_mode: MetadataMode = MetadataMode.EMBED
    """The part of a node that the model reads. By default it is the part that was embedded: the
    metadata not in `excluded_embed_metadata_keys`, then the text. `MetadataMode.NONE` is the text
    alone."""
    keep_retrieval_score: bool = False
    """Keep the first stage's score in the node's metadata as "retrieval_score", excluded from the
    texts for LLMs and embedding models. The node is then a copy, and fusion retrievers treat it as
    another node if another question finds it; otherwise it is the same object."""
    show_progress: bool = Field(default=False, description=DESCRIPTIONS["show_progress"])

    _reranker: Reranker | RemoteReranker = PrivateAttr()
    _made_with: str | None = PrivateAttr()

    @field_validator("model", mode="before")
    @classmethod
    def _accept_path(cls, value: object) -> object:
        return str(value) if isinstance(value, Path) else value

    def model_post_init(self, context: Any, /) -> None:
        """Check the settings; loads nothing."""
        super().model_post_init(context)
        check_top_n(self.top_n)
        check_threshold(self.score_threshold)
        self._make()

    def _make(self) -> None:
        self._reranker = make_reranker(self.model, **settings_of(self))
        self._made_with = self.instruction

    @classmethod
    def class_name(cls) -> str:
        """The class name in LlamaIndex's serialisation."""
        return "Qwen3Rerank"

    @property
    def model_name(self) -> str:
        """Alias of `model`, the name in other components."""
        return self.model

    @property
    def reranker(self) -> Reranker | RemoteReranker:
        """The reranker behind this component, with methods that LlamaIndex's interface lacks.

        If the model runs in this process, `rerank.reranker.stats()` returns the engine's
        statistics. Its methods accept another instruction per call.
        """
        if self._made_with != self.instruction:  # assigned since; the model stays loaded
            self._make()
        return self._reranker

    def _postprocess_nodes(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None
    ) -> list[NodeWithScore]:
        query_bundle, texts, options = self._check(nodes, query_bundle)
        if not texts:
            return []
        with self._events(query_bundle, nodes) as reranked:
            ranking = self.reranker.rerank(texts, query_bundle.query_str, **options)
            reranked += [self._scored(nodes[ranked.index], ranked) for ranked in ranking]
        return reranked

    async def _apostprocess_nodes(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None
    ) -> list[NodeWithScore]:
        query_bundle, texts, options = self._check(nodes, query_bundle)
        if not texts:
            return []
        with self._events(query_bundle, nodes) as reranked:
            ranking = await self.reranker.arerank(texts, query_bundle.query_str, **options)
            reranked += [self._scored(nodes[ranked.index], ranked) for ranked in ranking]
        return reranked

    def _check(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None
    ) -> tuple[QueryBundle, list[str], dict[str, Any]]:
        """The query, the nodes' texts and the options for the core's `rerank`."""
        if query_bundle is None:
            msg = (
                "Qwen3Rerank needs the query: call postprocess_nodes(nodes, query_str=...) or "
                "postprocess_nodes(nodes, query_bundle=QueryBundle(...))"
            )
            raise ValueError(msg)
        if not isinstance(query_bundle, QueryBundle):
            msg = (
                f"query_bundle must be a QueryBundle, got {type(query_bundle).__name__}; "
                "a plain string goes to query_str="
            )
            raise TypeError(msg)
        given: object = nodes
        if isinstance(given, str) or not isinstance(given, Sequence):
            msg = f"nodes must be a list of NodeWithScore, got {type(nodes).__name__}"
            raise TypeError(msg)
        check_query(query_bundle.query_str)
        options = {
            "top_n": check_top_n(self.top_n),
            "score_threshold": check_threshold(self.score_threshold),
            "show_progress": self.show_progress,
        }
        return query_bundle, [self._read(node, i) for i, node in enumerate(nodes)], options

    def _scored(self, found: NodeWithScore, ranked: Ranked) -> NodeWithScore:
        node = self._with_retrieval_score(found) if self.keep_retrieval_score else found.node
        return NodeWithScore(node=node, score=ranked.score)

    def _read(self, node: object, i: int) -> str:
        if not isinstance(node, NodeWithScore):
            msg = f"nodes[{i}] must be a NodeWithScore, got {type(node).__name__}: {node!r:.80}"
            raise TypeError(msg)
        return node.node.get_content(metadata_mode=self.metadata_mode)

    def _with_retrieval_score(self, found: NodeWithScore) -> BaseNode:
        """A copy of the node with its first score in the metadata, excluded from prompts."""
        node = found.node
        # An earlier reranker may have stored it already.
        if found.score is None or RETRIEVAL_SCORE in node.metadata:
            return node
        hidden = [RETRIEVAL_SCORE]
        return node.model_copy(
            update={
                "metadata": {**node.metadata, RETRIEVAL_SCORE: found.score},
                "excluded_embed_metadata_keys": node.excluded_embed_metadata_keys + hidden,
                "excluded_llm_metadata_keys": node.excluded_llm_metadata_keys + hidden,
            }
        )

    @contextmanager
    def _events(
        self, query_bundle: QueryBundle, nodes: list[NodeWithScore]
    ) -> Iterator[list[NodeWithScore]]:
        """Emit start and end events to LlamaIndex's instrumentation and callbacks, also on errors.

        Yields a list, to be filled with the nodes to return.
        """
        reranked: list[NodeWithScore] = []
        top_n = len(nodes) if self.top_n is None else self.top_n
        payload: dict[str, Any] = {
            EventPayload.NODES: nodes,
            EventPayload.MODEL_NAME: self.model,
            EventPayload.QUERY_STR: query_bundle.query_str,
            EventPayload.TOP_K: top_n,
        }
        _dispatcher.event(
            ReRankStartEvent(query=query_bundle, nodes=nodes, top_n=top_n, model_name=self.model)
        )
        try:
            if not self.callback_manager.handlers:  # it would keep the event's id for ever
                yield reranked
                return
            with self.callback_manager.event(CBEventType.RERANKING, payload=payload) as event:
                yield reranked
                event.on_end(payload={EventPayload.NODES: reranked})
        finally:
            _dispatcher.event(ReRankEndEvent(nodes=reranked))
