"""HTTP to one server: one client per event loop, bounded concurrency, actionable errors.

The official OpenAI client does retries, `Retry-After`, connection pools and the key's header.
"""

import asyncio
import json
import logging
import os
import threading
import time
import weakref
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from qwen3_core.common.extras import how_to_install
from qwen3_core.common.fork import after_fork_in_child
from qwen3_core.remote.errors import ServerError
from qwen3_core.remote.server import Server

if TYPE_CHECKING:
    import httpx
    from openai import APIStatusError, AsyncOpenAI

logger = logging.getLogger(__name__)

NO_KEY = "none"
"""Sent if no key is needed; without it the OpenAI client would send `OPENAI_API_KEY` to any
server."""

WORDS = 400
"""The most characters of a server's message that an error quotes."""

SECONDS_BETWEEN_WARNINGS = 60.0
"""Minimum seconds between retry warnings."""

ROLES = {
    "embeddings": ("embedding model", "reranker"),
    "rerank": ("reranker", "embedding model"),
    "reranks": ("reranker", "embedding model"),
}
"""By path: the kind of model whose server has it, and the kind that it is confused with."""

REPEATED = 12
"""Runs of this many characters that a server's message shares with a text are redacted."""


@dataclass
class _Trouble:
    """The failure of a request's last attempt; empty after a usable answer."""

    words: str = ""


@dataclass
class _Connection:
    """The client and locks of one event loop."""

    openai: "AsyncOpenAI"
    slots: asyncio.Semaphore
    trouble: "_Trouble"
    first_use: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Held during the first look at the server, so that concurrent calls do it once."""


_connections: "weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, dict[object, _Connection]]"
_connections = weakref.WeakKeyDictionary()
_lock = threading.Lock()
"""Guards `_connections`, which several threads use."""


@after_fork_in_child
def _reset_in_child() -> None:
    """Replace the lock: another thread of the parent may have held it."""
    global _lock
    _lock = threading.Lock()


class Client:
    """Posts JSON to a server, from any event loop."""

    def __init__(self, base_url: str, api_key: str | None, server: Server) -> None:
        """Store the settings; opens no connection.

        Args:
            base_url: Base URL of the API, such as "http://localhost:8000/v1".
            api_key: Sent as a bearer token; None for a server that needs none.
            server: The server's settings.
        """
        self.base_url = base_url
        self._api_key = api_key
        self._server = server

    @property
    def has_key(self) -> bool:
        """Whether a key is sent."""
        return self._api_key is not None

    @property
    def trouble(self) -> str:
        """The failure of this server's last answer in this event loop; "" for none."""
        return self._connection().trouble.words

    @property
    def first_use(self) -> asyncio.Lock:
        """The lock for the first look at this server, in this event loop."""
        return self._connection().first_use

    def prepare(self) -> None:
        """Import the HTTP client and set it up for this event loop, before any timeout starts."""
        self._connection()

    async def post(self, path: str, body: dict[str, Any], texts: Sequence[str]) -> Any:
        """Post a JSON body; returns the server's JSON answer.

        Args:
            path: Path relative to the base URL, or a whole URL.
            body: The request.
            texts: The texts in the request, so that an error can count and redact them.

        Raises:
            ServerError: If no usable answer came, after all retries.
        """
        connection = self._connection()
        async with connection.slots:
            return await self._request(connection, "post", path, body, texts)

    async def get(self, path: str) -> Any:
        """Get the JSON at a path; None if the server does not have it. Errors as in `post`."""
        connection = self._connection()
        async with connection.slots:
            return await self._request(connection, "get", path, None, ())

    async def _request(
        self,
        connection: _Connection,
        method: str,
        path: str,
        body: dict[str, Any] | None,
        texts: Sequence[str],
    ) -> Any:
        import httpx
        from openai import APIConnectionError, APIStatusError, APITimeoutError

        what = self._describe(path, body, texts)
        try:
            if method == "get":
                response = await connection.openai.get(path, cast_to=httpx.Response)
            else:
                response = await connection.openai.post(path, cast_to=httpx.Response, body=body)
        except APITimeoutError:
            msg = (
                f"{what}: no answer within connect_timeout={self._server.connect_timeout} and "
                f"read_timeout={self._server.read_timeout} seconds, in "
                f"{self._server.retries + 1} attempts"
            )
            raise ServerError(msg) from None
        except APIConnectionError as error:
            msg = (
                f"{what}: no connection in {self._server.retries + 1} attempts "
                f"({_reason(error.__cause__ or error)}); is the server up, and base_url right?"
            )
            raise ServerError(msg) from None
        except APIStatusError as error:
            if method == "get" and error.status_code in (404, 405):
                return None
            msg = f"{what}: {self._refusal(error, path, texts)}"
            raise ServerError(msg) from None
        try:
            return json.loads(response.content)
        except (ValueError, RecursionError):
            kind = response.headers.get("content-type", "no content type")
            msg = f"{what}: the answer is no JSON ({len(response.content)} bytes, {kind})"
            raise ServerError(msg) from None

    def _describe(self, path: str, body: dict[str, Any] | None, texts: Sequence[str]) -> str:
        """Describe a request without its texts."""
        url = path if path.startswith("http") else f"{self.base_url}/{path.lstrip('/')}"
        if body is None:
            return url
        size = sum(map(len, texts))
        return f"{url} (model {body.get('model')!r}, {len(texts)} texts of {size:,} characters)"

    def _refusal(self, error: "APIStatusError", path: str, texts: Sequence[str]) -> str:
        """A server's error message, redacted, with advice."""
        words = _words(error.body)
        if self._api_key:
            words = words.replace(self._api_key, "...")
        words = _without_texts(words, texts)
        refusal = f"the server answered {error.status_code}: {words[:WORDS] or 'nothing more'}"
        if error.status_code in (401, 403):
            refusal += (
                " (an api_key was sent)"
                if self.has_key
                else " (no api_key was sent: give one, or set QWEN3_API_KEY; a key does not travel"
                " in a pickle)"
            )
        # vLLM and others lack the path (404 "Not Found"); llama.cpp answers 501.
        elif path in ROLES and (
            error.status_code == 501 or (error.status_code == 404 and len(words) < 20)
        ):
            wanted, other = ROLES[path]
            refusal += (
                f" (is base_url the address of the {wanted}'s server, and not of the {other}'s or "
                "an LLM's? It ends where the API begins, as in http://localhost:8000/v1)"
            )
        return refusal

    def _connection(self) -> _Connection:
        """This event loop's client for this server; components with equal settings share it."""
        loop = asyncio.get_running_loop()
        with _lock:
            if loop not in _connections:
                for other in [other for other in _connections if other.is_closed()]:
                    del _connections[other]  # its client references the loop, which would leak
                _connections[loop] = {}
            own = _connections[loop]
        key = (self.base_url, self._api_key, self._server)
        if key not in own:  # only this loop's thread changes `own`
            own[key] = self._connect()
        return own[key]

    def _connect(self) -> _Connection:
        try:
            import httpx
            from openai import AsyncOpenAI, DefaultAsyncHttpxClient
        except ImportError as error:
            msg = f"base_url needs the openai package: {how_to_install('server')}"
            raise ImportError(msg) from error
        trouble = _Trouble()

        class Http(DefaultAsyncHttpxClient):
            """Records failures, which the OpenAI client hides during its retries."""

            async def send(self, *args: Any, **kwargs: Any) -> httpx.Response:
                try:
                    response = await super().send(*args, **kwargs)
                except httpx.TransportError as error:
                    trouble.words = _reason(error)
                    raise
                trouble.words = f"it answered {response.status_code}" if response.is_error else ""
                return response

        openai = AsyncOpenAI(
            api_key=self._api_key or NO_KEY,
            base_url=self.base_url,
            organization="",  # not OpenAI's, so that no name from the environment is sent
            project="",
            timeout=httpx.Timeout(self._server.read_timeout, connect=self._server.connect_timeout),
            max_retries=self._server.retries,
            # OpenAI's default client would try to close itself after the event loop is gone.
            http_client=Http(
                event_hooks={
                    "request": [_RetryLog(self._server.retries).tell],
                    "response": [_final_if_missing],
                }
            ),
        )
        openai._custom_headers = {}  # noqa: SLF001 - OPENAI_CUSTOM_HEADERS is for OpenAI
        return _Connection(openai, asyncio.Semaphore(self._server.concurrency), trouble)


def _reason(error: BaseException) -> str:
    """A connection error, with the operating system's message if there is one."""
    words = f"{type(error).__name__}: {error}"
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.errno and cause.errno > 0:
            return f"{words}: {os.strerror(cause.errno).lower()}"
        cause = cause.__cause__ or cause.__context__
    return words


class _RetryLog:
    """Logs retries at intervals, so that the user knows why a call takes long."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._silent_until = 0.0

    async def tell(self, request: "httpx.Request") -> None:
        """Called before each request; the OpenAI client counts attempts in a header."""
        now = time.monotonic()
        if request.headers.get("x-stainless-retry-count", "0") == "0" or now < self._silent_until:
            return
        self._silent_until = now + SECONDS_BETWEEN_WARNINGS
        logger.warning(
            "%s: no answer, or a transient error; retrying, up to %d times a request "
            "(logging.getLogger('openai') at INFO tells each)",
            request.url,
            self._most,
        )


def _without_texts(words: str, texts: Sequence[str]) -> str:
    """Redact what a server's message repeats of the texts, also if escaped or shortened.

    Every run of `REPEATED` or more characters that it shares with a text is removed.
    """
    forms = {form for text in texts for form in _spellings(text)}
    for form in sorted((f for f in forms if 3 < len(f) < REPEATED), key=len, reverse=True):
        words = words.replace(form, "...")
    words, kept, i = words[: 4 * WORDS], "", 0
    while i < len(words):
        end = i + REPEATED
        if end > len(words) or not any(words[i:end] in form for form in forms):
            kept += words[i]
            i += 1
            continue
        while end < len(words) and any(words[i : end + 1] in form for form in forms):
            end += 1
        kept += "..."
        i = end
    return kept


def _spellings(text: str) -> tuple[str, ...]:
    """A text unescaped, and as JSON and Python escape it."""
    return (
        text,
        json.dumps(text)[1:-1],
        json.dumps(text, ensure_ascii=False)[1:-1],
        repr(text)[1:-1],
    )


async def _final_if_missing(response: "httpx.Response") -> None:
    """Set the header by which the OpenAI client does not retry if something does not exist."""
    if response.status_code == 501:
        response.headers["x-should-retry"] = "false"


def _words(body: object) -> str:
    """The message in an error's body: OpenAI's shape, FastAPI's, Alibaba's, or plain text."""
    while isinstance(body, dict):
        body = next((body[key] for key in ("message", "detail", "error") if key in body), None)
    if isinstance(body, list):  # FastAPI; its entries repeat the request under "input"
        return "; ".join(_problem(entry) for entry in body if isinstance(entry, dict))
    if isinstance(body, str):
        return "an HTML page" if body.lstrip()[:1] == "<" else body
    return ""


def _problem(entry: dict[str, Any]) -> str:
    place = entry.get("loc")
    place = ".".join(map(str, place)) if isinstance(place, list) else place
    return f"{place}: {entry.get('msg', '')}"
