"""Milvus Lite and a standalone server, each through both frameworks' stores."""

import uuid
from collections.abc import Callable, Iterator

import pytest

from tests.milvus.server import INSTALLED, MilvusServer
from tests.milvus.stores import LangChain, LlamaIndex, Store


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MilvusServer]:
    if not (INSTALLED / "milvus-ready").exists():
        pytest.skip(f"no Milvus server in {INSTALLED}; `make milvus` installs one")
    server = MilvusServer(tmp_path_factory.mktemp("milvus-server"))
    server.start()
    server.wait()
    yield server
    server.kill()


@pytest.fixture(params=["lite", "server"])
def uri(request: pytest.FixtureRequest, tmp_path) -> str:
    """Where Milvus is: a new file, or the session's server."""
    if request.param == "server":
        return str(request.getfixturevalue("server").uri)
    return str(tmp_path / "milvus.db")


@pytest.fixture(params=[LangChain, LlamaIndex], ids=["langchain", "llama_index"])
def open_store(request: pytest.FixtureRequest, uri: str) -> Iterator[Callable[..., Store]]:
    """Opens a collection of the test's own, again if it is called again."""
    name = f"c{uuid.uuid4().hex}"

    def open_it(**options) -> Store:
        store: Store = request.param(uri, name, **options)
        return store

    yield open_it
    if "://" in uri:  # a server keeps what a file's folder would take with it
        from pymilvus import MilvusClient

        client = MilvusClient(uri)
        client.drop_collection(name)
        client.close()
