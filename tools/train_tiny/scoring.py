"""Scores texts with exported checkpoints through plain transformers, and with BM25."""

import math
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F
from transformers import AutoModel, AutoModelForCausalLM, AutoTokenizer

from .data import words
from .frames import DEFAULT_TASK, RERANK_SUFFIX, query_prefix, rerank_head

MAX_TOKENS = 512
BATCH_TOKENS = 8192


def _batches(lengths: Sequence[int]) -> list[list[int]]:
    order = sorted(range(len(lengths)), key=lambda i: lengths[i])
    batches: list[list[int]] = []
    for i in order:
        if not batches or (len(batches[-1]) + 1) * lengths[i] > BATCH_TOKENS:
            batches.append([])
        batches[-1].append(i)
    return batches


class Embedder:
    """Last-token embedding as the Qwen3-Embedding model card computes it."""

    def __init__(self, path: Path | str) -> None:
        self.tokenizer = AutoTokenizer.from_pretrained(path, padding_side="left")
        self.model = AutoModel.from_pretrained(path, dtype=torch.float32)

    @torch.inference_mode()
    def documents(self, texts: Sequence[str]) -> np.ndarray:
        """Returns float32 of shape (len(texts), hidden), rows of length 1."""
        ids = self.tokenizer(list(texts), truncation=True, max_length=MAX_TOKENS)["input_ids"]
        out = np.zeros((len(texts), self.model.config.hidden_size), np.float32)
        for rows in _batches([len(row) for row in ids]):
            batch = self.tokenizer.pad({"input_ids": [ids[i] for i in rows]}, return_tensors="pt")
            hidden = self.model(**batch).last_hidden_state[:, -1]
            out[rows] = F.normalize(hidden, dim=-1).numpy()
        return out

    def queries(self, texts: Sequence[str], task: str = DEFAULT_TASK) -> np.ndarray:
        """As ``documents``, with the instruction before each text."""
        return self.documents([query_prefix(task) + text for text in texts])


class Reranker:
    """Probability of "yes" as the Qwen3-Reranker model card computes it, logits in float32."""

    def __init__(self, path: Path | str) -> None:
        self.tokenizer = AutoTokenizer.from_pretrained(path, padding_side="left")
        self.model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)
        self.yes = self.tokenizer.convert_tokens_to_ids("yes")
        self.no = self.tokenizer.convert_tokens_to_ids("no")

    @torch.inference_mode()
    def __call__(self, pairs: Sequence[tuple[str, str]], task: str = DEFAULT_TASK) -> np.ndarray:
        """Score (query, document) pairs; float64 in [0, 1], shape (len(pairs),)."""

        def encode(text: str) -> list[int]:
            ids: list[int] = self.tokenizer.encode(text, add_special_tokens=False)
            return ids

        suffix, ids = encode(RERANK_SUFFIX), []
        for query, document in pairs:
            text = f"{rerank_head(task)} {query}\n<Document>: {document}"
            ids.append(encode(text)[: MAX_TOKENS - len(suffix)] + suffix)
        out = np.zeros(len(pairs))
        for rows in _batches([len(row) for row in ids]):
            batch = self.tokenizer.pad({"input_ids": [ids[i] for i in rows]}, return_tensors="pt")
            logits = self.model(**batch, logits_to_keep=1).logits[:, -1]
            out[rows] = torch.sigmoid(logits[:, self.yes] - logits[:, self.no]).double().numpy()
        return out


class BM25:
    """Okapi BM25 (k1 0.9, b 0.4), no stemming, no stop words."""

    def __init__(self, documents: Sequence[str], k1: float = 0.9, b: float = 0.4) -> None:
        counts = [Counter(words(d)) for d in documents]
        lengths = np.array([sum(c.values()) for c in counts])
        self.size = len(documents)
        self.norm = k1 * (1 - b + b * lengths / lengths.mean())
        self.k1 = k1
        self.postings: dict[str, list[tuple[int, int]]] = defaultdict(list)
        for i, count in enumerate(counts):
            for word, n in count.items():
                self.postings[word].append((i, n))

    def __call__(self, query: str) -> np.ndarray:
        """Scores of all documents, float64."""
        scores = np.zeros(self.size)
        for word in words(query):
            if hits := self.postings.get(word):
                rows, n = np.array(hits).T
                idf = math.log(1 + (self.size - len(hits) + 0.5) / (len(hits) + 0.5))
                scores[rows] += idf * n * (self.k1 + 1) / (n + self.norm[rows])
        return scores


def rank_metrics(scores: np.ndarray, gold: Sequence[int]) -> dict[str, float]:
    """Recall at 1 and 10 and mean reciprocal rank at 10.

    Args:
        scores: Shape (queries, documents); -inf removes a document. Ties count against us.
        gold: Index of the right document of each query.
    """
    right = scores[np.arange(len(gold)), gold][:, None]
    ranks = (scores >= right).sum(1)
    ranks = np.where(np.isneginf(right[:, 0]), scores.shape[1] + 11, ranks)
    return {
        "R@1": float((ranks <= 1).mean()),
        "R@10": float((ranks <= 10).mean()),
        "MRR@10": float(np.where(ranks <= 10, 1 / ranks, 0).mean()),
    }
