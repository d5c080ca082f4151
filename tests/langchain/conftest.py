"""The bundled pair behind LangChain's interfaces, a few documents, and a local LLM server."""

from collections.abc import Iterator
from typing import Any

import pytest
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.documents import Document
from langchain_core.vectorstores import InMemoryVectorStore

from langchain_qwen3 import Qwen3Embeddings, Qwen3Reranker, Qwen3TwoStageRetriever
from tests.openai_server import OpenAIServer

QUESTION = "How is data stored in Milvus?"

TEXTS = [
    "Cats sleep for most of the day.",
    "Milvus stores inserted data in object storage as incremental logs.",
    "The museum is closed on Mondays.",
    "Data in Milvus is stored in segments; metadata is stored in etcd.",
    "Bread is baked from flour, water and yeast.",
    "The price of the cheapest plan is nine euros a month.",
]
RELEVANT = {TEXTS[1], TEXTS[3]}


async def call(component: Any, func: str, *args: Any, **kwargs: Any) -> Any:
    """The result of a method by its name, awaited if it is one of the async twins ("a...")."""
    result = getattr(component, func)(*args, **kwargs)
    return await result if func.startswith("a") else result


class Runs(BaseCallbackHandler):
    """Records the runs that callbacks report."""

    def __init__(self) -> None:
        self.runs: dict[Any, dict[str, Any]] = {}

    def on_chain_start(self, serialized, inputs, *, run_id, parent_run_id=None, **kwargs):
        self._start("chain", inputs, run_id, parent_run_id, kwargs)

    def on_retriever_start(self, serialized, query, *, run_id, parent_run_id=None, **kwargs):
        self._start("retriever", query, run_id, parent_run_id, kwargs)

    def on_chain_end(self, outputs, *, run_id, **kwargs):
        self.runs[run_id]["output"] = outputs

    def on_retriever_end(self, documents, *, run_id, **kwargs):
        self.runs[run_id]["output"] = documents

    def on_chain_error(self, error, *, run_id, **kwargs):
        self.runs[run_id]["error"] = error

    def on_retriever_error(self, error, *, run_id, **kwargs):
        self.runs[run_id]["error"] = error

    def _start(self, kind, given, run_id, parent, kwargs):
        self.runs[run_id] = {
            "id": run_id,
            "kind": kind,
            "name": kwargs["name"],
            "input": given,
            "parent": parent,
        }

    def named(self, name: str) -> dict[str, Any]:
        """The one run of this name."""
        (run,) = [run for run in self.runs.values() if run["name"] == name]
        return run


@pytest.fixture
def runs() -> Runs:
    return Runs()


# Loaded, so that components which tests make with equal settings share the models.
@pytest.fixture(scope="session", autouse=True)
def embeddings() -> Qwen3Embeddings:
    embeddings = Qwen3Embeddings(model="tiny")
    embeddings.embed_query("any")
    return embeddings


@pytest.fixture(scope="session", autouse=True)
def reranker() -> Qwen3Reranker:
    reranker = Qwen3Reranker(model="tiny")
    reranker.rerank(["any"], "any")
    return reranker


@pytest.fixture
def documents() -> list[Document]:
    return [
        Document(text, id=f"id-{i}", metadata={"position": i, "nested": {"tags": ["a"]}})
        for i, text in enumerate(TEXTS)
    ]


@pytest.fixture
def store(embeddings: Qwen3Embeddings, documents: list[Document]) -> InMemoryVectorStore:
    return InMemoryVectorStore.from_documents(documents, embeddings)


@pytest.fixture
def retriever(store: InMemoryVectorStore, reranker: Qwen3Reranker) -> Qwen3TwoStageRetriever:
    return Qwen3TwoStageRetriever(vectorstore=store, reranker=reranker)


@pytest.fixture
def openai_server() -> Iterator[OpenAIServer]:
    with OpenAIServer() as server:
        yield server
