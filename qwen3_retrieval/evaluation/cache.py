"""Vectors, scores and timings on disk, so that an interrupted run can resume."""

import hashlib
import json
import sqlite3
import struct
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final, Self

import numpy as np

BATCH: Final = 500
"""Keys per SELECT; every SQLite allows 999 variables."""


class Keys:
    """Makes cache keys of texts for one set of settings."""

    def __init__(self, **settings: Any) -> None:
        """Take all settings that change the result: model, revision, prompt, dimensions, ..."""
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
    """A file of keys and values; several runs may use it at the same time.

    It contains numbers and questions that an LLM wrote, and nothing executable.
    """

    def __init__(self, path: Path | None) -> None:
        """Open or create the cache.

        Args:
            path: The file; None keeps everything in memory.

        Raises:
            ValueError: If the file is not such a cache, or cannot be opened.
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
        """The values of the keys that exist."""
        found: dict[bytes, bytes] = {}
        for start in range(0, len(keys), BATCH):
            part = keys[start : start + BATCH]
            marks = ",".join("?" * len(part))
            query = f"SELECT key, value FROM entries WHERE key IN ({marks})"  # noqa: S608 - "?,?"
            found.update(self._database.execute(query, part))
        return found

    def put(self, items: Iterable[tuple[bytes, bytes]]) -> None:
        """Store values; they are on disk when this returns."""
        with self._database:
            self._database.executemany("INSERT OR REPLACE INTO entries VALUES (?, ?)", items)


def from_number(value: float) -> bytes:
    """A number as stored bytes."""
    return struct.pack("<d", value)


def to_number(data: bytes) -> float:
    """The number in the bytes of `from_number`."""
    value: float = struct.unpack("<d", data)[0]
    return value


def to_bytes(vector: np.ndarray) -> bytes:
    """A vector as stored bytes."""
    return vector.astype("<f4").tobytes()


def to_vector(data: bytes) -> np.ndarray:
    """The vector in the bytes of `to_bytes`: (n,) float32."""
    return np.frombuffer(data, dtype="<f4")
