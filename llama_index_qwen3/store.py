"""LlamaIndex's Milvus store with correct filters and ids, and support for any event loop."""

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar, Final, Self

from llama_index.core.schema import BaseNode, MetadataMode
from llama_index.core.vector_stores.types import (
    FilterCondition,
    MetadataFilters,
    VectorStoreQuery,
    VectorStoreQueryResult,
)
from llama_index.vector_stores.milvus import MilvusVectorStore
from llama_index.vector_stores.milvus.base import MILVUS_ID_FIELD
from llama_index.vector_stores.milvus.utils import parse_scalar_filters
from pydantic import PrivateAttr
from pymilvus import AsyncMilvusClient

from qwen3_core.metadata import with_metadata
from qwen3_core.milvus.analyzers import splits_at_spaces, warn_of_unspaced
from qwen3_core.milvus.collection import check_metadata, check_stored_texts
from qwen3_core.milvus.connection import HoldsConnection
from qwen3_core.milvus.filters import check_expression, check_partitions, compare, literal
from qwen3_core.milvus.loops import LoopClients
from qwen3_core.milvus.plan import Plan, Planned

QUERY_OPTIONS: Final = (
    "milvus_partition_names",
    "milvus_scalar_filters",
    "milvus_search_config",
    "mmr_prefetch_factor",
    "mmr_prefetch_k",
    "mmr_threshold",
    "string_expr",
)
"""The store's `vector_store_kwargs`."""

ADD_OPTIONS: Final = ("force_flush", "milvus_partition_name")
"""Further arguments of the store's additions."""

DELETE_OPTIONS: Final = ("milvus_partition_name", "timeout")
"""Further arguments of the store's deletions."""

GET_OPTIONS: Final = ("consistency_level", "limit", "milvus_partition_names", "offset", "timeout")
"""Further arguments of `get_nodes`."""

MAX_ID_BYTES: Final = 65_535

DOCUMENT_FIELDS: Final = ("doc_id", "document_id", "ref_doc_id")
"""Fields in which LlamaIndex writes the document's id, next to the metadata."""


def _check_embedded(node: BaseNode, text: str, keys: tuple[str, ...]) -> None:
    """Check that a node embeds exactly these metadata before its text.

    Raises:
        ValueError: If it embeds others, or in another order or format.
    """
    embedded = node.get_content(metadata_mode=MetadataMode.EMBED)
    if embedded.strip() != with_metadata(text, node.metadata, keys).strip():
        msg = (
            f"node {node.node_id!r} embeds {embedded!r:.120}, but the store's metadata_keys are "
            f"{list(keys)}: list all other keys in its excluded_embed_metadata_keys and leave its "
            "templates as they are, or open the store without metadata_keys"
        )
        raise ValueError(msg)


def expression(
    filters: MetadataFilters | None, *, columns: Collection[str] = (), lite: bool = False
) -> str:
    """Write LlamaIndex's filters as a Milvus expression; "" for none.

    `FilterCondition.NOT` matches if none of its filters matches, as in LlamaIndex's own store.
    Conditions may be nested. Keys and values are quoted and escaped.

    Args:
        filters: The filters.
        columns: Fields of the collection's schema, which every row has.
        lite: Whether it is for Milvus Lite, which supports less.

    Raises:
        TypeError: If a value does not fit its operator.
        ValueError: If an operator is not supported for its key or by this Milvus.
    """
    if filters is None:
        return ""

    def write(node: Any, *, negate: bool) -> str:
        if not isinstance(node, MetadataFilters):
            return compare(
                node.key,
                node.operator.value,
                node.value,
                negate=negate,
                columns=columns,
                lite=lite,
            )
        is_not = node.condition == FilterCondition.NOT
        is_any = is_not or node.condition == FilterCondition.OR
        negates = negate != is_not
        parts = [part for f in node.filters if (part := write(f, negate=negates))]
        joined = (" or " if is_any != negates else " and ").join(parts)
        return f"({joined})" if len(parts) > 1 else joined

    return write(filters, negate=False)


class Qwen3MilvusVectorStore(HoldsConnection, MilvusVectorStore):
    """Milvus store created by `open_milvus` or `MilvusVectorStore(**milvus_kwargs(...))`.

    It differs from its base class as follows:

    - `MetadataFilters` are applied correctly: `FilterCondition.NOT`, nested conditions, keys such
      as `doc-type`, values and ids with quotes and backslashes. `filters`, `doc_ids`, `node_ids`
      and `string_expr` apply together. An unknown entry of `vector_store_kwargs` is refused.
    - A node is refused if its metadata has a key that is a field of the collection, because a
      filter would then read the field; if Milvus cannot store its text; if its vector has another
      length; or if it embeds other metadata than the store's `metadata_keys`. A query vector of
      another length is refused too.
    - Searches do not modify `search_config`, so that all modes work in any order.
    - Its asynchronous methods work in any event loop, and in several one after another.
    """

    _EMBEDDINGS: ClassVar[str] = "embed_model"
    _MADE_WITH_IT: ClassVar[str] = "index, retriever or engine"

    _plan: Plan | None = PrivateAttr(default=None)
    _loop_clients: LoopClients = PrivateAttr()
    _warned_of_unspaced: bool = PrivateAttr(default=False)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        planned = kwargs.get("index_config")
        super().__init__(*args, **kwargs)
        self._plan = planned.plan if isinstance(planned, Planned) else None
        own = set(MilvusVectorStore.model_fields) - {"uri", "token"}
        connection = {key: value for key, value in kwargs.items() if key not in own}
        connection.pop("alias", None)
        self._loop_clients = LoopClients(lambda: AsyncMilvusClient(**connection))

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """Return the store itself, as `__copy__` does; it cannot be changed.

        Raises:
            TypeError: If there is an update.
        """
        del deep
        if update:
            msg = (
                f"a {type(self).__name__} shares its connection with its copies, so a copy with "
                f"another {', '.join(update)} would change the store itself: make another store "
                "with open_milvus(embed_model, uri=..., collection_name=...)"
            )
            raise TypeError(msg)
        return self

    @property
    def plan(self) -> Plan | None:
        """The plan of `milvus_kwargs`; None if the store was created without it."""
        return self._plan

    @property
    def aclient(self) -> AsyncMilvusClient | None:
        """The asynchronous client of the running event loop; None without `use_async_client`."""
        return self._loop_clients.get() if self.use_async_client else None

    # Adding

    def add(self, nodes: Sequence[BaseNode], **add_kwargs: Any) -> list[str]:
        """Add nodes with their vectors; existing nodes with the same id are replaced.

        Raises:
            TypeError: If an argument is unknown.
            ValueError: If a node's text, vector or metadata cannot be stored unchanged.
            pymilvus.exceptions.MilvusException: If Milvus fails.
        """
        _check_options("add takes nodes", add_kwargs, ADD_OPTIONS)
        self._check_nodes(nodes)
        return super().add(list(nodes), **add_kwargs)

    async def async_add(self, nodes: Sequence[BaseNode], **add_kwargs: Any) -> list[str]:
        """Like `add`, without blocking the event loop."""
        _check_options("async_add takes nodes", add_kwargs, ADD_OPTIONS)
        self._check_nodes(nodes)
        return await super().async_add(list(nodes), **add_kwargs)

    def _check_nodes(self, nodes: Sequence[BaseNode]) -> None:
        texts = [node.get_content(metadata_mode=MetadataMode.NONE) for node in nodes]
        check_stored_texts(texts)
        self._warn_of_unspaced(texts)
        keys = self._plan.metadata_keys if self._plan is not None else None
        seen: dict[str, BaseNode] = {}
        for node, text in zip(nodes, texts, strict=True):
            if seen.setdefault(node.node_id, node).hash != node.hash:
                msg = (
                    f"two nodes of different content have the id {node.node_id!r:.200}: give each "
                    "an id of its own"
                )
                raise ValueError(msg)
            for what, id_ in (("id", node.node_id), ("ref_doc_id", node.ref_doc_id or "")):
                if len(id_.encode()) > MAX_ID_BYTES:
                    msg = (
                        f"the {what} {id_[:40]!r}... has {len(id_.encode()):,} bytes: an id has at "
                        f"most {MAX_ID_BYTES:,}"
                    )
                    raise ValueError(msg)
            if keys is not None:
                _check_embedded(node, text, keys)
            self._check_length(node.embedding, f"node {node.node_id!r}")
            check_metadata(node.metadata, f"node {node.node_id!r}")
            own = dict.fromkeys(DOCUMENT_FIELDS, node.ref_doc_id)
            own |= {self.text_key: text, MILVUS_ID_FIELD: node.node_id}
            taken = {*own, *self._columns(), "$meta", "_node_content", "_node_type"}
            for key in taken & node.metadata.keys():
                if node.metadata[key] != own.get(key, object()):
                    msg = (
                        f"metadata key {key!r} of node {node.node_id!r} is a field of the Milvus "
                        "collection itself, so that a filter would not find it: rename the key"
                    )
                    raise ValueError(msg)

    def _check_length(self, vector: Sequence[float] | None, what: str) -> None:
        if self.enable_dense and self.dim and vector is not None and len(vector) != self.dim:
            msg = (
                f"the vector of {what} has {len(vector)} dimensions, but collection "
                f"{self.collection_name!r} holds vectors of {self.dim}: use the embed_model that "
                "the store was opened with"
            )
            raise ValueError(msg)

    def _warn_of_unspaced(self, texts: Iterable[str]) -> None:
        plan = self._plan
        if plan is None or not plan.hybrid or self._warned_of_unspaced:
            return
        if splits_at_spaces(plan.analyzer):
            self._warned_of_unspaced = warn_of_unspaced(texts, plan.collection_name, lite=plan.lite)

    # Searching

    def query(self, query: VectorStoreQuery, **kwargs: Any) -> VectorStoreQueryResult:
        """Search.

        Args:
            query: The query.
            **kwargs: Those of `QUERY_OPTIONS`.

        Raises:
            TypeError: If an argument is unknown, or a filter's value does not fit its operator.
            ValueError: If a filter is not supported, or the query's vector has another length.
            pymilvus.exceptions.MilvusException: If Milvus fails.
        """
        query, kwargs = self._written(query, kwargs)
        return super().query(query, **kwargs)

    async def aquery(self, query: VectorStoreQuery, **kwargs: Any) -> VectorStoreQueryResult:
        """Like `query`, without blocking the event loop."""
        query, kwargs = self._written(query, kwargs)
        return await super().aquery(query, **kwargs)

    def _written(
        self, query: VectorStoreQuery, kwargs: dict[str, Any]
    ) -> tuple[VectorStoreQuery, dict[str, Any]]:
        """The query, and options with all its filters in one expression."""
        for name in kwargs:
            if name not in QUERY_OPTIONS:
                hint = ": a Milvus expression is string_expr" if "expr" in name else ""
                msg = (
                    f"a Milvus search has no argument {name!r}{hint} (vector_store_kwargs takes "
                    f"{', '.join(QUERY_OPTIONS)})"
                )
                raise TypeError(msg)
        names = "milvus_partition_names"
        check_partitions(names, kwargs.get(names))
        self._check_length(query.query_embedding, "the query")
        if query.query_str:
            self._warn_of_unspaced([query.query_str])
        string_expr = kwargs.get("string_expr") or ""
        check_expression(string_expr)
        parts = [
            self._expression(query.filters, query.node_ids),
            # An empty list of documents finds nothing; one of nodes is LlamaIndex's "all".
            "" if query.doc_ids is None else f"{self.doc_id_field} in {literal(query.doc_ids)}",
            f"({string_expr})" if string_expr else "",
            parse_scalar_filters(kwargs["milvus_scalar_filters"])[1]
            if kwargs.get("milvus_scalar_filters")
            else "",
        ]
        kept = [f"({part})" if " or " in part else part for part in parts if part]
        options = {k: v for k, v in kwargs.items() if k != "milvus_scalar_filters"}
        # A copy, because pymilvus 2.6 modifies its argument.
        config = json.loads(json.dumps(kwargs.get("milvus_search_config", self.search_config)))
        options |= {"string_expr": " and ".join(kept), "milvus_search_config": config}
        return replace(query, filters=None, doc_ids=None, node_ids=None), options

    def _sparse_search(
        self, query: VectorStoreQuery, string_expr: str, output_fields: list[str], **kwargs: Any
    ) -> Any:
        found = self.client.search(**self._words(query, string_expr, output_fields, kwargs))
        return self._parse_from_milvus_results(found)

    async def _async_sparse_search(
        self, query: VectorStoreQuery, string_expr: str, output_fields: list[str], **kwargs: Any
    ) -> Any:
        arguments = self._words(query, string_expr, output_fields, kwargs)
        return self._parse_from_milvus_results(await self._async().search(**arguments))

    def _words(
        self,
        query: VectorStoreQuery,
        wanted: str,
        output_fields: list[str],
        options: dict[str, Any],
    ) -> dict[str, Any]:
        """Arguments of a full-text search; the base class drops some words, which Lite refuses."""
        return {
            "collection_name": self.collection_name,
            "data": [query.query_str],
            "anns_field": self.sparse_embedding_field,
            "search_params": {"metric_type": "BM25", "params": {}},
            "limit": query.similarity_top_k,
            "filter": wanted,
            "output_fields": output_fields,
            "partition_names": options.get("milvus_partition_names"),
        }

    # By id or filter

    def delete(self, ref_doc_id: str, **delete_kwargs: Any) -> None:
        """Delete the nodes of a document, or of a list of documents."""
        self.client.delete(self.collection_name, **self._of_document(ref_doc_id, delete_kwargs))

    async def adelete(self, ref_doc_id: str, **delete_kwargs: Any) -> None:
        """Like `delete`, without blocking the event loop."""
        arguments = self._of_document(ref_doc_id, delete_kwargs)
        await self._async().delete(self.collection_name, **arguments)

    def delete_nodes(
        self,
        node_ids: list[str] | None = None,
        filters: MetadataFilters | None = None,
        **delete_kwargs: Any,
    ) -> None:
        """Delete nodes by id, by filters, or by both together.

        Raises:
            ValueError: If neither is given.
        """
        wanted = self._to_delete(self._expression_given(node_ids, filters), delete_kwargs)
        self.client.delete(self.collection_name, **wanted)

    async def adelete_nodes(
        self,
        node_ids: list[str] | None = None,
        filters: MetadataFilters | None = None,
        **delete_kwargs: Any,
    ) -> None:
        """Like `delete_nodes`, without blocking the event loop."""
        wanted = self._to_delete(self._expression_given(node_ids, filters), delete_kwargs)
        await self._async().delete(self.collection_name, **wanted)

    def get_nodes(
        self,
        node_ids: list[str] | None = None,
        filters: MetadataFilters | None = None,
        **kwargs: Any,
    ) -> list[BaseNode]:
        """Get nodes by id, by filters, or by both together.

        Raises:
            ValueError: If neither is given.
        """
        rows = self.client.query(
            self.collection_name, **self._to_get(self._expression_given(node_ids, filters), kwargs)
        )
        return self._nodes(rows)

    async def aget_nodes(
        self,
        node_ids: list[str] | None = None,
        filters: MetadataFilters | None = None,
        **kwargs: Any,
    ) -> list[BaseNode]:
        """Like `get_nodes`, without blocking the event loop."""
        rows = await self._async().query(
            self.collection_name, **self._to_get(self._expression_given(node_ids, filters), kwargs)
        )
        return self._nodes(rows)

    def _async(self) -> AsyncMilvusClient:
        client = self.aclient
        if client is None:
            msg = "the store was made with use_async_client=False: leave it out for async calls"
            raise ValueError(msg)
        return client

    def _columns(self) -> set[str]:
        scalars = self.scalar_field_names or []
        names = (MILVUS_ID_FIELD, self.doc_id_field, self.text_key, self.embedding_field)
        sparse = (self.sparse_embedding_field,) if self.enable_sparse else ()
        return {*names, *sparse, *scalars}

    def _expression(
        self, filters: MetadataFilters | None, node_ids: Sequence[str] | None = None
    ) -> str:
        lite = self._plan is not None and self._plan.lite
        parts = [expression(filters, columns=self._columns(), lite=lite)]
        if node_ids:
            parts.append(f"{MILVUS_ID_FIELD} in {literal(list(node_ids))}")
        return " and ".join(part for part in parts if part)

    def _expression_given(
        self, node_ids: Sequence[str] | None, filters: MetadataFilters | None
    ) -> str:
        if node_ids is None and not (filters and filters.filters):
            msg = "which nodes? Give node_ids= or filters="
            raise ValueError(msg)
        ids = None if node_ids is None else f"{MILVUS_ID_FIELD} in {literal(list(node_ids))}"
        return " and ".join(part for part in (self._expression(filters), ids) if part)

    def _of_document(self, ref_doc_id: str | list[str], options: dict[str, Any]) -> dict[str, Any]:
        ids = ref_doc_id if isinstance(ref_doc_id, list) else [ref_doc_id]
        return self._to_delete(f"{self.doc_id_field} in {literal(ids)}", options)

    @staticmethod
    def _to_delete(wanted: str, options: dict[str, Any]) -> dict[str, Any]:
        _check_options("a deletion takes node_ids= and filters=", options, DELETE_OPTIONS)
        partition = options.pop("milvus_partition_name", None)
        return {"filter": wanted, "partition_name": partition} | options

    @staticmethod
    def _to_get(wanted: str, options: dict[str, Any]) -> dict[str, Any]:
        _check_options("get_nodes takes node_ids= and filters=", options, GET_OPTIONS)
        partitions = options.pop("milvus_partition_names", None)
        return {"filter": wanted, "output_fields": ["*"], "partition_names": partitions} | options

    def _nodes(self, rows: Iterable[dict[str, Any]]) -> list[BaseNode]:
        # In the form of search hits, which the base class converts to nodes.
        hits = [{"entity": row, "id": row[MILVUS_ID_FIELD], "distance": 0.0} for row in rows]
        nodes, _, _ = self._parse_from_milvus_results([hits])
        for node, hit in zip(nodes, hits, strict=True):
            node.embedding = hit["entity"].get(self.embedding_field)
        return list(nodes)


def _check_options(what: str, options: Iterable[str], known: Sequence[str]) -> None:
    """Refuse arguments that pymilvus would ignore.

    Raises:
        TypeError: If one is unknown.
    """
    for name in options:
        if name not in known:
            msg = f"{name}= would not reach Milvus: {what}, and {', '.join(known)}"
            raise TypeError(msg)


def _new(cls: type[MilvusVectorStore], *_: Any, **kwargs: Any) -> MilvusVectorStore:
    """Make `MilvusVectorStore(**milvus_kwargs(...))` ours; other stores are not affected."""
    is_ours = cls is MilvusVectorStore and isinstance(kwargs.get("index_config"), Planned)
    return object.__new__(Qwen3MilvusVectorStore if is_ours else cls)


MilvusVectorStore.__new__ = staticmethod(_new)  # type: ignore[assignment, method-assign]
