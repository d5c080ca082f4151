"""Vectors of queries and documents: encoder, slice, normalise."""

from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

from qwen3_core.engine import Component, Job
from qwen3_core.packing import TokenSequence
from qwen3_core.progress import progress_bar
from qwen3_core.prompts import resolve_instruction
from qwen3_core.settings import DEFAULT_EMBEDDING_MODEL, Dtype
from qwen3_core.validation import check_dimensions, check_query, check_texts


class Embedder(Component):
    """A Qwen3 embedding model.

    Queries carry an instruction, documents do not. Vectors are the last token's hidden state, cut
    to `dimensions`, then normalised to length 1, so that inner product equals cosine.

    Safe to share between threads. The model is loaded at first use and shared by all components
    that name the same one.
    """

    def __init__(
        self,
        model: str | Path = DEFAULT_EMBEDDING_MODEL,
        *,
        revision: str | None = None,
        device: str = "auto",
        dtype: Dtype = "auto",
        max_length: int | None = None,
        dimensions: int | None = None,
        instruction: str | None = None,
        pack_tokens: int | None = None,
        timeout: float | None = None,
    ) -> None:
        """Check the settings; nothing is loaded yet.

        Args:
            model: Hub name such as "Qwen/Qwen3-Embedding-0.6B", local folder, or "tiny".
            revision: Branch, tag or commit on the hub.
            device: "auto", "cpu", "cuda", "cuda:1", "mps".
            dtype: "auto" (bfloat16 where the hardware has it, else float32), or by name.
            max_length: Tokens read of one text, instruction included; default 8192, or what the
                model has if that is less.
            dimensions: Length of the vectors, from 32 to the model's own (1024, 2560, 4096 at 0.6B,
                4B, 8B); default the model's own.
            instruction: Sentence or task name (`qwen3_core.prompts.TASKS`) put before queries.
            pack_tokens: Token budget of one forward pass; default by device.
            timeout: Seconds that one call may take, waiting included; None: as long as it takes.

        Raises:
            ValueError: If an argument is out of range. Whether the model exists, is of the right
                kind and long enough shows when it is loaded.
        """
        self._dimensions = check_dimensions(dimensions)
        super().__init__(
            "embedding",
            model,
            revision=revision,
            device=device,
            dtype=dtype,
            max_length=max_length,
            instruction=instruction,
            pack_tokens=pack_tokens,
            timeout=timeout,
        )

    @property
    def dimensions(self) -> int:
        """Length of the vectors; loads the model if it was not given."""
        return self._dimensions or self.engine.encoder.hidden_size

    def embed_documents(self, texts: Iterable[str], *, show_progress: bool = False) -> np.ndarray:
        """Vectors of documents, without instruction.

        Args:
            texts: The documents; an empty text is allowed and gets the vector of "no text".
            show_progress: Show a progress bar on stderr.

        Returns:
            (n, dimensions) float32, each row of length 1.

        Raises:
            TypeError: If a text is not a string.
            ValueError: If a text holds a lone surrogate.
            TimeoutError: If it takes longer than `timeout`.
        """
        return self._run(self._documents(check_texts(texts, "documents"), show_progress))

    async def aembed_documents(
        self, texts: Iterable[str], *, show_progress: bool = False
    ) -> np.ndarray:
        """Like `embed_documents`, without blocking the event loop."""
        documents = check_texts(texts, "documents")
        job = self._documents(documents, show_progress)
        return await self._arun(job, sum(map(len, documents)))

    def embed_queries(
        self,
        queries: Iterable[str],
        *,
        instruction: str | None = None,
        show_progress: bool = False,
    ) -> np.ndarray:
        """Vectors of queries, each behind the instruction.

        Args:
            queries: The queries, none of them blank.
            instruction: Sentence or task name in place of the embedder's own.
            show_progress: Show a progress bar on stderr.

        Returns:
            (n, dimensions) float32, each row of length 1.

        Raises:
            TypeError: If a query is not a string.
            ValueError: If a query is blank or holds a lone surrogate, or the instruction leaves no
                room for a query within `max_length`.
            TimeoutError: If it takes longer than `timeout`.
        """
        task, texts = self._check_queries(queries, instruction)
        return self._run(self._queries(texts, task, show_progress))

    async def aembed_queries(
        self,
        queries: Iterable[str],
        *,
        instruction: str | None = None,
        show_progress: bool = False,
    ) -> np.ndarray:
        """Like `embed_queries`, without blocking the event loop."""
        task, texts = self._check_queries(queries, instruction)
        job = self._queries(texts, task, show_progress)
        return await self._arun(job, sum(map(len, texts)))

    def _check_queries(
        self, queries: Iterable[str], instruction: str | None
    ) -> tuple[str, list[str]]:
        task = self.instruction if instruction is None else resolve_instruction(instruction)
        return task, [check_query(query) for query in check_texts(queries, "queries")]

    def _documents(self, texts: list[str], show_progress: bool) -> Job[np.ndarray]:
        def sequences_of(window: slice) -> list[TokenSequence]:
            rows, cut = self.engine.tokenizer.embedding_documents(texts[window], self.max_length)
            self._warn([window.start + i for i in cut], "documents")
            return [TokenSequence((), row) for row in rows]

        return self._embed(texts, sequences_of, bulk=True, show_progress=show_progress)

    def _queries(self, texts: list[str], task: str, show_progress: bool) -> Job[np.ndarray]:
        def sequences_of(window: slice) -> list[TokenSequence]:
            tokenizer, max_length = self.engine.tokenizer, self.max_length
            prefix = tokenizer.embedding_prefix(task)
            if len(prefix) > max_length // 2:
                msg = (
                    f"the instruction takes {len(prefix)} of max_length={max_length} tokens, more "
                    "than half: shorten it or raise max_length"
                )
                raise ValueError(msg)
            rows, cut = tokenizer.embedding_queries(texts[window], max_length - len(prefix))
            self._warn([window.start + i for i in cut], "queries")
            return [TokenSequence(prefix, row) for row in rows]

        return self._embed(texts, sequences_of, bulk=False, show_progress=show_progress)

    def _embed(
        self,
        texts: list[str],
        sequences_of: Callable[[slice], list[TokenSequence]],
        *,
        bulk: bool,
        show_progress: bool,
    ) -> Job[np.ndarray]:
        if not texts:  # nothing is loaded for it, so the vectors' length may be unknown (0)
            return np.empty((0, self._dimensions or 0), dtype=np.float32)
        check_dimensions(self.dimensions, self.engine.encoder.hidden_size)
        with progress_bar("Embedding", len(texts), show_progress) as progress:
            hidden = yield from self._encode(texts, sequences_of, bulk=bulk, progress=progress)
        hidden = hidden[:, : self.dimensions]
        norms = np.linalg.norm(hidden, axis=1, keepdims=True)
        if not norms.all():
            msg = f"the vector of text {int(np.flatnonzero(norms[:, 0] == 0)[0])} has length 0"
            raise FloatingPointError(msg)
        vectors: np.ndarray = hidden / norms
        return vectors

    def _warn(self, cut: list[int], what: str) -> None:
        if cut:
            self._warn_cut(
                f"{len(cut)} of the {what} (first: {what}[{cut[0]}]) are longer than "
                f"max_length={self.max_length} tokens; the rest of them is not read. "
                "Split them, or raise max_length."
            )
