"""A server that answers late: calls complete, or a timeout ends them with an error."""

import contextlib
import socket
import threading
import time

import grpc
import pytest
from pymilvus.exceptions import MilvusException

from qwen3_retrieval.ingest.__main__ import main
from tests.ingest.conftest import read_rows, write
from tests.milvus.stores import LangChain, LlamaIndex

TEXTS = {f"id-{i}": f"text {i}" for i in range(5)}


class SlowProxy:
    """Passes bytes on between clients and a server, the server's `delay` seconds late.

    While `open` is cleared, it keeps back what the server sends.
    """

    def __init__(self, server: str) -> None:
        self.delay = 0.0
        self.open = threading.Event()
        self.open.set()
        self._server = ("127.0.0.1", int(server.rpartition(":")[2]))
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.uri = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._sockets = [self._listener]
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self.open.set()
        for each in self._sockets:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):  # closed
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(self._server)
                self._sockets += [client, server]
                for source, target, late in ((client, server, False), (server, client, True)):
                    threading.Thread(
                        target=self._pass_on, args=(source, target, late), daemon=True
                    ).start()

    def _pass_on(self, source: socket.socket, target: socket.socket, late: bool) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(2**16):
                if late:
                    time.sleep(self.delay)
                    self.open.wait()
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)


@pytest.fixture
def proxy(server):
    proxy = SlowProxy(server.uri)
    yield proxy
    proxy.close()


def timed(call):
    begin = time.monotonic()
    return call(), time.monotonic() - begin


@pytest.mark.parametrize("framework", [LangChain, LlamaIndex])
def test_late_answers_are_waited_for_and_right(proxy, framework):
    store = framework(proxy.uri, f"slow_{framework.__name__}")
    try:
        store.add(TEXTS)
        expected = store.search("text 3", 3)
        assert len(expected) == 3
        proxy.delay = 2
        found, took = timed(lambda: store.search("text 3", 3))
        assert took >= proxy.delay
        assert found == expected
        store.replace("late", "a late text")
        proxy.delay = 0
        assert store.ids() == {*TEXTS, "late"}
    finally:
        proxy.delay = 0
        store.client.drop_collection(f"slow_{framework.__name__}")


def test_a_timeout_ends_the_wait_and_leaves_the_store_usable(proxy):
    store = LangChain(proxy.uri, "slow_timeout")
    try:
        store.add(TEXTS)
        expected = store.search("text 3", 3)
        proxy.open.clear()
        late = r"(?i)deadline|timeout|timed out"
        with pytest.raises((MilvusException, grpc.RpcError), match=late):
            store.store.similarity_search("text 3", k=3, timeout=3)
        proxy.open.set()
        found = None
        while found is None:  # the client may report once more that the call came too late
            with contextlib.suppress(MilvusException):
                found = store.search("text 3", 3)
        assert found == expected
    finally:
        proxy.open.set()
        LangChain(proxy.uri, "slow_timeout").client.drop_collection("slow_timeout")


def test_an_ingest_completes(proxy, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # for the journal
    write(tmp_path / "notes" / "keys.md", "# Keys\n\nThe spare keys hang in the archive.\n")
    proxy.delay = 0.3  # for each of some dozens of calls
    try:
        command = ["--corpus", "notes", "--uri", proxy.uri, "--collection", "slow_ingest"]
        command += ["--model", "tiny", "--framework", "langchain"]
        code, took = timed(lambda: main(command))
        assert code == 0
        assert took > proxy.delay
        proxy.delay = 0
        rows = read_rows(proxy.uri, "slow_ingest", "langchain")
        assert ["spare keys" in row["text"] for row in rows.values()] == [True]
    finally:
        proxy.delay = 0
        LangChain(proxy.uri, "slow_ingest").client.drop_collection("slow_ingest")
