"""Relevance of documents to a query: encoder, one dot product, log-odds, probability."""

from pathlib import Path

import numpy as np

from qwen3_core.base import BaseReranker
from qwen3_core.common.docstrings import parameters_documented
from qwen3_core.common.progress import progress_bar
from qwen3_core.engine.local import LocalModel
from qwen3_core.inputs import by_query, documents_cut, fit_query
from qwen3_core.model.packing import TokenSequence
from qwen3_core.prompts import resolve_instruction
from qwen3_core.settings import DEFAULT_RERANKER_MODEL, Dtype
from qwen3_core.tokenizer import Ids


@parameters_documented()
class Reranker(LocalModel, BaseReranker):
    """A Qwen3 reranking model.

    It reads query and document together and judges whether the document answers the query. Each
    pair is scored alone: other documents in the list do not change its score.

    Thread-safe. The model is loaded at first use and shared by all components that name the same
    one.
    """

    def __init__(
        self,
        model: str | Path = DEFAULT_RERANKER_MODEL,
        *,
        revision: str | None = None,
        device: str = "auto",
        dtype: Dtype = "auto",
        max_length: int | None = None,
        instruction: str | None = None,
        pack_tokens: int | None = None,
        timeout: float | None = None,
    ) -> None:
        """Check the settings; loads nothing.

        Raises:
            ValueError: If an argument is out of range. The model itself is checked when it is
                loaded: that it exists, its kind, and its number of positions.
        """
        super().__init__(
            "reranker",
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
    def instruction(self) -> str:
        """The instruction in use: as given, else the checkpoint's own or the published default.

        The checkpoint's own is known only after the model is loaded.
        """
        own = None if self._engine is None else self._engine.description.instruction
        return self._given or own or resolve_instruction(None)

    async def _score(
        self, pairs: list[tuple[str, str]], task: str | None, show_progress: bool
    ) -> np.ndarray:
        if not pairs:
            return np.empty(0, dtype=np.float32)
        engine = await self._opened()
        instruction = task or self.instruction
        prefixes: dict[str, Ids] = {}

        def sequences_of(window: slice) -> list[TokenSequence]:
            sequences: dict[int, TokenSequence] = {}
            cut: list[int] = []
            for query, members in by_query(pairs, window).items():
                if query not in prefixes:
                    _, prefixes[query] = fit_query(
                        engine.tokenizer, instruction, query, self.max_length, self._warn_cut
                    )
                prefix = prefixes[query]
                rows, cut_here = engine.tokenizer.rerank_documents(
                    [pairs[i][1] for i in members], self.max_length - len(prefix)
                )
                cut += [members[j] for j in cut_here]
                for i, row in zip(members, rows, strict=True):
                    sequences[i] = TokenSequence(prefix, row)
            if cut:
                self._warn_cut(documents_cut(cut, self.max_length))
            return [sequences[i] for i in range(window.start, window.stop)]

        def finish(states: np.ndarray, window: slice) -> np.ndarray:
            del window
            log_odds: np.ndarray = states @ engine.head
            return log_odds

        log_odds = np.empty(len(pairs), dtype=np.float32)
        documents = [document for _, document in pairs]
        with progress_bar("Reranking", len(pairs), show_progress) as progress:
            await self._encode(
                engine,
                log_odds,
                documents,
                sequences_of,
                finish,
                bulk=False,
                progress=progress,
                beside=sum(map(len, {query for query, _ in pairs})),
            )
        return log_odds
