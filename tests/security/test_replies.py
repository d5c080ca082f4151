"""Replies that fuzzing or reading the code found to be taken wrongly."""

import pytest

from qwen3_core.remote import RemoteEmbedder, RemoteReranker, Server, ServerError
from qwen3_core.remote.model import _max_length
from tests.conftest import naming
from tests.remote.fake_server import FakeServer, mangled, status
from tests.security.corpus import QUERY

SERVER = Server(kind="vllm", self_check=False, retries=0)


@pytest.fixture
def server():
    with FakeServer("vllm") as server:
        yield server


def score(server: FakeServer, *faults):
    component = RemoteReranker("tiny", base_url=server.url, server=SERVER)
    server.fail(*faults)
    return component.score(["a", "b"], QUERY)


def embed(server: FakeServer, *faults):
    component = RemoteEmbedder("tiny", base_url=server.url, server=SERVER)
    server.fail(*faults)
    return component.embed_documents(["a", "b"])


@pytest.mark.parametrize("ask", [score, embed])
def test_json_nested_without_end(ask, server):
    def deep(handler, answer):
        handler.send(200, b"[" * 100_000)

    with pytest.raises(ServerError, match="the answer is no JSON"):
        ask(server, deep)


@pytest.mark.parametrize("index", [[False, True], [0.0, 1.0], [None, 0], ["0", "1"], [0, 0]])
def test_indices_that_are_no_counts(index, server):
    def change(reply):
        for entry, wrong in zip(reply.get("results") or reply["data"], index, strict=True):
            entry["index"] = wrong

    for ask in (score, embed):
        with pytest.raises(ServerError, match=naming("2 results", str(index))):
            ask(server, mangled(change))


@pytest.mark.parametrize("value", [1e300, -1e300, float("nan"), float("inf")])
def test_scores_that_float32_cannot_hold(value, server):
    def change(reply):
        reply["results"][1]["relevance_score"] = value

    with pytest.raises(FloatingPointError, match="returned the score"):
        score(server, mangled(change))


@pytest.mark.parametrize("value", [10**400, {}, "x", [1], [[1.0]]])
def test_scores_and_vectors_that_are_no_numbers(value, server):
    def change(reply):
        entry = (reply.get("results") or reply["data"])[1]
        entry["relevance_score"] = value
        entry["embedding"] = [value] * 256

    for ask in (score, embed):
        with pytest.raises(ServerError, match="with an invalid reply"):
            ask(server, mangled(change))


@pytest.mark.parametrize("usage", [[], "many", 3, {"prompt_tokens": "x"}, {"prompt_tokens": -1}])
def test_a_count_of_tokens_that_is_none_is_left_out(usage, server):
    def change(reply):
        reply["usage"] = usage

    assert len(score(server, mangled(change))) == 2
    assert len(embed(server, mangled(change))) == 2


@pytest.mark.parametrize("length", [-5, 0, True, "2048", 1.5])
def test_a_length_of_context_that_is_none_is_left_out(length):
    assert _max_length({"max_model_len": length}) is None
    assert _max_length({"meta": {"n_ctx": length}}) is None


@pytest.mark.parametrize(
    "body",
    [{"detail": [{"loc": 5, "msg": "no"}]}, {"error": {"message": {"message": {}}}}, [1], [[]], 7],
)
def test_a_refusal_of_any_shape_is_an_error(body, server):
    with pytest.raises(ServerError, match="the server answered 400"):
        score(server, status(400, body))
