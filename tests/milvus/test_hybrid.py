"""Full-text search beside the vectors, fused by rank, then reranked, in both frameworks."""

import pytest
from langchain_core.documents import Document
from langchain_milvus import Milvus
from llama_index.core import QueryBundle, StorageContext, VectorStoreIndex
from llama_index.core.llms import MockLLM
from llama_index.core.schema import TextNode
from llama_index.vector_stores.milvus import MilvusVectorStore

import langchain_qwen3
import llama_index_qwen3
from langchain_qwen3 import Qwen3Embeddings, Qwen3Reranker, Qwen3TwoStageRetriever
from llama_index_qwen3 import Qwen3Embedding, Qwen3Rerank, two_stage_query_engine
from tests.conftest import naming

CODE = "E-4711 is reported when the disk is full."
QUESTION = "What does E-4711 mean?"
TEXTS = [CODE, *(f"Message number {i} is about bread, cats and the sea." for i in range(60))]
RRF = {"ranker_type": "rrf", "fetch_k": 20}


@pytest.fixture
def langchain_store(tmp_path):
    def open_it(**options):
        kwargs = langchain_qwen3.milvus_kwargs(
            Qwen3Embeddings(model="tiny"), uri=tmp_path / "lc.db", **options
        )
        return Milvus(**kwargs)

    return open_it


@pytest.fixture
def llama_index_store(tmp_path):
    def open_it(**options):
        kwargs = llama_index_qwen3.milvus_kwargs(
            Qwen3Embedding(model="tiny"), uri=tmp_path / "li.db", **options
        )
        return MilvusVectorStore(**kwargs)

    return open_it


def build_index(store):
    return VectorStoreIndex(
        [TextNode(id_=f"id-{i}", text=text) for i, text in enumerate(TEXTS)],
        storage_context=StorageContext.from_defaults(vector_store=store),
        embed_model=Qwen3Embedding(model="tiny"),
    )


async def test_langchain(langchain_store):
    ids = [f"id-{i}" for i in range(len(TEXTS))]
    langchain_store(hybrid=True).add_texts(TEXTS, ids=ids)
    store = langchain_store(hybrid=True)  # opened again
    fused = store.similarity_search_with_score(QUESTION, k=20, **RRF)
    assert len(fused) == 20
    # First in full-text search, so at least 1 / (60 + 1) of reciprocal ranks.
    (score,) = (score for document, score in fused if document.page_content == CODE)
    assert score >= 1 / 61 - 1e-6

    retriever = Qwen3TwoStageRetriever(
        vectorstore=store, reranker=Qwen3Reranker(model="tiny"), k=20, top_n=3, search_kwargs=RRF
    )
    found = retriever.invoke(QUESTION)
    assert found[0].page_content == CODE
    assert found[0].metadata["retrieval_score"] == pytest.approx(score)
    assert [d.page_content for d in await retriever.ainvoke(QUESTION)] == [
        d.page_content for d in found
    ]


async def test_llama_index(llama_index_store):
    build_index(llama_index_store(hybrid=True))
    index = VectorStoreIndex.from_vector_store(
        llama_index_store(hybrid=True), embed_model=Qwen3Embedding(model="tiny")
    )
    retriever = index.as_retriever(vector_store_query_mode="hybrid", similarity_top_k=20)
    fused = retriever.retrieve(QUESTION)
    (hit,) = (node for node in fused if node.node.get_content() == CODE)
    assert hit.get_score() >= 1 / 61 - 1e-6

    engine = two_stage_query_engine(
        index,
        MockLLM(),
        reranker=Qwen3Rerank(model="tiny"),
        top_k=20,
        top_n=3,
        vector_store_query_mode="hybrid",
    )
    found = engine.retrieve(QueryBundle(QUESTION))
    assert found[0].node.get_content() == CODE
    again = await retriever.aretrieve(QUESTION)
    assert [node.node.node_id for node in again] == [node.node.node_id for node in fused]


def test_a_collection_without_full_text_search_is_refused(langchain_store, llama_index_store):
    langchain_store().add_documents([Document("x")], ids=["1"])
    with pytest.raises(ValueError, match=naming("full-text search", "'sparse'", "collection_name")):
        langchain_store(hybrid=True)
    llama_index_store()
    with pytest.raises(
        ValueError, match=naming("full-text search", "'sparse_embedding'", "collection_name")
    ):
        llama_index_store(hybrid=True)


def test_a_server_without_full_text_search_is_refused(server):
    with pytest.raises(ValueError, match=r"needs Milvus 2\.5 or newer, but the server .* is v2\.3"):
        langchain_qwen3.milvus_kwargs(Qwen3Embeddings(model="tiny"), uri=server.uri, hybrid=True)
    with pytest.raises(ValueError, match=r"needs Milvus 2\.5 or newer, but the server .* is v2\.3"):
        llama_index_qwen3.milvus_kwargs(Qwen3Embedding(model="tiny"), uri=server.uri, hybrid=True)
