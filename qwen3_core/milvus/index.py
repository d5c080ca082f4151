"""Which index a collection of Qwen3 vectors gets, by its size, and what a search asks of it."""

from math import isqrt
from typing import Any, Final, Literal, get_args

from qwen3_core.common.validation import got, is_count

Metric = Literal["IP", "COSINE"]

IndexType = Literal["FLAT", "HNSW", "IVF_SQ8", "DISKANN"]

MAX_K: Final = 16_384
"""Hits that one search returns at most (Milvus documentation, "Limits")."""

FLAT_ROWS: Final = 10_000
"""Up to here every vector is compared, which finds all: 40 MB at 1024 dimensions."""

HNSW_ROWS: Final = 10_000_000
"""Up to here vectors and graph are kept in memory whole: 42 GB at 1024 dimensions, one query node.
Beyond it IVF_SQ8 needs a quarter of that (Milvus documentation, "In-memory Index": one byte in
place of four)."""

HNSW_PARAMS: Final = {"M": 16, "efConstruction": 200}
"""Links of a node, and candidates while it is built (Milvus documentation: 2 to 2048, and 1 up)."""

SEGMENT_BYTES: Final = 512 << 20
"""A server builds one index for each sealed segment, of at most this many bytes of vectors
(`dataCoord.segment.maxSize`, by default 512 MB)."""

LITE: Final = ("FLAT", "HNSW", "IVF_SQ8")
"""What Milvus Lite 3.2 builds. It takes other names too, and fails when it is opened again."""

LEAST_SEARCHED: Final = 64

SEARCHED_PER_HIT: Final = 2
"""Candidates that a search keeps for each hit. A server asks for 1 at least; 2 finds more of the
true neighbours (recall@100 of 0.98 in place of 0.94, benchmarks/milvus_index.py on sentences)."""


def choose_index(
    uri: str, index_type: IndexType | None = None, rows: int | None = None
) -> IndexType:
    """The index of a new collection.

    Args:
        uri: Where Milvus is.
        index_type: The one asked for; None chooses by size.
        rows: About how many rows there will be; None if nobody knows, which means HNSW.

    Raises:
        ValueError: If there is no such index there, or `rows` is not a positive integer.
    """
    if rows is not None and not is_count(rows):
        msg = f"rows must be an integer of at least 1, {got(rows)}"
        raise ValueError(msg)
    if index_type is None:
        if rows is None or FLAT_ROWS < rows <= HNSW_ROWS:
            return "HNSW"
        return "FLAT" if rows <= FLAT_ROWS else "IVF_SQ8"
    if index_type not in get_args(IndexType):
        known = ", ".join(get_args(IndexType))
        msg = (
            f"index_type must be one of {known}, got {index_type!r}; for another, replace the "
            "index and search parameters in what milvus_kwargs returns"
        )
        raise ValueError(msg)
    if "://" not in uri and index_type not in LITE:
        msg = f"Milvus Lite has no {index_type} index ({', '.join(LITE)}): use a server"
        raise ValueError(msg)
    return index_type


def index_params(
    metric: Metric = "IP",
    index_type: IndexType = "HNSW",
    *,
    rows: int | None = None,
    dimensions: int = 1024,
) -> dict[str, Any]:
    """Index parameters for a new collection.

    Args:
        metric: "IP" (inner product), which equals the cosine for our vectors of length 1, or
            "COSINE".
        index_type: From `choose_index`.
        rows: About how many rows there will be; None means at least a full segment.
        dimensions: Length of the vectors.

    Raises:
        ValueError: If the metric is another.
    """
    _check(metric)
    params: dict[str, int] = {}
    if index_type == "HNSW":
        params = dict(HNSW_PARAMS)
    elif index_type == "IVF_SQ8":
        # Milvus documentation, "Performance FAQ": 4 x sqrt(rows of a segment).
        segment = SEGMENT_BYTES // (4 * dimensions)
        params = {"nlist": 4 * isqrt(min(rows or segment, segment))}
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
        params = {"nprobe": searched}
    elif index_type == "DISKANN":
        params = {"search_list": searched}
    return {"metric_type": metric, "params": params}


def _check(metric: str) -> None:
    if metric not in get_args(Metric):
        msg = f"metric must be one of {', '.join(get_args(Metric))}, got {metric!r}"
        raise ValueError(msg)
