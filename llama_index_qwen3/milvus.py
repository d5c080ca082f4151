"""The keyword arguments with which LlamaIndex's Milvus store fits Qwen3 vectors."""

from pathlib import Path
from typing import Any, get_args

from llama_index_qwen3.embedding import Qwen3Embedding
from qwen3_core.milvus import CONSISTENCY, Metric, check_collection, index_params, search_params
from qwen3_core.validation import is_count

MAX_K = 16_384
"""Hits that a Milvus server returns at most (limits in its documentation)."""


def milvus_kwargs(
    embed_model: Qwen3Embedding,
    *,
    uri: str | Path = "./milvus.db",
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
        uri: Path of a Milvus Lite file, which ends in ".db" and whose folder exists (`~` is the
            home folder); or "http://host:19530"; or the endpoint of a Zilliz Cloud cluster.
        token: "user:password" or an API key, where the server wants one.
        collection_name: The collection, created by the store if it does not exist.
        k: The largest `similarity_top_k` that will be asked for, from 1 to 16,384. A server refuses
            a search for more; it costs time, so do not set it higher than needed.
        metric: "IP" (inner product) or "COSINE"; equal for vectors of length 1.
        overwrite: Let the store drop an existing collection of this name.
        use_async_client: Needed for `aquery` and other async calls. The store's async client
            belongs to the event loop of its first call: build one store per loop, or do not call
            `asyncio.run` twice. False leaves it away.

    Raises:
        TypeError: If `embed_model` is none of ours, or `uri` neither a string nor a path.
        ValueError: If an argument is out of range, or the collection exists with another dimension
            or metric.
        FileNotFoundError: If the folder of a Milvus Lite file does not exist.
        OSError: If the embedding model cannot be found or read.
        pymilvus.exceptions.MilvusException: If the server does not answer.

    Example:
        ```python
        from llama_index.vector_stores.milvus import MilvusVectorStore

        store = MilvusVectorStore(**milvus_kwargs(embed_model, uri="./milvus.db", k=50))
        ```
    """
    if not isinstance(embed_model, Qwen3Embedding):
        msg = f"embed_model must be a Qwen3Embedding, got {type(embed_model).__name__}"
        raise TypeError(msg)
    if not is_count(k) or k > MAX_K:
        msg = f"k must be an integer from 1 to {MAX_K}, got {k!r}"
        raise ValueError(msg)
    if metric not in get_args(Metric):
        msg = f"metric must be one of {', '.join(get_args(Metric))}, got {metric!r}"
        raise ValueError(msg)
    uri = _checked_uri(uri)
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


def _checked_uri(uri: str | Path) -> str:
    """The uri as the string that Milvus takes; a path that it would refuse is refused clearly."""
    if isinstance(uri, str) and "://" in uri:
        return uri
    if not isinstance(uri, (str, Path)):
        msg = f"uri must be a string or a path, got {type(uri).__name__}: {uri!r:.80}"
        raise TypeError(msg)
    path = Path(uri).expanduser()
    if path.suffix != ".db":
        msg = (
            f"uri={str(uri)!r} is neither an address such as 'http://localhost:19530' nor the path "
            "of a Milvus Lite file, which ends in '.db'"
        )
        raise ValueError(msg)
    if not path.parent.is_dir():
        msg = f"the folder of uri={str(uri)!r} does not exist: create {str(path.parent)!r} first"
        raise FileNotFoundError(msg)
    if path.is_file():
        msg = (
            f"uri={str(uri)!r} is a plain file, but a Milvus Lite 3 database is a folder (one of "
            "Milvus Lite 2 cannot be opened any more): choose another uri"
        )
        raise ValueError(msg)
    return str(path)
