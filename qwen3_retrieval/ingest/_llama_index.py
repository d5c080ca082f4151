"""LlamaIndex adapter of the ingest: rows in `MilvusVectorStore`, and its splitters."""

from collections.abc import Sequence
from typing import Any, ClassVar

from llama_index.core.node_parser import MarkdownNodeParser, SentenceSplitter
from llama_index.core.schema import BaseNode, Document, NodeRelationship, RelatedNodeInfo, TextNode
from llama_index.vector_stores.milvus import MilvusVectorStore

from llama_index_qwen3.embedding import Qwen3Embedding
from llama_index_qwen3.milvus import milvus_kwargs
from qwen3_core.metadata import metadata_header
from qwen3_retrieval.documents.cutting import (
    CHUNK_OVERLAP,
    CHUNK_SIZE,
    FrameworkSplitters,
    LoadTokenizer,
)
from qwen3_retrieval.ingest.chunks import Chunk
from qwen3_retrieval.ingest.settings import IngestSettings


class IngestFramework:
    """Writes collections that `VectorStoreIndex.from_vector_store` can read."""

    id_field: ClassVar[str] = "id"
    splitter_package: ClassVar[str] = "llama-index-core"

    def __init__(self, settings: IngestSettings) -> None:
        """Create the components; loads and opens nothing."""
        self._settings = settings
        self._embed_model = Qwen3Embedding(
            model=settings.model,
            base_url=settings.base_url,
            dimensions=settings.dimensions,
            device=settings.device,
            dtype=settings.dtype,
        )
        self._store: MilvusVectorStore | None = None

    def splitters(self, tokenizer: LoadTokenizer) -> FrameworkSplitters:
        """See the function `splitters`."""
        return splitters(tokenizer, self._settings.chunk_size, self._settings.chunk_overlap)

    def check(self) -> None:
        """Raise ValueError if the collection exists but does not match; creates nothing."""
        self._kwargs()

    def write(self, chunks: Sequence[Chunk]) -> None:
        """Embed chunks and write their rows; rows with existing ids are replaced."""
        nodes = list(self._embed_model([self._node(chunk) for chunk in chunks]))
        if self._store is None:  # now, because it creates the collection
            self._store = MilvusVectorStore(**self._kwargs())
        self._store.add(nodes)

    def _node(self, chunk: Chunk) -> TextNode:
        # LLMs read only the text; the metadata is for filters and citations.
        every = chunk.metadata
        shown = {key: every[key] for key in self._settings.metadata_keys if _has(every, key)}
        return TextNode(
            id_=chunk.id,
            text=chunk.text,
            metadata=shown | every,  # LlamaIndex renders them in this order
            excluded_embed_metadata_keys=[key for key in every if key not in shown],
            excluded_llm_metadata_keys=list(every),
            relationships={NodeRelationship.SOURCE: RelatedNodeInfo(node_id=chunk.document_id)},
        )

    def _kwargs(self) -> dict[str, Any]:
        return milvus_kwargs(
            self._embed_model,
            uri=self._settings.uri,
            token=self._settings.token,
            db_name=self._settings.db_name,
            collection_name=self._settings.collection,
            index_type=self._settings.index_type,
            metadata_keys=self._settings.metadata_keys,
            use_async_client=False,
        )


def _has(metadata: dict[str, Any], key: str) -> bool:
    return bool(metadata_header(metadata, [key]))


def _heading(node: BaseNode) -> str:
    """The heading at the beginning of a part of a Markdown text, or ""."""
    first = node.get_content().lstrip().partition("\n")[0]
    return first.strip(" \t#") if first.startswith("#") else ""


def splitters(
    tokenizer: LoadTokenizer, chunk_size: int = CHUNK_SIZE, chunk_overlap: int = CHUNK_OVERLAP
) -> FrameworkSplitters:
    """MarkdownNodeParser and SentenceSplitter."""
    headings = MarkdownNodeParser(header_path_separator="\n")  # occurs in no heading
    sizes = SentenceSplitter(
        chunk_size=chunk_size,
        chunk_overlap=chunk_overlap,
        tokenizer=lambda text: list(tokenizer().encode(text)),
    )

    def at_headings(text: str) -> list[tuple[str, list[str]]]:
        nodes = headings.get_nodes_from_documents([Document(text=text)])
        return [
            (node.get_content(), [*node.metadata["header_path"].split("\n"), _heading(node)])
            for node in nodes
        ]

    return FrameworkSplitters(at_headings, sizes.split_text)
