"""The working folder of one training: pairs, tokenizer, teacher embeddings, checkpoints."""

import random
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer

from .data import DevSet, Pair, load_pairs, split, unique_texts


@dataclass(frozen=True)
class Workspace:
    """Paths and lazily read contents of a working folder."""

    root: Path
    pairs_file: Path

    @cached_property
    def _split(self) -> tuple[list[Pair], list[DevSet]]:
        return split(load_pairs(self.pairs_file))

    @property
    def train(self) -> list[Pair]:
        """Training pairs, in the order of the pairs file."""
        return self._split[0]

    @property
    def dev(self) -> list[DevSet]:
        """Development sets: nothing in them is trained on."""
        return self._split[1]

    @cached_property
    def documents(self) -> dict[str, int]:
        """Row of each distinct training document in ``teacher-documents.npy``, technical first."""
        return unique_texts([p.document for p in self.train if p.group == g] for g in range(4))

    @cached_property
    def queries(self) -> dict[str, int]:
        """Row of each distinct training query in ``teacher-queries.npy``, technical first."""
        return unique_texts([p.query for p in self.train if p.group == g] for g in range(4))

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """The vocabulary without any post-processor: ids are exactly those of the text."""
        return Tokenizer.from_file(str(self.root / "tokenizer.json"))

    def teacher(self, name: str) -> np.ndarray:
        """Teacher embeddings, float16, shape (texts, 384); name: documents, queries or tokens."""
        return np.asarray(np.load(self.root / f"teacher-{name}.npy", mmap_mode="r"))

    def save(self, name: str, state: Mapping[str, Any]) -> None:
        """Write a checkpoint so that an interruption leaves either the old or the new one."""
        temporary = self.root / f"{name}.pt.new"
        torch.save(dict(state), temporary)
        temporary.replace(self.root / f"{name}.pt")

    def load(self, name: str) -> dict[str, Any] | None:
        """The checkpoint of that name, or None when there is none."""
        path = self.root / f"{name}.pt"
        if not path.exists():
            return None
        state: dict[str, Any] = torch.load(path, weights_only=False)
        return state


def log(message: str) -> None:
    """Print a line with the time of day."""
    print(f"{time.strftime('%H:%M:%S')} {message}", flush=True)


def seed_everything(seed: int) -> random.Random:
    """Seed torch; returns a generator for everything drawn in Python."""
    torch.manual_seed(seed)
    return random.Random(seed)
