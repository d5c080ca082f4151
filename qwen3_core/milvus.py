"""What a Milvus collection for Qwen3 vectors must look like, and a check of one that exists."""

from typing import Any, Final, Literal

Metric = Literal["IP", "COSINE"]

CONSISTENCY: Final = "Strong"
"""A search sees all that was inserted before it; the stores' own default is "Session"."""

TEXT_LENGTH: Final = 65_535
"""Bytes of UTF-8 that a Milvus VARCHAR field holds at most."""


def index_params(metric: Metric = "IP") -> dict[str, Any]:
    """HNSW index parameters for a new collection (M 16, efConstruction 200).

    Args:
        metric: "IP" (inner product), which equals the cosine for our vectors of length 1, or
            "COSINE".
    """
    return {
        "index_type": "HNSW",
        "metric_type": metric,
        "params": {"M": 16, "efConstruction": 200},
    }


def search_params(k: int, metric: Metric = "IP") -> dict[str, Any]:
    """Search parameters with which HNSW can return `k` hits: a server refuses `ef` below `k`.

    Args:
        k: The largest number of candidates that will be asked for, at least 1.
        metric: As in `index_params`.
    """
    return {"metric_type": metric, "params": {"ef": max(k, 64)}}


def check_collection(
    uri: str,
    collection_name: str,
    *,
    dimensions: int,
    metric: Metric = "IP",
    vector_field: str = "vector",
    token: str | None = None,
) -> bool:
    """Check that a collection, if it exists, takes vectors of this length and metric.

    Call it before a vector store opens the collection: the stores check neither, and Milvus Lite
    searches with the wrong metric without a word.

    Args:
        uri: Path of a Milvus Lite file ("./milvus.db"), or "http://host:19530", or a Zilliz Cloud
            endpoint.
        collection_name: The collection.
        dimensions: Length of the vectors that will be written or searched.
        metric: The metric that will be asked for.
        vector_field: Name of the collection's vector field.
        token: "user:password" or an API key, where the server wants one.

    Returns:
        Whether the collection exists.

    Raises:
        ValueError: If the collection exists with another dimension or metric, or without the field.
        pymilvus.exceptions.MilvusException: If the server does not answer.
    """
    from pymilvus import MilvusClient

    client = MilvusClient(uri=uri, token=token or "")
    try:
        if not client.has_collection(collection_name):
            return False
        remedy = (
            "choose another collection_name, drop the collection, or change the setting to match"
        )
        fields = {f["name"]: f for f in client.describe_collection(collection_name)["fields"]}
        if vector_field not in fields:
            msg = (
                f"collection {collection_name!r} has no vector field {vector_field!r} "
                f"(its fields: {', '.join(fields)}): {remedy}"
            )
            raise ValueError(msg)
        found = fields[vector_field].get("params", {}).get("dim")
        if found is not None and int(found) != dimensions:
            msg = (
                f"collection {collection_name!r} holds vectors of {found} dimensions, but the "
                f"embedding model gives {dimensions}: {remedy}"
            )
            raise ValueError(msg)
        for index_name in client.list_indexes(collection_name, field_name=vector_field):
            index = client.describe_index(collection_name, index_name)
            found_metric = index.get("metric_type")
            if found_metric and found_metric != metric:
                msg = (
                    f"collection {collection_name!r} is indexed for the metric {found_metric}, but "
                    f"{metric} was asked for: {remedy}"
                )
                raise ValueError(msg)
        return True
    finally:
        client.close()
