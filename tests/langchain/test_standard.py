"""LangChain's own standard tests for embeddings and retrievers."""

import pytest
from langchain_core.embeddings import Embeddings
from langchain_core.retrievers import BaseRetriever
from langchain_core.vectorstores import InMemoryVectorStore, VectorStore
from langchain_milvus import Milvus
from langchain_tests.integration_tests import EmbeddingsIntegrationTests, RetrieversIntegrationTests
from langchain_tests.unit_tests import EmbeddingsUnitTests

from langchain_qwen3 import Qwen3Embeddings, Qwen3Reranker, Qwen3TwoStageRetriever, milvus_kwargs
from tests.langchain.conftest import QUESTION, TEXTS


class TestEmbeddingsUnit(EmbeddingsUnitTests):
    @property
    def embeddings_class(self) -> type[Embeddings]:
        return Qwen3Embeddings

    @property
    def embedding_model_params(self) -> dict:
        return {"model": "tiny"}


class TestEmbeddingsIntegration(EmbeddingsIntegrationTests):
    @property
    def embeddings_class(self) -> type[Embeddings]:
        return Qwen3Embeddings

    @property
    def embedding_model_params(self) -> dict:
        return {"model": "tiny"}


class TwoStageRetriever(RetrieversIntegrationTests):
    """What the stores below share: `top_n` is the number of results, `k` that of candidates."""

    store: VectorStore

    @property
    def retriever_constructor(self) -> type[BaseRetriever]:
        return Qwen3TwoStageRetriever

    @property
    def retriever_query_example(self) -> str:
        return QUESTION

    @property
    def num_results_arg_name(self) -> str:
        return "top_n"

    @property
    def retriever_constructor_params(self) -> dict:
        return {"vectorstore": self.store, "reranker": Qwen3Reranker(model="tiny")}


class TestTwoStageRetrieverInMemory(TwoStageRetriever):
    @pytest.fixture(autouse=True)
    def _fill(self, embeddings):
        self.store = InMemoryVectorStore.from_texts(TEXTS, embeddings)


class TestTwoStageRetrieverMilvus(TwoStageRetriever):
    @pytest.fixture(autouse=True)
    def _fill(self, embeddings, tmp_path):
        self.store = Milvus(**milvus_kwargs(embeddings, uri=tmp_path / "standard.db", auto_id=True))
        self.store.add_texts(TEXTS)
