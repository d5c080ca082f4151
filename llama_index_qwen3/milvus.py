"""The keyword arguments with which LlamaIndex's Milvus store fits Qwen3 vectors."""

from os import PathLike
from typing import Any

from llama_index_qwen3.embedding import Qwen3Embedding
from qwen3_core.milvus import CONSISTENCY, Metric, check_collection, index_params, search_params


def milvus_kwargs(
    embed_model: Qwen3Embedding,
    *,
    uri: str | PathLike[str] = "./milvus.db",
    token: str | None = None,
    collection_name: str = "qwen3",
    k: int = 100,
    metric: Metric = "IP",
    overwrite: bool = False,
    use_async_client: bool = True,
) -> dict[str, Any]:
    """Keyword arguments for `llama_index.vector_stores.milvus.MilvusVectorStore`.

    HNSW index, strong consistency, `ef` large enough for `k`. Adding a node whose id is there
    already replaces it (`upsert_mode`). Change or add what you like in the returned dictionary.

    Args:
        embed_model: The model whose vectors will be stored; loaded now unless it names its
            `dimensions`.
        uri: Milvus Lite file ("./milvus.db"), server ("http://host:19530") or Zilliz Cloud
            endpoint.
        token: "user:password" or an API key, where the server wants one.
        collection_name: The collection, created by the store if it does not exist.
        k: The largest `similarity_top_k` that will be asked for, at least 1.
        metric: "IP" (inner product) or "COSINE"; equal for vectors of length 1.
        overwrite: Let the store drop an existing collection of this name.
        use_async_client: Needed for `aquery` and other async calls. The store's async client
            belongs to the event loop of its first call: build one store per loop, or do not call
            `asyncio.run` twice. False leaves it away.

    Raises:
        ValueError: If the collection exists with another dimension or metric, or `k` is below 1.

    Example:
        ```python
        from llama_index.vector_stores.milvus import MilvusVectorStore

        store = MilvusVectorStore(**milvus_kwargs(embed_model, uri="./milvus.db", k=50))
        ```
    """
    uri = str(uri)
    dim = embed_model.dim
    # The store wants these flat: it nests what is not a name of its own under "params" itself.
    index = index_params(metric)
    index |= index.pop("params")
    search = search_params(k, metric)["params"]
    if not overwrite:
        check_collection(
            uri,
            collection_name,
            dimensions=dim,
            metric=metric,
            vector_field="embedding",
            token=token,
        )
    return {
        "uri": uri,
        "token": token or "",
        "collection_name": collection_name,
        "dim": dim,
        "similarity_metric": metric,
        "index_config": index,
        "search_config": search,
        "consistency_level": CONSISTENCY,
        "upsert_mode": True,
        "overwrite": overwrite,
        "use_async_client": use_async_client,
    }
