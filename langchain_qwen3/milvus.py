"""`milvus_kwargs`: the right arguments for `langchain_milvus.Milvus` with Qwen3 vectors."""

import logging
from pathlib import Path
from typing import Any, Final

import numpy as np
from langchain_core.embeddings import Embeddings

from langchain_qwen3.embeddings import Qwen3Embeddings
from qwen3_core.common.extras import how_to_install
from qwen3_core.common.validation import misplaced, suggests
from qwen3_core.fingerprint import Fingerprint
from qwen3_core.milvus.collection import (
    CONSISTENCY,
    TEXT_INDEX,
    check_collection,
    check_uri,
    collection_properties,
)
from qwen3_core.milvus.index import IndexType, Metric, choose_index, index_params, search_params

logger = logging.getLogger(__name__)

PROBE: Final = "How long are the vectors?"
"""Embedded to learn what embeddings of another class return."""

SAME_COSINE: Final = 0.98
"""Vectors of one text by one model are at least this close, whatever dtype they were made in."""

TEXT_FIELD: Final = "sparse"
"""The field for full-text search in a hybrid collection."""


@suggests
def milvus_kwargs(
    embeddings: Embeddings,
    *,
    uri: str | Path = "./milvus.db",
    token: str | None = None,
    collection_name: str = "qwen3",
    k: int = 100,
    metric: Metric = "IP",
    rows: int | None = None,
    index_type: IndexType | None = None,
    hybrid: bool = False,
    auto_id: bool | None = None,
    drop_old: bool = False,
) -> dict[str, Any]:
    """Keyword arguments for the constructor of `langchain_milvus.Milvus`.

    They give an index on inner product that suits the size, searches that see all that was written
    before them, documents with differing metadata keys, and room for `k` candidates: the store's
    own defaults are L2, "Session", the keys of the first document for all, and 10. If the
    collection exists, its dimension, metric and kind of ids are checked before anything is written.
    A new collection keeps what its vectors were made with (model, revision, dimensions, max_length)
    among its properties, and an existing one is compared with it.

    A Milvus Lite file belongs to one process at a time. The store's asynchronous client belongs to
    the event loop in which it was first used: make a new store in each `asyncio.run`.

    Example:
        ```python
        store = Milvus(**milvus_kwargs(Qwen3Embeddings(), uri="./milvus.db"))
        store.add_documents(documents, ids=[f"doc-{i}" for i in range(len(documents))])
        ```

        Add arguments by name: `Milvus(**milvus_kwargs(embeddings), partition_key_field="tenant")`.

    Args:
        embeddings: Embeds documents and queries; its model is loaded to learn the vectors' length
            (not with `Qwen3Embeddings(dimensions=...)`, which says it). A wrapper around one, such
            as `CacheBackedEmbeddings`, counts as what it wraps if it returns the same vectors.
        uri: Path of a Milvus Lite file, which ends in ".db" and whose folder exists (`~` is the
            home folder); or "http://host:19530"; or the endpoint of a Zilliz Cloud cluster.
        token: "user:password" or an API key, where the server wants one.
        collection_name: Letters, digits and underscores.
        k: The largest number of candidates that a search will ask for, from 1 to 16,384. A server
            refuses a search for more; it costs time, so do not set it higher than needed.
        metric: "IP", which for these vectors is the cosine similarity, or "COSINE".
        rows: About how many rows a new collection will hold, which chooses its index: FLAT up to
            10,000, HNSW up to 10 million, IVF_SQ8 beyond. None: HNSW.
        index_type: The index of a new collection, in place of that choice: "FLAT", "HNSW",
            "IVF_SQ8" or, on a server, "DISKANN". A collection that exists keeps its own.
        hybrid: Add full-text search (BM25; Milvus Lite, or a server from 2.5 on). Each search then
            needs `ranker_type="rrf"` and `fetch_k=k`, since the store would take 4 of each kind:
            `Qwen3TwoStageRetriever(..., search_kwargs={"ranker_type": "rrf", "fetch_k": 100})`.
        auto_id: False: documents are added with the caller's own ids, which `ids=` must give
            (strings; `Document.id` is not used). If a document comes again under its id, use
            `store.upsert`, which needs an existing collection. True: Milvus numbers them, so that
            what is added twice is there twice. None: as an existing collection has it; for a new
            one the store decides by the first documents that are added, whether with ids or not.
            Never mix adds with and without ids on one store.
        drop_old: Let the store drop an existing collection of this name, which is then not checked.

    Raises:
        TypeError: If `embeddings` is something else, or an argument unknown.
        ValueError: If an argument is out of range, or the collection exists with another dimension,
            metric or kind of ids, or with vectors of another model or other settings; or a cache
            around the embeddings holds vectors of another model.
        ImportError: If pymilvus is not installed.
        FileNotFoundError: If the folder of a Milvus Lite file does not exist.
        OSError: If the embedding model cannot be found or read.
        pymilvus.exceptions.MilvusException: If the server does not answer.
    """
    wanted = "embeddings of LangChain, such as Qwen3Embeddings"
    hints = {str: "write Qwen3Embeddings(model=...)"}
    if msg := misplaced("embeddings", embeddings, Embeddings, wanted, hints):
        raise TypeError(msg)
    uri = check_uri(uri)
    index_type = choose_index(uri, index_type, rows)
    search = search_params(k, metric, index_type)
    fingerprint, dimensions = _made_with(embeddings, collection_name)
    found = None
    if not drop_old:
        try:
            found = check_collection(
                uri,
                collection_name,
                dimensions=dimensions,
                metric=metric,
                text_search_field=TEXT_FIELD if hybrid else None,
                auto_id=auto_id,
                fingerprint=fingerprint,
                token=token,
            )
        except ModuleNotFoundError as error:
            if error.name != "pymilvus":
                raise
            msg = f"pymilvus is not installed: {how_to_install('langchain')}"
            raise ImportError(msg) from error
    index = index_params(metric, index_type, rows=rows, dimensions=dimensions)
    if found is not None:
        auto_id = found.auto_id
        search = search_params(k, metric, found.index_type or index_type)
    # For a collection that exists, the store would overwrite its properties.
    properties = None
    if found is None and fingerprint is not None:
        properties = collection_properties(fingerprint)
    kwargs = {
        "embedding_function": embeddings,
        "connection_args": {"uri": uri, "token": token} if token else {"uri": uri},
        "collection_name": collection_name,
        "index_params": index,
        "search_params": search,
        "consistency_level": CONSISTENCY,
        "collection_properties": properties,
        "enable_dynamic_field": True,
        "auto_id": bool(auto_id),
        "drop_old": drop_old,
    }
    return kwargs | _hybrid(index, search) if hybrid else kwargs


def _made_with(embeddings: Embeddings, collection_name: str) -> tuple[Fingerprint | None, int]:
    """What vectors of documents are made with, as far as it can be known, and their length.

    A wrapper, such as a cache, has the fingerprint of the `Qwen3Embeddings` within it if it returns
    that one's vectors.
    """
    if isinstance(embeddings, Qwen3Embeddings):
        fingerprint = embeddings.embedder.fingerprint
        return fingerprint, fingerprint.dimensions
    (vector,) = embeddings.embed_documents([PROBE])
    name = type(embeddings).__name__
    within = _within(embeddings)
    if within is not None:
        (own,) = within.embed_documents([PROBE])
        least = SAME_COSINE * np.linalg.norm(vector)
        if len(own) == len(vector) and np.dot(own, vector) >= least:
            return within.embedder.fingerprint, len(vector)
        if hasattr(embeddings, "underlying_embeddings"):
            msg = (
                f"the cache of embeddings={name} holds other vectors than its "
                f"Qwen3Embeddings(model={str(within.model)!r}) makes: another model filled it. "
                "Give each model, dimensions and max_length a namespace of its own"
            )
            raise ValueError(msg)
    logger.warning(
        "%s does not tell what its vectors are made with, so collection %r is not compared with "
        "it; pass Qwen3Embeddings, or a wrapper that returns the vectors of one unchanged",
        name,
        collection_name,
    )
    return None, len(vector)


def _within(embeddings: Embeddings) -> Qwen3Embeddings | None:
    """The `Qwen3Embeddings` that a wrapper, or one within it, has as an attribute."""
    seen: list[Embeddings] = []
    while not isinstance(embeddings, Qwen3Embeddings):
        seen.append(embeddings)
        private = getattr(embeddings, "__pydantic_private__", None) or {}
        values = [*getattr(embeddings, "__dict__", {}).values(), *private.values()]
        inner = [value for value in values if isinstance(value, Embeddings)]
        if len(inner) != 1 or any(inner[0] is other for other in seen):
            return None
        embeddings = inner[0]
    return embeddings


def _hybrid(index: dict[str, Any], search: dict[str, Any]) -> dict[str, Any]:
    """What differs with full-text search beside the vectors."""
    from langchain_milvus import BM25BuiltInFunction

    return {
        "builtin_function": BM25BuiltInFunction(output_field_names=TEXT_FIELD),
        "vector_field": ["vector", TEXT_FIELD],
        # Given, because the store's own would drop a share of the terms, which Lite refuses.
        "index_params": [index, TEXT_INDEX | {"params": {}}],
        "search_params": [search, {"metric_type": "BM25", "params": {}}],
    }
