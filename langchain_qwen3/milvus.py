"""Milvus stores of LangChain for Qwen3 vectors: `open_milvus`, and the arguments for one."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from langchain_core.embeddings import Embeddings

from langchain_qwen3.embeddings import Qwen3Embeddings
from qwen3_core.common.docstrings import parameters_documented
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
"""Embedded to learn the vector length of embeddings of other classes."""

SAME_COSINE: Final = 0.98
"""Least cosine between vectors of the same text and model in any two dtypes."""

TEXT_FIELD: Final = "sparse"
"""The field for full-text search in a hybrid collection."""


@suggests
@parameters_documented()
def milvus_kwargs(  # noqa: D417 - the decorator adds the others
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
    metadata_keys: Sequence[str] | None = None,
    auto_id: bool | None = None,
    drop_old: bool = False,
) -> dict[str, Any]:
    """Keyword arguments for `langchain_milvus.Milvus`; `open_milvus` returns the store itself.

    They set an inner-product index for the collection's size, strong consistency (a search sees all
    earlier writes), documents with differing metadata keys, and search parameters for `k`
    candidates. The store's own defaults are L2, "Session", the first document's metadata keys for
    all, and 10. If the collection exists, its dimension, metric and kind of ids are checked before
    anything is written. A new collection stores how its vectors were made (model, revision,
    dimensions, max_length, metadata_keys) in its properties. An existing collection is compared
    with them.

    `Milvus(**milvus_kwargs(...))` creates a `Qwen3Milvus`, like `open_milvus`; that class lists the
    differences from its base class. A hybrid search takes `k` candidates of each kind. Only one
    process at a time can open a Milvus Lite file.

    Example:
        ```python
        store = Milvus(**milvus_kwargs(embeddings), partition_key_field="tenant")
        store = Milvus.from_documents(documents, embeddings, **milvus_kwargs(embeddings))
        ```

    Args:
        embeddings: Embeds documents and queries. Its model is loaded to learn the vectors' length
            (`Qwen3Embeddings(dimensions=...)` gives it without loading). A wrapper such as
            `CacheBackedEmbeddings` is treated as the embeddings within, if it returns the same
            vectors.
        k: The largest number of candidates of a search, from 1 to 16,384. A server refuses a search
            for more. Larger values make searches slower.
        metadata_keys: Metadata that is embedded before a document's text, such as `["title"]`, one
            "key: value" per line (`qwen3_core.metadata`). The stored text is unchanged, and
            full-text search does not see them. They are recorded in a new collection, and an
            existing one must have the same. None: the collection's own; none for a new one.
        auto_id: False: documents have the caller's ids, `ids=` or `Document.id`, or a UUID. True:
            Milvus generates ids, so adding a document twice stores it twice. None: as in the
            existing collection, False for a new one.
        drop_old: Let the store drop an existing collection of this name; then it is not checked.

    Raises:
        TypeError: If `embeddings` has the wrong type, or an argument is unknown.
        ValueError: If an argument is out of range, or the collection exists with another dimension,
            metric, analyzer or kind of ids, or with vectors of another model or settings; or a
            cache around the embeddings contains vectors of another model.
        ImportError: If langchain-milvus is not installed, or jieba if the analyzer needs it.
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
        drop_old=drop_old,
        metadata_keys=metadata_keys,
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
    """The fingerprint of document vectors, or None if unknown, and their length.

    A wrapper, such as a cache, has the fingerprint of the `Qwen3Embeddings` within it if it returns
    the same vectors.
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
            _check_query_cache(embeddings, within, vector)
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


def _check_query_cache(cache: Any, within: Qwen3Embeddings, vector: Sequence[float]) -> None:
    """Refuse a cache that gives a query the vector of an equal document.

    Args:
        cache: The embeddings; only `CacheBackedEmbeddings` has a cache of queries.
        within: The embeddings within it.
        vector: The document vector of `PROBE`, which is in the cache now.

    Raises:
        ValueError: If queries and documents share cache and namespace.
    """
    if getattr(cache, "query_embedding_store", None) is None:
        return
    if cache.embed_query(PROBE) == vector != within.embed_query(PROBE):
        msg = (
            f"the {type(cache).__name__} keeps queries and documents under the same keys, so a "
            "query gets the vector of an equal document: give query_embedding_cache= a store of "
            "its own, not True"
        )
        raise ValueError(msg)


def _within(embeddings: Embeddings) -> Qwen3Embeddings | None:
    """The `Qwen3Embeddings` in an attribute of a wrapper, or of a wrapper within it."""
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
    """The arguments that differ for a hybrid collection."""
    from langchain_milvus import BM25BuiltInFunction

    return {
        "builtin_function": BM25BuiltInFunction(
            output_field_names=TEXT_FIELD, analyzer_params=plan.analyzer
        ),
        "vector_field": ["vector", TEXT_FIELD],
        # Explicit, because the store's default drops a share of the terms, which Lite refuses.
        "index_params": [plan.index, TEXT_INDEX | {"params": {}}],
        "search_params": [plan.search, {"metric_type": "BM25", "params": {}}],
    }


@parameters_documented(milvus_kwargs)
@takes(milvus_kwargs)
def open_milvus(*args: Any, **kwargs: Any) -> "Qwen3Milvus":
    """Create or open a Milvus vector store for Qwen3 vectors.

    It is a `langchain_milvus.Milvus` that checks its arguments, keeps `Document.id` and works in
    every event loop: see `langchain_qwen3.store.Qwen3Milvus`.

    Example:
        ```python
        store = open_milvus(Qwen3Embeddings(), uri="./milvus.db")
        store.add_documents([Document("Milvus stores data in segments.", id="1")])
        ```

    Raises:
        TypeError: As in `milvus_kwargs`.
        ValueError: As in `milvus_kwargs`.
        ImportError: As in `milvus_kwargs`.
        OSError: As in `milvus_kwargs`.
        pymilvus.exceptions.MilvusException: If Milvus fails.
    """
    return _make_milvus_ours()(**milvus_kwargs(*args, **kwargs))
