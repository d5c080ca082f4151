"""A server that is killed and started again, between calls and during them: nothing is lost."""

import threading
import time

import pytest
from pymilvus.exceptions import MilvusException

from tests.milvus.server import INSTALLED, MilvusServer
from tests.milvus.stores import LangChain, LlamaIndex

pytestmark = pytest.mark.timeout(400)
PATIENCE = 120
"""Seconds that a collection may take to be there again; about 10 on an idle machine."""


@pytest.fixture(scope="module")
def own_server(tmp_path_factory):
    if not (INSTALLED / "milvus-ready").exists():
        pytest.skip(f"no Milvus server in {INSTALLED}; `make milvus` installs one")
    server = MilvusServer(tmp_path_factory.mktemp("restarted"), time_to_live=10)
    server.start()
    server.wait()
    yield server
    server.kill()


@pytest.fixture(params=[LangChain, LlamaIndex], ids=["langchain", "llama_index"])
def store(request, own_server):
    return request.param(own_server.uri, f"restart_{request.param.__name__}")


def patiently(call):
    """What a call returns once it does: what the server says until then are clear errors."""
    errors: list[str] = []
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            result = call()
        except MilvusException as error:
            errors.append(str(error))
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)
        else:
            assert all(errors)
            return result


def wait_until(condition):
    """The test's own timeout ends the wait."""
    while not condition():
        time.sleep(0.1)


def test_between_calls(own_server, store):
    store.add({f"id-{i}": f"text {i}" for i in range(30)})
    own_server.kill()
    own_server.start()
    own_server.wait()
    assert patiently(store.ids) == {f"id-{i}" for i in range(30)}
    patiently(lambda: store.add({"after": "text"}))
    assert len(store.ids()) == 31


def test_during_calls(own_server, store):
    written, found, errors = [], [], []
    stop = threading.Event()

    def write():
        i = 0
        while not stop.is_set():
            try:
                store.replace(f"during-{i}", f"text {i}")
            except MilvusException as error:
                errors.append(str(error))
                stop.wait(0.1)
            else:  # told that it is kept
                written.append(f"during-{i}")
                i += 1

    def read():
        while not stop.is_set():
            try:
                found.append(len(store.ids()))
            except MilvusException as error:
                errors.append(str(error))
                stop.wait(0.1)

    patiently(lambda: store.add({"first": "text"}))
    threads = [threading.Thread(target=target) for target in (write, read)]
    for thread in threads:
        thread.start()
    try:
        wait_until(lambda: written and found)
        own_server.kill()
        before = len(written), len(found)
        wait_until(lambda: errors)
        own_server.start()
        own_server.wait()
        wait_until(lambda: len(written) > before[0] + 1 and len(found) > before[1] + 1)
    finally:
        stop.set()
        for thread in threads:
            thread.join(PATIENCE)
    assert all(errors)
    kept = patiently(lambda: store.ids(k=10_000))
    assert set(written) <= kept
