"""Qwen3-Reranker as a LlamaIndex node postprocessor."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

from llama_index.core.bridge.pydantic import (
    ConfigDict,
    Field,
    PrivateAttr,
    SecretStr,
    field_validator,
    model_validator,
)
from llama_index.core.callbacks import CBEventType, EventPayload
from llama_index.core.instrumentation import get_dispatcher  # type: ignore[attr-defined]
from llama_index.core.instrumentation.events.rerank import ReRankEndEvent, ReRankStartEvent
from llama_index.core.postprocessor.types import BaseNodePostprocessor
from llama_index.core.schema import BaseNode, MetadataMode, NodeWithScore, QueryBundle

from qwen3_core.components import make_reranker
from qwen3_core.docstrings import fields_documented
from qwen3_core.ranking import Ranked
from qwen3_core.remote import RemoteReranker, Server
from qwen3_core.reranker import Reranker
from qwen3_core.settings import DEFAULT_RERANKER_MODEL, Dtype
from qwen3_core.validation import check_query, check_threshold, check_top_n, suggest

RETRIEVAL_SCORE = "retrieval_score"
"""Metadata key of the first stage's score, where it is kept."""

_dispatcher = get_dispatcher(__name__)


@fields_documented
class Qwen3Rerank(BaseNodePostprocessor):
    """Orders retrieved nodes by the probability that they meet the query, best first.

    It returns new `NodeWithScore` objects whose score is that probability, from 0 to 1; what was
    handed in stays as it is. Equal nodes keep their order. The model is loaded at first use, and
    shared by all components of the process that name the same one; an object can be shared between
    threads, copied and pickled.

    Settings that choose or run the model are fixed; `model_copy(update={...})` gives an object with
    others.

    Example:
        ```python
        from llama_index_qwen3 import Qwen3Rerank

        engine = index.as_query_engine(
            similarity_top_k=50, node_postprocessors=[Qwen3Rerank(top_n=5)]
        )
        ```

    Raises:
        ValueError: If a setting is out of range. Whether the model exists, is of the right kind and
            long enough shows at first use: OSError or ValueError there.
    """

    model_config = ConfigDict(
        extra="forbid",
        use_attribute_docstrings=True,
        hide_input_in_errors=True,  # a key may be among the input
    )

    @model_validator(mode="before")
    @classmethod
    def _know_names(cls, given: Any) -> Any:
        suggest(given, cls.model_fields)
        return given

    model: str = Field(default=DEFAULT_RERANKER_MODEL, frozen=True)
    """Hub name such as "Qwen/Qwen3-Reranker-0.6B", local folder, or "tiny" for the bundled one."""
    top_n: int | None = None
    """Keep at most so many nodes, at least 1; None keeps all."""
    score_threshold: float | None = None
    """Then drop nodes whose score is below it, 0 to 1; None drops none."""
    instruction: str | None = None
    """What makes a node relevant: a sentence, or a task's name (`qwen3_core.prompts.TASKS`); by
    default the official web search sentence."""
    metadata_mode: MetadataMode = MetadataMode.EMBED
    """What the model reads of a node: by default what was embedded, which is the metadata not in
    `excluded_embed_metadata_keys`, then the text. `MetadataMode.NONE` is the text alone."""
    keep_retrieval_score: bool = False
    """Keep the first stage's score in the node's metadata as "retrieval_score", excluded from what
    LLMs and embedding models read. The node is then a copy; else it is the very object."""
    revision: str | None = Field(default=None, frozen=True)
    """Branch, tag or commit on the hub."""
    device: str = Field(default="auto", frozen=True)
    """"auto", "cpu", "cuda", "cuda:1", "mps"."""
    dtype: Dtype = Field(default="auto", frozen=True)
    """"auto" (bfloat16 where the hardware has it, else float32), or by name."""
    max_length: int | None = Field(default=None, frozen=True)
    """Tokens of one prompt (frame, instruction, query, node); default 8192, or what the model
    has."""
    pack_tokens: int | None = Field(default=None, frozen=True)
    """Token budget of one forward pass; default by device."""
    timeout: float | None = Field(default=None, frozen=True)
    """Seconds that one call may take, waiting for its turn included, loading the model not; then it
    raises TimeoutError. Default no limit."""
    base_url: str | None = Field(default=None, frozen=True)
    """Where a server's API begins, such as "http://localhost:8000/v1": the model then runs there,
    and its name here is its name there. By default it runs in this process."""
    api_key: SecretStr | None = Field(default=None, frozen=True, exclude=True)
    """The server's key; by default `QWEN3_API_KEY` from the environment. It travels neither in
    pickles nor in `to_dict`."""
    server: Server | str | None = Field(default=None, frozen=True)
    """What the server is, "vllm" for example, or a `Server` with more settings; by default it is
    asked."""
    show_progress: bool = False
    """Show a progress bar on stderr."""

    _reranker: Reranker | RemoteReranker = PrivateAttr()

    @field_validator("model", mode="before")
    @classmethod
    def _accept_path(cls, value: object) -> object:
        return str(value) if isinstance(value, Path) else value

    def model_post_init(self, context: Any, /) -> None:
        """Check the settings; nothing is loaded yet."""
        super().model_post_init(context)
        check_top_n(self.top_n)
        check_threshold(self.score_threshold)
        self._reranker = make_reranker(
            self.model,
            base_url=self.base_url,
            api_key=None if self.api_key is None else self.api_key.get_secret_value(),
            server=self.server,
            revision=self.revision,
            device=self.device,
            dtype=self.dtype,
            max_length=self.max_length,
            instruction=self.instruction,
            pack_tokens=self.pack_tokens,
            timeout=self.timeout,
        )

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """A copy with some settings changed and checked; an equal model is shared, not loaded."""
        del deep  # settings are plain values
        return type(self)(**{**dict(self), **(update or {})})

    def __getstate__(self) -> dict[str, Any]:
        """Without the key, which would be readable in a pickle."""
        state: dict[str, Any] = super().__getstate__()
        return state | {"__dict__": state["__dict__"] | {"api_key": None}}

    @classmethod
    def class_name(cls) -> str:
        """Name under which LlamaIndex serialises it."""
        return "Qwen3Rerank"

    @property
    def reranker(self) -> Reranker | RemoteReranker:
        """The reranker behind this component, for what LlamaIndex has no method for.

        For example its engine's counters, where the model runs in this process:
        `rerank.reranker.stats()`. It keeps the instruction given at construction; its methods take
        another.
        """
        return self._reranker

    def _postprocess_nodes(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None
    ) -> list[NodeWithScore]:
        query_bundle, texts, options = self._check(nodes, query_bundle)
        if not texts:
            return []
        with self._events(query_bundle, nodes) as reranked:
            ranking = self._reranker.rerank(query_bundle.query_str, texts, **options)
            reranked += [self._scored(nodes[ranked.index], ranked) for ranked in ranking]
        return reranked

    async def _apostprocess_nodes(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None
    ) -> list[NodeWithScore]:
        query_bundle, texts, options = self._check(nodes, query_bundle)
        if not texts:
            return []
        with self._events(query_bundle, nodes) as reranked:
            ranking = await self._reranker.arerank(query_bundle.query_str, texts, **options)
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
            "instruction": self.instruction,
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
        """A copy of the node that remembers its first score, out of sight of prompts."""
        node = found.node
        # A reranker before this one may have kept it already.
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
        """Tell LlamaIndex's instrumentation and callbacks of start and end, also after an error.

        Yields the list to fill with the nodes to be returned.
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
            with self.callback_manager.event(CBEventType.RERANKING, payload=payload) as event:
                yield reranked
                event.on_end(payload={EventPayload.NODES: reranked})
        finally:
            _dispatcher.event(ReRankEndEvent(nodes=reranked))
