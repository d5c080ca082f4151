"""What the tests of servers share."""

import ssl
from collections.abc import Iterator
from functools import cache
from typing import Any

import pytest

from qwen3_core.remote import RemoteEmbedder, RemoteReranker, Server
from qwen3_core.remote import model as remote_model
from tests.remote.fake_server import FakeServer, embedder, reranker

QUERY = "How is data stored in Milvus?"
TEXTS = [
    "Cats sleep for most of the day.",
    "Milvus stores inserted data in object storage as incremental logs.",
    "The museum is closed on Mondays.",
    "Data in Milvus is stored in segments; metadata is stored in etcd.",
    "Bread is baked from flour, water and yeast.",
    "",
    "  indented\n\n数据存储在对象存储中。🙂\n",
]


@pytest.fixture(scope="session", autouse=True)
def loaded() -> None:
    """The models behind the fake servers are loaded, so that no test's clock runs meanwhile."""
    embedder().embed_documents(["any"])
    reranker().score(["any"], "any")


@pytest.fixture(autouse=True)
def strangers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Servers are not known from a test before (ports come again), and pauses are short."""
    remote_model._known.clear()
    for name in ("QWEN3_API_KEY", "DASHSCOPE_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("openai._base_client.INITIAL_RETRY_DELAY", 0.01)


@pytest.fixture(autouse=True)
def certified(monkeypatch: pytest.MonkeyPatch) -> None:
    """What each client would read again, and always alike, is read once."""
    monkeypatch.setattr("httpx._transports.default.create_ssl_context", certificates)


@cache
def certificates(**_: Any) -> ssl.SSLContext:
    """Certificates for https, which nothing here speaks."""
    return ssl.create_default_context()


@pytest.fixture
def server() -> Iterator[FakeServer]:
    """A vLLM server."""
    with FakeServer("vllm") as server:
        yield server


def remote_embedder(server: FakeServer, settings: Server | str | None = None, **options: Any):
    """An embedder on the server; `options` that `Server` has are its settings."""
    return RemoteEmbedder("tiny", base_url=server.embed_url, server=settings, **options)


def remote_reranker(server: FakeServer, settings: Server | str | None = None, **options: Any):
    """A reranker on the server."""
    return RemoteReranker("tiny", base_url=server.rerank_url, server=settings, **options)


def remote(purpose: str, server: FakeServer, settings: Server | str | None = None, **options: Any):
    """Either of them."""
    make = remote_embedder if purpose == "embedding" else remote_reranker
    return make(server, settings, **options)


def ask(component: RemoteEmbedder | RemoteReranker, texts: list[str] | None = None) -> Any:
    """One call that reads the texts."""
    texts = TEXTS if texts is None else texts
    if isinstance(component, RemoteEmbedder):
        return component.embed_documents(texts)
    return component.score(texts, QUERY)


async def aask(component: RemoteEmbedder | RemoteReranker, texts: list[str] | None = None) -> Any:
    """`ask`, asynchronously."""
    texts = TEXTS if texts is None else texts
    if isinstance(component, RemoteEmbedder):
        return await component.aembed_documents(texts)
    return await component.ascore_pairs([(QUERY, text) for text in texts])


def expected(component: RemoteEmbedder | RemoteReranker, texts: list[str] | None = None) -> Any:
    """What `ask` gives in this process."""
    texts = TEXTS if texts is None else texts
    if isinstance(component, RemoteEmbedder):
        return embedder().embed_documents(texts)
    return reranker().score(texts, QUERY)
