"""LangChain adapter of the ingest: rows in `langchain_milvus.Milvus`, and its splitters."""

from collections.abc import Sequence
from typing import Any, ClassVar

from langchain_core.documents import Document
from langchain_milvus import Milvus

from langchain_qwen3.embeddings import Qwen3Embeddings
from langchain_qwen3.milvus import milvus_kwargs
from qwen3_retrieval.documents.cutting import (
    CHUNK_OVERLAP,
    CHUNK_SIZE,
    FrameworkSplitters,
    LoadTokenizer,
)
from qwen3_retrieval.ingest.chunks import Chunk
from qwen3_retrieval.ingest.settings import IngestSettings


class IngestFramework:
    """Writes collections that `Milvus(**milvus_kwargs(...))` can open."""

    id_field: ClassVar[str] = "pk"
    splitter_package: ClassVar[str] = "langchain-text-splitters"

    def __init__(self, settings: IngestSettings) -> None:
        """Create the components; loads and opens nothing."""
        self._settings = settings
        self._embeddings = Qwen3Embeddings(
            model=settings.model,
            base_url=settings.base_url,
            dimensions=settings.dimensions,
            device=settings.device,
            dtype=settings.dtype,
        )
        self._store: Milvus | None = None
        self._exists = False

    def splitters(self, tokenizer: LoadTokenizer) -> FrameworkSplitters:
        """See the function `splitters`."""
        return splitters(tokenizer, self._settings.chunk_size, self._settings.chunk_overlap)

    def check(self) -> None:
        """Raise ValueError if the collection exists but does not match; creates nothing."""
        self._kwargs()

    def write(self, chunks: Sequence[Chunk]) -> None:
        """Embed chunks and write their rows; rows with existing ids are replaced."""
        if self._store is None:  # the collection is created with the first rows
            self._store = Milvus(**self._kwargs())
            self._exists = self._store.client.has_collection(self._settings.collection)
        documents = [Document(chunk.text, metadata=chunk.metadata) for chunk in chunks]
        ids = [chunk.id for chunk in chunks]
        if self._exists:
            self._store.upsert(ids=ids, documents=documents)
        else:  # the store's upsert does not create collections
            self._store.add_documents(documents, ids=ids)
            self._exists = True

    def _kwargs(self) -> dict[str, Any]:
        return milvus_kwargs(
            self._embeddings,
            uri=self._settings.uri,
            token=self._settings.token,
            db_name=self._settings.db_name,
            collection_name=self._settings.collection,
            index_type=self._settings.index_type,
            metadata_keys=self._settings.metadata_keys,
        )


def splitters(
    tokenizer: LoadTokenizer, chunk_size: int = CHUNK_SIZE, chunk_overlap: int = CHUNK_OVERLAP
) -> FrameworkSplitters:
    """MarkdownHeaderTextSplitter and RecursiveCharacterTextSplitter.

    Raises:
        ImportError: If langchain-text-splitters is not installed.
    """
    try:
        from langchain_text_splitters import (
            MarkdownHeaderTextSplitter,
            RecursiveCharacterTextSplitter,
        )
    except ModuleNotFoundError as error:
        msg = (
            "LangChain's splitters are in a package of their own: run `pip install "
            "langchain-text-splitters`"
        )
        raise ImportError(msg) from error
    headings = MarkdownHeaderTextSplitter(
        [("#" * level, f"h{level}") for level in range(1, 7)], strip_headers=False
    )
    sizes = RecursiveCharacterTextSplitter(
        chunk_size=chunk_size,
        chunk_overlap=chunk_overlap,
        length_function=lambda text: len(tokenizer().encode(text)),
    )

    def at_headings(text: str) -> list[tuple[str, list[str]]]:
        parts = headings.split_text(text)
        return [(part.page_content, list(part.metadata.values())) for part in parts]

    return FrameworkSplitters(at_headings, sizes.split_text)
