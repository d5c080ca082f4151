"""The keyword arguments with which LlamaIndex's Milvus store fits Qwen3 vectors."""

from pathlib import Path
from typing import Any, Final

from llama_index_qwen3.embedding import Qwen3Embedding
from qwen3_core.common.hints import misplaced, suggests
from qwen3_core.milvus.collection import (
    CONSISTENCY,
    TEXT_INDEX,
    check_collection,
    check_uri,
    collection_properties,
)
from qwen3_core.milvus.index import IndexType, Metric, choose_index, index_params, search_params

TEXT_FIELD: Final = "sparse_embedding"
"""The field for full-text search in a hybrid collection."""


@suggests
def milvus_kwargs(
    embed_model: Qwen3Embedding,
    *,
    uri: str | Path = "./milvus.db",
    token: str | None = None,
    collection_name: str = "qwen3",
    k: int = 100,
    metric: Metric = "IP",
    rows: int | None = None,
    index_type: IndexType | None = None,
    hybrid: bool = False,
    overwrite: bool = False,
    use_async_client: bool = True,
) -> dict[str, Any]:
    """Keyword arguments for `llama_index.vector_stores.milvus.MilvusVectorStore`.

    An index that suits the size, strong consistency, room for `k` hits. Adding a node whose id is
    there already replaces it (`upsert_mode`); `VectorStoreIndex.from_documents` gives nodes new ids
    each time, so open a filled collection with `VectorStoreIndex.from_vector_store`, and keep one
    up to date with an `IngestionPipeline` that has a docstore. A new collection keeps what its
    vectors were made with (model, revision, dimensions, max_length) among its properties, and an
    existing one is compared with it. Change or add what you like in the returned dictionary.

    Args:
        embed_model: The model whose vectors will be stored; loaded now unless it names its
            `dimensions`.
        uri: Path of a Milvus Lite file, which ends in ".db" and whose folder exists (`~` is the
            home folder); or "http://host:19530"; or the endpoint of a Zilliz Cloud cluster.
        token: "user:password" or an API key, where the server wants one.
        collection_name: The collection, created by the store if it does not exist.
        k: The largest `similarity_top_k` that will be asked for, from 1 to 16,384. A server refuses
            a search for more; it costs time, so do not set it higher than needed.
        metric: "IP" (inner product) or "COSINE"; equal for vectors of length 1.
        rows: About how many rows a new collection will hold, which chooses its index: FLAT up to
            10,000, HNSW up to 10 million, IVF_SQ8 beyond. None: HNSW.
        index_type: The index of a new collection, in place of that choice: "FLAT", "HNSW",
            "IVF_SQ8" or, on a server, "DISKANN". A collection that exists keeps its own.
        hybrid: Add full-text search (BM25; Milvus Lite, or a server from 2.5 on), fused with the
            vectors' by rank where `vector_store_query_mode="hybrid"` is asked for.
        overwrite: Let the store drop an existing collection of this name.
        use_async_client: Needed for `aquery` and other async calls. The store's async client
            belongs to the event loop of its first call: build one store per loop, or do not call
            `asyncio.run` twice. False leaves it away.

    Raises:
        TypeError: If `embed_model` is none of ours, `uri` neither a string nor a path, or an
            argument unknown.
        ValueError: If an argument is out of range, or the collection exists with another dimension
            or metric, or with vectors of another model or other settings.
        FileNotFoundError: If the folder of a Milvus Lite file does not exist.
        OSError: If the embedding model cannot be found or read.
        pymilvus.exceptions.MilvusException: If the server does not answer.

    Example:
        ```python
        from llama_index.vector_stores.milvus import MilvusVectorStore

        store = MilvusVectorStore(**milvus_kwargs(embed_model, uri="./milvus.db", k=50))
        ```
    """
    hints = {str: "write Qwen3Embedding(model=...)"}
    if msg := misplaced("embed_model", embed_model, Qwen3Embedding, "a Qwen3Embedding", hints):
        raise TypeError(msg)
    uri = check_uri(uri)
    index_type = choose_index(uri, index_type, rows)
    search = search_params(k, metric, index_type)
    fingerprint = embed_model.fingerprint
    dim = fingerprint.dimensions
    found = None
    if not overwrite:
        found = check_collection(
            uri,
            collection_name,
            dimensions=dim,
            metric=metric,
            vector_field="embedding",
            text_search_field=TEXT_FIELD if hybrid else None,
            fingerprint=fingerprint,
            token=token,
        )
    if found is not None and found.index_type:
        search = search_params(k, metric, found.index_type)
    index = index_params(metric, index_type, rows=rows, dimensions=dim)
    # The store wants these flat: it nests what is not a name of its own under "params" itself.
    index |= index.pop("params")
    kwargs = {
        "uri": uri,
        "token": token or "",
        "collection_name": collection_name,
        "dim": dim,
        "similarity_metric": metric,
        "index_config": index,
        "search_config": search["params"],
        "consistency_level": CONSISTENCY,
        # For a collection that exists, the store would unload it and overwrite its properties.
        "collection_properties": None if found is not None else collection_properties(fingerprint),
        "upsert_mode": True,
        "overwrite": overwrite,
        "use_async_client": use_async_client,
    }
    return kwargs | _hybrid() if hybrid else kwargs


def _hybrid() -> dict[str, Any]:
    """What differs with full-text search beside the vectors."""
    from llama_index.vector_stores.milvus.utils import BM25BuiltInFunction

    return {
        "enable_sparse": True,
        "sparse_embedding_field": TEXT_FIELD,
        "sparse_embedding_function": BM25BuiltInFunction(output_field_names=TEXT_FIELD),
        "sparse_index_config": TEXT_INDEX,
        "hybrid_ranker": "RRFRanker",
    }
