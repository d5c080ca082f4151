"""Milvus stores of LangChain for Qwen3 vectors: `open_milvus`, and the arguments for one."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from langchain_core.embeddings import Embeddings

from langchain_qwen3.embeddings import Qwen3Embeddings
from qwen3_core.common.extras import how_to_install
from qwen3_core.common.hints import misplaced, suggests, takes
from qwen3_core.fingerprint import Fingerprint
from qwen3_core.milvus.collection import CONSISTENCY, TEXT_INDEX
from qwen3_core.milvus.index import IndexType, Metric
from qwen3_core.milvus.plan import Plan, Planned, make_plan

if TYPE_CHECKING:
    from langchain_qwen3.store import Qwen3Milvus


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
    db_name: str | None = None,
    collection_name: str = "qwen3",
    k: int = 100,
    metric: Metric = "IP",
    rows: int | None = None,
    index_type: IndexType | None = None,
    hybrid: bool = False,
    analyzer: str | Mapping[str, Any] | None = None,
    auto_id: bool | None = None,
    drop_old: bool = False,
) -> dict[str, Any]:
    """Keyword arguments for `langchain_milvus.Milvus`; `open_milvus` gives the store itself.

    They give an index on inner product that suits the size, searches that see all that was written
    before them, documents with differing metadata keys, and room for `k` candidates: the store's
    own defaults are L2, "Session", the keys of the first document for all, and 10. If the
    collection exists, its dimension, metric and kind of ids are checked before anything is written.
    A new collection keeps what its vectors were made with (model, revision, dimensions, max_length)
    among its properties, and an existing one is compared with it.

    `Milvus(**milvus_kwargs(...))` makes a `Qwen3Milvus`, as `open_milvus` does: see there for how
    it differs from its base class. A Milvus Lite file belongs to one process at a time.

    Example:
        ```python
        store = Milvus(**milvus_kwargs(embeddings), partition_key_field="tenant")
        store = Milvus.from_documents(documents, embeddings, **milvus_kwargs(embeddings))
        ```

    Args:
        embeddings: Embeds documents and queries; its model is loaded to learn the vectors' length
            (not with `Qwen3Embeddings(dimensions=...)`, which says it). A wrapper around one, such
            as `CacheBackedEmbeddings`, counts as what it wraps if it returns the same vectors.
        uri: Path of a Milvus Lite file, which ends in ".db" and whose folder exists (`~` is the
            home folder); or "http://host:19530"; or the endpoint of a Zilliz Cloud cluster.
        token: "user:password" or an API key, where the server wants one.
        db_name: The database within Milvus, which must exist. None: the default one.
        collection_name: ASCII letters, digits and underscores, the first no digit.
        k: The largest number of candidates that a search will ask for, from 1 to 16,384. A server
            refuses a search for more; it costs time, so do not set it higher than needed.
        metric: "IP", which for these vectors is the cosine similarity, or "COSINE".
        rows: About how many rows a new collection will hold, which chooses its index. Milvus Lite:
            FLAT up to 10,000 or if None, IVF_FLAT beyond; both find all. A server: FLAT up to
            10,000, IVF_FLAT up to 1 million or if None, HNSW up to 10 million, IVF_SQ8 beyond.
        index_type: The index of a new collection, in place of that choice: "FLAT", "IVF_FLAT",
            "IVF_SQ8", "HNSW" or "HNSW_SQ"; on a server "DISKANN", "IVF_RABITQ" or "AUTOINDEX" too.
            If the collection exists with another, it is refused: see
            `qwen3_core.milvus.rebuild_index`.
        hybrid: Add full-text search (BM25; Milvus Lite, or a server from 2.5 on). A search then
            takes `k` candidates of each kind and fuses them by reciprocal rank.
        analyzer: How full-text search cuts texts into words: "standard" (at spaces), "chinese" or
            "jieba"; on a server also "english" and "icu" (any language); or Milvus's own
            `analyzer_params`. An existing collection must have been made with it. None: as the
            collection has it; "standard" for a new one.
        auto_id: False: documents have the caller's ids, `ids=` or `Document.id`, or a UUID. True:
            Milvus numbers them, so that what is added twice is there twice. None: as an existing
            collection has it, False for a new one.
        drop_old: Let the store drop an existing collection of this name, which is then not checked.

    Raises:
        TypeError: If `embeddings` is something else, or an argument unknown.
        ValueError: If an argument is out of range, or the collection exists with another dimension,
            metric, analyzer or kind of ids, or with vectors of another model or settings; or a
            cache around the embeddings holds vectors of another model.
        ImportError: If langchain-milvus is not installed, or jieba where the analyzer needs it.
        FileNotFoundError: If the folder of a Milvus Lite file does not exist.
        OSError: If the embedding model cannot be found or read.
        pymilvus.exceptions.MilvusException: If the server does not answer.
    """
    wanted = "embeddings of LangChain, such as Qwen3Embeddings"
    hints = {str: "write Qwen3Embeddings(model=...)"}
    if msg := misplaced("embeddings", embeddings, Embeddings, wanted, hints):
        raise TypeError(msg)
    _make_milvus_ours()
    plan = make_plan(
        lambda: _made_with(embeddings, collection_name),
        uri=uri,
        token=token,
        db_name=db_name,
        collection_name=collection_name,
        k=k,
        metric=metric,
        rows=rows,
        index_type=index_type,
        vector_field="vector",
        text_search_field=TEXT_FIELD if hybrid else None,
        analyzer=analyzer,
        replace=drop_old,
        auto_id=auto_id,
        embeddings=embeddings,
    )
    connection = {"uri": plan.uri, "token": token, "db_name": db_name}
    kwargs = {
        "connection_args": Planned({k: v for k, v in connection.items() if v}, plan),
        "collection_name": collection_name,
        "index_params": plan.index,
        "search_params": plan.search,
        "consistency_level": CONSISTENCY,
        "collection_properties": plan.properties,
        "enable_dynamic_field": True,
        "auto_id": bool(auto_id) if plan.found is None else plan.found.auto_id,
        "drop_old": drop_old,
    }
    return kwargs | _hybrid(plan) if hybrid else kwargs


def _make_milvus_ours() -> type["Qwen3Milvus"]:
    try:
        from langchain_qwen3.store import Qwen3Milvus
    except ModuleNotFoundError as error:
        if error.name not in ("langchain_milvus", "pymilvus"):
            raise
        msg = f"{error.name} is not installed: {how_to_install('langchain')}"
        raise ImportError(msg) from error
    return Qwen3Milvus


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


def _hybrid(plan: Plan) -> dict[str, Any]:
    """What differs with full-text search beside the vectors."""
    from langchain_milvus import BM25BuiltInFunction

    return {
        "builtin_function": BM25BuiltInFunction(
            output_field_names=TEXT_FIELD, analyzer_params=plan.analyzer
        ),
        "vector_field": ["vector", TEXT_FIELD],
        # Given, because the store's own would drop a share of the terms, which Lite refuses.
        "index_params": [plan.index, TEXT_INDEX | {"params": {}}],
        "search_params": [plan.search, {"metric_type": "BM25", "params": {}}],
    }


@takes(milvus_kwargs)
def open_milvus(*args: Any, **kwargs: Any) -> "Qwen3Milvus":
    """A Milvus vector store for Qwen3 vectors, made or opened; takes what `milvus_kwargs` takes.

    It is a `langchain_milvus.Milvus` that checks what it is given, keeps `Document.id` and works in
    every event loop: see `langchain_qwen3.store.Qwen3Milvus`.

    Example:
        ```python
        store = open_milvus(Qwen3Embeddings(), uri="./milvus.db")
        store.add_documents([Document("Milvus stores data in segments.", id="1")])
        ```

    Raises:
        TypeError: As `milvus_kwargs`.
        ValueError: As `milvus_kwargs`.
        ImportError: As `milvus_kwargs`.
        OSError: As `milvus_kwargs`.
        pymilvus.exceptions.MilvusException: If Milvus fails.
    """
    return _make_milvus_ours()(**milvus_kwargs(*args, **kwargs))
