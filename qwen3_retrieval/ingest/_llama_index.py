"""LlamaIndex's part in `qwen3_retrieval.ingest`: its splitters, and rows in `MilvusVectorStore`."""

from collections.abc import Sequence
from typing import Any, ClassVar

from llama_index.core.node_parser import MarkdownNodeParser, SentenceSplitter
from llama_index.core.schema import Document, NodeRelationship, RelatedNodeInfo, TextNode
from llama_index.vector_stores.milvus import MilvusVectorStore

from llama_index_qwen3.embedding import Qwen3Embedding
from llama_index_qwen3.milvus import milvus_kwargs
from qwen3_retrieval.ingest.chunks import Chunk, heading_of
from qwen3_retrieval.ingest.framework import Encode
from qwen3_retrieval.ingest.settings import Settings


class IngestFramework:
    """Splits with LlamaIndex's parsers, writes what `VectorStoreIndex.from_vector_store` reads."""

    id_field: ClassVar[str] = "id"
    splitter_packages: ClassVar[tuple[str, ...]] = ("llama-index-core",)

    def __init__(self, settings: Settings, encode: Encode) -> None:
        """Make the components; nothing is loaded or opened yet."""
        self._settings = settings
        self._embed_model = Qwen3Embedding(
            model=settings.model,
            base_url=settings.base_url,
            dimensions=settings.dimensions,
            device=settings.device,
            dtype=settings.dtype,
        )
        self._headings = MarkdownNodeParser(header_path_separator="\n")  # in no heading
        self._sizes = SentenceSplitter(
            chunk_size=settings.chunk_size,
            chunk_overlap=settings.chunk_overlap,
            tokenizer=lambda text: list(encode(text)),
        )
        self._store: MilvusVectorStore | None = None

    def split_at_headings(self, text: str) -> list[tuple[str, list[str]]]:
        """A Markdown text in parts, each with its headings: the outermost first, its own last."""
        nodes = self._headings.get_nodes_from_documents([Document(text=text)])
        parts = [(node.get_content(), node.metadata["header_path"].split("\n")) for node in nodes]
        return [(part, [*above, heading_of(part)]) for part, above in parts]

    def split_to_size(self, text: str) -> list[str]:
        """A text in pieces of at most `chunk_size` tokens where it can be cut so."""
        return self._sizes.split_text(text)

    def check(self) -> None:
        """Raise ValueError if the collection exists but does not fit; creates nothing."""
        self._kwargs()

    def write(self, chunks: Sequence[Chunk]) -> None:
        """Embed chunks and write their rows; one whose id is there already is replaced."""
        nodes = list(self._embed_model([_node(chunk) for chunk in chunks]))
        if self._store is None:  # now, because it creates the collection
            self._store = MilvusVectorStore(**self._kwargs())
        self._store.add(nodes)

    def _kwargs(self) -> dict[str, Any]:
        return milvus_kwargs(
            self._embed_model,
            uri=self._settings.uri,
            token=self._settings.token,
            collection_name=self._settings.collection,
            use_async_client=False,
        )


def _node(chunk: Chunk) -> TextNode:
    # The models read the text alone: the metadata is for filters and citations.
    hidden = list(chunk.metadata)
    return TextNode(
        id_=chunk.id,
        text=chunk.text,
        metadata=dict(chunk.metadata),
        excluded_embed_metadata_keys=hidden,
        excluded_llm_metadata_keys=hidden,
        relationships={NodeRelationship.SOURCE: RelatedNodeInfo(node_id=chunk.document_id)},
    )
