"""Vectors, scores and timings on disk, so that a run that ends early goes on where it was."""

import hashlib
import json
import sqlite3
import struct
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final, Self

import numpy as np

BATCH: Final = 500
"""Keys that one SELECT asks for; SQLite allows 999 variables everywhere."""


class Keys:
    """Makes the keys of texts that are treated in one way."""

    def __init__(self, **settings: Any) -> None:
        """Take everything that changes the outcome: model, revision, prompt, dimensions, ..."""
        described = json.dumps(settings, sort_keys=True, default=str)
        self._base = hashlib.sha256(described.encode())

    def __call__(self, *texts: str) -> bytes:
        """The key of a text, or of several together: 32 bytes."""
        digest = self._base.copy()
        for text in texts:
            data = text.encode()
            digest.update(len(data).to_bytes(8, "little"))
            digest.update(data)
        return digest.digest()


class Cache:
    """A file of keys and values; several runs may use it at a time.

    It holds numbers and questions that an LLM made, and nothing that could run.
    """

    def __init__(self, path: Path | None) -> None:
        """Open it, or make it.

        Args:
            path: The file; None keeps everything in memory.

        Raises:
            ValueError: If the file is no such cache, or cannot be opened.
        """
        try:
            if path is not None:
                path.parent.mkdir(parents=True, exist_ok=True)
            self._database = sqlite3.connect(path or ":memory:", timeout=60)
            # A power cut may lose the last entries; they are computed again.
            self._database.execute("PRAGMA journal_mode = WAL")
            self._database.execute("PRAGMA synchronous = NORMAL")
            self._database.execute(
                "CREATE TABLE IF NOT EXISTS entries (key BLOB PRIMARY KEY, value BLOB NOT NULL)"
            )
        except sqlite3.Error as error:
            msg = f"{path} cannot be used as a cache ({error}): name another file, or delete it"
            raise ValueError(msg) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._database.close()

    def get(self, keys: Sequence[bytes]) -> dict[bytes, bytes]:
        """The values of those keys that are there."""
        found: dict[bytes, bytes] = {}
        for start in range(0, len(keys), BATCH):
            part = keys[start : start + BATCH]
            marks = ",".join("?" * len(part))
            query = f"SELECT key, value FROM entries WHERE key IN ({marks})"
            found.update(self._database.execute(query, part))
        return found

    def put(self, items: Iterable[tuple[bytes, bytes]]) -> None:
        """Keep values; on disk when it returns."""
        with self._database:
            self._database.executemany("INSERT OR REPLACE INTO entries VALUES (?, ?)", items)

    def get_numbers(self, keys: Sequence[bytes]) -> dict[bytes, float]:
        """Those of the numbers that are there."""
        return {key: struct.unpack("<d", value)[0] for key, value in self.get(keys).items()}

    def put_numbers(self, items: Iterable[tuple[bytes, float]]) -> None:
        """Keep numbers."""
        self.put((key, struct.pack("<d", value)) for key, value in items)


def to_bytes(vector: np.ndarray) -> bytes:
    """A vector as it is kept."""
    return vector.astype("<f4").tobytes()


def to_vector(data: bytes) -> np.ndarray:
    """What `to_bytes` made: (n,) float32."""
    return np.frombuffer(data, dtype="<f4")
