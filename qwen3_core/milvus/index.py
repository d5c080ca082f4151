"""Chooses a collection's index by its size, and the index and search parameters."""

from math import isqrt
from typing import Any, Final, Literal, get_args

from qwen3_core.common.validation import ArgumentError, got, is_count

Metric = Literal["IP", "COSINE"]

IndexType = Literal[
    "FLAT", "IVF_FLAT", "IVF_SQ8", "IVF_RABITQ", "HNSW", "HNSW_SQ", "DISKANN", "AUTOINDEX"
]

MAX_K: Final = 16_384
"""The most hits of one search (Milvus documentation, "Limits")."""

FLAT_ROWS: Final = 10_000
"""Most rows of a FLAT index, whose exact search compares every vector: 40 MB at 1024 dimensions."""

IVF_ROWS: Final = 1_000_000
"""Most rows for IVF_FLAT on a server; duplicate texts do not harm its recall (docs/milvus.md)."""

HNSW_ROWS: Final = 10_000_000
"""Most rows for HNSW, which keeps all vectors and the graph in memory: 42 GB at 1024 dimensions, on
one query node. Beyond that, IVF_SQ8 needs a quarter (Milvus documentation, "In-memory Index": one
byte instead of four)."""

HNSW_PARAMS: Final = {"M": 16, "efConstruction": 200}
"""Links per node, and candidates during construction (Milvus documentation: 2 to 2048; from 1)."""

SEGMENT_BYTES: Final = 512 << 20
"""A server builds one index per sealed segment, of at most this many bytes of vectors
(`dataCoord.segment.maxSize`, by default 512 MB)."""

LITE_INDEXES: Final = ("FLAT", "IVF_FLAT", "IVF_SQ8", "HNSW", "HNSW_SQ", "AUTOINDEX")
"""Indexes that Milvus Lite 3.2 supports. It accepts other names, and fails when reopened."""

GRAPHS: Final = ("HNSW", "AUTOINDEX", "HNSW_SQ")
"""Indexes whose search on Milvus Lite can miss passages. AUTOINDEX is HNSW."""

OLDEST: Final = {"HNSW_SQ": (2, 5), "IVF_RABITQ": (2, 6)}
"""The first server release with the index."""

LEAST_SEARCHED: Final = 64

LEAST_PROBED: Final = 128
"""Lower bound of `nprobe`: Milvus Lite's default number of lists. A server makes at most one list
per 39 rows, so a search of a segment of up to 5,000 rows sees all rows."""

SEARCHED_PER_HIT: Final = 2
"""Candidates that a search keeps per hit. A server requires at least 1; 2 finds more of the true
neighbours (recall@100 of 0.98 instead of 0.94, benchmarks/milvus_index.py on sentences)."""


def is_lite(uri: str) -> bool:
    """Whether the uri is the path of a Milvus Lite database, not the address of a server."""
    return "://" not in uri


def choose_index(
    uri: str, index_type: IndexType | None = None, rows: int | None = None
) -> IndexType:
    """Choose the index of a new collection.

    Args:
        uri: Address or path of Milvus.
        index_type: The requested index; None chooses by size.
        rows: Approximate number of rows. None if unknown: FLAT on Milvus Lite, IVF_FLAT on a
            server.

    Raises:
        ValueError: If Milvus has no such index, or `rows` is not a positive integer.
    """
    if rows is not None and not is_count(rows):
        msg = f"rows must be an integer of at least 1, {got(rows)}"
        raise ArgumentError(msg, "rows")
    if index_type is None:
        if is_lite(uri):
            return "FLAT" if rows is None or rows <= FLAT_ROWS else "IVF_FLAT"
        if rows is None:
            return "IVF_FLAT"
        sizes: dict[int, IndexType]
        sizes = {FLAT_ROWS: "FLAT", IVF_ROWS: "IVF_FLAT", HNSW_ROWS: "HNSW"}
        return next((kind for most, kind in sizes.items() if rows <= most), "IVF_SQ8")
    if index_type not in get_args(IndexType):
        known = ", ".join(LITE_INDEXES if is_lite(uri) else get_args(IndexType))
        msg = (
            f"index_type must be one of {known}, got {index_type!r}; for another, replace the "
            "index and search parameters in what milvus_kwargs returns"
        )
        if index_type in ("INT8_VECTOR", "FLOAT16_VECTOR", "BFLOAT16_VECTOR"):
            msg = (
                f"index_type={index_type!r} is the type of a field, not an index, and both stores "
                "make float fields only: use IVF_SQ8 or HNSW_SQ for a quarter of the memory"
            )
        raise ArgumentError(msg, "index_type")
    if is_lite(uri) and index_type not in LITE_INDEXES:
        msg = f"Milvus Lite has no {index_type} index ({', '.join(LITE_INDEXES)}): use a server"
        raise ArgumentError(msg, "index_type")
    return index_type


def index_params(
    metric: Metric = "IP",
    index_type: IndexType = "FLAT",
    *,
    rows: int | None = None,
    dimensions: int = 1024,
    lite: bool = False,
) -> dict[str, Any]:
    """Index parameters for a new collection.

    On Milvus Lite an IVF index has one list: every vector is compared, by faster code than FLAT's.

    Args:
        metric: "IP" (inner product), which equals the cosine for our vectors of length 1, or
            "COSINE".
        index_type: From `choose_index`.
        rows: Approximate number of rows; None means at least a full segment.
        dimensions: Length of the vectors.
        lite: Whether they are for Milvus Lite.

    Raises:
        ValueError: If the metric is neither of the two.
    """
    _check(metric)
    params: dict[str, Any] = {}
    if index_type in ("HNSW", "HNSW_SQ"):
        params = dict(HNSW_PARAMS)
        if index_type == "HNSW_SQ":
            params["sq_type"] = "SQ8"
    elif index_type.startswith("IVF"):
        # Milvus documentation, "Performance FAQ": 4 x sqrt(rows of a segment).
        segment = SEGMENT_BYTES // (4 * dimensions)
        params = {"nlist": 1 if lite else 4 * isqrt(min(rows or segment, segment))}
    if lite and params:
        # pymilvus sends the parameters one by one. Milvus Lite reads only those under "params", and
        # uses its own defaults instead of others.
        params = {"params": params}
    return {"index_type": index_type, "metric_type": metric, "params": params}


def search_params(k: int, metric: Metric = "IP", index_type: str = "HNSW") -> dict[str, Any]:
    """Search parameters that let an index return `k` hits.

    A server refuses values of HNSW's `ef` and DISKANN's `search_list` below `k`. An IVF index
    returns fewer hits if the `nprobe` searched lists contain fewer.

    Args:
        k: The largest number of candidates of one search, from 1 to `MAX_K`.
        metric: As in `index_params`.
        index_type: The collection's index.

    Raises:
        ValueError: If `k` is out of range, or the metric is neither of the two.
    """
    _check(metric)
    if not is_count(k) or k > MAX_K:
        msg = f"k must be an integer from 1 to {MAX_K}, {got(k)}"
        raise ArgumentError(msg, "k")
    searched = max(SEARCHED_PER_HIT * k, LEAST_SEARCHED)
    params: dict[str, int] = {}
    if index_type.startswith("HNSW"):
        params = {"ef": searched}
    elif index_type.startswith("IVF"):
        params = {"nprobe": max(searched, LEAST_PROBED)}
    elif index_type == "DISKANN":
        params = {"search_list": searched}
    return {"metric_type": metric, "params": params}


def _check(metric: str) -> None:
    if metric not in get_args(Metric):
        msg = f"metric must be one of {', '.join(get_args(Metric))}, got {metric!r}"
        raise ArgumentError(msg, "metric")


def replace_index(
    client: Any,
    uri: str,
    collection_name: str,
    field: dict[str, Any],
    index_type: IndexType | None = None,
    metric: Metric | None = None,
) -> str:
    """Drop the index of a vector field, build another from the vectors, and load the collection.

    Args:
        client: An open `MilvusClient`.
        uri: As in `milvus_kwargs`.
        collection_name: An existing collection.
        field: The vector field, as `describe_collection` lists it.
        index_type: The index; None chooses by the number of rows.
        metric: The metric; None keeps that of the present index, or is "IP" if there is none.

    Returns:
        The new index type.

    Raises:
        pymilvus.exceptions.MilvusException: If Milvus fails. After the drop the collection has no
            index.
    """
    names = client.list_indexes(collection_name, field_name=field["name"])
    for name in names:
        metric = metric or client.describe_index(collection_name, name)["metric_type"]
    rows = max(int(client.get_collection_stats(collection_name)["row_count"]), 1)
    chosen = choose_index(uri, index_type, rows)
    dimensions = int(field["params"]["dim"])
    params = index_params(
        metric or "IP", chosen, rows=rows, dimensions=dimensions, lite=is_lite(uri)
    )
    indexes = client.prepare_index_params()
    indexes.add_index(field["name"], index_name=names[0] if names else "", **params)
    client.release_collection(collection_name)
    for name in names:
        client.drop_index(collection_name, name)
    _create(client, collection_name, indexes)
    client.load_collection(collection_name)
    return chosen


def _create(client: Any, collection_name: str, indexes: Any) -> None:
    from pymilvus.exceptions import MilvusException

    try:
        client.create_index(collection_name, indexes)
    except MilvusException as error:
        # Milvus Lite builds the index within the call. If that takes minutes, the client repeats
        # the call, and Milvus Lite refuses it. Loading then waits for the first call.
        if "index already exists" not in str(error):
            raise
