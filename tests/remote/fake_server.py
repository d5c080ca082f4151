"""A small server on 127.0.0.1 that serves the bundled pair as the published servers do.

It speaks the API of one kind of server, as its reference describes it, and refuses what that does
not know. Like a real server it gets strings and reads them with the checkpoint's own tokenizer, in
which control tokens that a text spells are control tokens; what it computes from those ids comes
from the bundled pair in float32.

Use it as a context manager and give `server.url` to a component as its base URL:

    with FakeServer("vllm") as server:
        Qwen3Embeddings(model="tiny", base_url=server.url)

Switches make it wrong in one respect, and `server.fail(...)` answers the next requests with faults.
"""

import contextlib
import json
import select
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from email.utils import formatdate
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final, Self

import numpy as np
from jinja2.sandbox import ImmutableSandboxedEnvironment
from tokenizers import Tokenizer

from qwen3_core import Embedder, Reranker
from qwen3_core.model.packing import TokenSequence
from qwen3_core.ranking import sigmoid
from qwen3_core.remote import TEMPLATE_FILE
from tests.conftest import TINY
from tests.reference import HEAD, TAIL, TASK

OWNERS: Final = {"vllm": "vllm", "sglang": "sglang", "llama.cpp": "llamacpp", "cohere": "infinity"}
"""What each kind says of itself in `/v1/models`."""

EMBED_FIELDS: Final = {"model", "input", "encoding_format"}
RERANK_FIELDS: Final = {
    "vllm": {"model", "query", "documents", "top_n", "instruction", "use_activation"},
    "sglang": {"model", "query", "documents", "top_n", "instruct", "return_documents"},
    "llama.cpp": {"model", "query", "documents", "top_n"},
    "cohere": {"model", "query", "documents", "top_n", "return_documents"},
    "dashscope": {"model", "query", "documents", "top_n", "instruct", "return_documents"},
}
"""Fields of a request that each API has and that concern us."""


@dataclass(frozen=True)
class Received:
    """A request."""

    path: str
    body: dict[str, Any]
    headers: dict[str, str]
    """Names in lower case."""
    time: float
    """When it came, in seconds of `time.monotonic`."""


class FakeServer:
    """A server of one kind in a thread of this process.

    Attributes:
        kind: Whose API it has.
        model: What it calls the models that it serves.
        received: Requests to embed or rerank, in order; those of the self-check included.
        looks: How often its list of models was asked for.
        template: What it makes of query and document: "published", "short" (one newline missing at
            the end, like vLLM's stock template) or None (query and document joined as they are).
        end_of_text: How many `<|endoftext|>` its tokenizer puts behind a text to embed.
        pooling: "last" or "mean".
        scores: Makes the log-odds that it reports from the true ones.
        log_odds: Whether it honours `use_activation: false`.
        max_model_len: What it says it reads of one input; None says nothing.
        key: The only key that it accepts; None accepts all.
        counts: Whether it says how many tokens it read.
        delay: Seconds that each answer takes.
        most_busy: Most requests under way at a time.
        abandoned: How many requests their client gave up while they were under way.
    """

    def __init__(self, kind: str = "vllm", *, model: str = "tiny", **switches: Any) -> None:
        self.kind = kind
        self.model = model
        self.received: list[Received] = []
        self.looks = 0
        self.template: str | None = "published"
        self.end_of_text = 1
        self.pooling = "last"
        self.scores: Callable[[np.ndarray], np.ndarray] = lambda log_odds: log_odds
        self.log_odds = True
        self.max_model_len: int | None = 2048 if kind == "vllm" else None
        self.key: str | None = None
        self.counts = True
        self.delay = 0.0
        self.most_busy = 0
        self.abandoned = 0
        for name, value in switches.items():
            assert hasattr(self, name), name
            setattr(self, name, value)
        self.stopped = threading.Event()
        self._busy = 0
        self._lock = threading.Lock()
        self._faults: deque[Fault | None] = deque()
        self._open: set[socket.socket] = set()
        self._http = _Listener(("127.0.0.1", 0), _handler(self))
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True)

    @property
    def origin(self) -> str:
        """Scheme, host and port."""
        return f"http://127.0.0.1:{self._http.server_port}"

    @property
    def url(self) -> str:
        """The base URL that clients take; DashScope has one for each of its two APIs."""
        return f"{self.origin}/v1"

    @property
    def embed_url(self) -> str:
        return f"{self.origin}/compatible-mode/v1" if self.kind == "dashscope" else self.url

    @property
    def rerank_url(self) -> str:
        return f"{self.origin}/compatible-api/v1" if self.kind == "dashscope" else self.url

    def fail(self, *faults: "Fault | None") -> None:
        """Meet the next requests with these faults, in order; None answers one as usual."""
        self._faults.extend(faults)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stopped.set()
        self._http.shutdown()
        self._http.server_close()
        for connection in list(self._open):  # clients keep them for their next request
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        self._thread.join()

    # What the APIs answer

    def embed(self, body: dict[str, Any]) -> dict[str, Any]:
        """OpenAI's embeddings API; the results come in another order than the texts."""
        known = EMBED_FIELDS | ({"dimensions"} if self.kind == "dashscope" else set())
        self._check_fields(body, known, ("model", "input"))
        texts = body["input"]
        if not (isinstance(texts, list) and all(isinstance(text, str) for text in texts)):
            raise RefusedError(400, "this server reads texts, not token ids")
        if self.kind == "dashscope" and len(texts) > 10:
            raise RefusedError(400, "batch size is invalid, it should not be larger than 10.")
        rows = [self.read(text) for text in texts]
        if self.max_model_len and max(map(len, rows)) > self.max_model_len:
            raise RefusedError(400, f"This model's maximum context length is {self.max_model_len}")
        if self.kind == "dashscope" and max(map(len, rows)) > 8192:
            raise RefusedError(400, "Range of input length should be [1, 8192]")
        vectors = self._pooled(rows)[:, : body.get("dimensions")]
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        data = [
            {"object": "embedding", "index": i, "embedding": vector.tolist()}
            for i, vector in enumerate(vectors)
        ]
        tokens = sum(map(len, rows))
        usage = {"prompt_tokens": tokens, "total_tokens": tokens} if self.counts else {}
        return {"object": "list", "model": self.model, "data": shuffled(data), "usage": usage}

    def rerank(self, body: dict[str, Any]) -> Any:
        """The kind's rerank API; the results come best first."""
        self._check_fields(body, RERANK_FIELDS[self.kind], ("model", "query", "documents"))
        query, documents = body["query"], body["documents"]
        if not (isinstance(query, str) and all(isinstance(text, str) for text in documents)):
            raise RefusedError(400, "this server reads texts")
        if self.kind == "dashscope":
            self._check_dashscope_limits(query, documents)
        task = body.get("instruction") or body.get("instruct") or TASK
        rows = [
            reranker_tokenizer().encode(self.prompt(query, text, task)).ids for text in documents
        ]
        if self.max_model_len and max(map(len, rows)) > self.max_model_len:
            raise RefusedError(400, f"This model's maximum context length is {self.max_model_len}")
        log_odds = self.scores(states(reranker(), rows) @ reranker().engine.head)
        plain = self.kind == "vllm" and self.log_odds and body.get("use_activation") is False
        scores = (log_odds if plain else sigmoid(log_odds)).tolist()
        name = "score" if self.kind == "sglang" else "relevance_score"
        order = sorted(range(len(documents)), key=lambda i: -scores[i])
        results = [{"index": i, name: scores[i]} for i in order]
        if self.kind == "sglang":
            return results  # a bare list, without usage
        tokens = sum(map(len, rows))
        usage = {"prompt_tokens": tokens, "total_tokens": tokens}
        if self.kind == "dashscope":
            del usage["prompt_tokens"]
        return {
            "id": "rerank-0",
            "model": self.model,
            "results": results,
            "usage": usage if self.counts else {},
        }

    def tokenize(self, body: dict[str, Any]) -> dict[str, Any]:
        """vLLM's `/tokenize` of a conversation."""
        roles = {message["role"]: message["content"] for message in body["messages"]}
        ids = reranker_tokenizer().encode(self.prompt(roles["query"], roles["document"], TASK)).ids
        return {"count": len(ids), "max_model_len": self.max_model_len, "tokens": ids}

    def models(self) -> dict[str, Any]:
        """OpenAI's list of models."""
        entry: dict[str, Any] = {
            "id": self.model,
            "object": "model",
            "owned_by": OWNERS.get(self.kind, "system"),
        }
        if self.max_model_len:
            entry["max_model_len"] = self.max_model_len
        return {"object": "list", "data": [entry]}

    def prompt(self, query: str, document: str, task: str) -> str:
        """The string that the reranker reads."""
        if self.template is None:
            return query + document
        if self.kind == "llama.cpp":  # by replacement, one after the other; its task is fixed
            text = f"{HEAD}<Instruct>: {TASK}\n<Query>: {{query}}\n<Document>: {{document}}{TAIL}"
            return text.replace("{query}", query).replace("{document}", document)
        messages = [
            {"role": "query", "content": query},
            {"role": "document", "content": document},
        ]
        prompt: str = template().render(messages=messages, instruction=task)
        return prompt[:-1] if self.template == "short" else prompt

    def read(self, text: str) -> list[int]:
        """The ids that the embedder reads."""
        ids = embedder_tokenizer().encode(text, add_special_tokens=False).ids
        return ids + [embedder().engine.tokenizer.end_of_text] * self.end_of_text

    def _pooled(self, rows: list[list[int]]) -> np.ndarray:
        if self.pooling == "last":
            return states(embedder(), rows)
        return np.stack(
            [states(embedder(), [r[: i + 1] for i in range(len(r))]).mean(0) for r in rows]
        )

    def _check_fields(self, body: dict[str, Any], known: set[str], needed: Sequence[str]) -> None:
        for name in needed:
            if name not in body:
                raise RefusedError(400, f"Field required: {name}")
        if unknown := set(body) - known:
            raise RefusedError(400, f"Extra inputs are not permitted: {sorted(unknown)}")
        if body["model"] != self.model:
            raise RefusedError(404, f"The model `{body['model']}` does not exist.")

    @staticmethod
    def _check_dashscope_limits(query: str, documents: list[str]) -> None:
        asked, *answers = [
            len(reranker_tokenizer().encode(text, add_special_tokens=False).ids)
            for text in (query, *documents)
        ]
        if len(documents) > 500:
            raise RefusedError(400, "The number of documents should not exceed 500")
        if max(asked, *answers) > 4_000:
            raise RefusedError(400, "Range of input length should be [1, 4000]")
        if asked * len(documents) + sum(answers) > 120_000:
            raise RefusedError(400, "Total tokens should not exceed 120000")


class RefusedError(Exception):
    """What is refused, with the status to answer."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


# The models


@cache
def embedder() -> Embedder:
    """The bundled embedder in this process, in float32: what a server's vectors are compared to."""
    return Embedder("tiny", dtype="float32")


@cache
def reranker() -> Reranker:
    """The bundled reranker in this process, in float32."""
    return Reranker("tiny", dtype="float32")


@cache
def embedder_tokenizer() -> Tokenizer:
    return Tokenizer.from_file(str(TINY / "embedding" / "tokenizer.json"))


@cache
def reranker_tokenizer() -> Tokenizer:
    return Tokenizer.from_file(str(TINY / "reranker" / "tokenizer.json"))


@cache
def template() -> Any:
    """The chat template that we ship, rendered as transformers and vLLM do."""
    jinja = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    return jinja.from_string(TEMPLATE_FILE.read_text(encoding="utf-8"))


def states(model: Embedder | Reranker, rows: Sequence[Sequence[int]]) -> np.ndarray:
    """Hidden state at the last of each row's ids: (n, hidden) float32."""
    shared: tuple[int, ...] = ()
    for ids in zip(*(row[:-1] for row in rows), strict=False):
        if len(set(ids)) > 1:
            break
        shared += (ids[0],)

    sequences = [TokenSequence(shared, tuple(row[len(shared) :])) for row in rows]
    return model.engine.worker.submit(sequences).result()


def shuffled(entries: list[Any]) -> list[Any]:
    """The entries in an order that is not theirs, if there are more than one."""
    return entries[1::2] + entries[::2]


# Faults: each takes the handler and the answer that would be right

Fault = Callable[["Any", "Callable[[], Any]"], None]


def status(code: int, body: Any = None, **headers: str) -> Fault:
    """An HTTP status, with an error as OpenAI-compatible servers shape it unless given."""
    if body is None:
        body = {"error": {"message": f"asked to fail with {code}", "type": "error", "code": code}}
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda handler, answer: handler.send(code, json.dumps(body).encode(), **named)


def retry_at(code: int, seconds: float) -> Fault:
    """A status with a `Retry-After` that is a date, which has no fractions of a second."""

    def fault(handler: Any, answer: Callable[[], Any]) -> None:
        date = formatdate(time.time() + seconds, usegmt=True)
        status(code, retry_after=date)(handler, answer)

    return fault


def dropped(handler: Any, answer: Callable[[], Any]) -> None:
    """The connection ends before an answer."""
    handler.close_connection = True
    handler.connection.shutdown(socket.SHUT_RDWR)


def dropped_midway(handler: Any, answer: Callable[[], Any]) -> None:
    """The connection ends in the middle of the body: shorter than its Content-Length."""
    data = json.dumps(answer()).encode()
    handler.send(200, data[: len(data) // 2], content_length=str(len(data)))
    handler.close_connection = True
    handler.connection.shutdown(socket.SHUT_RDWR)


def truncated(handler: Any, answer: Callable[[], Any]) -> None:
    """Half of the JSON, as if it were all of it."""
    data = json.dumps(answer()).encode()
    handler.send(200, data[: len(data) // 2])


def too_long(handler: Any, answer: Callable[[], Any]) -> None:
    """All of the JSON behind a Content-Length that covers half of it."""
    data = json.dumps(answer()).encode()
    handler.send(200, data, content_length=str(len(data) // 2))
    handler.close_connection = True


def html(handler: Any, answer: Callable[[], Any]) -> None:
    """A page, as proxies and portals answer, with status 200."""
    handler.send(200, b"<html><body>Welcome</body></html>", content_type="text/html")


def slow(interval: float) -> Fault:
    """The right answer, one byte per interval."""

    def fault(handler: Any, answer: Callable[[], Any]) -> None:
        data = json.dumps(answer()).encode()
        handler.send(200, b"", content_length=str(len(data)))
        for byte in data:
            if handler.gone(interval):
                return
            handler.wfile.write(bytes([byte]))

    return fault


def silent(handler: Any, answer: Callable[[], Any]) -> None:
    """No answer, until the client goes."""
    while not handler.gone(1):
        pass


def mangled(change: Callable[[Any], Any]) -> Fault:
    """The right answer, changed; NaN and Infinity are written as Python writes them."""

    def fault(handler: Any, answer: Callable[[], Any]) -> None:
        reply = answer()
        changed = change(reply)
        handler.send(200, json.dumps(reply if changed is None else changed).encode())

    return fault


class _Listener(ThreadingHTTPServer):
    request_queue_size = 128
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that goes away is part of the tests."""


def _handler(server: FakeServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def setup(self) -> None:
            super().setup()
            server._open.add(self.connection)

        def finish(self) -> None:
            server._open.discard(self.connection)
            super().finish()

        def do_GET(self) -> None:
            if self.path != "/v1/models":
                self.send(404, b'{"detail":"Not Found"}')
                return
            server.looks += 1
            self.send(200, json.dumps(server.models()).encode())

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            answers: dict[str, Callable[[dict[str, Any]], Any]] = {}
            if server.kind == "dashscope":
                answers["/compatible-mode/v1/embeddings"] = server.embed
                answers["/compatible-api/v1/reranks"] = server.rerank
            else:
                answers |= {"/v1/embeddings": server.embed, "/v1/rerank": server.rerank}
            if server.kind == "vllm" and self.path == "/tokenize":
                self.send(200, json.dumps(server.tokenize(body)).encode())
                return
            if self.path not in answers:
                self.send(404, b'{"detail":"Not Found"}')
                return
            headers = {name.lower(): value for name, value in self.headers.items()}
            with server._lock:
                server.received.append(Received(self.path, body, headers, time.monotonic()))
                fault = server._faults.popleft() if server._faults else None
                server._busy += 1
                server.most_busy = max(server.most_busy, server._busy)
            try:
                self.answer(body, answers[self.path], fault)
            finally:
                with server._lock:
                    server._busy -= 1

        def answer(
            self, body: dict[str, Any], respond: Callable[[Any], Any], fault: Fault | None
        ) -> None:
            given = self.headers.get("Authorization", "").removeprefix("Bearer ")
            if server.key is not None and given != server.key:
                said = f"Incorrect API key provided: {given}"
                status(401, {"error": {"message": said}})(self, dict)
                return
            if server.delay:
                time.sleep(server.delay)
            try:
                if fault is not None:
                    fault(self, lambda: respond(body))
                else:
                    self.send(200, json.dumps(respond(body)).encode())
            except RefusedError as error:
                status(error.status, {"error": {"message": str(error)}})(self, dict)

        def send(self, code: int, data: bytes, **headers: str) -> None:
            named = {"content-type": "application/json", "content-length": str(len(data))}
            named |= {name.replace("_", "-"): value for name, value in headers.items()}
            self.send_response(code)
            for name, value in named.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(data)

        def gone(self, seconds: float) -> bool:
            """Whether the client has gone, or the server has to, within so many seconds."""
            end = time.monotonic() + seconds
            while (left := end - time.monotonic()) > 0:
                if server.stopped.is_set():
                    return True
                if select.select([self.connection], [], [], min(left, 0.05))[0]:
                    with server._lock:
                        server.abandoned += 1
                    self.close_connection = True
                    return True
            return False

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name
            """Tests read what the server recorded; they need no log."""

    return Handler
