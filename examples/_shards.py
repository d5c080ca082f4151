"""Parquet shards for Milvus bulk import, in the schema of either framework's store."""

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

LANGCHAIN = "langchain"
LLAMA_INDEX = "llama_index"
SCHEMAS = {
    LANGCHAIN: ("text", "pk", "vector", "$meta"),
    LLAMA_INDEX: ("id", "doc_id", "text", "embedding", "$meta"),
}
"""Columns of the collections that `langchain_milvus.Milvus` and LlamaIndex's `MilvusVectorStore`
create; "$meta" is Milvus's own field for all other keys, as JSON."""

VECTOR_FIELD = {LANGCHAIN: "vector", LLAMA_INDEX: "embedding"}


def milvus_row(framework: str, key: str, text: str, metadata: Mapping[str, Any]) -> dict[str, Any]:
    """A passage as the framework's own store would write it, without the vector."""
    if framework == LANGCHAIN:
        return {"text": text, "pk": key, "$meta": json.dumps(metadata, ensure_ascii=False)}

    from llama_index.core.schema import NodeRelationship, RelatedNodeInfo, TextNode
    from llama_index.core.vector_stores.utils import node_to_metadata_dict

    hidden = list(metadata)  # kept with the node, but not part of what the models read
    node = TextNode(
        id_=key,
        text=text,
        metadata=dict(metadata),
        excluded_embed_metadata_keys=hidden,
        excluded_llm_metadata_keys=hidden,
        # What `delete_ref_doc(source)` finds all passages of a file by.
        relationships={NodeRelationship.SOURCE: RelatedNodeInfo(node_id=metadata["source"])},
    )
    entry = node_to_metadata_dict(node, remove_text=True, text_field="text")
    document = entry.pop("doc_id")
    meta = json.dumps(entry, ensure_ascii=False)
    return {"id": key, "doc_id": document, "text": text, "$meta": meta}


def write_shard(path: Path, framework: str, rows: Sequence[dict[str, Any]], vectors: Any) -> None:
    """Write a shard atomically: a worker that dies leaves no partial file.

    Args:
        path: The file; one that is there is replaced.
        framework: Decides the columns.
        rows: From `milvus_row`.
        vectors: Their vectors, an Arrow column of list<float32>.
    """
    columns: dict[str, Any] = {}
    for name in SCHEMAS[framework]:
        if name == VECTOR_FIELD[framework]:
            columns[name] = vectors
        else:
            columns[name] = pa.array([row[name] for row in rows], type=pa.string())
    part = path.with_suffix(f".{os.getpid()}.part")
    try:
        pq.write_table(pa.table(columns), part)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)  # on a disk that is full it would keep it so


def read_shard(path: Path) -> Iterator[list[dict[str, Any]]]:
    """Rows as a Milvus client takes them (keys of "$meta" beside the columns), 500 at a time."""
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(batch_size=500):
            yield [json.loads(row.pop("$meta")) | row for row in batch.to_pylist()]


def digest(*parts: str | bytes, length: int = 32) -> str:
    """Hash that tells any two lists of parts apart."""
    total = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        total.update(len(data).to_bytes(8, "big") + data)
    return total.hexdigest()[:length]
