"""One face for both frameworks' Milvus stores, so that one suite runs on both."""

from abc import ABC, abstractmethod
from typing import Any, NamedTuple

from langchain_core.documents import Document
from langchain_milvus import Milvus
from llama_index.core.schema import TextNode
from llama_index.core.vector_stores.types import VectorStoreQuery
from llama_index.vector_stores.milvus import MilvusVectorStore

import langchain_qwen3
import llama_index_qwen3
from langchain_qwen3 import Qwen3Embeddings
from llama_index_qwen3 import Qwen3Embedding


class Hit(NamedTuple):
    id: str
    text: str
    score: float


class Store(ABC):
    """A collection, opened with `milvus_kwargs`."""

    client: Any

    @abstractmethod
    def add(self, texts: dict[str, str], **metadata: Any) -> None:
        """Add texts by id; each `metadata` value is a list with one entry for each text."""

    @abstractmethod
    def replace(self, id_: str, text: str) -> None: ...

    @abstractmethod
    def delete(self, ids: list[str]) -> None: ...

    @abstractmethod
    def search(self, query: str, k: int, expression: str = "") -> list[Hit]: ...

    @abstractmethod
    async def asearch(self, query: str, k: int) -> list[Hit]: ...

    def ids(self, expression: str = "", k: int = 100) -> set[str]:
        """All ids that meet the expression, by way of a search."""
        return {hit.id for hit in self.search("any", k, expression)}


def _rows(texts: dict[str, str], metadata: dict[str, Any]) -> list[tuple[str, str, dict[str, Any]]]:
    return [
        (id_, text, {key: values[i] for key, values in metadata.items()})
        for i, (id_, text) in enumerate(texts.items())
    ]


class LangChain(Store):
    def __init__(self, uri: str, name: str, *, dimensions: int | None = None, **options: Any):
        self.model = Qwen3Embeddings(model="tiny", dimensions=dimensions)
        more = options.pop("more", {})
        kwargs = langchain_qwen3.milvus_kwargs(self.model, uri=uri, collection_name=name, **options)
        self.store = Milvus(**kwargs | more)
        self.client = self.store.client

    def add(self, texts, **metadata):
        rows = _rows(texts, metadata)
        documents = [Document(text, metadata=data) for _, text, data in rows]
        self.store.add_documents(documents, ids=list(texts))

    def replace(self, id_, text):
        self.store.upsert(ids=[id_], documents=[Document(text)])

    def delete(self, ids):
        self.store.delete(ids=ids)

    def search(self, query, k, expression=""):
        found = self.store.similarity_search_with_score(query, k=k, expr=expression or None)
        return [Hit(d.metadata["pk"], d.page_content, score) for d, score in found]

    async def asearch(self, query, k):
        found = await self.store.asimilarity_search_with_score(query, k=k)
        return [Hit(d.metadata["pk"], d.page_content, score) for d, score in found]


class LlamaIndex(Store):
    def __init__(self, uri: str, name: str, *, dimensions: int | None = None, **options: Any):
        self.model = Qwen3Embedding(model="tiny", dimensions=dimensions)
        more = options.pop("more", {})
        kwargs = llama_index_qwen3.milvus_kwargs(
            self.model, uri=uri, collection_name=name, **options
        )
        self.store = MilvusVectorStore(**kwargs | more)
        self.client = self.store.client

    def add(self, texts, **metadata):
        nodes = [
            TextNode(id_=id_, text=text, metadata=data, excluded_embed_metadata_keys=list(metadata))
            for id_, text, data in _rows(texts, metadata)
        ]
        self.store.add(list(self.model(nodes)))

    def replace(self, id_, text):
        self.add({id_: text})

    def delete(self, ids):
        self.store.delete_nodes(ids)

    def search(self, query, k, expression=""):
        asked = VectorStoreQuery(
            query_embedding=self.model.get_query_embedding(query), similarity_top_k=k
        )
        return self._hits(self.store.query(asked, string_expr=expression))

    async def asearch(self, query, k):
        vector = await self.model.aget_query_embedding(query)
        asked = VectorStoreQuery(query_embedding=vector, similarity_top_k=k)
        return self._hits(await self.store.aquery(asked))

    def _hits(self, result: Any) -> list[Hit]:
        return [
            Hit(id_, node.get_content(), score)
            for id_, node, score in zip(result.ids, result.nodes, result.similarities, strict=True)
        ]
