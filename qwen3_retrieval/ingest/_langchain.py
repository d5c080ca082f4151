"""LangChain's part in the ingest: its splitters, and rows in `langchain_milvus.Milvus`."""

from collections.abc import Sequence
from typing import Any, ClassVar

from langchain_core.documents import Document
from langchain_milvus import Milvus
from langchain_text_splitters import MarkdownHeaderTextSplitter, RecursiveCharacterTextSplitter

from langchain_qwen3.embeddings import Qwen3Embeddings
from langchain_qwen3.milvus import milvus_kwargs
from qwen3_retrieval.ingest.chunks import Chunk
from qwen3_retrieval.ingest.framework import Encode
from qwen3_retrieval.ingest.settings import Settings


class IngestFramework:
    """Splits with LangChain's splitters, writes what `Milvus(**milvus_kwargs(...))` opens."""

    id_field: ClassVar[str] = "pk"
    splitter_packages: ClassVar[tuple[str, ...]] = ("langchain-text-splitters",)

    def __init__(self, settings: Settings, encode: Encode) -> None:
        """Make the components; nothing is loaded or opened yet."""
        self._settings = settings
        self._embeddings = Qwen3Embeddings(
            model=settings.model,
            base_url=settings.base_url,
            dimensions=settings.dimensions,
            device=settings.device,
            dtype=settings.dtype,
        )
        self._headings = MarkdownHeaderTextSplitter(
            [("#" * level, f"h{level}") for level in range(1, 7)], strip_headers=False
        )
        self._sizes = RecursiveCharacterTextSplitter(
            chunk_size=settings.chunk_size,
            chunk_overlap=settings.chunk_overlap,
            length_function=lambda text: len(encode(text)),
        )
        self._store: Milvus | None = None
        self._exists = False

    def split_at_headings(self, text: str) -> list[tuple[str, list[str]]]:
        """A Markdown text in parts, each with its headings: the outermost first, its own last."""
        parts = self._headings.split_text(text)
        return [(part.page_content, list(part.metadata.values())) for part in parts]

    def split_to_size(self, text: str) -> list[str]:
        """A text in pieces of at most `chunk_size` tokens where it can be cut so."""
        return self._sizes.split_text(text)

    def check(self) -> None:
        """Raise ValueError if the collection exists but does not fit; creates nothing."""
        self._kwargs()

    def write(self, chunks: Sequence[Chunk]) -> None:
        """Embed chunks and write their rows; one whose id is there already is replaced."""
        if self._store is None:  # the collection is created with the first rows
            self._store = Milvus(**self._kwargs())
            self._exists = self._store.client.has_collection(self._settings.collection)
        documents = [Document(chunk.text, metadata=dict(chunk.metadata)) for chunk in chunks]
        ids = [chunk.id for chunk in chunks]
        if self._exists:
            self._store.upsert(ids=ids, documents=documents)
        else:  # the store's upsert creates no collection
            self._store.add_documents(documents, ids=ids)
            self._exists = True

    def _kwargs(self) -> dict[str, Any]:
        return milvus_kwargs(
            self._embeddings,
            uri=self._settings.uri,
            token=self._settings.token,
            collection_name=self._settings.collection,
        )
