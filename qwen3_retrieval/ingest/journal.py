"""Notes on finished files, so that unchanged files are not read and split again.

The collection remains the source of truth: a note is valid only while the collection has exactly
the chunks in the note. A lost, old or torn journal costs time, never data.
"""

import errno
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Note:
    """A finished file."""

    file: str
    """Digest of its bytes."""
    splitter: str
    """The settings of its cutting, including the splitters' releases."""
    chunks: str
    """Fingerprint of its chunks."""


class Journal:
    """A file of JSON lines; whole lines are appended.

    It contains the names of the corpus's files, so it is created readable by its owner only.
    """

    def __init__(self, path: Path, corpus: str) -> None:
        """Use the file at `path`, which need not exist."""
        self._path = path
        self._corpus = corpus
        self._checked = False

    def read(self) -> dict[str, Note]:
        """The newest note on each file of the corpus, by source; torn lines are ignored.

        Raises:
            OSError: If the journal exists and cannot be read.
        """
        notes: dict[str, Note] = {}
        try:
            lines = self._path.read_bytes().split(b"\n")
        except FileNotFoundError:
            return notes
        for line in lines:
            try:
                entry = json.loads(line)
                if entry["corpus"] == self._corpus and "source" in entry:
                    note = Note(entry["file"], entry["splitter"], entry["chunks"])
                    notes[entry["source"]] = note
            except (ValueError, KeyError, TypeError, RecursionError):
                continue
        return notes

    def note(self, source: str, note: Note) -> None:
        """Record that a file is finished.

        Raises:
            OSError: If the journal cannot be written, for example because the disk is full.
        """
        self._append({"corpus": self._corpus, "source": source, **vars(note)})

    def summarize(self, summary: dict[str, Any]) -> None:
        """Add the summary of a run."""
        self._append({"corpus": self._corpus, "summary": summary})

    def _append(self, entry: dict[str, Any]) -> None:
        data = json.dumps(entry, ensure_ascii=False).encode() + b"\n"
        try:
            self._write(data)
        except OSError as error:
            msg = f"the journal {self._path} could not be written: {error.strerror or error}"
            raise OSError(error.errno, msg) from error

    def _write(self, data: bytes) -> None:
        file = os.open(self._path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            size = os.fstat(file).st_size
            if not self._checked and size and os.pread(file, 1, size - 1) != b"\n":
                data = b"\n" + data  # the last run was killed while writing a line
            self._checked = False
            # One call, so that two runs do not mix their lines.
            if os.write(file, data) < len(data):  # a full disk accepts only a part
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.fsync(file)
            self._checked = True
        finally:
            os.close(file)


def default_path(uri: str, collection: str) -> Path:
    """Next to a Milvus Lite database; for a server, in the current folder."""
    if "://" in uri:
        return Path(f"{collection}.ingest.jsonl")
    path = Path(uri).expanduser()
    return path.with_name(f"{path.stem}.{collection}.ingest.jsonl")
