"""Which index a collection of Qwen3 vectors gets, by its size, and what a search asks of it."""

from math import isqrt
from typing import Any, Final, Literal, get_args

from qwen3_core.common.validation import got, is_count

Metric = Literal["IP", "COSINE"]

IndexType = Literal[
    "FLAT", "IVF_FLAT", "IVF_SQ8", "IVF_RABITQ", "HNSW", "HNSW_SQ", "DISKANN", "AUTOINDEX"
]

MAX_K: Final = 16_384
"""Hits that one search returns at most (Milvus documentation, "Limits")."""

FLAT_ROWS: Final = 10_000
"""Up to here every vector is compared, which finds all: 40 MB at 1024 dimensions."""

IVF_ROWS: Final = 1_000_000
"""Up to here a server searches IVF_FLAT, which equal texts do not harm (docs/milvus.md)."""

HNSW_ROWS: Final = 10_000_000
"""Up to here vectors and graph are kept in memory whole: 42 GB at 1024 dimensions, one query node.
Beyond it IVF_SQ8 needs a quarter of that (Milvus documentation, "In-memory Index": one byte in
place of four)."""

HNSW_PARAMS: Final = {"M": 16, "efConstruction": 200}
"""Links of a node, and candidates while it is built (Milvus documentation: 2 to 2048, and 1 up)."""

SEGMENT_BYTES: Final = 512 << 20
"""A server builds one index for each sealed segment, of at most this many bytes of vectors
(`dataCoord.segment.maxSize`, by default 512 MB)."""

LITE_INDEXES: Final = ("FLAT", "IVF_FLAT", "IVF_SQ8", "HNSW", "HNSW_SQ", "AUTOINDEX")
"""What Milvus Lite 3.2 builds. It takes other names too, and fails when it is opened again."""

GRAPHS: Final = ("HNSW", "AUTOINDEX", "HNSW_SQ")
"""Indexes whose search on Milvus Lite can miss passages that are there. AUTOINDEX is HNSW."""

OLDEST: Final = {"HNSW_SQ": (2, 5), "IVF_RABITQ": (2, 6)}
"""The first release of a server that has the index."""

LEAST_SEARCHED: Final = 64

LEAST_PROBED: Final = 128
"""As many lists as Milvus Lite makes when it is told no number. A server makes at most one list per
39 rows, so that a search of a segment of up to 5,000 rows sees them all."""

SEARCHED_PER_HIT: Final = 2
"""Candidates that a search keeps for each hit. A server asks for 1 at least; 2 finds more of the
true neighbours (recall@100 of 0.98 in place of 0.94, benchmarks/milvus_index.py on sentences)."""


def is_lite(uri: str) -> bool:
    """Whether it is the path of a Milvus Lite database, not the address of a server."""
    return "://" not in uri


def choose_index(
    uri: str, index_type: IndexType | None = None, rows: int | None = None
) -> IndexType:
    """The index of a new collection.

    Args:
        uri: Where Milvus is.
        index_type: The one asked for; None chooses by size.
        rows: About how many rows there will be. None if nobody knows: FLAT on Milvus Lite,
            IVF_FLAT on a server.

    Raises:
        ValueError: If there is no such index there, or `rows` is not a positive integer.
    """
    if rows is not None and not is_count(rows):
        msg = f"rows must be an integer of at least 1, {got(rows)}"
        raise ValueError(msg)
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
        raise ValueError(msg)
    if is_lite(uri) and index_type not in LITE_INDEXES:
        msg = f"Milvus Lite has no {index_type} index ({', '.join(LITE_INDEXES)}): use a server"
        raise ValueError(msg)
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
        rows: About how many rows there will be; None means at least a full segment.
        dimensions: Length of the vectors.
        lite: Whether they are for Milvus Lite.

    Raises:
        ValueError: If the metric is another.
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
        # pymilvus sends the parameters one by one; Milvus Lite reads those under "params" only,
        # and takes its own defaults in place of others.
        params = {"params": params}
    return {"index_type": index_type, "metric_type": metric, "params": params}


def search_params(k: int, metric: Metric = "IP", index_type: str = "HNSW") -> dict[str, Any]:
    """Search parameters with which an index can return `k` hits.

    A server refuses HNSW's `ef` and DISKANN's `search_list` below `k`; an IVF index returns fewer
    hits if the `nprobe` lists that are searched hold no more.

    Args:
        k: The largest number of candidates that will be asked for, from 1 to `MAX_K`.
        metric: As in `index_params`.
        index_type: That of the collection.

    Raises:
        ValueError: If `k` is out of range, or the metric is another.
    """
    _check(metric)
    if not is_count(k) or k > MAX_K:
        msg = f"k must be an integer from 1 to {MAX_K}, {got(k)}"
        raise ValueError(msg)
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
        raise ValueError(msg)
