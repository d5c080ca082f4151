"""Rebuilds the index of an existing collection, with the same or another type."""

from pathlib import Path
from typing import Any

from qwen3_core.milvus.collection import check_uri, connect
from qwen3_core.milvus.index import IndexType, Metric, choose_index, replace_index


def rebuild_index(
    uri: str | Path,
    collection_name: str,
    *,
    index_type: IndexType | None = None,
    vector_field: str | None = None,
    metric: Metric | None = None,
    token: str | None = None,
    db_name: str | None = None,
) -> str:
    """Drop the index of a collection's vectors, rebuild it, and load the collection.

    No text is embedded: the index is built from all vectors in the collection, including those that
    searches no longer found. Searches fail until it is done. Open stores keep the search parameters
    of the old index: reopen them.

    Example:
        ```python
        rebuild_index("./milvus.db", "qwen3")  # chooses the index by size
        rebuild_index("http://localhost:19530", "qwen3", index_type="HNSW")
        ```

    Args:
        uri: As in `milvus_kwargs`.
        collection_name: An existing collection.
        index_type: The index; None chooses by the number of rows.
        vector_field: The vector field; needed only if there are several.
        metric: The metric; None keeps that of the present index, or is "IP" if there is none.
        token: "user:password" or an API key, if the server requires one.
        db_name: The database within Milvus; None: the default one.

    Returns:
        The new index type.

    Raises:
        TypeError: If `uri` is neither a string nor a path.
        ValueError: If there is no such collection, field or index, or the Milvus Lite database
            cannot be opened.
        pymilvus.exceptions.MilvusException: If Milvus fails. After the drop the collection has no
            index: call this function again.
    """
    uri = check_uri(uri)
    choose_index(uri, index_type)
    client = connect(uri, token, db_name)
    try:
        if not client.has_collection(collection_name):
            msg = f"there is no collection {collection_name!r} at {uri!r}, so no index to rebuild"
            raise ValueError(msg)
        field = _vector_field(client, collection_name, vector_field)
        return replace_index(client, uri, collection_name, field, index_type, metric)
    finally:
        client.close()


def _vector_field(client: Any, collection_name: str, name: str | None) -> dict[str, Any]:
    fields = client.describe_collection(collection_name)["fields"]
    found = {f["name"]: f for f in fields if "dim" in f.get("params", {})}
    if name is not None and name in found:
        return dict(found[name])
    if name is not None or len(found) != 1:
        msg = (
            f"collection {collection_name!r} has the vector fields {', '.join(found) or '(none)'}: "
            f"vector_field must be one of them, got {name!r}"
        )
        raise ValueError(msg)
    return dict(*found.values())
