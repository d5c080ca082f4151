"""HTTP to one server: one client per event loop, bounded concurrency, errors that say what to do.

Retries, `Retry-After`, connection pools and the key's header are the official OpenAI client's.
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
"""Sent where no key is needed; without it the OpenAI client would send `OPENAI_API_KEY` to whatever
server it is pointed at."""

WORDS = 400
"""Characters that an error quotes of what a server said."""

SECONDS_BETWEEN_WARNINGS = 60.0
"""A server that many requests must be sent to again is spoken of this often."""

ROLES = {
    "embeddings": ("embedding model", "reranker"),
    "rerank": ("reranker", "embedding model"),
    "reranks": ("reranker", "embedding model"),
}
"""By path: the model whose server has it, and the one that it is mistaken for."""

REPEATED = 12
"""Characters in a row from which on what a server says is taken for a repetition of a text."""


@dataclass
class _Trouble:
    """What went wrong in the last attempt at a request; empty if it was answered well."""

    words: str = ""


@dataclass
class _Connection:
    """What belongs to one event loop."""

    openai: "AsyncOpenAI"
    slots: asyncio.Semaphore
    trouble: "_Trouble"
    first_use: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Held while the server is looked at, so that calls that begin together do so once."""


_connections: "weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, dict[object, _Connection]]"
_connections = weakref.WeakKeyDictionary()
_lock = threading.Lock()
"""Held while that is read or changed, which threads do."""


@after_fork_in_child
def _reset_in_child() -> None:
    """Another thread may have held the lock."""
    global _lock
    _lock = threading.Lock()


class Client:
    """Posts JSON to a server, from any event loop."""

    def __init__(self, base_url: str, api_key: str | None, server: Server) -> None:
        """Keep what is needed; nothing is connected yet.

        Args:
            base_url: Where the API begins, such as "http://localhost:8000/v1".
            api_key: Sent as a bearer token; None for a server that wants none.
            server: Its settings.
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
        """What went wrong with this server's last answer in this event loop; "" for nothing."""
        return self._connection().trouble.words

    @property
    def first_use(self) -> asyncio.Lock:
        """Of this server in this event loop."""
        return self._connection().first_use

    def prepare(self) -> None:
        """Import the HTTP client and set it up for this event loop, before time is counted."""
        self._connection()

    async def post(self, path: str, body: dict[str, Any], texts: Sequence[str]) -> Any:
        """The JSON that the server answers to a JSON body.

        Args:
            path: Relative to the base URL, or a whole URL.
            body: The request.
            texts: Those that it holds, so that an error can count them and hide them.

        Raises:
            ServerError: If no usable answer came, after all retries.
        """
        connection = self._connection()
        async with connection.slots:
            return await self._request(connection, "post", path, body, texts)

    async def get(self, path: str) -> Any:
        """The JSON at a path; None if the server does not know the path. Errors as in `post`."""
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
        """A request's shape, without its texts."""
        url = path if path.startswith("http") else f"{self.base_url}/{path.lstrip('/')}"
        if body is None:
            return url
        size = sum(map(len, texts))
        return f"{url} (model {body.get('model')!r}, {len(texts)} texts of {size:,} characters)"

    def _refusal(self, error: "APIStatusError", path: str, texts: Sequence[str]) -> str:
        """What a server answered, in its own words, less what must not be shown."""
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
        # vLLM and others lack the path (404 "Not Found"), llama.cpp says that it cannot (501).
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
                    del _connections[other]  # its client holds the loop, so it would stay for ever
                _connections[loop] = {}
            own = _connections[loop]
        key = (self.base_url, self._api_key, self._server)
        if key not in own:  # only this loop's thread changes it
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
            """Remembers what went wrong, which the OpenAI client keeps while it tries again."""

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
            # OpenAI's own choice would try to close itself when the event loop is gone.
            http_client=Http(
                event_hooks={
                    "request": [_Retries(self._server.retries).tell],
                    "response": [_final_if_missing],
                }
            ),
        )
        openai._custom_headers = {}  # noqa: SLF001 - those of OPENAI_CUSTOM_HEADERS, for OpenAI alone
        return _Connection(openai, asyncio.Semaphore(self._server.concurrency), trouble)


def _reason(error: BaseException) -> str:
    """An error of the connection, with the system's own words for it where it has some."""
    words = f"{type(error).__name__}: {error}"
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.errno and cause.errno > 0:
            return f"{words}: {os.strerror(cause.errno).lower()}"
        cause = cause.__cause__ or cause.__context__
    return words


class _Retries:
    """Says now and then that requests are sent again, since nobody would know why it takes long."""

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
            "%s gave no answer, or one that passes; asking again, up to %d times a request "
            "(logging.getLogger('openai') at INFO tells each)",
            request.url,
            self._most,
        )


def _without_texts(words: str, texts: Sequence[str]) -> str:
    """A server's words without what they repeat of the texts, escaped or shortened as it may be.

    Whatever they have in common with a text for `REPEATED` characters or more is left out.
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
    """A text as it is, and as JSON and Python write it."""
    return (
        text,
        json.dumps(text)[1:-1],
        json.dumps(text, ensure_ascii=False)[1:-1],
        repr(text)[1:-1],
    )


async def _final_if_missing(response: "httpx.Response") -> None:
    """Keep the OpenAI client, which reads this header, from asking again for what is not there."""
    if response.status_code == 501:
        response.headers["x-should-retry"] = "false"


def _words(body: object) -> str:
    """The message in an error's body: OpenAI's shape, FastAPI's, Alibaba's, or plain text."""
    while isinstance(body, dict):
        body = next((body[key] for key in ("message", "detail", "error") if key in body), None)
    if isinstance(body, list):  # FastAPI's; its entries repeat the request under "input"
        return "; ".join(_problem(entry) for entry in body if isinstance(entry, dict))
    if isinstance(body, str):
        return "an HTML page" if body.lstrip()[:1] == "<" else body
    return ""


def _problem(entry: dict[str, Any]) -> str:
    place = entry.get("loc")
    place = ".".join(map(str, place)) if isinstance(place, list) else place
    return f"{place}: {entry.get('msg', '')}"
