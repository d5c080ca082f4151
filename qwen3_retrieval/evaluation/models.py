"""A pair of models with a cache: vectors, scores and timings."""

import platform
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar

import numpy as np

from qwen3_core import Embedder, RemoteEmbedder, RemoteReranker, Reranker
from qwen3_core.common.progress import progress_bar
from qwen3_core.components import ModelSettings, make_embedder, make_reranker
from qwen3_core.model.description import Head, describe
from qwen3_core.model.files import is_here, weights_digest
from qwen3_core.model.loading import load_tokenizer
from qwen3_core.prompts import DEFAULT_TASK, TASKS, resolve_instruction
from qwen3_core.settings import DEFAULT_EMBEDDING_MODEL, TINY, ModelKind
from qwen3_retrieval.evaluation.cache import (
    Cache,
    Keys,
    from_number,
    to_bytes,
    to_number,
    to_vector,
)
from qwen3_retrieval.evaluation.settings import Pair

R = TypeVar("R")

COMMIT_EVERY: Final = 256
"""Texts embedded, or pairs scored, between two commits to the cache."""


class Models:
    """Vectors, scores and timings of a pair of models, cached."""

    def __init__(self, pair: Pair, cache: Cache, *, progress: bool = False) -> None:
        """Store the settings; a model is loaded only if the cache lacks something."""
        self.pair = pair
        self._cache = cache
        self._progress = progress
        self._embedders: dict[int | None, Embedder | RemoteEmbedder] = {}
        self._rerankers: dict[int | None, Reranker | RemoteReranker] = {}
        self._encode: Callable[[str], Any] | None = None
        self._lengths: dict[str, int] = {}
        self._warm: set[tuple[str, int | None]] = set()

    def document_vectors(self, texts: Sequence[str], max_length: int | None) -> np.ndarray:
        """Vectors of documents, of the model's full length: (n, hidden) float32."""
        return self._vectors(
            texts, None, max_length, lambda e, part: e.embed_documents(part), "Documents"
        )

    def query_vectors(
        self, texts: Sequence[str], instruction: str | None, max_length: int | None
    ) -> np.ndarray:
        """Vectors of queries; instruction None omits the whole prompt, as for documents."""
        if instruction is None:
            return self.document_vectors(texts, max_length)
        return self._vectors(
            texts,
            instruction,
            max_length,
            lambda e, part: e.embed_queries(part, instruction=_given(instruction)),
            "Queries",
        )

    def scores(
        self,
        pairs: Sequence[tuple[str, str]],
        instruction: str,
        max_length: int | None,
    ) -> np.ndarray:
        """Log-odds of (query, document) pairs: (n,) float64."""
        keys = {
            cut: Keys(**self._reranker_identity(cut, instruction)) for cut in (None, max_length)
        }
        spare = len(resolve_instruction(instruction)) + 200  # with the frame around it
        cut = [
            # The query may take half of it at most: see `qwen3_core.reranker.QUERY_SHARE`.
            None if self._fit((q, max(q, d, key=len)), max_length, spare) else max_length
            for q, d in pairs
        ]
        names = [keys[c](*pair) for c, pair in zip(cut, pairs, strict=True)]

        def compute(rows: list[int]) -> list[bytes]:
            values = self._reranker(max_length).score_pairs(
                [pairs[i] for i in rows], instruction=_given(instruction)
            )
            return [from_number(float(value)) for value in values]

        found = dict(self._values(names, compute, "Reranking"))
        return np.array([to_number(found[name]) for name in names])

    def time_query(self, text: str, instruction: str | None, max_length: int | None) -> float:
        """Seconds for embedding one query, with nothing else running."""

        def embed() -> object:
            embedder = self._embedder(max_length)
            if instruction is None:
                return embedder.embed_documents([text])
            return embedder.embed_queries([text], instruction=_given(instruction))

        keys = Keys(timed="query", **self._embedder_identity(max_length, instruction))
        return self.timed(keys(text), embed, ("embedder", max_length))

    def time_reranking(
        self, query: str, texts: Sequence[str], instruction: str, max_length: int | None
    ) -> float:
        """Seconds for scoring these documents of one query."""

        def rerank() -> object:
            reranker = self._reranker(max_length)
            return reranker.score(texts, query, instruction=_given(instruction))

        keys = Keys(timed="rerank", **self._reranker_identity(max_length, instruction))
        return self.timed(keys(query, *texts), rerank, ("reranker", max_length))

    def timed(
        self, key: bytes, work: Callable[[], object], warm: tuple[str, int | None] | None = None
    ) -> float:
        """Seconds for some work; an earlier timing of this machine if the cache has one.

        Args:
            key: The work's cache key.
            work: The work.
            warm: Name of what the work warms up; for a new name, the work is first done once
                without timing.
        """
        key = Keys(machine=platform.node(), key=key.hex())()
        known = self._cache.get([key])
        if key in known:
            return to_number(known[key])
        if warm is not None and warm not in self._warm:
            self._warm.add(warm)
            work()
        begin = time.perf_counter()
        work()
        seconds = time.perf_counter() - begin
        self._cache.put([(key, from_number(seconds))])
        return seconds

    def tokens(self, text: str) -> int | None:
        """Tokens of a text, without any prompt; None if the tokenizer is not available."""
        if text not in self._lengths:
            if self._encode is None:
                self._encode = _encoder(self.pair)
            counted = self._encode(text)
            if counted is None:
                return None
            self._lengths[text] = len(counted)
        return self._lengths[text]

    def close(self) -> None:
        """Release the models."""
        for component in (*self._embedders.values(), *self._rerankers.values()):
            component.close()

    def _vectors(
        self,
        texts: Sequence[str],
        instruction: str | None,
        max_length: int | None,
        embed: Callable[[Embedder | RemoteEmbedder, list[str]], np.ndarray],
        what: str,
    ) -> np.ndarray:
        keys = {
            cut: Keys(**self._embedder_identity(cut, instruction)) for cut in (None, max_length)
        }
        spare = len(instruction or "") + 20
        cut = [None if self._fit((t,), max_length, spare) else max_length for t in texts]
        names = [keys[c](text) for c, text in zip(cut, texts, strict=True)]
        rows: dict[bytes, list[int]] = {}
        for i, name in enumerate(names):
            rows.setdefault(name, []).append(i)

        def compute(rows: list[int]) -> list[bytes]:
            vectors = embed(self._embedder(max_length), [texts[i] for i in rows])
            return [to_bytes(vector) for vector in vectors]

        out = np.empty((0, 0), np.float32)
        for name, data in self._values(names, compute, what):
            vector = to_vector(data)
            if not out.size:
                out = np.empty((len(texts), len(vector)), np.float32)
            out[rows[name]] = vector
        return out

    def _values(
        self, names: Sequence[bytes], compute: Callable[[list[int]], list[bytes]], what: str
    ) -> Iterator[tuple[bytes, bytes]]:
        """Yield each key once with its value; what the cache lacks is computed and stored.

        Args:
            names: The keys.
            compute: Positions of keys -> their values.
            what: Title of the progress bar.
        """
        first = {name: i for i, name in reversed(list(enumerate(names)))}
        every = list(dict.fromkeys(names))
        missing: list[bytes] = []
        for start in range(0, len(every), COMMIT_EVERY):
            part = every[start : start + COMMIT_EVERY]
            found = self._cache.get(part)
            yield from found.items()
            missing += [name for name in part if name not in found]
        with progress_bar(what, len(missing), self._progress and bool(missing)) as advance:
            for start in range(0, len(missing), COMMIT_EVERY):
                part = missing[start : start + COMMIT_EVERY]
                values = compute([first[name] for name in part])
                items = list(zip(part, values, strict=True))
                self._cache.put(items)
                yield from items
                if advance:
                    advance(len(part))

    def _fit(self, texts: tuple[str, ...], max_length: int | None, spare: int) -> bool:
        """Whether texts are certainly not truncated, so that the limit does not matter.

        Args:
            texts: The texts.
            max_length: The limit, in tokens.
            spare: The most tokens of the prompt around them.
        """
        if max_length is None:
            return True
        # Every token has at least one byte.
        if sum(len(text.encode()) for text in texts) + spare <= max_length:
            return True
        counts = [self.tokens(text) for text in texts]
        return sum(c or max_length for c in counts) + spare <= max_length

    def _embedder_identity(self, max_length: int | None, instruction: str | None) -> dict[str, Any]:
        pair = self.pair
        return {
            "kind": "embedding",
            "model": pair.model,
            "weights": _weights(pair.model, "embedding"),
            "revision": pair.revision,
            "base_url": pair.base_url,
            "dtype": pair.dtype,
            "device": pair.device,
            "dimensions": "all",
            "max_length": max_length,
            "prompt": instruction if instruction is None else resolve_instruction(instruction),
        }

    def _reranker_identity(self, max_length: int | None, instruction: str) -> dict[str, Any]:
        pair, model = self.pair, self.pair.reranker_model
        return {
            "kind": "reranker",
            "model": model,
            "weights": _weights(model, "reranker"),
            "revision": pair.reranker_revision,
            "base_url": pair.reranker_base_url,
            "dtype": pair.dtype,
            "device": pair.device,
            "max_length": max_length,
            "prompt": resolve_instruction(instruction),
        }

    def _embedder(self, max_length: int | None) -> Embedder | RemoteEmbedder:
        if max_length not in self._embedders:
            pair = self.pair
            self._embedders[max_length] = make_embedder(
                pair.model,
                dimensions=None,
                **_settings(pair, pair.base_url, pair.revision, max_length),
            )
        return self._embedders[max_length]

    def _reranker(self, max_length: int | None) -> Reranker | RemoteReranker:
        if max_length not in self._rerankers:
            pair = self.pair
            self._rerankers[max_length] = make_reranker(
                pair.reranker_model,
                **_settings(pair, pair.reranker_base_url, pair.reranker_revision, max_length),
            )
        return self._rerankers[max_length]


def _given(instruction: str) -> str | None:
    """The instruction; None for the default sentence, so that a checkpoint's own prompt applies."""
    return None if resolve_instruction(instruction) == TASKS[DEFAULT_TASK] else instruction


def _settings(
    pair: Pair, base_url: str | None, revision: str | None, max_length: int | None
) -> ModelSettings:
    """Settings of a model; device and dtype apply only to a model in this process."""
    settings: ModelSettings = {"revision": revision, "max_length": max_length}
    if base_url is not None:
        return {**settings, "base_url": base_url}
    return {**settings, "device": pair.device, "dtype": pair.dtype}


def _encoder(pair: Pair) -> Callable[[str], Any]:
    """The embedding model's tokenizer, or a function that returns None if there is none.

    All published sizes share one, so it also fits servers' aliases of them.
    """
    name = pair.model
    if pair.base_url is not None and name != TINY and "/" not in name:
        name = name if Path(name).is_dir() else DEFAULT_EMBEDDING_MODEL
    try:
        return load_tokenizer(name, "embedding").encode
    except (OSError, ValueError):
        if pair.base_url is None:
            raise
        return lambda _: None


def _weights(model: str, kind: ModelKind) -> str | None:
    """Digest of a folder's weights, prompts and head.

    None for models on the hub or a server, which are identified by name.
    """
    if not is_here(model):
        return None
    try:
        known = describe(model, kind)
    except (OSError, ValueError):  # loading reports it; a server's folder may be a tokenizer only
        return None
    digest = weights_digest(known.folder, kind, extra=known.extra_weights)
    says = (known.query_prompt, known.document_prompt, known.instruction, known.head)
    plain = says[:3] == (None, "", None) and known.head in (None, Head())
    return digest if plain else f"{digest} {says}"
