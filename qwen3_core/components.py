"""Builds embedders and rerankers, local or remote, from settings; mixins for the components."""

from collections.abc import AsyncIterator, Iterable, Iterator
from pathlib import Path
from typing import Any, TypedDict, Unpack

import numpy as np

from qwen3_core.common.validation import ArgumentError
from qwen3_core.embedder import Embedder
from qwen3_core.remote import RemoteEmbedder, RemoteReranker, Server
from qwen3_core.reranker import Reranker
from qwen3_core.settings import Dtype


class ModelSettings(TypedDict, total=False):
    """Settings of local and remote models; the classes document them. Missing keys are defaults."""

    base_url: str | None
    api_key: str | None
    server: Server | str | None
    revision: str | None
    device: str
    dtype: Dtype
    max_length: int | None
    instruction: str | None
    pack_tokens: int | None
    timeout: float | None


def settings_of(component: Any) -> ModelSettings:
    """Read the settings from a framework component's fields of the same names; the key as text."""
    found: Any = {name: getattr(component, name) for name in ModelSettings.__annotations__}
    if found["api_key"] is not None:
        found["api_key"] = found["api_key"].get_secret_value()
    settings: ModelSettings = found
    return settings


def make_embedder(
    model: str | Path, *, dimensions: int | None, **settings: Unpack[ModelSettings]
) -> Embedder | RemoteEmbedder:
    """Build an embedder: local, or remote with a `base_url`.

    Raises:
        ValueError: If a setting is out of range, or does not apply where the model runs.
    """
    here, there = _divide(settings)
    if here is not None:
        return Embedder(model, dimensions=dimensions, **here)
    return RemoteEmbedder(model, dimensions=dimensions, **there)


def make_reranker(
    model: str | Path, **settings: Unpack[ModelSettings]
) -> Reranker | RemoteReranker:
    """Build a reranker: local, or remote with a `base_url`; errors as in `make_embedder`."""
    here, there = _divide(settings)
    return RemoteReranker(model, **there) if here is None else Reranker(model, **here)


def _divide(settings: ModelSettings) -> tuple[dict[str, Any] | None, dict[str, Any]]:
    """The settings for a local model, or None for a remote one, and those for a remote model."""
    every: dict[str, Any] = {**settings}
    remote = {name: every.pop(name, None) for name in ("base_url", "api_key", "server")}
    if remote["base_url"] is None:
        given = [name for name, value in remote.items() if value]
        if given:
            msg = f"{' and '.join(given)} without base_url: give the server's base_url as well"
            raise ArgumentError(msg, "base_url")
        return every, {}
    defaults = {"device": "auto", "dtype": "auto", "pack_tokens": None}
    local = {name: every.pop(name, default) for name, default in defaults.items()}
    given = [name for name, value in local.items() if value != defaults[name]]
    if given:
        listed = ", ".join(f"{name}={local[name]!r}" for name in given)
        msg = (
            f"{listed} is about a model in this process; with base_url the server "
            "decides: leave it out"
        )
        raise ArgumentError(msg, given[0])
    return None, remote | every


class EmbedderMethods:
    """Methods of both frameworks' embedding components that delegate to their embedder."""

    @property
    def embedder(self) -> Embedder | RemoteEmbedder:
        """The embedder behind the component."""
        raise NotImplementedError

    def warm_up(self) -> None:
        """Load the model, or check the server, so that no caller waits; errors as in a call."""
        self.embedder.warm_up()

    async def awarm_up(self) -> None:
        """Like `warm_up`, without blocking the event loop."""
        await self.embedder.awarm_up()

    def count_tokens(self, texts: Iterable[str]) -> list[int]:
        """Count the tokens of each whole text, without prompt and end-of-text token.

        This loads the tokenizer, and no weights.

        Raises:
            TypeError: If a text is not a string.
            ValueError: If a text holds a lone surrogate.
            OSError: If the tokenizer cannot be found or read.
        """
        return self.embedder.count_tokens(texts)

    def embed_stream(self, texts: Iterable[str], *, batch_size: int = 1024) -> Iterator[np.ndarray]:
        """Embed documents that do not fit in memory, in batches, in order.

        Texts are consumed lazily. Each batch is computed when it is requested.

        Args:
            texts: The documents, such as a generator.
            batch_size: Texts per batch; the last batch may have fewer.

        Returns:
            An iterator over (batch_size, dimensions) float32, each row of length 1.

        Raises:
            TypeError: If `texts` is a string or not iterable; during iteration, if a text is not a
                string.
            ValueError: If `batch_size` is not a positive integer; during iteration, if a text
                contains a lone surrogate.
            TimeoutError: If a batch takes longer than `timeout`.
        """
        return self.embedder.embed_stream(texts, batch_size=batch_size)

    def aembed_stream(
        self, texts: Iterable[str], *, batch_size: int = 1024
    ) -> AsyncIterator[np.ndarray]:
        """Like `embed_stream`, without blocking the event loop, for `async for`."""
        return self.embedder.aembed_stream(texts, batch_size=batch_size)


class RerankerMethods:
    """Methods of both frameworks' reranking components that delegate to their reranker."""

    @property
    def reranker(self) -> Reranker | RemoteReranker:
        """The reranker behind the component."""
        raise NotImplementedError

    def warm_up(self) -> None:
        """Load the model, or check the server, so that no caller waits; errors as in a call."""
        self.reranker.warm_up()

    async def awarm_up(self) -> None:
        """Like `warm_up`, without blocking the event loop."""
        await self.reranker.awarm_up()

    def count_tokens(self, texts: Iterable[str]) -> list[int]:
        """Count the tokens of each whole text, without the prompt; see `Embedder.count_tokens`."""
        return self.reranker.count_tokens(texts)
