"""Settings of a server: its kind, the API dialect, limits, retries and timeouts."""

from dataclasses import dataclass, field
from typing import Any, Final, Literal, get_args
from urllib.parse import urlsplit, urlunsplit

from qwen3_core.common.validation import ArgumentError, got, is_count, is_number
from qwen3_core.settings import ModelKind

ServerKind = Literal["auto", "vllm", "sglang", "llama.cpp", "cohere", "tei", "dashscope"]
"""Kinds of servers. "cohere" is any server with Cohere's or Jina's rerank API, such as Infinity,
Xinference and LiteLLM. "auto" asks the server, and assumes "cohere" if it does not say."""

Template = Literal["server", "client"]
"""The side that applies the reranker's prompt template to query and document."""


@dataclass(frozen=True, slots=True)
class Server:
    """Settings of a server; the defaults suit most servers.

    Attributes:
        kind: The server's kind.
        model: The model's name on the server; by default the component's `model`.
        tokenizer: Source of the model's tokenizer (hub name, folder or "tiny"); by default the
            component's `model` if that is one, else the published models' own. It counts and
            truncates texts before they are sent.
        template: "server" if the server applies its chat template to query and document; "client"
            if the server only concatenates the two, so that the client must send whole prompts.
        append_end_of_text: Append `<|endoftext|>` to each text to embed, for a server whose
            tokenizer does not (old GGUF conversions).
        batch_size: Texts per request; by default the server's limit, or 32.
        batch_tokens: Tokens per request; by default the server's limit, or 65,536.
        concurrency: Concurrent requests of all components that use this server with the same
            settings in one event loop.
        retries: Further attempts after 408, 409, 429, 5xx except 501, or a dropped or timed-out
            connection, with growing, jittered pauses of up to 8 s, or as long as the server's
            `Retry-After` says; if that is more than two minutes, there is no further attempt.
        connect_timeout: Seconds to wait for a connection.
        read_timeout: Seconds to wait for the next byte of an answer.
        self_check: Whether to ask a question with a known answer first, and refuse a server that
            answers it wrongly.
    """

    kind: ServerKind = "auto"
    model: str | None = None
    tokenizer: str | None = None
    template: Template = "server"
    append_end_of_text: bool = False
    batch_size: int | None = None
    batch_tokens: int | None = None
    concurrency: int = 8
    retries: int = 5
    connect_timeout: float = 10.0
    read_timeout: float = 300.0
    self_check: bool = True

    def __post_init__(self) -> None:
        """Check the settings.

        Raises:
            ValueError: If a setting is out of range.
        """
        for name, choices in (("kind", get_args(ServerKind)), ("template", get_args(Template))):
            if getattr(self, name) not in choices:
                listed = ", ".join(map(repr, choices))
                msg = f"unknown server {name} {getattr(self, name)!r}: use one of {listed}"
                raise ValueError(msg)
        for name in ("batch_size", "batch_tokens"):
            value = getattr(self, name)
            if value is not None and not is_count(value):
                msg = f"{name} must be at least 1, or None, but {got(value)}"
                raise ValueError(msg)
        for name, least in (("concurrency", 1), ("retries", 0)):
            value = getattr(self, name)
            if not is_count(value, least):
                msg = f"{name} must be at least {least}, but {got(value)}"
                raise ValueError(msg)
        for name in ("connect_timeout", "read_timeout"):
            value = getattr(self, name)
            if not (is_number(value) and value > 0):
                msg = f"{name} must be a number of seconds above 0, but {got(value, float)}"
                raise ValueError(msg)


def as_server(server: "Server | str | None") -> Server:
    """The given settings, or the defaults for a kind of server.

    Raises:
        TypeError: If `server` is neither settings nor a string.
        ValueError: If the kind is unknown.
    """
    if isinstance(server, Server):
        return server
    if server is None or isinstance(server, str):
        return Server(kind=server or "auto")  # type: ignore[arg-type]  # checked there
    msg = f"server must be a Server or the name of a kind, got {type(server).__name__}"
    raise TypeError(msg)


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of one request."""

    texts: int = 32
    """Number of texts; 32 is the default limit of Text Embeddings Inference."""
    tokens: int = 65_536
    """Total tokens of all texts; this bounds the time of one answer."""
    tokens_per_text: int | None = None
    """Tokens of one text; None: the model's limit."""


@dataclass(frozen=True, slots=True)
class Dialect:
    """The API of a kind of server: its rerank request, and its limits."""

    path: str = "rerank"
    """Path of the rerank API, relative to the base URL."""
    instruction_key: str | None = None
    """Request field for the instruction; None: the server's template has a fixed one."""
    extra: dict[str, Any] = field(default_factory=dict)
    """Further fields of a rerank request."""
    log_odds: bool = False
    """Whether scores are log-odds; otherwise they are probabilities."""
    rerank: Limits = Limits()
    embed: Limits = Limits()
    dimensions: bool = False
    """Whether an embedding request may set the vectors' length."""


DIALECTS: Final[dict[str, Dialect]] = {
    # use_activation=False: log-odds do not saturate.
    "vllm": Dialect(instruction_key="instruction", extra={"use_activation": False}, log_odds=True),
    "sglang": Dialect(instruction_key="instruct", extra={"return_documents": False}),
    "llama.cpp": Dialect(),
    "cohere": Dialect(),
    "tei": Dialect(),
    # Alibaba Cloud Model Studio, API reference of text-embedding-v4 and qwen3-rerank. The token
    # limit counts the query once per document.
    "dashscope": Dialect(
        path="reranks",
        instruction_key="instruct",
        rerank=Limits(texts=500, tokens=120_000, tokens_per_text=4_000),
        embed=Limits(texts=10, tokens_per_text=8_192),
        dimensions=True,
    ),
}

#: Value of `owned_by` in a server's list of models -> kind.
OWNERS: Final[dict[str, ServerKind]] = {
    "vllm": "vllm",
    "sglang": "sglang",
    "llamacpp": "llama.cpp",
}


def check_base_url(base_url: str) -> str:
    """Normalise the URL: no trailing slash, and the customary "/v1" if it has no path.

    Raises:
        TypeError: If it is not a string.
        ValueError: If it is not an http(s) URL, or contains a name or password.
    """
    if not isinstance(base_url, str):
        msg = f"base_url must be a string, got {type(base_url).__name__}"
        raise TypeError(msg)
    parts = urlsplit(base_url.strip())
    if parts.username is not None or parts.password is not None:
        msg = (
            "base_url holds a name or password: give the key as api_key or in QWEN3_API_KEY, which "
            "are never shown"
        )
        raise ArgumentError(msg, "base_url")
    if parts.scheme not in ("http", "https") or not parts.hostname:
        msg = f"base_url must be like 'http://localhost:8000/v1', got {base_url!r}"
        raise ArgumentError(msg, "base_url")
    if parts.query or parts.fragment:
        msg = f"base_url must end with its path, without '?' or '#', got {base_url!r}"
        raise ArgumentError(msg, "base_url")
    path = parts.path.rstrip("/")
    if path.endswith(("/embeddings", "/rerank", "/reranks", "/score")):
        msg = f"base_url ends where the API begins: leave {path.rpartition('/')[2]!r} out of it"
        raise ArgumentError(msg, "base_url")
    return urlunsplit((parts.scheme, parts.netloc, path or "/v1", "", ""))


def check_key(key: str, name: str) -> str:
    """Strip surrounding whitespace from the key, which files and shells often add.

    Raises:
        TypeError: If it is not a string.
        ValueError: If it is empty or cannot be sent in a header. Unlike the HTTP client's own
            error, this one does not show the key.
    """
    if not isinstance(key, str):
        msg = f"{name} must be a string, got {type(key).__name__}"
        raise TypeError(msg)
    key = key.strip()
    if not key:
        msg = f"{name} is blank: leave it out for a server that wants none"
        raise ArgumentError(msg, name)
    if not (key.isascii() and key.isprintable()):
        msg = f"{name} holds characters that HTTP headers cannot: copy the key again"
        raise ArgumentError(msg, name)
    return key


def is_dashscope(base_url: str) -> bool:
    """Whether a URL is Alibaba Cloud Model Studio's (DashScope).

    Its hosts are dashscope.aliyuncs.com, dashscope-intl.aliyuncs.com and the like, or
    NAME.REGION.maas.aliyuncs.com. Other hosts of that domain belong to customers and must not get
    the key.
    """
    host = urlsplit(base_url).hostname or ""
    product = host.removesuffix(".aliyuncs.com").rpartition(".")[2]
    return host.endswith(".aliyuncs.com") and (
        product == "maas" or product == "dashscope" or product.startswith("dashscope-")
    )


def dashscope_url(base_url: str, model_kind: ModelKind) -> str:
    """The base URL of DashScope's compatible API for embedding or for reranking."""
    parts = urlsplit(base_url)
    api = "compatible-mode" if model_kind == "embedding" else "compatible-api"
    return urlunsplit((parts.scheme, parts.netloc, f"/{api}/v1", "", ""))
