"""Computes the exact final states of a few texts, layer by layer, while a model is loaded.

`qwen3_core.model.int8_check` compares them with the states in 8-bit integers. The exact and the
quantised model are never in memory together.
"""

from typing import Any

import torch
from torch import Tensor

from qwen3_core.model.packing import TokenSequence
from qwen3_core.prompts import TASKS
from qwen3_core.settings import ModelKind
from qwen3_core.tokenizer import Qwen3Tokenizer

QUERY = "How is inserted data stored?"
TEXTS = (
    "Inserted data is written to a log first, and to object storage once a segment is full.",
    "The museum opens at 9:30 a.m.; tickets are 12 euros, for children under 14 they are free.",
    "索引让搜索更快，但是需要更多的内存。",
    "def mean(values: list[float]) -> float:\n    return sum(values) / len(values)",
)


def probe_sequences(
    tokenizer: Qwen3Tokenizer, kind: ModelKind, max_positions: int
) -> list[TokenSequence]:
    """The token sequences of `TEXTS` for this kind of model."""
    if kind == "embedding":
        rows, _ = tokenizer.embedding_documents(TEXTS, max_positions)
        return [TokenSequence((), ids) for ids in rows]
    prefix = tokenizer.rerank_prefix(TASKS["web_search"], QUERY)
    rows, _ = tokenizer.rerank_documents(TEXTS, max_positions - len(prefix))
    return [TokenSequence(prefix, ids) for ids in rows]


class Probe:
    """Hidden states of a few sequences on their way through a model's exact layers."""

    def __init__(self, model: Any, sequences: list[TokenSequence]) -> None:
        """Embed the sequences.

        Args:
            model: A Qwen3Model of transformers; its layers may have no weights yet.
            sequences: The sequences, on the CPU.
        """
        self.sequences = sequences
        self._norm = model.norm
        rows = [[*sequence.prefix, *sequence.ids] for sequence in sequences]
        self._lengths = [len(row) for row in rows]
        longest = max(self._lengths)
        # Padding after a text does not affect its states, because attention is causal.
        ids = torch.tensor([row + [0] * (longest - len(row)) for row in rows])
        self._position_ids = torch.arange(longest)[None]
        with torch.inference_mode():
            self._states: Tensor = model.embed_tokens(ids)
            self._cos_sin = model.rotary_emb(self._states, self._position_ids)

    def run(self, layer: Any) -> None:
        """Apply the next layer, a decoder layer of transformers with its exact weights."""
        with torch.inference_mode():
            self._states = layer(  # causal without an explicit mask
                self._states, position_ids=self._position_ids, position_embeddings=self._cos_sin
            )

    def final(self) -> Tensor:
        """Last tokens' states after the last layer and the final norm: (n, hidden_size)."""
        with torch.inference_mode():
            last = [states[n - 1] for states, n in zip(self._states, self._lengths, strict=True)]
            states: Tensor = self._norm(torch.stack(last))
            return states
