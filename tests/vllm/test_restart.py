"""A server that dies in the middle of a call and comes back: nothing is lost or doubled."""

import threading

import numpy as np

from qwen3_core import Embedder
from qwen3_core.remote import RemoteEmbedder, Server

from .conftest import VllmServer

TEXTS = [f"Fact {i}: " + "a word and another, " * (i % 40) for i in range(3_000)]


def test_killed_and_restarted_in_the_middle_of_a_call(servers: dict[str, VllmServer], monkeypatch):
    server = servers["embedding"]
    remote = RemoteEmbedder(
        "tiny", base_url=server.url, server=Server(batch_size=8, concurrency=4, retries=60)
    )
    answered: list[str] = []
    some = threading.Event()
    post = remote._client.post

    async def counted(path, body, texts):
        reply = await post(path, body, texts)
        answered.extend(texts)
        if len(answered) > len(TEXTS) // 5:
            some.set()
        return reply

    monkeypatch.setattr(remote._client, "post", counted)
    found: list[np.ndarray] = []
    call = threading.Thread(target=lambda: found.append(remote.embed_documents(TEXTS)))
    call.start()
    try:
        assert some.wait(120)
        server.kill()
        assert len(answered) < len(TEXTS), "all was done before the server died"
    finally:
        server.start()
        server.wait()
    call.join(150)
    assert found, "the call did not end"
    expected = Embedder("tiny", dtype="float32").embed_documents(TEXTS)
    assert (found[0] * expected).sum(axis=1).min() > 0.9999
    # The self-check's three texts come first; every other one was answered once.
    assert sorted(answered[-len(TEXTS) :]) == sorted(TEXTS)
