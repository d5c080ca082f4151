"""Milvus stores of LlamaIndex for Qwen3 vectors: `open_milvus`, and the arguments for one."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from llama_index.core import VectorStoreIndex

from llama_index_qwen3.embedding import Qwen3Embedding
from qwen3_core.common.docstrings import parameters_documented
from qwen3_core.common.extras import how_to_install
from qwen3_core.common.hints import misplaced, suggests, takes
from qwen3_core.fingerprint import Fingerprint
from qwen3_core.milvus.collection import (
    CONSISTENCY,
    FINGERPRINT_KEY,
    TEXT_INDEX,
    check_vectors,
)
from qwen3_core.milvus.index import IndexType, Metric
from qwen3_core.milvus.plan import Plan, Planned, make_plan

if TYPE_CHECKING:
    from llama_index_qwen3.store import Qwen3MilvusVectorStore

VECTOR_FIELD: Final = "embedding"
"""The field of the vectors."""

TEXT_FIELD: Final = "sparse_embedding"
"""The field for full-text search in a hybrid collection."""


@suggests
@parameters_documented()
def milvus_kwargs(  # noqa: D417 - the decorator adds the others
    embed_model: Qwen3Embedding,
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
    overwrite: bool = False,
    use_async_client: bool = True,
) -> dict[str, Any]:
    """Keyword arguments for LlamaIndex's Milvus store; `open_milvus` returns the store itself.

    They set an index for the collection's size, strong consistency, and search parameters for `k`
    hits. A node with an existing id replaces the stored one (`upsert_mode`).
    `VectorStoreIndex.from_documents` gives nodes new ids each time, so open a filled collection
    with `VectorStoreIndex.from_vector_store`, and keep one up to date with an `IngestionPipeline`
    that has a docstore. A new collection stores how its vectors were made (model, revision,
    dimensions, max_length, metadata_keys) in its properties. An existing collection is compared
    with them.

    `MilvusVectorStore(**milvus_kwargs(...))` creates a `Qwen3MilvusVectorStore`, like
    `open_milvus`; that class lists the differences from its base class. You may change or add
    entries in the returned dictionary. A hybrid collection is searched with
    `vector_store_query_mode="hybrid"`.

    Args:
        embed_model: The model whose vectors will be stored; loaded now unless its `dimensions` are
            set.
        k: The largest `similarity_top_k` of a search, from 1 to 16,384. A server refuses a search
            for more. Larger values make searches slower.
        metadata_keys: Metadata that every node embeds before its text, such as `["title"]`, and
            nothing else; a node with other `excluded_embed_metadata_keys` or templates is refused.
            They are recorded in a new collection, and an existing one must have the same. None:
            each node decides.
        overwrite: Let the store drop an existing collection of this name.
        use_async_client: Needed for `aquery` and other async calls, which work in any event loop.
            False creates no asynchronous client.

    Raises:
        TypeError: If `embed_model` is not a `Qwen3Embedding`, `uri` is neither a string nor a path,
            or an argument is unknown.
        ValueError: If an argument is out of range, or the collection exists with another dimension,
            metric or analyzer, or with vectors of another model or other settings.
        ImportError: If LlamaIndex's Milvus store is not installed, or jieba if the analyzer needs
            it.
        FileNotFoundError: If the folder of a Milvus Lite file does not exist.
        OSError: If the embedding model cannot be found or read.
        pymilvus.exceptions.MilvusException: If the server does not answer.

    Example:
        ```python
        from llama_index.vector_stores.milvus import MilvusVectorStore

        store = MilvusVectorStore(**milvus_kwargs(embed_model), batch_size=1000)
        ```
    """
    hints = {str: "write Qwen3Embedding(model=...)"}
    if msg := misplaced("embed_model", embed_model, Qwen3Embedding, "a Qwen3Embedding", hints):
        raise TypeError(msg)
    _make_store_ours()
    plan = make_plan(
        lambda: _made_with(embed_model),
        uri=uri,
        token=token,
        db_name=db_name,
        collection_name=collection_name,
        k=k,
        metric=metric,
        rows=rows,
        index_type=index_type,
        vector_field=VECTOR_FIELD,
        text_search_field=TEXT_FIELD if hybrid else None,
        analyzer=analyzer,
        drop_old=overwrite,
        metadata_keys=metadata_keys,
        embeddings=embed_model,
    )
    if metadata_keys is None:  # also where the collection has some
        plan = replace(plan, metadata_keys=None)
    # The store takes a flat dictionary: it nests names that it does not know under "params".
    index = {key: value for key, value in plan.index.items() if key != "params"}
    kwargs = {
        "uri": plan.uri,
        "token": token or "",
        "collection_name": collection_name,
        "dim": plan.dimensions,
        "similarity_metric": metric,
        "index_config": Planned(index | plan.index["params"], plan),
        "search_config": plan.search["params"],
        "consistency_level": CONSISTENCY,
        # To set properties, the store would unload an existing collection.
        "collection_properties": plan.properties,
        "upsert_mode": True,
        "overwrite": overwrite,
        "use_async_client": use_async_client,
    }
    if db_name:
        kwargs["db_name"] = db_name
    return kwargs | _hybrid(plan) if hybrid else kwargs


@parameters_documented(milvus_kwargs)
@takes(milvus_kwargs)
def open_milvus(*args: Any, **kwargs: Any) -> "Qwen3MilvusVectorStore":
    """Create or open a Milvus vector store for Qwen3 vectors.

    It is a `MilvusVectorStore` that writes filters and ids correctly and works in every event loop:
    see `llama_index_qwen3.store.Qwen3MilvusVectorStore`.

    Example:
        ```python
        store = open_milvus(embed_model, uri="./milvus.db")
        index = VectorStoreIndex.from_vector_store(store, embed_model=embed_model)
        ```

    Raises:
        TypeError: As in `milvus_kwargs`.
        ValueError: As in `milvus_kwargs`.
        ImportError: As in `milvus_kwargs`.
        OSError: As in `milvus_kwargs`.
        pymilvus.exceptions.MilvusException: If Milvus fails.
    """
    return _make_store_ours()(**milvus_kwargs(*args, **kwargs))


def check_index(index: VectorStoreIndex) -> None:
    """Check that an index over a Milvus store uses the model of the store's vectors.

    The index's model is loaded, unless the store was opened with it.

    Args:
        index: An index over any store. Stores other than Milvus, and those without a fingerprint,
            are not checked.

    Raises:
        ValueError: If the collection contains vectors of another model or other settings.
    """
    store: Any = index.vector_store
    model = index._embed_model  # noqa: SLF001 - there is no public name
    is_milvus = any(kind.__name__ == "MilvusVectorStore" for kind in type(store).__mro__)
    if not is_milvus or not isinstance(model, Qwen3Embedding):
        return
    plan = getattr(store, "plan", None)
    name, client = store.collection_name, store.client
    if (plan is not None and plan.embeddings is model) or not client.has_collection(name):
        return
    description = client.describe_collection(name)
    if FINGERPRINT_KEY in (description.get("properties") or {}):
        fingerprint = model.fingerprint
        check_vectors(
            name,
            description,
            dimensions=fingerprint.dimensions,
            vector_field=store.embedding_field,
            fingerprint=fingerprint,
        )


def _make_store_ours() -> type["Qwen3MilvusVectorStore"]:
    try:
        from llama_index_qwen3.store import Qwen3MilvusVectorStore
    except ModuleNotFoundError as error:
        if not str(error.name).startswith(("llama_index.vector_stores", "pymilvus")):
            raise
        msg = f"{error.name} is not installed: {how_to_install('llama-index')}"
        raise ImportError(msg) from error
    return Qwen3MilvusVectorStore


def _made_with(embed_model: Qwen3Embedding) -> tuple[Fingerprint, int]:
    fingerprint = embed_model.fingerprint
    return fingerprint, fingerprint.dimensions


def _hybrid(plan: Plan) -> dict[str, Any]:
    """The arguments that differ for a hybrid collection."""
    from llama_index.vector_stores.milvus.utils import BM25BuiltInFunction

    return {
        "enable_sparse": True,
        "sparse_embedding_field": TEXT_FIELD,
        "sparse_embedding_function": BM25BuiltInFunction(
            output_field_names=TEXT_FIELD, analyzer_params=plan.analyzer
        ),
        "sparse_index_config": TEXT_INDEX,
        "hybrid_ranker": "RRFRanker",
    }
