"""A key shows nowhere, wherever it came from, and goes nowhere but to its server."""

import copy
import json
import logging
import pickle
import traceback
import warnings
from collections.abc import Callable
from typing import Any

import pytest
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.documents import Document
from langchain_core.load import dumpd, dumps
from langchain_core.vectorstores import InMemoryVectorStore
from llama_index.core.callbacks import CallbackManager
from llama_index.core.callbacks.base_handler import BaseCallbackHandler as LlamaHandler
from llama_index.core.instrumentation import get_dispatcher  # type: ignore[attr-defined]
from llama_index.core.instrumentation.event_handlers import BaseEventHandler
from llama_index.core.schema import NodeWithScore, TextNode
from pydantic import BaseModel, ValidationError

from langchain_qwen3 import (
    Qwen3CrossEncoder,
    Qwen3Embeddings,
    Qwen3Reranker,
    Qwen3TwoStageRetriever,
)
from llama_index_qwen3 import Qwen3Embedding, Qwen3Rerank
from qwen3_core.remote import RemoteEmbedder, RemoteReranker, Server, ServerError
from tests.remote.conftest import QUERY, TEXTS
from tests.remote.fake_server import FakeServer

KEY = "sk-5ecret-0f-the-h0use"
SERVER = Server(kind="vllm", retries=0)

COMPONENTS: dict[str, tuple[Callable[..., Any], Callable[[Any, list[str]], Any]]] = {
    "RemoteEmbedder": (RemoteEmbedder, lambda c, texts: c.embed_documents(texts)),
    "RemoteReranker": (RemoteReranker, lambda c, texts: c.rerank(texts, QUERY)),
    "Qwen3Embeddings": (Qwen3Embeddings, lambda c, texts: c.embed_documents(texts)),
    "Qwen3Reranker": (
        Qwen3Reranker,
        lambda c, texts: c.compress_documents([Document(text) for text in texts], QUERY),
    ),
    "Qwen3CrossEncoder": (
        Qwen3CrossEncoder,
        lambda c, texts: c.score([(QUERY, text) for text in texts]),
    ),
    "Qwen3Embedding": (Qwen3Embedding, lambda c, texts: c.get_text_embedding_batch(texts)),
    "Qwen3Rerank": (
        Qwen3Rerank,
        lambda c, texts: c.postprocess_nodes(
            [NodeWithScore(node=TextNode(text=text)) for text in texts], query_str=QUERY
        ),
    ),
}


@pytest.fixture(params=COMPONENTS)
def name(request):
    return request.param


@pytest.fixture(params=["argument", "environment"])
def make(request, name, monkeypatch):
    """Makes the component, its key from either place."""

    def make(base_url: str, **options: Any) -> Any:
        if request.param == "environment":
            monkeypatch.setenv("QWEN3_API_KEY", KEY)
        else:
            options["api_key"] = KEY
        return COMPONENTS[name][0](model="tiny", base_url=base_url, server=SERVER, **options)

    return make


@pytest.fixture
def use(name):
    """One call of the component."""
    return COMPONENTS[name][1]


@pytest.fixture
def locked():
    """A server that wants the key."""
    with FakeServer(key=KEY) as server:
        yield server


def shown_forms(component: Any) -> dict[str, str]:
    """Everything that a component turns into, by how."""
    forms: dict[str, Any] = {
        "repr": repr(component),
        "str": str(component),
        "format": f"{component}",
        "list": repr([component, {"component": component}]),
        "pickle": pickle.dumps(component).decode("latin-1"),
        "getstate": repr(component.__getstate__()),
    }
    for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1):
        forms[f"pickle {protocol}"] = pickle.dumps(component, protocol).decode("latin-1")
    if isinstance(component, BaseModel):
        forms["vars"] = repr(vars(component))
        forms["private"] = repr(component.__pydantic_private__)
        forms["dict"] = repr(dict(component))
        forms["model_dump"] = repr(component.model_dump())
        forms["model_dump json"] = repr(component.model_dump(mode="json"))
        forms["model_dump_json"] = component.model_dump_json()
        forms["fields"] = repr(list(component))
        forms["schema"] = json.dumps(type(component).model_json_schema())
        forms["langchain dumps"] = dumps(component)
        forms["langchain dumpd"] = repr(dumpd(component))
    for method in ("to_dict", "to_json", "to_payload"):
        if hasattr(component, method):
            forms[method] = repr(getattr(component, method)())
    return forms


def test_no_form_of_a_component_shows_the_key(locked, make, use):
    component = make(locked.url)
    for _ in range(2):  # before and after use
        for how, shown in shown_forms(component).items():
            assert KEY not in shown, how
        for again in (copy.copy(component), copy.deepcopy(component)):
            assert KEY not in repr(again)
            use(again, TEXTS[:2])  # and it has the key
        use(component, TEXTS[:2])
    assert {r.headers["authorization"] for r in locked.received} == {f"Bearer {KEY}"}


@pytest.mark.parametrize("name", [name for name in COMPONENTS if not name.startswith("Remote")])
def test_copies_made_by_the_frameworks_keep_the_key(locked, name):
    component_class, use = COMPONENTS[name]
    component = component_class(model="tiny", base_url=locked.url, server=SERVER, api_key=KEY)
    for again in (
        component.model_copy(),
        component.model_copy(update={"instruction": "fact_check"}),
        component.model_copy(deep=True),
    ):
        use(again, TEXTS[:2])
        assert KEY not in "".join(shown_forms(again).values())


def printed(error: BaseException) -> str:
    """An error's text and traceback."""
    return "\n".join(
        [str(error), repr(error), repr(error.args), *traceback.format_exception(error)]
    )


async def test_no_error_shows_the_key(make, use):
    with FakeServer(key="sk-another") as server:  # its 401 repeats the key that it was given
        component = make(server.url)
        with pytest.raises(ServerError, match=r"answered 401: .*an api_key was sent") as refused:
            use(component, ["a text"])
    with pytest.raises(ServerError, match="no connection in 1 attempts") as down:
        use(component, ["a text"])
    with FakeServer(delay=1) as server:
        hurried = make(server.url, timeout=0.05)
        with pytest.raises(TimeoutError) as late:
            use(hurried, ["a text"])
    for error in (refused.value, down.value, late.value):
        assert KEY not in printed(error)
        assert KEY not in without_own_frames(error)


def without_own_frames(error: BaseException) -> str:
    """The traceback with the local variables of every frame that is not the test's."""
    whole = traceback.TracebackException.from_exception(error, capture_locals=True)
    lines = []
    while whole is not None:
        lines += [str(f.locals) for f in whole.stack if "/tests/" not in f.filename]
        whole = whole.__cause__  # type: ignore[assignment]
    return "\n".join(lines)


@pytest.mark.parametrize(
    "wrong",
    [
        {"max_length": 0},
        {"timeout": "soon"},
        {"instruction": " "},
        {"base_url": "ftp://localhost"},
        {"base_url": "http://user:password@localhost"},
        {"server": "vlm"},
        {"device": "cpu"},
        {"unknown": KEY},
        {"api_key": [KEY]},
        {"base_url": None},
    ],
)
def test_no_refusal_of_a_setting_shows_the_key(name, wrong):
    options = {"model": "tiny", "base_url": "http://localhost:1", "api_key": KEY} | wrong
    with pytest.raises((ValueError, TypeError)) as caught:
        COMPONENTS[name][0](**options)
    error = caught.value
    assert KEY not in printed(error)
    if isinstance(error, ValidationError):
        assert KEY not in error.json(include_input=False)


@pytest.mark.parametrize(
    "key", ["sk-5ecret\nX-Header: y", "sk-5ecret\x00", "sk-5écret", "sk-\u200b5ecret", " ", ""]
)
@pytest.mark.parametrize("origin", ["argument", "environment"])
def test_a_key_that_cannot_be_sent_is_refused_without_being_shown(key, origin, monkeypatch):
    options: dict[str, Any] = {"base_url": "http://localhost:1"}
    if origin == "argument":
        options["api_key"] = key
    elif "\x00" in key or not key.strip():
        return  # no environment holds the first; the others stand for no key
    else:
        monkeypatch.setenv("QWEN3_API_KEY", key)
    message = "is blank: leave it out" if not key.strip() else "holds characters that HTTP headers"
    for make in (RemoteEmbedder, RemoteReranker, Qwen3Embeddings, Qwen3Rerank):
        with pytest.raises(ValueError, match=message) as caught:
            make(model="tiny", **options)
        assert "5ecret" not in str(caught.value)
        assert "5écret" not in str(caught.value)


@pytest.mark.parametrize("origin", ["argument", "environment"])
def test_blanks_around_a_key_are_left_out(locked, origin, monkeypatch):
    options: dict[str, Any] = {"api_key": f" {KEY}\n"} if origin == "argument" else {}
    if origin == "environment":
        monkeypatch.setenv("QWEN3_API_KEY", f"{KEY}\r\n")
    component = RemoteEmbedder("tiny", base_url=locked.url, **options)
    assert component.embed_documents(["a"]).shape == (1, 256)


# What others get to see


class Keeper(logging.Handler):
    """Keeps all that any logger says, arguments that a format leaves out included."""

    def __init__(self) -> None:
        super().__init__(logging.NOTSET)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines += [self.format(record), repr(record.args), record.name]


@pytest.fixture
def log(monkeypatch):
    """Everything that is logged, at the lowest level."""
    handler = Keeper()
    loggers = [logging.getLogger(n) for n in ("", "openai", "httpx", "httpcore", "qwen3_core")]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(1)
    logging.getLogger().addHandler(handler)
    yield handler
    logging.getLogger().removeHandler(handler)
    for logger, level in zip(loggers, before, strict=True):
        logger.setLevel(level)


def test_no_log_shows_the_key(make, use, log, locked):
    component = make(locked.url)
    use(component, TEXTS[:2])
    locked.key = "another"
    with pytest.raises(ServerError):
        use(component, TEXTS[:2])
    text = "\n".join(log.lines)
    assert "/v1/" in text  # the clients did log
    assert {"openai._base_client", "httpx", "httpcore.http11"} <= set(log.lines)
    assert KEY not in text


def test_no_warning_shows_the_key(make, use, locked):
    locked.template = "short"
    component = make(locked.url, max_length=160)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        use(component, ["word " * 500])
    assert [w for w in caught if w.category.__name__ == "TruncationWarning"]
    assert KEY not in "".join(f"{w.message!r} {w.message} {w.source}" for w in caught)


def test_no_span_shows_the_key(make, use, locked, monkeypatch):
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr("qwen3_core.engine.telemetry.trace.get_tracer", provider.get_tracer)
    component = make(locked.url)

    def call() -> None:
        with provider.get_tracer("caller").start_as_current_span("call"):
            use(component, TEXTS[:2])

    call()
    locked.key = "another"
    with pytest.raises(ServerError):
        call()  # the error becomes an event of the span, with its traceback
    spans = [str(span.to_json()) for span in exporter.get_finished_spans()]
    assert "exception.stacktrace" in "".join(spans)
    assert KEY not in "".join(spans)


class Tracer(BaseCallbackHandler):
    """Keeps whatever LangChain hands to a callback or a tracer."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    def _see(self, *args: Any, **kwargs: Any) -> None:
        self.seen.append(f"{args!r} {kwargs!r}")

    on_chain_start = on_chain_end = on_chain_error = _see
    on_retriever_start = on_retriever_end = on_retriever_error = _see


def test_langchain_callbacks_are_not_shown_the_key(locked):
    options: dict[str, Any] = {"model": "tiny", "base_url": locked.url, "api_key": KEY}
    embeddings = Qwen3Embeddings(**options, server=SERVER)
    reranker = Qwen3Reranker(**options, server=SERVER)
    store = InMemoryVectorStore.from_texts(TEXTS[:4], embeddings)
    retriever = Qwen3TwoStageRetriever(vectorstore=store, reranker=reranker)
    tracer = Tracer()
    assert retriever.invoke(QUERY, {"callbacks": [tracer]})
    locked.key = "another"
    with pytest.raises(ServerError):
        retriever.invoke(QUERY, {"callbacks": [tracer]})
    assert len(tracer.seen) > 4
    for shown in (*tracer.seen, repr(retriever), dumps(retriever)):
        assert KEY not in shown


class Events(BaseEventHandler):
    """Keeps LlamaIndex's instrumentation events."""

    seen: list[str]

    def handle(self, event: Any, **kwargs: Any) -> None:
        self.seen.append(f"{event!r} {event.model_dump()!r} {kwargs!r}")


class Payloads(LlamaHandler):
    """Keeps the payloads of LlamaIndex's callbacks."""

    def __init__(self) -> None:
        super().__init__([], [])
        self.seen: list[str] = []

    def on_event_start(
        self,
        event_type: Any,
        payload: Any = None,
        event_id: str = "",
        parent_id: str = "",
        **kwargs: Any,
    ) -> str:
        self.seen.append(f"{event_type} {payload!r} {kwargs!r}")
        return ""

    def on_event_end(
        self, event_type: Any, payload: Any = None, event_id: str = "", **kwargs: Any
    ) -> None:
        self.seen.append(f"{event_type} {payload!r} {kwargs!r}")

    def start_trace(self, trace_id: str | None = None) -> None:
        """Nothing to keep."""

    def end_trace(self, trace_id: str | None = None, trace_map: Any = None) -> None:
        """Nothing to keep."""


def test_llama_index_events_do_not_show_the_key(locked):
    payloads, events = Payloads(), Events(seen=[])
    manager = CallbackManager([payloads])
    options: dict[str, Any] = {"model": "tiny", "base_url": locked.url, "api_key": KEY}
    embedding = Qwen3Embedding(**options, server=SERVER, callback_manager=manager)
    rerank = Qwen3Rerank(**options, server=SERVER, callback_manager=manager)
    get_dispatcher().add_event_handler(events)
    nodes = [NodeWithScore(node=TextNode(text=text)) for text in TEXTS[:3]]
    try:
        embedding.get_query_embedding(QUERY)
        embedding.get_text_embedding_batch(TEXTS[:3])
        rerank.postprocess_nodes(nodes, query_str=QUERY)
        locked.key = "another"
        with pytest.raises(ServerError):
            rerank.postprocess_nodes(nodes, query_str=QUERY)
    finally:
        get_dispatcher().event_handlers.remove(events)
    assert len(payloads.seen) > 4
    assert len(events.seen) > 4
    assert KEY not in "".join(payloads.seen + events.seen)


# Where keys come from and go to


def sent_by(monkeypatch, **environment: str) -> dict[str, str]:
    """Headers of a request when these variables are set."""
    for variable, value in environment.items():
        monkeypatch.setenv(variable, value)
    with FakeServer() as server:
        RemoteEmbedder("tiny", base_url=server.url).embed_documents(["a"])
        return server.received[-1].headers


def test_openais_keys_and_names_are_not_sent(monkeypatch):
    headers = sent_by(
        monkeypatch,
        OPENAI_API_KEY=KEY,
        OPENAI_ADMIN_KEY=KEY,
        OPENAI_ORG_ID=KEY,
        OPENAI_PROJECT_ID=KEY,
        OPENAI_WEBHOOK_SECRET=KEY,
        OPENAI_CUSTOM_HEADERS=f"Authorization: Bearer {KEY}\nX-Own: {KEY}",
    )
    assert KEY not in repr(headers)
    assert headers["authorization"] == "Bearer none"


def test_dashscopes_key_is_for_dashscope_alone(monkeypatch):
    assert KEY not in repr(sent_by(monkeypatch, DASHSCOPE_API_KEY=KEY))
    with FakeServer("dashscope", key=KEY) as server:
        url = server.embed_url
        RemoteEmbedder("tiny", base_url=url, server="dashscope").embed_documents(["a"])
        monkeypatch.setenv("QWEN3_API_KEY", "sk-ours")  # goes first
        component = RemoteEmbedder("tiny", base_url=url, server="dashscope")
        with pytest.raises(ServerError, match="401"):
            component.embed_documents(["a"])
        given = RemoteEmbedder("tiny", base_url=url, server="dashscope", api_key=KEY)
        assert given.embed_documents(["a"]).shape == (1, 256)  # an argument goes before all


@pytest.mark.parametrize("host", ["dashscope.aliyuncs.com", "x.cn-beijing.maas.aliyuncs.com"])
def test_dashscope_is_known_by_its_host(monkeypatch, host):
    monkeypatch.setenv("DASHSCOPE_API_KEY", KEY)
    assert RemoteEmbedder("m", base_url=f"https://{host}")._client.has_key
    for other in ("https://x.oss-cn-hangzhou.aliyuncs.com", "https://aliyuncs.com"):
        assert not RemoteEmbedder("m", base_url=other)._client.has_key


def test_an_empty_variable_is_no_key(monkeypatch):
    assert sent_by(monkeypatch, QWEN3_API_KEY=" ")["authorization"] == "Bearer none"
    monkeypatch.setenv("QWEN3_API_KEY", "")
    with FakeServer(key=KEY) as server, pytest.raises(ServerError, match="no api_key was sent"):
        RemoteEmbedder("tiny", base_url=server.url, server=SERVER).embed_documents(["a"])


def test_a_key_without_a_server_is_refused(name):
    if name.startswith("Remote"):
        with pytest.raises(TypeError, match="base_url"):
            COMPONENTS[name][0](model="tiny", api_key=KEY)
        return
    with pytest.raises(ValueError, match="api_key without base_url") as caught:
        COMPONENTS[name][0](model="tiny", api_key=KEY)
    assert KEY not in printed(caught.value)
