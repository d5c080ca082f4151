"""Vectors of queries and documents: encoder, slice, normalise."""

import contextlib
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from qwen3_core.base import BaseEmbedder
from qwen3_core.common.progress import progress_bar
from qwen3_core.common.validation import check_dimensions
from qwen3_core.engine.engine import Component, Engine, Job
from qwen3_core.fingerprint import Fingerprint, is_commit
from qwen3_core.model import files
from qwen3_core.model.description import Description
from qwen3_core.model.packing import TokenSequence
from qwen3_core.prompts import resolve_instruction
from qwen3_core.settings import DEFAULT_EMBEDDING_MODEL, DEFAULT_MAX_LENGTH, Dtype


class Embedder(Component, BaseEmbedder[Job[np.ndarray]]):
    """A Qwen3 embedding model.

    Queries carry an instruction, documents do not, unless the checkpoint says otherwise: its own
    prompts (`config_sentence_transformers.json`) stand before queries and documents. A given
    instruction takes the place of its query prompt. Vectors are the last token's hidden state,
    passed through the checkpoint's Dense modules if it has any, cut to `dimensions`, then
    normalised to length 1, so that inner product equals cosine.

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
            dtype: "auto" (bfloat16 where the hardware has it, else float32), or by name; "int8"
                for faster answers that are a little off, on CPUs with VNNI instructions.
            max_length: Tokens read of one text, instruction included; default 8192, or what the
                checkpoint says or has positions for if that is less.
            dimensions: Length of the vectors, from 32 to the model's own (1024, 2560, 4096 at 0.6B,
                4B, 8B); default the model's own.
            instruction: Sentence or task name (`qwen3_core.prompts.TASKS`) put before queries;
                default the checkpoint's own query prompt, else the published instruction.
            pack_tokens: Token budget of one forward pass; default by device.
            timeout: Seconds that one call may take once the model is loaded, waiting behind other
                callers included; None: as long as it takes. Loading it, or waiting while another
                thread loads a model, does not count and has no limit.

        Raises:
            ValueError: If an argument is out of range. Whether the model exists, is of the right
                kind and long enough shows when it is loaded.
        """
        self._dimensions = check_dimensions(dimensions)
        self._told: str | None = None  # digest of the weights that `fingerprint` told of
        self._checked: Path | None = None  # folder of the loaded weights, once compared with it
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
        return self._dimensions or self.engine.description.dimensions

    @property
    def fingerprint(self) -> Fingerprint:
        """What the vectors of documents are made with; see `BaseEmbedder`.

        Of a model on the hub that is not loaded, the weights are those in the hub's cache; None if
        it has none.

        Raises:
            OSError: If a file of weights is damaged.
        """
        model, revision = self._source["model"], self._source["revision"]
        dimensions = self.dimensions  # may load the model, and download it
        known: Description | None = None
        with contextlib.suppress(OSError):  # out of reach, and so are its vectors
            known = self.description
        folder = files.folder_of(model, "embedding", revision) if known is None else known.folder
        local = files.is_here(model)
        # An adapter is not known by its base's commit, nor by the digest that knew no adapters.
        alone = known is None or known.adapter is None
        commit = revision if is_commit(revision) else None
        weights = None
        if folder is not None:
            commit = files.commit_of(folder) if alone else None
            extra = () if known is None else known.extra_weights
            weights = self._told = files.weights_digest(folder, extra=extra)
        return Fingerprint(
            model=model,
            revision=None if local else revision or "main",
            weights=weights,
            dimensions=dimensions,
            max_length=self._max_length
            or min(DEFAULT_MAX_LENGTH, (known and known.max_length) or DEFAULT_MAX_LENGTH),
            pooling="last_token" if known is None else known.pooling,
            document_prompt=(known and known.document_prompt) or "none",
            commit=commit,
            old_weights=files.old_digest(folder) if local and folder and alone else None,
        )

    @property
    def engine(self) -> Engine:
        """The loaded model; loads it if need be.

        Raises:
            OSError: If the model cannot be found or read.
            ValueError: If it is not a Qwen3 embedding model, has fewer positions than `max_length`,
                or its weights are not those that `fingerprint` told of, as when its branch on the
                hub moved.
        """
        engine = super().engine
        if self._told and engine.folder != self._checked:
            known = engine.description
            if files.weights_digest(known.folder, extra=known.extra_weights) != self._told:
                self._engine = None
                msg = (
                    f"the weights of {engine.name!r} changed after a collection was compared with "
                    "those before: start again, and pin a model on the hub with revision="
                )
                raise ValueError(msg)
            self._checked = engine.folder
        return engine

    def _documents(self, texts: list[str], show_progress: bool) -> Job[np.ndarray]:
        def sequences_of(window: slice) -> list[TokenSequence]:
            prompt = self.engine.description.document_prompt
            return self._prompted(texts, window, prompt, "documents")

        return self._embed(texts, sequences_of, bulk=True, show_progress=show_progress)

    def _queries(self, texts: list[str], task: str | None, show_progress: bool) -> Job[np.ndarray]:
        def sequences_of(window: slice) -> list[TokenSequence]:
            tokenizer, max_length = self.engine.tokenizer, self.max_length
            own = self.engine.description.query_prompt
            if task is None and own is not None:
                return self._prompted(texts, window, own, "queries")
            prefix = tokenizer.embedding_prefix(resolve_instruction(task))
            check_instruction(len(prefix), max_length)
            rows, cut = tokenizer.embedding_queries(texts[window], max_length - len(prefix))
            if cut:
                begin = window.start
                self._warn_cut(texts_cut([begin + i for i in cut], "queries", max_length))
            return [TokenSequence(prefix, row) for row in rows]

        return self._embed(texts, sequences_of, bulk=False, show_progress=show_progress)

    def _prompted(
        self, texts: list[str], window: slice, prompt: str, what: str
    ) -> list[TokenSequence]:
        """A window of texts behind a prompt of the checkpoint's own, or behind none."""
        prefix, rest = self.engine.tokenizer.split_prompt(prompt)
        check_instruction(len(prefix), self.max_length)
        behind = [rest + text for text in texts[window]] if rest else texts[window]
        room = self.max_length - len(prefix)
        rows, cut = self.engine.tokenizer.embedding_documents(behind, room)
        if cut:
            begin = window.start
            self._warn_cut(texts_cut([begin + i for i in cut], what, self.max_length))
        return [TokenSequence(prefix, row) for row in rows]

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
        check_dimensions(self._dimensions, self.engine.description.dimensions)
        with progress_bar("Embedding", len(texts), show_progress) as progress:
            hidden = yield from self._encode(texts, sequences_of, bulk=bulk, progress=progress)
        for linear in self.engine.after_pooling:
            if linear is None:
                hidden = unit(hidden, "the model")
            else:
                weight, bias = linear
                hidden = hidden @ weight.T
                if bias is not None:
                    hidden += bias
        return unit(hidden[:, : self.dimensions], "the model")


def unit(vectors: np.ndarray, source: str, hint: str = "") -> np.ndarray:
    """Vectors made to length 1.

    Args:
        vectors: (n, dimensions) float32.
        source: Who gave them, for an error.
        hint: What may be the cause, for an error.

    Raises:
        FloatingPointError: If one has length 0 and so no direction, or holds NaN or infinity.
    """
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    bad = np.flatnonzero(~(np.isfinite(norms[:, 0]) & (norms[:, 0] > 0)))
    if bad.size:
        msg = f"{source} returned a vector of length {norms[bad[0], 0]} for text {bad[0]}"
        raise FloatingPointError(f"{msg}: {hint}" if hint else msg)
    scaled: np.ndarray = vectors / norms
    return scaled


def check_instruction(tokens: int, max_length: int) -> None:
    """Raise ValueError if an instruction of so many tokens leaves too little for the query."""
    if tokens > max_length // 2:
        msg = (
            f"the instruction takes {tokens} of max_length={max_length} tokens, more than half: "
            "shorten it or raise max_length"
        )
        raise ValueError(msg)


def texts_cut(cut: Sequence[int], what: str, max_length: int) -> str:
    """What to say when the texts at these positions are not read to their end.

    It is said before the texts behind them are looked at, which may be longer too.
    """
    return (
        f"at least {len(cut)} of the {what} (first: {what}[{cut[0]}]) are longer than "
        f"max_length={max_length} tokens; the rest of them is not read. "
        "Split them, or raise max_length."
    )
