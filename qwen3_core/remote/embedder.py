"""Vectors from a server with OpenAI's embeddings API."""

from collections.abc import AsyncIterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from qwen3_core.base import BaseEmbedder, Call, normalised
from qwen3_core.common.docstrings import parameters_documented
from qwen3_core.common.progress import progress_bar
from qwen3_core.common.validation import check_dimensions
from qwen3_core.fingerprint import Fingerprint
from qwen3_core.inputs import check_instruction, in_thread_if_long, texts_cut, windows
from qwen3_core.prompts import (
    DEFAULT_TASK,
    END_OF_TEXT,
    TASKS,
    query_prefix,
    query_text,
    resolve_instruction,
)
from qwen3_core.remote import loops
from qwen3_core.remote.checks import IRRELEVANT, QUERY, RELEVANT, check_embedding
from qwen3_core.remote.errors import ServerError
from qwen3_core.remote.model import Facts, RemoteModel
from qwen3_core.remote.replies import in_order, numbers, tokens_read
from qwen3_core.remote.server import Dialect, Limits, Server
from qwen3_core.settings import DEFAULT_EMBEDDING_MODEL, DEFAULT_MAX_LENGTH
from qwen3_core.tokenizer import Qwen3Tokenizer

Batch = tuple[int, list[str]]
"""Position of the first text, and the texts to send."""


@parameters_documented()
class RemoteEmbedder(RemoteModel, BaseEmbedder):
    """A Qwen3 embedding model on a server, with the interface of `Embedder`.

    The client adds the instruction to queries, counts tokens and truncates texts. Texts are sent as
    strings. A space is inserted into control tokens in a text, because servers would interpret
    them. The client cuts vectors to `dimensions` and normalises them, unless the server does.

    Safe to share between threads and event loops.
    """

    def __init__(
        self,
        model: str | Path = DEFAULT_EMBEDDING_MODEL,
        *,
        base_url: str,
        api_key: str | None = None,
        server: Server | str | None = None,
        revision: str | None = None,
        max_length: int | None = None,
        dimensions: int | None = None,
        instruction: str | None = None,
        timeout: float | None = None,
    ) -> None:
        """Check the settings; sends nothing to the server.

        Raises:
            ValueError: If an argument is out of range.
        """
        self._dimensions = check_dimensions(dimensions)
        super().__init__(
            "embedding",
            model,
            base_url,
            api_key=api_key,
            server=server,
            revision=revision,
            max_length=max_length,
            instruction=instruction,
            timeout=timeout,
        )

    @property
    def dimensions(self) -> int:
        """Length of the vectors; asks the server if `dimensions` was not given."""
        return self._dimensions or loops.run(self._server_dimensions())

    @property
    def fingerprint(self) -> Fingerprint:
        """Model and settings that produce the document vectors; see `BaseEmbedder`."""
        return Fingerprint(
            model=self._model,
            revision=None,  # the server's; `revision` here is the tokenizer's
            weights=None,
            dimensions=self.dimensions,
            max_length=self._max_length or DEFAULT_MAX_LENGTH,
        )

    @property
    def _identity(self) -> object:
        # Some servers are sent the requested length.
        return (super()._identity, self._dimensions)

    async def _server_dimensions(self) -> int:
        facts = await self._look()
        if not facts.dimensions:  # unknown without the self-check
            vectors, _ = await self._ask(facts, ["?"])
            return int(vectors.shape[1])
        return facts.dimensions

    def _limits(self, dialect: Dialect) -> Limits:
        return dialect.embed

    async def _check(self, facts: Facts) -> Facts:
        tokenizer = await self._load_tokenizer()
        prompt = query_prefix(TASKS[DEFAULT_TASK]) + query_text(QUERY)
        texts = [prompt, RELEVANT, IRRELEVANT]
        vectors, tokens = await self._ask(facts, [self._sent(text) for text in texts])
        expected = sum(len(tokenizer.encode(text)) + 1 for text in texts)
        check_embedding(self._cut(vectors), tokens, expected)
        return replace(facts, dimensions=vectors.shape[1])

    def _documents(self, texts: list[str], show_progress: bool, first: int = 0) -> Call[np.ndarray]:
        return self._embed(texts, None, "documents", show_progress, first)

    def _queries(self, texts: list[str], task: str | None, show_progress: bool) -> Call[np.ndarray]:
        return self._embed(texts, resolve_instruction(task), "queries", show_progress)

    async def _embed(
        self, texts: list[str], task: str | None, what: str, show_progress: bool, first: int = 0
    ) -> np.ndarray:
        if not texts:  # sends nothing, so the vectors' length may be unknown (0)
            return np.empty((0, self._dimensions or 0), dtype=np.float32)
        facts = await self._look()
        found: dict[int, np.ndarray] = {}
        with progress_bar("Embedding", len(texts), show_progress) as progress:

            async def ask(batch: Batch) -> None:
                begin, sent = batch
                vectors, _ = await self._ask(facts, sent)
                found[begin] = self._cut(vectors)
                if progress is not None:
                    progress(len(sent))

            await self._share_out(self._batches(facts, texts, task, what, first), ask)
        widths = {vectors.shape[1] for vectors in found.values()}
        if len(widths) > 1:
            msg = f"{self.base_url} returned vectors of different lengths: {sorted(widths)}"
            raise ServerError(msg)
        return np.concatenate([found[begin] for begin in sorted(found)])

    async def _batches(
        self, facts: Facts, texts: list[str], task: str | None, what: str, first: int
    ) -> AsyncIterator[Batch]:
        """The texts to send, in batches within the server's limits."""
        tokenizer, max_length = await self._load_tokenizer(), self._reads(facts)
        for window in windows(texts):
            prepare = partial(self._prepare, tokenizer, texts[window], task, max_length)
            size = sum(map(len, texts[window]))
            prepared, cut = await in_thread_if_long(size, prepare)
            if cut:
                begin = first + window.start
                self._warn_cut(texts_cut([begin + i for i in cut], what, max_length))
            for part in self._requests(facts, [count for _, count in prepared]):
                yield window.start + part.start, [text for text, _ in prepared[part]]

    def _prepare(
        self, tokenizer: Qwen3Tokenizer, texts: list[str], task: str | None, max_length: int
    ) -> tuple[list[tuple[str, int]], list[int]]:
        """Texts to send, with their token counts, and the positions of truncated texts."""
        prefix, room = "", max_length - 1
        if task is not None:
            prefix = query_prefix(task)
            texts = [query_text(text) for text in texts]
            check_instruction(len(tokenizer.encode(prefix)), max_length)
            prefix = tokenizer.without_control_tokens(prefix)
            room -= len(tokenizer.encode(prefix))
        texts = [tokenizer.without_control_tokens(text) for text in texts]
        counts = [len(ids) for ids in tokenizer.encode_many(texts)]
        cut = [i for i, count in enumerate(counts) if count > room]
        for i in cut:
            texts[i], counts[i] = tokenizer.cut_text(texts[i], room), room
        extra = max_length - room
        return [
            (self._sent(prefix + text), count + extra)
            for text, count in zip(texts, counts, strict=True)
        ], cut

    def _sent(self, text: str) -> str:
        return text + END_OF_TEXT if self._server.append_end_of_text else text

    async def _ask(self, facts: Facts, texts: list[str]) -> tuple[np.ndarray, int | None]:
        """The server's vectors for one request's texts, and the tokens that it read."""
        body: dict[str, Any] = {
            "model": self._served_model,
            "input": texts,
            "encoding_format": "float",
        }
        if self._dimensions is not None and facts.dialect.dimensions:
            body["dimensions"] = self._dimensions
        reply = await self._client.post("embeddings", body, texts)
        try:
            vectors = _vectors(reply, len(texts))
        except ValueError as error:
            msg = f"{self.base_url} answered {len(texts)} texts with an invalid reply: {error}"
            raise ServerError(msg) from None
        width = vectors.shape[1]
        if facts.dimensions and width != facts.dimensions:
            msg = (
                f"{self.base_url} returned vectors of {width} dimensions, and of "
                f"{facts.dimensions} before: does it serve another model now? "
                "A new process accepts that"
            )
            raise ServerError(msg)
        check_dimensions(self._dimensions, width)
        return vectors, tokens_read(reply)

    def _cut(self, vectors: np.ndarray) -> np.ndarray:
        """Cut vectors to the requested dimensions and normalise them."""
        # For a reranker, llama.cpp returns uninitialised memory.
        hint = "is base_url the address of the embedding model's server, and not of the reranker's?"
        return normalised(vectors[:, : self._dimensions], self.base_url, hint)


def _vectors(reply: Any, count: int) -> np.ndarray:
    """(count, full dimensions) float32 in the order of the request.

    Raises:
        ValueError: If the reply is malformed.
    """
    entries = in_order(reply.get("data") if isinstance(reply, dict) else reply, count)
    with np.errstate(over="ignore"):  # `_cut` refuses infinity
        return numbers([entry.get("embedding") for entry in entries], 2).astype(np.float32)
