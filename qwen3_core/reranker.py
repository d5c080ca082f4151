"""Relevance of documents to a query: encoder, one dot product, log-odds, probability."""

from collections.abc import Callable, Collection, Sequence
from pathlib import Path

import numpy as np

from qwen3_core.base import BaseReranker
from qwen3_core.common.progress import progress_bar
from qwen3_core.engine.engine import Component, Job
from qwen3_core.model.packing import TokenSequence
from qwen3_core.prompts import resolve_instruction
from qwen3_core.settings import DEFAULT_RERANKER_MODEL, Dtype
from qwen3_core.tokenizer import Ids, Qwen3Tokenizer

QUERY_SHARE = 0.5
"""Share of `max_length` that a query may take before it is cut, so that it never pushes the
document out."""


class Reranker(Component, BaseReranker[Job[np.ndarray]]):
    """A Qwen3 reranking model.

    It reads query and document together and answers whether the document meets the query. Scores
    are per pair: other documents in the list do not change them.

    Safe to share between threads. The model is loaded at first use and shared by all components
    that name the same one.
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
        """Check the settings; nothing is loaded yet.

        Args:
            model: Hub name such as "Qwen/Qwen3-Reranker-0.6B", local folder, or "tiny".
            revision: Branch, tag or commit on the hub.
            device: "auto", "cpu", "cuda", "cuda:1", "mps".
            dtype: "auto" (bfloat16 where the hardware has it, else float32), or by name; "int8"
                for faster answers that are a little off, on CPUs with VNNI instructions.
            max_length: Tokens of one prompt (frame, instruction, query, document); default 8192, or
                what the checkpoint says or has positions for if that is less.
            instruction: Sentence or task name (`qwen3_core.prompts.TASKS`); default what the
                checkpoint says, else the published one.
            pack_tokens: Token budget of one forward pass; default by device.
            timeout: Seconds that one call may take once the model is loaded, waiting behind other
                callers included; None: as long as it takes. Loading it, or waiting while another
                thread loads a model, does not count and has no limit.

        Raises:
            ValueError: If an argument is out of range. Whether the model exists, is of the right
                kind and long enough shows when it is loaded.
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
        """The sentence in force: as given, else the checkpoint's own or the published default.

        The checkpoint's own is known once the model is loaded.
        """
        own = None if self._engine is None else self._engine.description.instruction
        return self._given or resolve_instruction(own)

    def _score(
        self, pairs: list[tuple[str, str]], task: str | None, show_progress: bool
    ) -> Job[np.ndarray]:
        if not pairs:
            return np.empty(0, dtype=np.float32)
        engine = self.engine
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

        documents = [document for _, document in pairs]
        with progress_bar("Reranking", len(pairs), show_progress) as progress:
            hidden = yield from self._encode(documents, sequences_of, bulk=False, progress=progress)
        log_odds: np.ndarray = hidden @ engine.head
        return log_odds


def by_query(pairs: Sequence[tuple[str, str]], window: slice) -> dict[str, list[int]]:
    """The positions of a window's (query, document) pairs, by query."""
    found: dict[str, list[int]] = {}
    for i in range(window.start, window.stop):
        found.setdefault(pairs[i][0], []).append(i)
    return found


def fit_query(
    tokenizer: Qwen3Tokenizer,
    instruction: str,
    query: str,
    max_length: int,
    warn: Callable[[str], object],
) -> tuple[str, Ids]:
    """The query, cut to its share of `max_length` if it is longer, and all ids before a document.

    Args:
        tokenizer: The model's.
        instruction: The sentence in force.
        query: What is asked.
        max_length: Tokens of the whole prompt.
        warn: Called with what to say if it is cut.

    Raises:
        ValueError: If frame, instruction and query leave no room for a document.
    """
    prefix = tokenizer.rerank_prefix(instruction, query)
    limit = int(max_length * QUERY_SHARE)
    frame = tokenizer.rerank_frame_length(instruction)
    if max_length - limit - frame < 1:
        msg = (
            f"max_length={max_length} leaves no room for a document: the frame and the "
            f"instruction take {frame} tokens and the query may take {limit}; "
            "raise max_length or shorten the instruction"
        )
        raise ValueError(msg)
    length = len(prefix) + len(tokenizer.rerank_suffix) - frame
    if length <= limit:
        return query, prefix
    warn(
        f"the query takes {length} tokens; only the first {limit}, half of "
        f"max_length={max_length}, are read, so that the document keeps its room."
    )
    query = tokenizer.cut_text(query, limit)
    return query, tokenizer.rerank_prefix(instruction, query)


def documents_cut(cut: Collection[int], max_length: int) -> str:
    """What to say when the documents at these positions are not read to their end.

    It is said before all documents are looked at: more may be cut, before these positions too where
    pairs of several queries go to a server.
    """
    return (
        f"at least {len(cut)} of the documents (such as documents[{min(cut)}]) do not fit into "
        f"max_length={max_length} tokens beside query and instruction; the rest of them is not "
        "read. Split them, or raise max_length."
    )
