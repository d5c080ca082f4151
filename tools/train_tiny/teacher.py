"""Embed texts with all-MiniLM-L6-v2 (Apache-2.0): the targets that both models learn from."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F
from transformers import AutoModel, AutoTokenizer

from .workspace import Workspace, log

WIDTH = 384
BLOCK = 2048
MAX_TOKENS = 96


class Teacher:
    """Mean-pooled, normalised sentence embeddings, as the model's own configuration says."""

    def __init__(self, path: str) -> None:
        self.tokenizer = AutoTokenizer.from_pretrained(path)
        self.model = AutoModel.from_pretrained(path, dtype=torch.float32)

    @torch.inference_mode()
    def embed(self, texts: Sequence[str], budget: int = 3072) -> np.ndarray:
        """Embed texts in batches of similar length.

        Args:
            texts: Cut at ``MAX_TOKENS`` tokens.
            budget: Padded tokens per batch; larger batches leave the processor's cache.

        Returns:
            float16, shape (len(texts), 384), rows of length 1.
        """
        ids = self.tokenizer(list(texts), truncation=True, max_length=MAX_TOKENS)["input_ids"]
        out = np.zeros((len(texts), WIDTH), np.float16)
        order = sorted(range(len(texts)), key=lambda i: len(ids[i]))
        while order:
            size = 1
            while size < len(order) and (size + 1) * len(ids[order[size]]) <= budget:
                size += 1
            rows, order = order[:size], order[size:]
            batch = self.tokenizer.pad(
                {"input_ids": [ids[i] for i in rows]}, return_tensors="pt", pad_to_multiple_of=8
            )
            with torch.autocast("cpu", dtype=torch.bfloat16):
                hidden = self.model(**batch).last_hidden_state.float()
            mask = batch["attention_mask"][..., None]
            mean = (hidden * mask).sum(1) / mask.sum(1)
            out[rows] = F.normalize(mean, dim=-1).numpy().astype(np.float16)
        return out


def embed_resumable(
    texts: Sequence[str],
    order: Sequence[int],
    path: Path,
    teacher: Teacher,
    log: Callable[[str], None],
) -> None:
    """Embed ``texts`` block by block into ``path``; blocks done by an earlier run are skipped.

    Args:
        texts: All texts.
        order: Indices in the order of work, the most useful first.
        path: A ``.npy`` file of float16, shape (len(texts), 384); a row of zeros is not done yet.
        teacher: The model.
        log: Receives one line per block.
    """
    shape = (len(texts), WIDTH)
    if not path.exists():
        np.lib.format.open_memmap(path, "w+", np.float16, shape).flush()
    store = np.lib.format.open_memmap(path, "r+")
    if store.shape != shape:
        msg = f"{path} has shape {store.shape}, the texts need {shape}: delete the file"
        raise ValueError(msg)
    open_rows = [i for i in order if not store[i].any()]
    for start in range(0, len(open_rows), BLOCK):
        rows = open_rows[start : start + BLOCK]
        store[rows] = teacher.embed([texts[i] for i in rows])
        store.flush()
        log(f"teacher {path.name}: {start + len(rows)} of {len(open_rows)}")


def embed_workspace(workspace: Workspace, model: str, first: int | None = None) -> None:
    """Embed the vocabulary, the documents and the queries of a working folder.

    Args:
        workspace: Receives ``teacher-{tokens,documents,queries}.npy``.
        model: Folder of all-MiniLM-L6-v2.
        first: Only this many rows of documents and of queries; later calls may go on.
    """
    teacher = Teacher(model)
    tokenizer = workspace.tokenizer
    vocabulary = [
        tokenizer.decode([i], skip_special_tokens=False).strip() or " "
        for i in range(tokenizer.get_vocab_size())
    ]
    for name, texts in (
        ("tokens", vocabulary),
        ("documents", list(workspace.documents)),
        ("queries", list(workspace.queries)),
    ):
        count = len(texts) if first is None or name == "tokens" else min(first, len(texts))
        path = workspace.root / f"teacher-{name}.npy"
        embed_resumable(texts, range(count), path, teacher, log)
