"""What happens when a server, the way to it, or a caller does not behave."""

import asyncio
import copy
import json
import math
import multiprocessing
import pickle
import signal
import threading
import time
import traceback
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from qwen3_core.remote import RemoteEmbedder, SelfCheckError, Server, ServerError, ServerWarning
from tests.conftest import naming
from tests.remote.conftest import QUERY, TEXTS, aask, ask, expected, remote
from tests.remote.conftest import remote_embedder as on_server
from tests.remote.conftest import remote_reranker as reranker_on_server
from tests.remote.fake_server import (
    FakeServer,
    dropped,
    dropped_midway,
    html,
    mangled,
    retry_at,
    silent,
    slow,
    status,
    too_long,
    truncated,
)

UNCHECKED = Server(kind="vllm", self_check=False)
PURPOSES = ["embedding", "reranker"]

both = pytest.mark.parametrize("purpose", PURPOSES)
anyhow = pytest.mark.parametrize("func", ["ask", "aask"])


def options(**given: Any) -> Server:
    return Server(kind="vllm", self_check=False, **given)


async def call(func: str, component: Any, texts: list[str] | None = None) -> Any:
    """`ask`, or `aask` awaited."""
    return ask(component, texts) if func == "ask" else await aask(component, texts)


def sent(server: FakeServer) -> list[tuple[str, ...]]:
    """The texts of each request, in order of the texts; repetitions stay."""
    return sorted(tuple(r.body.get("input") or r.body["documents"]) for r in server.received)


def batches(texts: list[str], size: int) -> list[tuple[str, ...]]:
    return sorted(tuple(texts[i : i + size]) for i in range(0, len(texts), size))


# What is tried again

PASSING = {
    **{str(code): status(code) for code in (408, 409, 429, 500, 502, 503, 504)},
    "dropped before the answer": dropped,
    "dropped in the middle of the body": dropped_midway,
}


@pytest.mark.parametrize(("purpose", "func"), [("embedding", "aask"), ("reranker", "ask")])
@pytest.mark.parametrize("fault", PASSING)
async def test_what_passes_is_tried_again(server, purpose, func, fault):
    component = remote(purpose, server, options(retries=2))
    server.fail(PASSING[fault], PASSING[fault])
    np.testing.assert_allclose(await call(func, component), expected(component), atol=1e-5)
    assert len(server.received) == 3


@both
@pytest.mark.parametrize("fault", PASSING)
def test_but_not_for_ever(server, purpose, fault):
    component = remote(purpose, server, options(retries=1))
    server.fail(*[PASSING[fault]] * 10)
    said = f"answered {fault}: asked to fail with {fault}" if fault.isdigit() else "in 2 attempts"
    with pytest.raises(ServerError, match=said):
        ask(component)
    assert len(server.received) == 2


@both
@pytest.mark.parametrize("code", [400, 401, 403, 404, 405, 413, 418, 422])
def test_other_refusals_are_not_tried_again(server, purpose, code):
    server.fail(status(code))
    with pytest.raises(ServerError, match=f"answered {code}: asked to fail with {code}"):
        ask(remote(purpose, server, options()))
    assert len(server.received) == 1


@both
@pytest.mark.parametrize(
    ("code", "words"), [(404, "Not Found"), (501, "This server does not support this. Start it")]
)
def test_a_server_that_lacks_the_api_is_asked_about(server, purpose, code, words):
    server.fail(status(code, {"detail": words}))
    wanted, other = "embedding model", "reranker"
    if purpose == "reranker":
        wanted, other = other, wanted
    said = (
        f"{code}: {words} .is base_url the address of the {wanted}'s server, and not of the {other}"
    )
    with pytest.raises(ServerError, match=said):
        ask(remote(purpose, server, options()))


@both
def test_a_page_is_not_quoted(server, purpose):
    server.fail(status(400, "<!DOCTYPE HTML><html><body>Bad request</body></html>"))
    with pytest.raises(ServerError, match=r"answered 400: an HTML page$"):
        ask(remote(purpose, server, options()))


@both
@pytest.mark.parametrize("fault", [truncated, too_long, html])
def test_an_answer_that_is_no_json_is_an_error_at_once(server, purpose, fault):
    component = remote(purpose, server, options())
    server.fail(fault)
    with pytest.raises(ServerError, match=r"the answer is no JSON \(\d+ bytes, (text|applic)") as e:
        ask(component)
    assert len(server.received) == 1
    assert f"{7 + (purpose == 'reranker')} texts of" in str(e.value)
    np.testing.assert_allclose(ask(component), expected(component), atol=1e-5)


def test_that_requests_are_sent_again_is_said_once(server, caplog):
    component = on_server(server, options(retries=2, batch_size=1))
    ask(component)
    assert not caplog.messages
    server.fail(*[status(503, retry_after="0")] * 3)
    ask(component)
    said = [r for r in caplog.records if r.name.startswith("qwen3_core")]
    assert len(server.received) == 2 * len(TEXTS) + 3
    assert [r.levelname for r in said] == ["WARNING"]
    assert said[0].getMessage().startswith(f"{server.url}/embeddings: no answer")
    assert "up to 2 times" in said[0].getMessage()


def test_retry_after_is_honoured(server):
    component = on_server(server, options(retries=3))
    server.fail(status(429, retry_after="0.4"), status(503, retry_after="0.2"))
    ask(component)
    first, second, third = [r.time for r in server.received]
    assert second - first >= 0.4
    assert third - second >= 0.2
    server.received.clear()
    server.fail(retry_at(429, 2))  # a date in whole seconds: 1 to 2 seconds ahead
    ask(component)
    first, second = [r.time for r in server.received]
    assert second - first >= 0.9


def test_a_server_that_asks_for_more_than_two_minutes_is_not_waited_for(server):
    server.fail(status(429, retry_after="121"))
    with pytest.raises(ServerError, match="answered 429"):
        ask(on_server(server, options()))
    assert len(server.received) == 1


def test_pauses_grow_and_are_jittered(server, monkeypatch):
    pauses = []

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)

    monkeypatch.setattr("openai._base_client.INITIAL_RETRY_DELAY", 0.5)
    monkeypatch.setattr("openai._base_client.anyio.sleep", sleep)
    server.fail(*[status(500)] * 12)
    for _ in range(2):
        with pytest.raises(ServerError):
            ask(on_server(server, options()))
    assert len(pauses) == 10
    for i, seconds in enumerate(pauses):
        longest = min(0.5 * 2 ** (i % 5), 8)
        assert 0.75 * longest <= seconds <= longest
    assert pauses[:5] != pauses[5:]


@both
@anyhow
async def test_only_the_batch_that_failed_is_asked_again(server, purpose, func):
    texts = [f"text {i}" for i in range(20)]
    component = remote(purpose, server, options(batch_size=2, concurrency=3))
    server.fail(None, None, status(500), None, dropped, dropped_midway, None, status(429))
    np.testing.assert_allclose(
        await call(func, component, texts), expected(component, texts), atol=1e-5
    )
    found = sent(server)
    assert sorted(set(found)) == batches(texts, 2)
    assert len(found) == 10 + 4
    assert max(found.count(batch) for batch in found) <= 5


@both
def test_a_batch_that_fails_for_good_ends_the_call(server, purpose):
    texts = [f"text {i}" for i in range(200)]
    server.fail(None, None, status(400), *[silent] * 97)
    with pytest.raises(ServerError, match="answered 400"):
        ask(remote(purpose, server, options(batch_size=2, concurrency=2)), texts)
    # Of 100 batches, at most one was on its way beside the one that failed; it is given up.
    asyncio.run(until(lambda: server.abandoned == len(server.received) - 3))
    assert len(server.received) <= 4


# Answers that make no sense


def entries(reply: dict[str, Any]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = reply.get("data") or reply["results"]
    return found


def key_of(entry: dict[str, Any]) -> str:
    return "embedding" if "embedding" in entry else "relevance_score"


def one_less(reply):
    entries(reply).pop()


def one_more(reply):
    entries(reply).append(dict(entries(reply)[0], index=7))


def without_index(reply):
    del entries(reply)[0]["index"]


def same_index(reply):
    entries(reply)[0]["index"] = entries(reply)[1]["index"]


def negative_index(reply):
    (last,) = [entry for entry in entries(reply) if entry["index"] == 6]
    last["index"] = -1


def without_value(reply):
    del entries(reply)[0][key_of(entries(reply)[0])]


def words(reply):
    entries(reply)[2][key_of(entries(reply)[2])] = "abc"


def no_list(reply):
    return {name: {} if name in ("data", "results") else value for name, value in reply.items()}


@both
@pytest.mark.parametrize(
    "change",
    [
        one_less,
        one_more,
        without_index,
        same_index,
        negative_index,
        without_value,
        words,
        no_list,
        lambda reply: [],
        lambda reply: {},
        lambda reply: "ok",
        lambda reply: 7,
        lambda reply: {"error": "none"},
    ],
)
def test_answers_of_another_shape_are_an_error(server, purpose, change):
    server.fail(mangled(change))
    what = "texts" if purpose == "embedding" else "documents"
    with pytest.raises(ServerError, match=f"answered 7 {what} with an invalid reply: "):
        ask(remote(purpose, server, options()))
    assert len(server.received) == 1


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, None])
def test_a_number_that_is_none_is_an_error(server, value):
    def change(reply):
        (entry,) = [entry for entry in entries(reply) if entry["index"] == 3]
        if "embedding" in entry:
            entry["embedding"][200] = value
        else:
            entry["relevance_score"] = value

    server.fail(mangled(change))
    with pytest.raises(FloatingPointError, match=r"(nan|inf).* text 3\b.*base_url"):
        ask(on_server(server, options(), dimensions=256))
    server.fail(mangled(change))
    with pytest.raises(FloatingPointError, match=r"the score -?(nan|inf) for document 3"):
        ask(reranker_on_server(server, options()))


def test_a_vector_of_zeros_is_an_error(server):
    def change(reply):
        (entry,) = [entry for entry in entries(reply) if entry["index"] == 5]
        entry["embedding"] = [0.0] * 256

    server.fail(mangled(change))
    with pytest.raises(FloatingPointError, match=naming("length 0.0", "text 5", "base_url")):
        ask(on_server(server, options()))


def test_vectors_of_different_lengths_are_an_error(server):
    def change(reply):
        entries(reply)[0]["embedding"] = entries(reply)[0]["embedding"][:100]

    def all_shorter(reply):
        for entry in entries(reply):
            entry["embedding"] = entry["embedding"][:100]

    server.fail(mangled(change))
    with pytest.raises(ServerError, match="invalid reply"):
        ask(on_server(server, options()))
    server.fail(mangled(all_shorter))
    with pytest.raises(ServerError, match=r"vectors of different lengths: \[100, 256\]"):
        ask(on_server(server, options(batch_size=4)))
    # Cut to 64 they would look alike; what the self-check has seen tells.
    checked = on_server(server, dimensions=64)
    ask(checked)
    server.fail(mangled(all_shorter))
    with pytest.raises(ServerError, match=naming("100 dimensions", "256")):
        ask(checked)
    server.fail(mangled(all_shorter))
    with pytest.raises(ValueError, match=r"dimensions .*32\b.*100\b.*got 128"):
        ask(on_server(server, options(), dimensions=128))


def test_vectors_are_normalised_here_whatever_length_they_come_in(server):
    def change(reply):
        for entry in entries(reply):
            entry["embedding"] = [3.5 * x for x in entry["embedding"]]

    server.fail(mangled(change))
    component = on_server(server, options())
    np.testing.assert_allclose(ask(component), expected(component), atol=1e-5)


@pytest.mark.parametrize("value", [-0.01, 1.5, 7.0])
def test_a_probability_that_is_none_is_an_error_that_names_the_fix(value):
    def change(reply):
        entries(reply)[1]["relevance_score"] = value

    with FakeServer("cohere") as server:
        component = reranker_on_server(server, Server(self_check=False))
        server.fail(mangled(change))
        with pytest.raises(ServerError, match=naming(f"{value:g}", "server='vllm'")):
            ask(component)


# What an error says

SECRET_TEXT = 'the secret "recipe" of the house:\nseven parts of water\tand some salt'
KEY = "sk-0123456789"

BODIES: dict[str, tuple[Any, str]] = {
    "openai": (
        {"error": {"message": f"too long: {SECRET_TEXT}", "type": "BadRequest", "code": 400}},
        "too long: ...",
    ),
    "fastapi": (
        {
            "detail": [
                {
                    "type": "string_type",
                    "loc": ["body", "input", 0],
                    "msg": "Input should be a valid string",
                    "input": SECRET_TEXT,
                }
            ]
        },
        "body.input.0: Input should be a valid string",
    ),
    "fastapi in words": ({"detail": "Not Found"}, "Not Found"),
    # As vLLM writes a validation error into one string, input and all, escaped and shortened.
    "vllm": (
        {
            "error": {
                "message": f"1 validation error: Extra inputs [input_value="
                f"{{'input': {[SECRET_TEXT][0][:30]!r}...{SECRET_TEXT[-20:]!r}}}] "
                f"{[{'msg': 'no', 'input': [SECRET_TEXT]}]} {json.dumps(SECRET_TEXT)}"
            }
        },
        "1 validation error: Extra inputs",
    ),
    "dashscope": (
        {"code": "InvalidParameter", "message": "Range of input length", "request_id": "7-8"},
        "Range of input length",
    ),
    "plain text": ("upstream said no", "upstream said no"),
    "nothing": ({}, "nothing more"),
}


@both
@pytest.mark.parametrize("shape", BODIES)
def test_a_refusal_is_told_in_the_servers_own_words_without_the_texts(server, purpose, shape):
    body, said = BODIES[shape]
    server.fail(status(400, body))
    with pytest.raises(ServerError) as caught:
        ask(remote(purpose, server, options(), api_key=KEY), [SECRET_TEXT, "two"])
    message = str(caught.value)
    assert said in message
    assert "the server answered 400" in message
    count, size = (2, 71) if purpose == "embedding" else (3, 71 + len(QUERY))
    assert f"/v1/{'embeddings' if purpose == 'embedding' else 'rerank'} (model 'tiny'" in message
    assert f"{count} texts of {size} characters" in message
    for shown in (message, "".join(traceback.format_exception(caught.value))):
        assert "seven parts" not in shown
        assert "recipe" not in shown
        assert KEY not in shown


def test_a_short_text_is_not_repeated_either(server):
    server.fail(
        status(400, {"error": {"message": "cannot read 'secret\\n' or 秘密的文本 or \\u79d8"}})
    )
    with pytest.raises(ServerError) as caught:
        ask(on_server(server, options()), ["secret\n", "秘密的文本"])
    assert "cannot read '...' or ... or " in str(caught.value)


def test_a_long_refusal_is_cut(server):
    server.fail(status(400, {"error": {"message": "x" * 100_000}}))
    with pytest.raises(ServerError) as caught:
        ask(on_server(server, options()))
    assert 400 < len(str(caught.value)) < 700


@both
def test_a_server_that_is_down(purpose):
    with FakeServer() as server:
        component = remote(purpose, server, options(retries=1))
    said = (
        r"no connection in 2 attempts \(ConnectError: .*: connection refused\); "
        r"is the server up, and base_url right\?"
    )
    with pytest.raises(ServerError, match=said):
        ask(component)


@both
@anyhow
async def test_a_timeout_names_what_went_wrong_until_then(purpose, func):
    with FakeServer() as server:
        down = remote(purpose, server, options(retries=9), timeout=1.0)
    await down._load_tokenizer()
    with pytest.raises(TimeoutError, match=r"timeout=1\.0 seconds \(.*: connection refused\)"):
        await call(func, down)
    with FakeServer() as server:
        server.fail(*[status(503, {})] * 50)
        busy = remote(purpose, server, options(retries=9), timeout=1.0)
        await busy._load_tokenizer()
        with pytest.raises(TimeoutError, match=r"timeout=1\.0 seconds \(it answered 503\)"):
            await call(func, busy)


# Time


@both
@anyhow
@pytest.mark.parametrize("fault", [silent, slow(0.05)])
async def test_timeout_ends_a_call_whatever_the_server_does(server, purpose, func, fault):
    component = remote(purpose, server, options(), timeout=0.3)
    await call(func, remote(purpose, server, options()))  # connected
    await component._load_tokenizer()
    server.fail(fault)
    begin = time.monotonic()
    with pytest.raises(TimeoutError, match=r"gave no result within timeout=0\.3 seconds"):
        await call(func, component)
    assert time.monotonic() - begin > 0.25
    await until(lambda: server.abandoned == 1)
    np.testing.assert_allclose(
        await call(func, remote(purpose, server, options())), expected(component), atol=1e-5
    )


async def until(condition: Any) -> None:
    """Wait until something is so; the test's own timeout ends the wait."""
    while not condition():  # noqa: ASYNC110 - other threads make it so
        await asyncio.sleep(0.01)


def test_timeout_counts_pauses(server):
    server.fail(status(429, retry_after="30"))
    with pytest.raises(TimeoutError):
        ask(on_server(server, options(), timeout=0.2))


@both
def test_no_byte_within_read_timeout_is_tried_again_then_an_error(server, purpose):
    component = remote(purpose, server, options(read_timeout=0.2, retries=1))
    server.fail(silent)
    np.testing.assert_allclose(ask(component), expected(component), atol=1e-5)
    server.fail(silent, silent)
    with pytest.raises(ServerError, match=naming("read_timeout=0.2", "2 attempts")):
        ask(component)
    assert len(server.received) == 4


def test_slow_bytes_are_waited_for_without_a_timeout(server):
    component = on_server(server, options(read_timeout=0.5))
    server.fail(slow(0.0003))
    np.testing.assert_allclose(ask(component, ["a"]), expected(component, ["a"]), atol=1e-5)


@both
async def test_cancelling_a_call_cancels_its_requests(server, purpose):
    component = remote(purpose, server, options(batch_size=2))
    server.fail(*[silent] * 4)
    task = asyncio.create_task(aask(component))
    await until(lambda: len(server.received) == 4)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await until(lambda: server.abandoned == 4)
    np.testing.assert_allclose(await aask(component), expected(component), atol=1e-5)


@both
async def test_never_more_requests_at_a_time_than_asked_for(server, purpose):
    server.delay = 0.02
    texts = [f"text {i}" for i in range(12)]
    settings = options(batch_size=1, concurrency=3)
    components = [remote(purpose, server, settings) for _ in range(4)]
    await asyncio.gather(*(aask(component, texts) for component in components))
    assert server.most_busy == 3
    assert len(server.received) == 48


# The self-check

FLAWS: dict[str, tuple[str, dict[str, Any], dict[str, Any], str]] = {
    "no end of text": (
        "embedding",
        {"end_of_text": 0},
        {},
        r"leaves out the <\|endoftext\|> .* Use Server\(append_end_of_text=True\)",
    ),
    "second end of text": (
        "embedding",
        {},
        {"append_end_of_text": True},
        r"one more token to each text, such as a second <\|endoftext\|>. Leave append_end_of_text",
    ),
    "mean pooling": (
        "embedding",
        {"pooling": "mean"},
        {},
        r"does not pool the last token \(vLLM: --pooler-config .*; llama.cpp: --pooling last\)",
    ),
    "no template": (
        "reranker",
        {"template": None},
        {},
        "does not apply the reranker's prompt template..*vLLM: --chat-template .*jinja",
    ),
    "two templates": (
        "reranker",
        {},
        {"template": "client"},
        r"prompt template is applied twice. .*no chat template with Server\(template='client'\)",
    ),
    "scores alike": (
        "reranker",
        {"scores": lambda log_odds: 0 * log_odds - 9},
        {},
        "scores are all alike .* converted without its head .* --hf-overrides",
    ),
    "head drawn at random": (
        "reranker",
        {"scores": lambda log_odds: 0 * log_odds},
        {},
        "scores are all alike",
    ),
    "reversed": (
        "reranker",
        {"scores": lambda log_odds: -log_odds},
        {},
        r"ranks wrongly: log-odds of -3\.\d+ for an answer and 4\.\d+ for an unrelated text",
    ),
    "reversed, tokens not counted": (
        "reranker",
        {"scores": lambda log_odds: -log_odds, "counts": False},
        {},
        "ranks wrongly: .* Likely a template is missing or wrong",
    ),
}


@pytest.mark.parametrize("flaw", FLAWS)
async def test_a_server_that_is_set_up_wrong_is_refused_with_the_likely_cause(flaw):
    purpose, switches, settings, message = FLAWS[flaw]
    with FakeServer(**switches) as server:
        component = remote(purpose, server, Server(**settings))
        for _ in range(2):  # a refused server is asked again: it may have been mended
            with pytest.raises(SelfCheckError, match=message) as caught:
                ask(component)
            assert "Server(self_check=False) switches this check off." in str(caught.value)
        with pytest.raises(SelfCheckError, match=message):
            await aask(component)
        assert len(server.received) == 3
        unchecked = remote(purpose, server, Server(self_check=False, **settings))
        assert len(ask(unchecked, TEXTS[:3])) == 3
        assert len(server.received) == 4


def test_a_missing_end_of_text_can_be_written_here():
    with FakeServer("llama.cpp", end_of_text=0) as server:
        component = on_server(server, Server(append_end_of_text=True))
        np.testing.assert_allclose(ask(component), expected(component), atol=1e-5)


def test_a_template_one_newline_short_is_a_warning(recwarn):
    with FakeServer(template="short") as server:
        component = reranker_on_server(server)
        with pytest.warns(ServerWarning, match="ends in the tokens .* --chat-template .*jinja"):
            scores = ask(component)
        assert np.abs(scores - expected(component)).max() > 1e-3
    with FakeServer() as server:
        ask(reranker_on_server(server))
    assert not [w for w in recwarn if issubclass(w.category, ServerWarning)]


def test_a_mended_server_is_accepted():
    with FakeServer(template=None) as server:
        component = reranker_on_server(server)
        with pytest.raises(SelfCheckError):
            ask(component)
        server.template = "published"
        np.testing.assert_allclose(ask(component), expected(component), atol=1e-5)
        server.template = None
        component.close()
        with pytest.raises(SelfCheckError):
            ask(component)


# Threads, event loops, processes


@both
def test_twenty_threads_look_once(server, purpose):
    components = [remote(purpose, server) for _ in range(20)]
    with ThreadPoolExecutor(20) as pool:
        results = list(pool.map(lambda component: ask(component, TEXTS[:2]), components))
    assert server.looks == 1
    assert len(server.received) == 1 + 20
    for result in results:
        np.testing.assert_allclose(result, expected(components[0], TEXTS[:2]), atol=1e-5)


@both
async def test_twenty_coroutines_look_once(server, purpose):
    components = [remote(purpose, server) for _ in range(20)]
    results = await asyncio.gather(*(aask(component, TEXTS[:2]) for component in components))
    assert server.looks == 1
    assert len(server.received) == 1 + 20
    for result in results:
        np.testing.assert_allclose(result, expected(components[0], TEXTS[:2]), atol=1e-5)


def test_threads_each_with_an_event_loop_of_its_own(server):
    component = on_server(server)

    def work(_: int) -> list[Any]:
        return [asyncio.run(component.aembed_queries([QUERY])) for _ in range(3)]

    with ThreadPoolExecutor(8) as pool:
        results = [vectors for found in pool.map(work, range(8)) for vectors in found]
    assert len(results) == 24
    assert 1 <= server.looks <= 8  # at most one per event loop of those that began together
    assert len(server.received) == server.looks + 24


def test_one_event_loop_after_another(server):
    component = reranker_on_server(server)
    for _ in range(3):
        np.testing.assert_allclose(asyncio.run(aask(component)), expected(component), atol=1e-5)
    assert server.looks == 1


async def test_a_blocking_call_inside_a_running_loop(server):
    component = on_server(server)
    np.testing.assert_allclose(ask(component), expected(component), atol=1e-5)
    np.testing.assert_allclose(await aask(component), expected(component), atol=1e-5)
    assert component.dimensions == 256


def in_child(component: Any, answers: Any) -> None:
    sync = ask(component, TEXTS[:2]).tolist()
    answers.put((sync, asyncio.run(aask(component, TEXTS[:2])).tolist()))


@pytest.mark.integration
@pytest.mark.parametrize(
    ("purpose", "method"),
    [("embedding", "fork"), ("reranker", "fork"), ("embedding", "spawn")],  # spawning takes seconds
)
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_child_processes_can_use_a_component_that_was_used(server, purpose, method):
    if method not in multiprocessing.get_all_start_methods():
        pytest.skip(f"this system has no {method}")
    component = remote(purpose, server, UNCHECKED)
    ask(component)
    context = multiprocessing.get_context(method)
    answers = context.Queue()
    # A daemon, so that one that hangs does not keep this process from ending.
    child = context.Process(target=in_child, args=(component, answers), daemon=True)
    child.start()
    found = answers.get(timeout=60)
    child.join(60)
    assert child.exitcode == 0
    for result in found:
        np.testing.assert_allclose(result, expected(component, TEXTS[:2]), atol=1e-5)
    np.testing.assert_allclose(ask(component), expected(component), atol=1e-5)


@pytest.fixture
def interruptible():
    """SIGINT raises KeyboardInterrupt; a shell that runs the tests in the background ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_an_interrupt_ends_a_call_and_leaves_the_component_usable(server, interruptible):
    component = on_server(server, options())
    server.fail(silent)

    def interrupt() -> None:
        while not server.received:
            time.sleep(0.01)
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        ask(component)
    thread.join()
    asyncio.run(until(lambda: server.abandoned == 1))
    np.testing.assert_allclose(ask(component), expected(component), atol=1e-5)


# Copies


@both
@pytest.mark.parametrize(
    ("duplicate", "keeps_the_key"),
    [
        (copy.copy, True),
        (copy.deepcopy, True),
        (lambda component: copy.deepcopy([component])[0], True),
        (lambda component: pickle.loads(pickle.dumps(component)), False),
    ],
)
def test_copies_work_and_only_a_pickle_has_lost_the_key(purpose, duplicate, keeps_the_key):
    with FakeServer(key="sk-right") as server:
        component = remote(purpose, server, UNCHECKED, api_key="sk-right", max_length=200)
        for used in (False, True):
            again = duplicate(component)
            assert again is not component
            assert repr(again) == repr(component)
            assert again.max_length == 200
            if keeps_the_key:
                np.testing.assert_allclose(ask(again), expected(component), atol=1e-5)
            else:
                with pytest.raises(
                    ServerError, match=naming("401", "api_key", "QWEN3_API_KEY", "pickle")
                ):
                    ask(again)
            if not used:
                ask(component)


def test_a_pickle_takes_the_key_from_where_it_is_opened(monkeypatch):
    with FakeServer(key="sk-right") as server:
        data = pickle.dumps(on_server(server, UNCHECKED, api_key="sk-right"))
        monkeypatch.setenv("QWEN3_API_KEY", "sk-right")
        component = pickle.loads(data)
        assert isinstance(component, RemoteEmbedder)
        np.testing.assert_allclose(ask(component), expected(component), atol=1e-5)


def test_closing_forgets_the_server_and_may_be_done_twice(server):
    with on_server(server) as component:
        ask(component)
    component.close()
    ask(component)
    assert server.looks == 2
