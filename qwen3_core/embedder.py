"""Embeds queries and documents: encoder, slice, normalise."""

import contextlib
from collections.abc import Callable
from pathlib import Path

import numpy as np

from qwen3_core.base import BaseEmbedder, normalised
from qwen3_core.common.docstrings import parameters_documented
from qwen3_core.common.progress import progress_bar
from qwen3_core.common.validation import check_dimensions
from qwen3_core.engine.engine import Engine
from qwen3_core.engine.local import LocalModel
from qwen3_core.fingerprint import Fingerprint, is_commit
from qwen3_core.inputs import check_instruction, texts_cut
from qwen3_core.model import files
from qwen3_core.model.description import Description
from qwen3_core.model.packing import TokenSequence
from qwen3_core.prompts import resolve_instruction
from qwen3_core.settings import DEFAULT_EMBEDDING_MODEL, DEFAULT_MAX_LENGTH, Dtype


@parameters_documented()
class Embedder(LocalModel, BaseEmbedder):
    """A Qwen3 embedding model.

    Queries have an instruction, documents do not. If the checkpoint has its own prompts
    (`config_sentence_transformers.json`), these come before queries and documents; an instruction
    replaces the query prompt. Vectors are the last token's hidden state, passed through the
    checkpoint's Dense modules if it has any, cut to `dimensions`, then normalised to length 1, so
    that inner product equals cosine.

    Thread-safe. The model is loaded at first use and shared by all components that name the same
    one.
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
        """Check the settings; loads nothing.

        Raises:
            ValueError: If an argument is out of range. The model itself is checked when it is
                loaded: that it exists, its kind, and its number of positions.
        """
        self._dimensions = check_dimensions(dimensions)
        self._told: str | None = None  # digest of the weights that `fingerprint` reported
        self._checked: Path | None = None  # folder of the loaded weights, after that comparison
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
        """Length of the vectors; loads the model if `dimensions` was not given."""
        return self._dimensions or self.engine.description.dimensions

    @property
    def fingerprint(self) -> Fingerprint:
        """Model and settings that produce the document vectors; see `BaseEmbedder`.

        For a hub model that is not loaded, the weights are those in the hub's cache; None if the
        cache has none.

        Raises:
            OSError: If a file of weights is damaged.
            ValueError: If the model is loaded, and its files were written since.
        """
        model, revision = self._source["model"], self._source["revision"]
        dimensions = self.dimensions  # may load the model, and download it
        known: Description | None = None
        with contextlib.suppress(OSError):  # files unreachable: it cannot embed either
            known = self.description
        if self._engine is not None:
            _check_unchanged(self._engine)
        folder = files.folder_of(model, "embedding", revision) if known is None else known.folder
        local = files.is_here(model)
        # Neither the base's commit nor the old digest, which ignores adapters, identifies an
        # adapter.
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
        """The loaded model; loads it at first use.

        Raises:
            OSError: If the model cannot be found or read.
            ValueError: If it is not a Qwen3 embedding model, has fewer positions than `max_length`,
                or its weights are not those that `fingerprint` reported, because its branch on the
                hub moved for example.
        """
        engine = super().engine
        if self._told and engine.folder != self._checked:
            known = engine.description
            _check_unchanged(engine)  # another component may have loaded it long ago
            if files.weights_digest(known.folder, extra=known.extra_weights) != self._told:
                self._engine = None
                msg = (
                    f"the weights of {engine.name!r} changed after a collection was compared with "
                    "those before: start again, and pin a model on the hub with revision="
                )
                raise ValueError(msg)
            self._checked = engine.folder
        return engine

    async def _documents(self, texts: list[str], show_progress: bool, first: int = 0) -> np.ndarray:
        def sequences_of(window: slice) -> list[TokenSequence]:
            prompt = self.engine.description.document_prompt
            return self._prompted(texts, window, prompt, "documents", first)

        return await self._embed(texts, sequences_of, bulk=True, show_progress=show_progress)

    async def _queries(self, texts: list[str], task: str | None, show_progress: bool) -> np.ndarray:
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

        return await self._embed(texts, sequences_of, bulk=False, show_progress=show_progress)

    def _prompted(
        self, texts: list[str], window: slice, prompt: str, what: str, first: int = 0
    ) -> list[TokenSequence]:
        """The sequences of a window of texts, with the checkpoint's own prompt or without one."""
        prefix, rest = self.engine.tokenizer.split_prompt(prompt)
        check_instruction(len(prefix), self.max_length)
        behind = [rest + text for text in texts[window]] if rest else texts[window]
        room = self.max_length - len(prefix)
        rows, cut = self.engine.tokenizer.embedding_documents(behind, room)
        if cut:
            begin = first + window.start
            self._warn_cut(texts_cut([begin + i for i in cut], what, self.max_length))
        return [TokenSequence(prefix, row) for row in rows]

    async def _embed(
        self,
        texts: list[str],
        sequences_of: Callable[[slice], list[TokenSequence]],
        *,
        bulk: bool,
        show_progress: bool,
    ) -> np.ndarray:
        if not texts:  # loads nothing, so the vectors' length may be unknown (0)
            return np.empty((0, self._dimensions or 0), dtype=np.float32)
        engine = await self._opened()
        check_dimensions(self._dimensions, engine.description.full_dimensions)
        dimensions = self.dimensions
        vectors = np.empty((len(texts), dimensions), dtype=np.float32)

        def finish(states: np.ndarray, window: slice) -> np.ndarray:
            for linear in engine.after_pooling:
                if linear is None:
                    states = normalised(states, "the model", first=window.start)
                else:
                    weight, bias = linear
                    states = states @ weight.T
                    if bias is not None:
                        states += bias
            return normalised(states[:, :dimensions], "the model", first=window.start)

        with progress_bar("Embedding", len(texts), show_progress) as progress:
            await self._encode(
                engine, vectors, texts, sequences_of, finish, bulk=bulk, progress=progress
            )
        return vectors


def _check_unchanged(engine: Engine) -> None:
    """Raise ValueError if a loaded model's files were written since."""
    then = {state.path: state for state in engine.files}
    now = [state for state in engine.description.states() if state.size]  # they may be deleted
    if changed := [state.path for state in now if then.get(state.path) != state]:
        msg = (
            f"{changed[0]} was written after {engine.name!r} was loaded from it, so its vectors "
            "are not those of the files: start again"
        )
        raise ValueError(msg)
