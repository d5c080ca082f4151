"""Both frameworks' pipelines with the models on a server: the same results as in this process."""

from pathlib import Path
from typing import Any

import pytest
from langchain_core.documents import Document
from langchain_milvus import Milvus
from langchain_openai import ChatOpenAI
from llama_index.core import StorageContext, VectorStoreIndex
from llama_index.llms.openai_like import OpenAILike
from llama_index.vector_stores.milvus import MilvusVectorStore
from pydantic import SecretStr

import langchain_qwen3
import llama_index_qwen3
from langchain_qwen3 import (
    Qwen3CrossEncoder,
    Qwen3Embeddings,
    Qwen3Reranker,
    Qwen3TwoStageRetriever,
    create_rag_chain,
)
from llama_index_qwen3 import Qwen3Embedding, Qwen3Rerank, two_stage_query_engine
from qwen3_core.remote import RemoteEmbedder, RemoteReranker, Server
from tests.conftest import naming
from tests.llama_index.conftest import TEXTS, text_nodes
from tests.openai_server import OpenAIServer
from tests.remote.fake_server import FakeServer

QUESTION = "How is data stored in Milvus?"
LOCAL: dict[str, Any] = {"dtype": "float32"}
NEAR = 1e-5


@pytest.fixture
def openai_server():
    with OpenAIServer() as server:
        yield server


def langchain_chain(path: Path, url: str, **place: Any) -> Any:
    """The tutorial's pipeline: Milvus Lite, two stages, an LLM with citations."""
    new = not path.exists()
    embeddings = Qwen3Embeddings(model="tiny", **place)
    store = Milvus(**langchain_qwen3.milvus_kwargs(embeddings, uri=path))
    if new:
        documents = [Document(text, metadata={"number": i}) for i, text in enumerate(TEXTS)]
        store.add_documents(documents, ids=[f"id-{i}" for i in range(len(TEXTS))])
    retriever = Qwen3TwoStageRetriever(
        vectorstore=store, reranker=Qwen3Reranker(model="tiny", **place), k=6, top_n=3
    )
    llm = ChatOpenAI(model="any", base_url=url, api_key=SecretStr("any"), max_retries=0)
    return create_rag_chain(retriever, llm)


def check_langchain(result: dict[str, Any], local: dict[str, Any]) -> None:
    assert result["answer"] == local["answer"]
    assert len(result["context"]) == 3
    assert [c["number"] for c in result["citations"]] == [c["number"] for c in local["citations"]]
    for found, same in zip(result["context"], local["context"], strict=True):
        assert found.page_content == same.page_content
        scores = ("relevance_score", "relevance_log_odds", "retrieval_score")
        for name in scores:
            assert found.metadata[name] == pytest.approx(same.metadata[name], abs=NEAR)


async def test_langchains_rag_chain(server, openai_server, tmp_path):
    local = langchain_chain(tmp_path / "local.db", openai_server.url, **LOCAL).invoke(QUESTION)
    assert local["context"][0].page_content == TEXTS[0]
    place = {"base_url": server.url, "server": Server(batch_size=3)}
    chain = langchain_chain(tmp_path / "remote.db", openai_server.url, **place)
    check_langchain(chain.invoke(QUESTION), local)
    check_langchain(await chain.ainvoke(QUESTION), local)
    # What was embedded in this process can be searched from a server.
    moved = langchain_chain(tmp_path / "local.db", openai_server.url, **place)
    check_langchain(moved.invoke(QUESTION), local)
    assert {r.path for r in server.received} == {"/v1/embeddings", "/v1/rerank"}


def llama_index_engine(path: Path, url: str, **place: Any) -> Any:
    """The same with LlamaIndex."""
    embed_model = Qwen3Embedding(model="tiny", **place)
    store = MilvusVectorStore(**llama_index_qwen3.milvus_kwargs(embed_model, uri=path))
    storage = StorageContext.from_defaults(vector_store=store)
    index = VectorStoreIndex(text_nodes(), storage_context=storage, embed_model=embed_model)
    llm = OpenAILike(
        model="any", api_base=url, api_key="any", is_chat_model=True, max_retries=0,
        reuse_client=False,
    )  # fmt: skip
    reranker = Qwen3Rerank(model="tiny", **place)
    return two_stage_query_engine(index, llm, reranker=reranker, top_k=6, top_n=3)


def check_llama_index(response: Any, local: Any) -> None:
    assert str(response) == str(local)
    assert response.metadata["citations"] == local.metadata["citations"] == [1]
    assert len(response.source_nodes) == 3
    for found, same in zip(response.source_nodes, local.source_nodes, strict=True):
        assert found.node.node_id == same.node.node_id
        assert found.score == pytest.approx(same.score, abs=NEAR)


async def test_llama_indexs_query_engine(server, openai_server, tmp_path):
    local = llama_index_engine(tmp_path / "local.db", openai_server.url, **LOCAL).query(QUESTION)
    assert local.source_nodes[0].node.node_id == "node-0"
    place = {"base_url": server.url, "server": Server(batch_size=3)}
    engine = llama_index_engine(tmp_path / "remote.db", openai_server.url, **place)
    check_llama_index(engine.query(QUESTION), local)
    check_llama_index(await engine.aquery(QUESTION), local)
    assert {r.path for r in server.received} == {"/v1/embeddings", "/v1/rerank"}


# The components' own methods


async def test_each_method_gives_what_the_local_one_gives(server):
    pairs = [(QUESTION, text) for text in TEXTS]
    here = LOCAL
    there: dict[str, Any] = {"base_url": server.url}
    embeddings: Any = Qwen3Embeddings(model="tiny", **there)
    other: Any = Qwen3Embeddings(model="tiny", **here)
    assert isinstance(embeddings.embedder, RemoteEmbedder)
    for vectors, same in [
        (embeddings.embed_documents(TEXTS), other.embed_documents(TEXTS)),
        (await embeddings.aembed_documents(TEXTS), other.embed_documents(TEXTS)),
        ([embeddings.embed_query(QUESTION)], [other.embed_query(QUESTION)]),
        ([await embeddings.aembed_query(QUESTION)], [other.embed_query(QUESTION)]),
    ]:
        for row, expected in zip(vectors, same, strict=True):
            assert row == pytest.approx(expected, abs=NEAR)
    scores = Qwen3CrossEncoder(model="tiny", **there).score(pairs)
    local_scores = Qwen3CrossEncoder(model="tiny", **here).score(pairs)
    assert scores == pytest.approx(local_scores, abs=NEAR)
    embedding = Qwen3Embedding(model="tiny", **there)
    other_embedding = Qwen3Embedding(model="tiny", **here)
    assert embedding.dim == 256
    vector = other_embedding.get_query_embedding(QUESTION)
    assert embedding.get_query_embedding(QUESTION) == pytest.approx(vector, abs=NEAR)
    assert await embedding.aget_query_embedding(QUESTION) == pytest.approx(vector, abs=NEAR)
    rows = other_embedding.get_text_embedding_batch(TEXTS)
    for found in (
        embedding.get_text_embedding_batch(TEXTS),
        await embedding.aget_text_embedding_batch(TEXTS),
    ):
        for row, same_row in zip(found, rows, strict=True):
            assert row == pytest.approx(same_row, abs=NEAR)


@pytest.mark.parametrize(
    "make", [Qwen3Embeddings, Qwen3Reranker, Qwen3CrossEncoder, Qwen3Embedding, Qwen3Rerank]
)
@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"device": "cpu"}, "device='cpu' is about a model in this process"),
        ({"dtype": "float32", "pack_tokens": 99}, "dtype='float32', pack_tokens=99 is about"),
        ({"base_url": None, "server": "vllm"}, "server without base_url"),
        ({"server": "vlm"}, "unknown server kind 'vlm'"),
        ({"base_url": "localhost"}, "base_url must be like"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(make, wrong, message):
    with pytest.raises(ValueError, match=message):
        make(model="tiny", **({"base_url": "http://localhost:1"} | wrong))


@pytest.mark.parametrize("make", [Qwen3Reranker, Qwen3CrossEncoder, Qwen3Rerank])
def test_no_reranker_on_text_embeddings_inference(make):
    with pytest.raises(
        ValueError, match=naming("Text Embeddings Inference", "vLLM", "SGLang", "llama.cpp")
    ):
        make(model="tiny", base_url="http://localhost:1", server="tei")


@pytest.mark.parametrize("make", [Qwen3Embeddings, Qwen3Reranker, Qwen3Embedding, Qwen3Rerank])
def test_settings_of_a_server_survive_a_dump(make):
    settings = Server(kind="vllm", batch_size=3, self_check=False)
    component = make(model="tiny", base_url="http://localhost:1", server=settings)
    again = make(**{n: v for n, v in component.model_dump().items() if n in fields(make)})
    assert again.server == settings
    assert again.base_url == component.base_url


def fields(make: Any) -> set[str]:
    """The settings of a component, less what LlamaIndex adds for itself."""
    return set(make.model_fields) - {"callback_manager", "num_workers"}


def test_the_rerankers_are_remote(server):
    assert isinstance(Qwen3Rerank(model="tiny", base_url=server.url)._reranker, RemoteReranker)
    with FakeServer("llama.cpp") as other:
        reranker = Qwen3Reranker(model="tiny", base_url=other.url, instruction="fact_check")
        with pytest.raises(ValueError, match="cannot be told an instruction"):
            reranker.rerank(TEXTS, QUESTION)
