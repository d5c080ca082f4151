"""`Qwen3TwoStageRetriever`: retrieves many candidates and returns the best after reranking."""

import copy
import logging
from collections.abc import Iterable
from typing import Any, Final, Self, TypedDict, Unpack

from llama_index.core import Settings, VectorStoreIndex
from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.callbacks import CallbackManager
from llama_index.core.indices.vector_store.retrievers import VectorIndexRetriever
from llama_index.core.postprocessor.types import BaseNodePostprocessor
from llama_index.core.schema import MetadataMode, NodeWithScore, QueryBundle
from llama_index.core.tools import RetrieverTool, ToolMetadata, ToolOutput
from llama_index.core.vector_stores.types import (
    BasePydanticVectorStore,
    FilterCondition,
    MetadataFilters,
    VectorStoreQueryMode,
)

from llama_index_qwen3.embedding import Qwen3Embedding
from llama_index_qwen3.milvus import check_index
from llama_index_qwen3.rerank import Qwen3Rerank
from qwen3_core.common.hints import misplaced, suggestion
from qwen3_core.common.validation import check_query, check_texts, check_top_n, got, is_count
from qwen3_core.engine import shutdown as leaving
from qwen3_core.rag import nothing_found

logger = logging.getLogger(__name__)

DEFAULT_TOP_K: Final = 10
"""Default number of candidates from an index, or `top_n` if that is more."""

DEFAULT_TOP_N: Final = 3
"""Default number of nodes to return."""


class Search(TypedDict, total=False):
    """Further arguments of an index's `as_retriever`."""

    vector_store_query_mode: VectorStoreQueryMode | str
    """"default", "hybrid", "mmr", ..."""
    node_ids: list[str] | None
    """Search only these nodes."""
    doc_ids: list[str] | None
    """Search only the nodes of these documents."""
    alpha: float | None
    """Weight of the vector search in a hybrid search, for stores that support it."""
    sparse_top_k: int | None
    """Candidates of the full-text part of a hybrid search, for stores that support it."""
    hybrid_top_k: int | None
    """Candidates of a hybrid search, for stores that support it."""
    vector_store_kwargs: dict[str, Any]
    """Arguments of the store's own search, such as `{"string_expr": "year > 2020"}` for Milvus."""


NARROWING: Final = ("filters", "node_ids", "doc_ids", "vector_store_kwargs")
"""Arguments that may exclude all nodes."""

OWN: Final = ("embed_model", "reranker", "top_k", "similarity_top_k", "top_n", "filters")
"""Arguments of `Qwen3TwoStageRetriever` in addition to those of `Search`."""

UNREAD: Final = {
    "MilvusVectorStore": dict.fromkeys(
        ("alpha", "sparse_top_k", "hybrid_top_k"),
        "set hybrid_ranker and hybrid_ranker_params of the store",
    ),
    "SimpleVectorStore": {
        **dict.fromkeys(("alpha", "sparse_top_k", "hybrid_top_k"), "it has no hybrid search"),
        "doc_ids": "give node_ids or filters",
    },
}
"""By store class: arguments that it would silently ignore, and the alternative."""

COMPONENTS: Final[dict[str, tuple[Any, str, dict[Any, str]]]] = {
    "embed_model": (
        BaseEmbedding,
        "an embedding model of LlamaIndex, such as Qwen3Embedding",
        {
            str: "write Qwen3Embedding(model=...)",
            BaseNodePostprocessor: "it reranks: pass it as reranker=",
        },
    ),
    "reranker": (
        BaseNodePostprocessor,
        "a Qwen3Rerank or another node postprocessor of LlamaIndex",
        {
            str: "write Qwen3Rerank(model=...)",
            BaseEmbedding: "it embeds: pass it as embed_model=",
            list: "give one",
        },
    ),
    "filters": (
        MetadataFilters,
        "MetadataFilters",
        {
            str: "a Milvus expression goes to vector_store_kwargs={'string_expr': ...}",
            dict: "write MetadataFilters(filters=[MetadataFilter(key=..., value=...)])",
        },
    ),
}
"""The accepted classes of each argument, and hints for common mistakes: see `misplaced`."""


class Qwen3TwoStageRetriever(BaseRetriever):
    """Retrieves `top_k` candidates, reranks them and returns the best `top_n`.

    Use it like any retriever: in query and chat engines, fusion, agents. Blank queries are refused.
    An empty first stage is logged once.

    Example:
        ```python
        retriever = Qwen3TwoStageRetriever(index, reranker=Qwen3Rerank(), top_k=50, top_n=3)
        nodes = retriever.retrieve("How is data stored in Milvus?")
        chat = CondensePlusContextChatEngine.from_defaults(retriever, llm=llm)
        ```
    """

    def __init__(
        self,
        source: VectorStoreIndex | BasePydanticVectorStore | BaseRetriever,
        *,
        embed_model: BaseEmbedding | None = None,
        reranker: BaseNodePostprocessor | None = None,
        top_k: int | None = None,
        similarity_top_k: int | None = None,
        top_n: int | None = None,
        filters: MetadataFilters | None = None,
        callback_manager: CallbackManager | None = None,
        **search: Unpack[Search],
    ) -> None:
        """Check the arguments; loads no model.

        Args:
            source: The first stage: an index, a filled vector store such as `MilvusVectorStore`, or
                any retriever, such as a `QueryFusionRetriever`, with its own filters.
            embed_model: For a vector store: the model of its vectors, by default
                `Settings.embed_model`, or `Qwen3Embedding()` if that is not set. An index has its
                own.
            reranker: A `Qwen3Rerank`, by default `Qwen3Rerank()`, or any other node postprocessor.
            top_k: Candidates, at least 1; by default 10 from an index (more if `top_n` is more),
                all that a retriever returns. `milvus_kwargs(k=...)` must allow as many.
            similarity_top_k: LlamaIndex's name for `top_k`.
            top_n: Nodes to return, at least 1; by default the reranker's own `top_n`, else 3.
            filters: Restrict the search to matching nodes.
            callback_manager: For retrieval and reranking; by default the first stage's.
            **search: Further arguments of the index's `as_retriever`: see `Search`.

        Raises:
            TypeError: If a component is in another component's argument, or an argument is unknown
                or given twice.
            ValueError: If a number is out of range, the reranker keeps fewer nodes than `top_n`, or
                an argument would be ignored by the first stage.
        """
        check_components(embed_model=embed_model, reranker=reranker, filters=filters)
        _check_names(search)
        if top_k is not None and similarity_top_k is not None:
            msg = "top_k and similarity_top_k are two names of one argument: give one of them"
            raise TypeError(msg)
        for name, count in (("top_k", top_k), ("similarity_top_k", similarity_top_k)):
            if count is not None and not is_count(count):
                msg = f"{name} must be at least 1, but {got(count)}"
                raise ValueError(msg)
        top_k = top_k or similarity_top_k
        given = reranker or Qwen3Rerank()
        self._top_n = _top_n(check_top_n(top_n), given)
        self._filters = filters
        self._search = search
        self._told: set[str] = set()
        self._is_checked = False
        if isinstance(source, BaseRetriever):
            names = [*search, *(["filters"] if filters else [])]
            _refuse_for_retriever(source, embed_model, names)
            self._index = None
            self._top_k = top_k
            self._first_stage = source
        else:
            self._index = _as_index(source, embed_model)
            self._top_k = top_k or max(DEFAULT_TOP_K, self._top_n)
            self._first_stage = self._search_of(self._index, filters, search)
        super().__init__(callback_manager or self._first_stage.callback_manager)
        # A copy, because its callback manager is replaced; the model is shared.
        update: dict[str, Any] = {"callback_manager": self.callback_manager}
        if isinstance(given, Qwen3Rerank):
            update["top_n"] = self._top_n
        self._reranker = given.model_copy(update=update)

    @property
    def first_stage(self) -> BaseRetriever:
        """The retriever of the candidates."""
        return self._first_stage

    @property
    def reranker(self) -> BaseNodePostprocessor:
        """The second stage, which ranks the candidates."""
        return self._reranker

    def with_filters(
        self, filters: MetadataFilters | None = None, *, string_expr: str | None = None
    ) -> Self:
        """A copy of the retriever with further filters, for one query, customer or request.

        Creating it is cheap: it shares all models and connections. Existing filters still apply:
        nodes must match both.

        Args:
            filters: Restrict the search to matching nodes.
            string_expr: An expression of Milvus, for a Milvus store.

        Raises:
            TypeError: If an argument has the wrong type, or the first stage is a retriever.
            ValueError: If no filter is given, or the store would ignore `string_expr`.
        """
        check_components(filters=filters)
        if string_expr is not None and not isinstance(string_expr, str):
            msg = f"string_expr must be a string, got {type(string_expr).__name__}"
            raise TypeError(msg)
        if not (filters and filters.filters) and not (string_expr and string_expr.strip()):
            msg = "with_filters would narrow nothing: give filters= or string_expr= that hold some"
            raise ValueError(msg)
        if self._index is None:
            kind = type(self._first_stage).__name__
            msg = f"the first stage is a {kind}: set filters on it, or on its members"
            raise TypeError(msg)
        filters = _both(self._filters, filters)
        search = self._search
        if string_expr:
            options = dict(search.get("vector_store_kwargs") or {})
            own = options.get("string_expr")
            options["string_expr"] = f"({own}) and ({string_expr})" if own else string_expr
            search = {**search, "vector_store_kwargs": options}
        stage = self._search_of(self._index, filters, search)
        narrowed = copy.copy(self)
        vars(narrowed).update(_filters=filters, _search=search, _first_stage=stage)
        return narrowed

    def as_tool(self, name: str, description: str) -> RetrieverTool:
        """A tool for an agent's LLM, which reads the nodes' texts as the tool's output.

        The query is the LLM's question, unchanged; LlamaIndex's own `RetrieverTool` prepends "input
        is ". The output's `raw_output` has the nodes with their scores.

        Args:
            name: The tool's name.
            description: Tells the LLM what the tool finds, and when to call it.
        """
        return _SearchTool(self, ToolMetadata(name=name, description=description))

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        check_query(query_bundle.query_str)
        self._check_model()
        with leaving.search():
            found = self._first_stage.retrieve(query_bundle)[: self._top_k]
        self._tell_if_nothing(found)
        best = self._reranker.postprocess_nodes(found, query_bundle=query_bundle)
        return best[: self._top_n]

    async def _aretrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        check_query(query_bundle.query_str)
        self._check_model()
        with leaving.search():
            found = (await self._first_stage.aretrieve(query_bundle))[: self._top_k]
        self._tell_if_nothing(found)
        best = await self._reranker.apostprocess_nodes(found, query_bundle=query_bundle)
        return best[: self._top_n]

    def _check_model(self) -> None:
        """At first use, check that the index's model made a Milvus collection's vectors."""
        if self._index is not None and not self._is_checked:
            check_index(self._index)
            self._is_checked = True

    def _search_of(
        self, index: VectorStoreIndex, filters: MetadataFilters | None, search: Search
    ) -> BaseRetriever:
        _check_store(index.vector_store, search)
        _check_ids(search)
        filters, search = _written(index.vector_store, filters, search)
        stage = index.as_retriever(
            similarity_top_k=self._top_k,
            filters=filters,
            **{name: value for name, value in search.items() if name != "node_ids"},
        )
        if isinstance(stage, VectorIndexRetriever) and search.get("node_ids"):
            stage._node_ids = search["node_ids"]  # noqa: SLF001 - as_retriever passes its own
        return stage

    def _tell_if_nothing(self, found: list[NodeWithScore]) -> None:
        if found:
            return
        if self._index is None:
            said = nothing_found(self._first_stage, ["its own filter or threshold"])
        else:
            given = {"filters": self._filters, **self._search}
            narrowed_by = [name for name in NARROWING if given.get(name)]
            said = nothing_found(self._index.vector_store, narrowed_by)
        if said not in self._told:
            self._told.add(said)
            logger.warning(said)


class _SearchTool(RetrieverTool):
    """Searches with the LLM's question, unchanged."""

    def call(self, input: str) -> ToolOutput:  # noqa: A002 - LlamaIndex's name
        """The nodes' texts."""
        return self._output(input, self.retriever.retrieve(input))

    async def acall(self, input: str) -> ToolOutput:  # noqa: A002 - LlamaIndex's name
        """Like `call`, without blocking the event loop."""
        return self._output(input, await self.retriever.aretrieve(input))

    def _output(self, question: str, nodes: list[NodeWithScore]) -> ToolOutput:
        texts = [found.node.get_content(MetadataMode.LLM) for found in nodes]
        return ToolOutput(
            content="\n\n".join(texts) or "Nothing was found.",
            tool_name=self.metadata.get_name(),
            raw_input={"input": question},
            raw_output=nodes,
        )


def check_components(
    components: dict[str, tuple[Any, str, dict[Any, str]]] = COMPONENTS, /, **given: object
) -> None:
    """Refuse a component in another component's argument, and name the right argument.

    Args:
        components: The accepted classes of each argument.
        **given: The arguments; None is accepted.

    Raises:
        TypeError: If one of them has the wrong type.
    """
    for name, value in given.items():
        if value is not None and (msg := misplaced(name, value, *components[name])):
            raise TypeError(msg)


def _check_names(given: Iterable[str]) -> None:
    """Refuse arguments that `as_retriever` would ignore.

    Raises:
        TypeError: If an argument is unknown.
    """
    known = (*OWN, *Search.__annotations__)
    if hint := suggestion(given, known):
        raise TypeError(hint)
    for name in given:
        if name not in known:
            msg = f"unknown argument {name!r}: known are {', '.join(sorted(known))}"
            raise TypeError(msg)


def _check_ids(search: Search) -> None:
    """Check the ids that narrow a search.

    Raises:
        TypeError: If they are not a list of strings.
        ValueError: If a list is empty; many stores would search everything.
    """
    for name in ("node_ids", "doc_ids"):
        ids: Any = search.get(name)
        if ids is None:
            continue
        check_texts(ids, name)
        if not ids:
            msg = f"{name}=[] would search nothing: leave it out to search all"
            raise ValueError(msg)


def _check_store(store: BasePydanticVectorStore, search: Search) -> None:
    """Refuse arguments that a store is known to ignore.

    Raises:
        ValueError: If an argument would have no effect.
    """
    kinds = {kind.__name__ for kind in type(store).__mro__}
    for kind, unread in UNREAD.items():
        for name, hint in unread.items():
            if kind in kinds and search.get(name) is not None:
                msg = f"a {kind} would ignore {name}=: {hint}"
                raise ValueError(msg)
    if "SimpleVectorStore" in kinds:
        for name in set(search.get("vector_store_kwargs") or ()) - {"mmr_threshold"}:
            hint = "give filters=" if "expr" in name else "leave it out"
            msg = f"a SimpleVectorStore would ignore vector_store_kwargs={{{name!r}: ...}}: {hint}"
            raise ValueError(msg)


def _written(
    store: BasePydanticVectorStore, filters: MetadataFilters | None, search: Search
) -> tuple[MetadataFilters | None, Search]:
    """Filters and search arguments in a form that the store honours.

    LlamaIndex's own Milvus store, if not created by `open_milvus` or `milvus_kwargs`, changes the
    meaning of some filters. It gets an expression instead.

    Raises:
        ValueError: If the store would ignore one of them in combination with another.
    """
    kinds = {kind.__name__ for kind in type(store).__mro__}
    if "MilvusVectorStore" not in kinds or "Qwen3MilvusVectorStore" in kinds:
        return filters, search
    from llama_index_qwen3.store import expression

    given: Any = store
    options = dict(search.get("vector_store_kwargs") or {})
    parts = [
        options.get("string_expr"),
        expression(filters, columns=given.scalar_field_names or (), lite="://" not in given.uri),
    ]
    parts = [part for part in parts if part]
    others = [name for name in ("doc_ids", "node_ids") if search.get(name)]
    others += ["milvus_scalar_filters"] * ("milvus_scalar_filters" in options)
    if parts and others:
        msg = (
            f"a MilvusVectorStore would ignore filters and string_expr beside {others[0]}: give "
            "one of them, or make the store with open_milvus, which honours both"
        )
        raise ValueError(msg)
    if parts:
        options["string_expr"] = " and ".join(f"({part})" for part in parts)
    return None, {**search, "vector_store_kwargs": options}


def _refuse_for_retriever(
    retriever: BaseRetriever, embed_model: BaseEmbedding | None, names: list[str]
) -> None:
    """Refuse arguments that do not reach a first stage that is a retriever."""
    stage = type(retriever).__name__
    if embed_model is not None:
        msg = f"a {stage} brings its own embed_model: give one only together with a vector store"
        raise ValueError(msg)
    if names:
        msg = (
            f"a {stage} as first stage is not told {', '.join(names)}: set it where the retriever "
            "is made"
        )
        raise ValueError(msg)


def _top_n(given: int | None, reranker: BaseNodePostprocessor) -> int:
    """The number of nodes to return."""
    own = getattr(reranker, "top_n", None)
    own = own if isinstance(own, int) else None
    if given and own and own < given and not isinstance(reranker, Qwen3Rerank):
        msg = (
            f"the {type(reranker).__name__} keeps top_n={own} nodes, fewer than top_n={given}: "
            "set top_n on it"
        )
        raise ValueError(msg)
    return given or own or DEFAULT_TOP_N


def _both(own: MetadataFilters | None, more: MetadataFilters | None) -> MetadataFilters | None:
    """The conjunction of both filters."""
    given = [filters for filters in (own, more) if filters is not None and filters.filters]
    if len(given) < 2:
        return given[0] if given else None
    # Flat where possible: LlamaIndex's own store does not support nested filters.
    if all(filters.condition == FilterCondition.AND for filters in given):
        return MetadataFilters(filters=[part for filters in given for part in filters.filters])
    return MetadataFilters(filters=list(given))


def _as_index(source: object, embed_model: BaseEmbedding | None) -> VectorStoreIndex:
    if isinstance(source, VectorStoreIndex):
        if embed_model is not None:
            msg = "an index brings its own embed_model: give one only together with a vector store"
            raise ValueError(msg)
        return source
    if isinstance(source, BasePydanticVectorStore):
        # The public property would create an OpenAI model if none was set.
        default: BaseEmbedding | None = Settings._embed_model  # noqa: SLF001
        return VectorStoreIndex.from_vector_store(
            source, embed_model=embed_model or default or Qwen3Embedding()
        )
    store = "write open_milvus(embed_model, uri=...)"
    kinds = (VectorStoreIndex, BasePydanticVectorStore, BaseRetriever)
    wanted = "a VectorStoreIndex, a vector store or a retriever of LlamaIndex"
    raise TypeError(misplaced("source", source, kinds, wanted, {str: store, dict: store}))
