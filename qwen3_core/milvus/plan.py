"""The checks and decisions of both frameworks' `milvus_kwargs`, before a store is opened."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from qwen3_core.common.validation import ArgumentError
from qwen3_core.fingerprint import Fingerprint
from qwen3_core.metadata import check_metadata_keys
from qwen3_core.milvus.analyzers import analyzer_params
from qwen3_core.milvus.collection import (
    Found,
    check_collection,
    check_name,
    check_uri,
    collection_properties,
)
from qwen3_core.milvus.index import (
    IndexType,
    Metric,
    choose_index,
    index_params,
    is_lite,
    search_params,
)


@dataclass(frozen=True)
class Plan:
    """The settings of a new or existing collection."""

    uri: str
    collection_name: str
    dimensions: int
    index: dict[str, Any]
    search: dict[str, Any]
    found: Found | None
    properties: dict[str, str] | None
    """Properties of a new collection; None for an existing one, whose own would be overwritten."""
    hybrid: bool
    analyzer: Any
    """`analyzer_params` of full-text search; None for Milvus's default."""
    embeddings: Any = None
    """The framework's embedding component, if its store needs one."""
    metadata_keys: tuple[str, ...] | None = None
    """The metadata that the vectors include: as requested, else as in the existing collection;
    None if neither says."""

    @property
    def lite(self) -> bool:
        """Whether it is a Milvus Lite database."""
        return "://" not in self.uri


class Planned(dict[str, Any]):
    """An argument from `milvus_kwargs`; the framework's store recognises it by this class."""

    def __init__(self, values: Mapping[str, Any], plan: Plan) -> None:
        super().__init__(values)
        self.plan = plan


def make_plan(
    made_with: Callable[[], tuple[Fingerprint | None, int]],
    *,
    uri: str | Path,
    token: str | None,
    db_name: str | None,
    collection_name: str,
    k: int,
    metric: Metric,
    rows: int | None,
    index_type: IndexType | None,
    vector_field: str,
    text_search_field: str | None,
    analyzer: str | Mapping[str, Any] | None,
    drop_old: bool,
    auto_id: bool | None = None,
    metadata_keys: Iterable[str] | None = None,
    embeddings: Any = None,
) -> Plan:
    """Check the arguments and the collection, if it exists, before anything is written.

    Args:
        made_with: Returns the vectors' fingerprint and length; it may load the model.
        uri: As in `milvus_kwargs`.
        token: As in `milvus_kwargs`.
        db_name: As in `milvus_kwargs`.
        collection_name: As in `milvus_kwargs`.
        k: As in `milvus_kwargs`.
        metric: As in `milvus_kwargs`.
        rows: As in `milvus_kwargs`.
        index_type: As in `milvus_kwargs`.
        vector_field: Name of the vector field in the framework's collections.
        text_search_field: Name of the field for full-text search; None for none.
        analyzer: As in `milvus_kwargs`.
        drop_old: Whether the store will drop a collection of this name; then it is not checked.
        auto_id: As in `milvus_kwargs`.
        metadata_keys: As in `milvus_kwargs`.
        embeddings: Stored in the plan.

    Raises:
        TypeError: If an argument is of the wrong type.
        ValueError: If an argument is out of range, or the existing collection does not match.
        FileNotFoundError: If the folder of a Milvus Lite file does not exist.
        pymilvus.exceptions.MilvusException: If the server does not answer.
    """
    uri = check_uri(uri)
    given, index_type = index_type, choose_index(uri, index_type, rows)
    search = search_params(k, metric, index_type)
    if analyzer is not None and text_search_field is None:
        msg = f"analyzer={analyzer!r} is for full-text search: pass hybrid=True too"
        raise ArgumentError(msg, "analyzer")
    words = analyzer_params(analyzer, lite="://" not in uri)
    keys = check_metadata_keys(metadata_keys)
    if drop_old:
        check_name(collection_name)
    fingerprint, dimensions = made_with()
    if fingerprint is not None:
        fingerprint = replace(fingerprint, metadata_keys=keys)
    elif keys:
        msg = (
            f"metadata_keys={list(keys)} are recorded with the model that makes the vectors, which "
            "these embeddings do not tell: pass Qwen3Embeddings, or a wrapper that returns the "
            "vectors of one unchanged"
        )
        raise ArgumentError(msg, "metadata_keys")
    found = None
    if not drop_old:
        found = check_collection(
            uri,
            collection_name,
            dimensions=dimensions,
            metric=metric,
            vector_field=vector_field,
            text_search_field=text_search_field,
            auto_id=auto_id,
            fingerprint=fingerprint,
            analyzer=words,
            index_type=given,
            token=token,
            db_name=db_name,
        )
    if found is not None and found.index_type:
        search = search_params(k, metric, found.index_type)
    is_new = found is None and fingerprint is not None
    return Plan(
        uri=uri,
        collection_name=collection_name,
        dimensions=dimensions,
        index=index_params(metric, index_type, rows=rows, dimensions=dimensions, lite=is_lite(uri)),
        search=search,
        found=found,
        properties=collection_properties(fingerprint) if is_new and fingerprint else None,
        hybrid=text_search_field is not None,
        analyzer=words if found is None else found.analyzer,
        embeddings=embeddings,
        metadata_keys=found.metadata_keys if found is not None and keys is None else keys,
    )
