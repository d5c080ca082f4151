"""Base class of embedders and rerankers whose model runs on a server."""

import asyncio
import os
import weakref
from abc import abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self, TypeVar

from qwen3_core.base import Call, TextModel
from qwen3_core.common.validation import is_count
from qwen3_core.prompts import resolve_instruction
from qwen3_core.remote import loops
from qwen3_core.remote.client import Client
from qwen3_core.remote.errors import ServerError
from qwen3_core.remote.server import (
    DIALECTS,
    OWNERS,
    Dialect,
    Limits,
    Server,
    ServerKind,
    as_server,
    check_base_url,
    check_key,
    dashscope_url,
    is_dashscope,
)
from qwen3_core.settings import (
    DEFAULT_EMBEDDING_MODEL,
    DEFAULT_MAX_LENGTH,
    TINY,
    ModelKind,
    check_settings,
)
from qwen3_core.tokenizer import Qwen3Tokenizer

T = TypeVar("T")
B = TypeVar("B")

KEY_VARIABLES: Final = ("QWEN3_API_KEY", "DASHSCOPE_API_KEY")
"""Environment variables with the default key; the second one for Alibaba Cloud only."""


@dataclass(frozen=True, slots=True)
class Facts:
    """Results of the first look at a server."""

    kind: ServerKind
    max_length: int | None
    """Tokens that it reads of one input; None if it does not report them."""
    dimensions: int = 0
    """Length of the vectors that an embedding server sends; 0 for a reranker or if unknown."""
    log_odds: bool = False
    """Whether a reranking server returns log-odds; otherwise it returns probabilities."""

    @property
    def dialect(self) -> Dialect:
        """The dialect of its kind."""
        return DIALECTS[self.kind]


_known: dict[object, Facts] = {}
_tokenizers: "weakref.WeakValueDictionary[object, Qwen3Tokenizer]" = weakref.WeakValueDictionary()
"""Tokenizers, shared by all components that name the same one while any of them lives."""


class RemoteModel(TextModel):
    """A model on a server: settings, checked at construction; the server is checked at first use.

    Pickles contain the settings without the key; copies keep the key.
    """

    def __init__(
        self,
        model_kind: ModelKind,
        model: str | Path,
        base_url: str,
        *,
        api_key: str | None,
        server: Server | str | None,
        revision: str | None,
        max_length: int | None,
        instruction: str | None,
        timeout: float | None,
    ) -> None:
        check_settings(dtype="auto", max_length=max_length, timeout=timeout)
        self._given = resolve_instruction(instruction)
        self._model_kind: ModelKind = model_kind
        self._model = str(model)
        self._server = as_server(server)
        self._revision = revision
        self._max_length = max_length
        self._timeout = timeout
        base_url = check_base_url(base_url)
        self._dashscope = self._server.kind == "dashscope" or (
            self._server.kind == "auto" and is_dashscope(base_url)
        )
        if self._dashscope and is_dashscope(base_url):
            base_url = dashscope_url(base_url, model_kind)
        self.base_url = base_url
        self._api_key = None if api_key is None else check_key(api_key, "api_key")
        self._set_up()

    def _set_up(self) -> None:
        key = self._api_key
        if key is None:
            variables = KEY_VARIABLES if self._dashscope else KEY_VARIABLES[:1]
            found = ((name, os.environ.get(name, "").strip()) for name in variables)
            key = next((check_key(value, name) for name, value in found if value), None)
        self._client = Client(self.base_url, key, self._server)
        self._tokenizer: Qwen3Tokenizer | None = None

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_api_key": None, "_client": None, "_tokenizer": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._set_up()

    def __copy__(self) -> Self:
        copy = type(self).__new__(type(self))
        copy.__dict__.update(self.__dict__)
        return copy

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        del memo  # all parts are immutable
        return self.__copy__()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._model!r}, base_url={self.base_url!r})"

    @property
    def max_length(self) -> int:
        """Tokens read of one input: as given, else 8192 or the server's limit; asks the server."""
        return self._max_length or self._reads(loops.run(self._look()))

    def close(self) -> None:
        """Forget the facts about the server; the next call checks it again."""
        _known.pop(self._identity, None)

    def _run(self, call: Call[T]) -> T:
        return loops.run(self._arun(call))

    async def _arun(self, call: Call[T]) -> T:
        try:
            self._client.prepare()
            async with asyncio.timeout(self._timeout):
                return await call
        except TimeoutError:
            trouble = self._client.trouble
            msg = (
                f"{self.base_url} gave no result within timeout={self._timeout} seconds"
                f"{f' ({trouble})' if trouble else ''}"
            )
            raise TimeoutError(msg) from None
        finally:
            call.close()  # in case it was never awaited

    @property
    def _served_model(self) -> str:
        return self._server.model or self._model

    @property
    def _identity(self) -> object:
        return (self._model_kind, self.base_url, self._served_model, self._server)

    def _reads(self, facts: Facts) -> int:
        """Tokens read of one input."""
        limit = facts.max_length or DEFAULT_MAX_LENGTH
        if self._max_length is None:
            return min(limit, DEFAULT_MAX_LENGTH)
        if facts.max_length is not None and self._max_length > facts.max_length:
            msg = (
                f"max_length={self._max_length} is more than the {facts.max_length} tokens that "
                f"{self.base_url} accepts"
            )
            raise ValueError(msg)
        return self._max_length

    async def _look(self) -> Facts:
        """The facts about the server; queries and checks it at first use."""
        if facts := _known.get(self._identity):
            return facts
        async with self._client.first_use:
            if facts := _known.get(self._identity):
                return facts
            kind, max_length = await self._identify()
            facts = Facts(kind, max_length, log_odds=DIALECTS[kind].log_odds)
            if self._server.self_check:
                facts = await self._check(facts)
            _known[self._identity] = facts
            return facts

    @abstractmethod
    async def _check(self, facts: Facts) -> Facts:
        """Ask a question with a known answer; returns the facts, with what the answer added."""

    async def _identify(self) -> tuple[ServerKind, int | None]:
        """The server's kind and its tokens per input, as far as it reports them."""
        if self._dashscope:
            limits = self._limits(DIALECTS["dashscope"])
            return "dashscope", limits.tokens_per_text
        reply = await self._client.get("models")
        listed = reply.get("data") if isinstance(reply, dict) else None
        models = [m for m in listed if isinstance(m, dict)] if isinstance(listed, list) else []
        own = next((m for m in models if m.get("id") == self._served_model), None)
        owner = str((own or (models[0] if models else {})).get("owned_by", ""))
        kind = self._server.kind
        if kind == "auto":
            kind = OWNERS.get(owner, "cohere")
        if kind == "vllm" and models and own is None:
            names = ", ".join(repr(m.get("id")) for m in models)
            msg = (
                f"{self.base_url} serves {names}, not {self._served_model!r}: name the model as "
                "the server does, with Server(model=...), or start it with --served-model-name"
            )
            raise ServerError(msg)
        if kind == "llama.cpp" and len(models) == 1:
            own = models[0]  # this server accepts any name for its only model
        return kind, _max_length(own or {})

    @abstractmethod
    def _limits(self, dialect: Dialect) -> Limits:
        """The server's limits for this component."""

    def _requests(self, facts: Facts, counts: Sequence[int]) -> Iterator[slice]:
        """Slices of texts, by their token counts, for requests within the server's limits."""
        limits = self._limits(facts.dialect)
        most_texts = self._server.batch_size or limits.texts
        most_tokens = self._server.batch_tokens or limits.tokens
        begin, tokens = 0, 0
        for end, count in enumerate(counts):
            if end > begin and (end - begin == most_texts or tokens + count > most_tokens):
                yield slice(begin, end)
                begin, tokens = end, 0
            tokens += count
        if begin < len(counts):
            yield slice(begin, len(counts))

    def _tokenizer_alone(self) -> Qwen3Tokenizer:
        return loops.run(self._load_tokenizer())

    async def _load_tokenizer(self) -> Qwen3Tokenizer:
        if self._tokenizer is None:
            self._tokenizer = await asyncio.to_thread(self._find_tokenizer)
        return self._tokenizer

    def _find_tokenizer(self) -> Qwen3Tokenizer:
        from qwen3_core.model.loading import load_tokenizer

        name = self._server.tokenizer
        if name is None:
            own = self._model == TINY or "/" in self._model or Path(self._model).is_dir()
            # All published sizes share one tokenizer, so it also fits models under an alias.
            name = self._model if own else DEFAULT_EMBEDDING_MODEL
        key = (name, self._model_kind, self._revision)
        try:
            tokenizer = _tokenizers.get(key)
            if tokenizer is None:
                tokenizer = _tokenizers[key] = load_tokenizer(
                    name, self._model_kind, revision=self._revision
                )
            return tokenizer
        except OSError as error:
            msg = (
                f"{error}\nTexts are counted and cut before they are sent: name a tokenizer with "
                "Server(tokenizer=...), a hub name or a folder with its tokenizer.json."
            )
            raise OSError(msg) from error

    async def _share_out(
        self, batches: AsyncIterator[B], ask: Callable[[B], Awaitable[None]]
    ) -> None:
        """Send batches, with bounded concurrency; the first error cancels all.

        Batches are built lazily, so that memory does not grow with their number.
        """
        turn = asyncio.Lock()

        async def work() -> None:
            while True:
                async with turn:
                    batch = await anext(batches, None)
                if batch is None:
                    return
                await ask(batch)

        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(self._server.concurrency):
                    group.create_task(work())
        except ExceptionGroup as errors:
            raise errors.exceptions[0] from None


def _max_length(model: dict[str, Any]) -> int | None:
    """Tokens per input of a model in a server's list; None if the server does not report them."""
    length = model.get("max_model_len")
    if is_count(length):
        return length
    meta = model.get("meta")  # llama.cpp; it refuses inputs that fill the whole context
    context = meta.get("n_ctx") if isinstance(meta, dict) else None
    return context - 1 if is_count(context, 2) else None
