"""What the embedder and the reranker on a server share."""

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
    Kind,
    check_settings,
)
from qwen3_core.tokenizer import Qwen3Tokenizer

T = TypeVar("T")
B = TypeVar("B")

KEY_VARIABLES: Final = ("QWEN3_API_KEY", "DASHSCOPE_API_KEY")
"""Where the key comes from if none is given; the second one for Alibaba Cloud alone."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What a first look at a server has told."""

    kind: ServerKind
    max_length: int | None
    """Tokens that it reads of one input; None if it does not say."""
    dimensions: int = 0
    """Length of an embedding server's vectors, as it sends them; 0 for a reranker or if it was not
    asked."""
    log_odds: bool = False
    """Whether a reranking server returns log-odds; else probabilities."""

    @property
    def dialect(self) -> Dialect:
        """How it is asked."""
        return DIALECTS[self.kind]


_known: dict[object, Facts] = {}
_tokenizers: "weakref.WeakValueDictionary[object, Qwen3Tokenizer]" = weakref.WeakValueDictionary()
"""Shared by all components that name the same one, for as long as one of them lives."""


class RemoteModel(TextModel):
    """A model on a server: settings, checked at once, and a first look at the server when needed.

    It pickles as its settings, without the key; a copy has the key.
    """

    def __init__(
        self,
        purpose: Kind,
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
        self._purpose: Kind = purpose
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
            base_url = dashscope_url(base_url, purpose)
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
        del memo  # what it holds is never changed
        return self.__copy__()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._model!r}, base_url={self.base_url!r})"

    @property
    def max_length(self) -> int:
        """Tokens read of one input: as given, else 8192 or what the server takes; asks it."""
        return self._max_length or self._reads(loops.run(self._look()))

    def close(self) -> None:
        """Forget what is known of the server, so that the next call looks at it again."""
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
        return (self._purpose, self.base_url, self._served_model, self._server)

    def _reads(self, facts: Facts) -> int:
        """Tokens read of one input."""
        limit = facts.max_length or DEFAULT_MAX_LENGTH
        if self._max_length is None:
            return min(limit, DEFAULT_MAX_LENGTH)
        if facts.max_length is not None and self._max_length > facts.max_length:
            msg = (
                f"max_length={self._max_length} is more than the {facts.max_length} tokens that "
                f"{self.base_url} takes"
            )
            raise ValueError(msg)
        return self._max_length

    async def _look(self) -> Facts:
        """What is known of the server; looks at it, and checks it, at first use."""
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
        """Ask a question with a known answer; returns what else that told."""

    async def _identify(self) -> tuple[ServerKind, int | None]:
        """The server's kind and the tokens it reads of one input, as far as it says."""
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
            own = models[0]  # it serves its one model under any name
        return kind, _max_length(own or {})

    @abstractmethod
    def _limits(self, dialect: Dialect) -> Limits:
        """The limits that concern this component."""

    def _requests(self, facts: Facts, counts: Sequence[int]) -> Iterator[slice]:
        """Consecutive texts of so many tokens each, in requests within the server's limits."""
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
            # All published sizes share one tokenizer, and so do models served under an alias.
            name = self._model if own else DEFAULT_EMBEDDING_MODEL
        key = (name, self._purpose, self._revision)
        try:
            tokenizer = _tokenizers.get(key)
            if tokenizer is None:
                tokenizer = _tokenizers[key] = load_tokenizer(
                    name, self._purpose, revision=self._revision
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
        """Ask for batch after batch, so many at a time; the first error ends it all.

        Batches are made as they are needed, so that memory does not grow with their number.
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
    """Tokens that a model in a server's list reads of one input; None if it does not say."""
    length = model.get("max_model_len")
    if is_count(length):
        return length
    meta = model.get("meta")  # llama.cpp's; it refuses inputs that fill their whole context
    context = meta.get("n_ctx") if isinstance(meta, dict) else None
    return context - 1 if is_count(context, 2) else None
