"""vLLM as everything: embedding, reranking and the LLM, through both frameworks.

The bundled reranker serves as LLM. Its words make no sense; that they arrive, and how, does.
"""

import pytest
from langchain_core.documents import Document
from langchain_milvus import Milvus
from langchain_openai import ChatOpenAI
from llama_index.core import Document as LlamaDocument
from llama_index.core import StorageContext, VectorStoreIndex
from llama_index.core.base.response.schema import StreamingResponse
from llama_index.llms.openai_like import OpenAILike
from llama_index.vector_stores.milvus import MilvusVectorStore
from pydantic import SecretStr

import langchain_qwen3
import llama_index_qwen3
from langchain_qwen3 import (
    Qwen3Embeddings,
    Qwen3Reranker,
    Qwen3TwoStageRetriever,
    create_rag_chain,
)
from llama_index_qwen3 import Qwen3Embedding, Qwen3Rerank, two_stage_query_engine

QUERY = "How is data stored in Milvus?"
TEXTS = [
    "Milvus stores inserted data in object storage.",
    "Cats sleep most of the day.",
    "Bread is made of flour and water.",
    "A log is written first; Milvus keeps its data there until it is flushed.",
]


@pytest.fixture
def chain(servers, tmp_path):
    embeddings = Qwen3Embeddings(model="tiny", base_url=servers["embedding"].url)
    store = Milvus(**langchain_qwen3.milvus_kwargs(embeddings, uri=str(tmp_path / "lc.db")))
    store.add_documents([Document(text) for text in TEXTS], ids=list("abcd"))
    reranker = Qwen3Reranker(model="tiny", base_url=servers["reranker"].url)
    retriever = Qwen3TwoStageRetriever(vectorstore=store, reranker=reranker, k=4, top_n=2)
    llm = ChatOpenAI(
        base_url=servers["chat"].url,
        api_key=SecretStr("any"),
        model="tiny",
        max_completion_tokens=24,
        temperature=0,
    )
    return create_rag_chain(retriever, llm)


def test_langchain_answers_and_streams(chain):
    result = chain.invoke(QUERY)
    assert result["context"][0].page_content == TEXTS[0]
    assert result["answer"]
    chunks = [chunk["answer"] for chunk in chain.stream(QUERY) if "answer" in chunk]
    assert len(chunks) > 3
    assert "".join(chunks) == result["answer"]


async def test_langchain_streams_asynchronously(chain):
    chunks = [chunk["answer"] async for chunk in chain.astream(QUERY) if "answer" in chunk]
    assert len(chunks) > 3


def test_llama_index_answers_and_streams(servers, tmp_path):
    embed_model = Qwen3Embedding(model="tiny", base_url=servers["embedding"].url)
    store = MilvusVectorStore(
        **llama_index_qwen3.milvus_kwargs(embed_model, uri=str(tmp_path / "li.db"))
    )
    context = StorageContext.from_defaults(vector_store=store)
    documents = [LlamaDocument(text=text) for text in TEXTS]
    index = VectorStoreIndex.from_documents(documents, context, embed_model=embed_model)
    llm = OpenAILike(
        api_base=servers["chat"].url,
        api_key="any",
        model="tiny",
        is_chat_model=True,
        max_tokens=24,
        temperature=0,
    )
    reranker = Qwen3Rerank(model="tiny", base_url=servers["reranker"].url)
    engine = two_stage_query_engine(index, llm, reranker=reranker, top_k=4, top_n=2)
    response = engine.query(QUERY)
    assert response.source_nodes[0].node.get_content() == TEXTS[0]
    assert (answer := str(response))
    streaming = two_stage_query_engine(
        index, llm, reranker=reranker, top_k=4, top_n=2, streaming=True
    )
    response = streaming.query(QUERY)
    assert isinstance(response, StreamingResponse)
    words = list(response.response_gen)
    assert len(words) > 3
    assert "".join(words) == answer
