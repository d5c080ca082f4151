"""A small server on 127.0.0.1 that speaks OpenAI's chat completions API, streaming included.

It stands in for an LLM where a test is about everything around one: what is asked, in which form,
and what becomes of the answer. It answers from the passages it can see and cites them; with tools
to choose from it calls the first one with the question, and quotes what that returned.

Use it as a context manager and give `server.url` to a client as its base URL:

    with OpenAIServer() as server:
        llm = ChatOpenAI(base_url=server.url, api_key="any", model="any")
"""

import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

PASSAGE = re.compile(
    r'<passage number="(?P<fenced>\d+)">\n(?P<text>.*?)\n</passage>'  # qwen3_core.rag.fence
    r"|^Source (?P<source>\d+):\n(?P<body>.*?)(?=\n-{3,}|\nSource \d+:|\Z)",  # CitationQueryEngine
    re.DOTALL | re.MULTILINE,
)

UNNUMBERED = re.compile(r"<passage>\n(.*?)\n</passage>", re.DOTALL)

Answer = str | dict[str, Any]
"""A text, or a whole message, such as one that calls a tool."""


class OpenAIServer:
    """An OpenAI-compatible server in a thread of this process.

    Attributes:
        requests: The JSON bodies received, in order.
        headers: Their HTTP headers, names in lower case.
        reply: Makes the answer, a text or a message, from a request; replace it to script the LLM.
        status: HTTP status to answer with; anything but 200 sends an OpenAI error object.
        gate: Streamed answers wait for it before every token but the first. It is open unless a
            test clears it, to prove that tokens are passed on before the answer is complete.
    """

    def __init__(self, reply: Callable[[dict[str, Any]], Answer] | None = None) -> None:
        self.requests: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.reply = reply or answer_from_what_is_there
        self.status = 200
        self.gate = threading.Event()
        self.gate.set()
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True)

    @property
    def url(self) -> str:
        """The base URL that OpenAI clients take."""
        return f"http://127.0.0.1:{self._http.server_port}/v1"

    @property
    def prompt(self) -> str:
        """All the text of the last request's messages."""
        return prompt_text(self.requests[-1])

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.gate.set()
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()

    def _handler(server) -> type[BaseHTTPRequestHandler]:  # noqa: N805 - `self` is the handler below
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                if self.path != "/v1/models":
                    self.send_failure(404, f"no such path: {self.path}")
                    return
                self.send_json(200, {"object": "list", "data": [{"id": "any", "object": "model"}]})

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                if self.path != "/v1/chat/completions":
                    self.send_failure(404, f"no such path: {self.path}")
                    return
                server.requests.append(body)
                server.headers.append({k.lower(): v for k, v in self.headers.items()})
                if server.status != 200:
                    self.send_failure(server.status, f"asked to fail with {server.status}")
                    return
                answer = server.reply(body)
                if body.get("stream"):
                    self.send_stream(body, answer)
                else:
                    self.send_json(200, completion(body, answer))

            def send_json(self, status: int, value: dict[str, Any]) -> None:
                data = json.dumps(value).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def send_failure(self, status: int, message: str) -> None:
                self.send_json(status, {"error": {"message": message, "type": "error"}})

            def send_stream(self, body: dict[str, Any], answer: Answer) -> None:
                self.send_response(200)
                self.send_header("Content-Type", "text/event-stream")
                self.send_header("Connection", "close")
                self.end_headers()
                for i, chunk in enumerate(chunks(body, answer)):
                    # The first chunk holds the role, the second the first token.
                    if i > 1 and not server.gate.wait(timeout=10):
                        return  # the answer stays cut, which its reader will see
                    self.wfile.write(f"data: {json.dumps(chunk)}\n\n".encode())
                    self.wfile.flush()
                self.wfile.write(b"data: [DONE]\n\n")
                self.close_connection = True

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name
                """Tests read what the server recorded; they need no log."""

        return Handler


def prompt_text(request: dict[str, Any]) -> str:
    """The text of all messages of a request, one behind another."""
    parts = []
    for message in request["messages"]:
        content = message.get("content") or ""
        if isinstance(content, list):
            content = "\n".join(block.get("text", "") for block in content)
        parts.append(content)
    return "\n\n".join(parts)


def passages(request: dict[str, Any]) -> dict[int, str]:
    """The numbered passages that a request's prompt holds."""
    found = {}
    for match in PASSAGE.finditer(prompt_text(request)):
        number = match["fenced"] or match["source"]
        found[int(number)] = (match["text"] or match["body"] or "").strip()
    return found


def answer_from_what_is_there(request: dict[str, Any]) -> Answer:
    """A call of the first tool while none was called; then what it returned, or the passages."""
    last = request["messages"][-1]
    if last["role"] == "tool":
        return f"The tool says: {last['content']}"
    if not request.get("tools"):
        return cite_first_passage(request)
    function = request["tools"][0]["function"]
    argument = next(iter(function["parameters"]["properties"]))
    call = {"name": function["name"], "arguments": json.dumps({argument: prompt_text(request)})}
    return {
        "role": "assistant",
        "content": "",
        "tool_calls": [{"index": 0, "id": "call-0", "type": "function", "function": call}],
    }


def cite_first_passage(request: dict[str, Any]) -> str:
    """An answer that says which passages it saw and quotes the beginning of the first one."""
    seen = passages(request)
    if not seen:
        plain = UNNUMBERED.search(prompt_text(request))
        return f"They say: {plain[1][:80]}" if plain else "I was given no passages."
    number = min(seen)
    numbers = ", ".join(map(str, sorted(seen)))
    return f"Of the passages {numbers}, the first says: {seen[number][:80]} [{number}]."


def completion(body: dict[str, Any], answer: Answer) -> dict[str, Any]:
    """A chat completion object."""
    message = {"role": "assistant", "content": answer} if isinstance(answer, str) else answer
    return {
        "id": "chatcmpl-0",
        "object": "chat.completion",
        "created": int(time.time()),
        "model": body["model"],
        "choices": [{"index": 0, "message": message, "finish_reason": finish_reason(answer)}],
        "usage": usage(body, answer),
    }


def finish_reason(answer: Answer) -> str:
    """Why the LLM stopped."""
    return "stop" if isinstance(answer, str) else "tool_calls"


def chunks(body: dict[str, Any], answer: Answer) -> Iterator[dict[str, Any]]:
    """The chunks of a streamed chat completion: the role, then a word each, then the end."""
    frame = {
        "id": "chatcmpl-0",
        "object": "chat.completion.chunk",
        "created": int(time.time()),
        "model": body["model"],
    }

    def chunk(delta: dict[str, Any], finish: str | None = None) -> dict[str, Any]:
        return frame | {"choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}

    yield chunk({"role": "assistant", "content": ""})
    if isinstance(answer, str):
        for word in re.findall(r"\s*\S+|\s+", answer):
            yield chunk({"content": word})
    else:
        yield chunk(answer)
    yield chunk({}, finish_reason(answer))
    if (body.get("stream_options") or {}).get("include_usage"):
        yield frame | {"choices": [], "usage": usage(body, answer)}


def usage(body: dict[str, Any], answer: Answer) -> dict[str, int]:
    """Token counts, with words for tokens."""
    prompt, reply = len(prompt_text(body).split()), len(str(answer).split())
    return {"prompt_tokens": prompt, "completion_tokens": reply, "total_tokens": prompt + reply}
