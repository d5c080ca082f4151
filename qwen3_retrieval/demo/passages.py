"""Passages of a folder or of uploaded files, for a search in memory."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from qwen3_retrieval.documents.corpus import KINDS, SourceFile, find_corpus, why_skipped
from qwen3_retrieval.documents.cutting import Cutter, title_of
from qwen3_retrieval.documents.reading import read_sections
from qwen3_retrieval.documents.text import Note, UnreadableError

MAX_FILES: Final = 10
"""The most files of one upload."""

MAX_FILE_MB: Final = 5
"""The largest size of an uploaded file, in units of 1,000,000 bytes."""

MAX_PASSAGES: Final = 2_000
"""The most passages of one corpus: all are embedded while the user waits."""


@dataclass(frozen=True, slots=True)
class Excerpt:
    """A piece of a file."""

    title: str
    """Its headings, or its first line with words."""
    source: str
    """File name, with the page, slide or sheet."""
    text: str


@dataclass(frozen=True, slots=True)
class Reading:
    """The passages that were read, and notes."""

    passages: list[Excerpt]
    notes: list[str]
    """Omitted files and parts, each with the reason."""


def read_corpus(path: Path, cutter: Cutter) -> Reading:
    """The passages of a folder, or of one file.

    Raises:
        FileNotFoundError: If there is no such folder or file.
        ValueError: If it cannot be read, or contains no text or too much.
    """
    corpus = find_corpus(path)
    skipped = [f"{each}: {why_skipped(each.suffix)}" for each in corpus.skipped]
    return _read(corpus.files, cutter, [*corpus.unreadable, *skipped])


def read_uploads(paths: Sequence[Path], cutter: Cutter) -> Reading:
    """The passages of uploaded files.

    Raises:
        ValueError: If there are too many, or one is too large, of an unknown kind or unreadable.
    """
    if len(paths) > MAX_FILES:
        msg = f"{len(paths)} files are too many: choose at most {MAX_FILES}"
        raise ValueError(msg)
    files: list[SourceFile] = []
    for path in paths:
        kind, size = KINDS.get(path.suffix.lower()), path.stat().st_size
        if kind is None:
            msg = f"{path.name} cannot be read: {why_skipped(path.suffix)}"
            raise ValueError(msg)
        if size > MAX_FILE_MB * 1_000_000:
            msg = f"{path.name} is too large: at most {MAX_FILE_MB} MB can be read"
            raise ValueError(msg)
        files.append(SourceFile(path, path.name, kind, size))
    return _read(files, cutter, [])


def _read(files: Sequence[SourceFile], cutter: Cutter, notes: list[str]) -> Reading:
    passages: dict[str, Excerpt] = {}  # without duplicate texts
    for file in files:
        try:
            for passage in _passages(file, cutter, notes):
                passages.setdefault(passage.text, passage)
                if len(passages) > MAX_PASSAGES:
                    msg = f"this is more than {MAX_PASSAGES:,} passages: choose fewer files"
                    raise ValueError(msg)
        except UnreadableError as error:
            msg = f"{file.source} cannot be read: {error}"
            raise ValueError(msg) from error
    if not passages:
        msg = "there is no text in " + ", ".join(file.source for file in files)
        raise ValueError(msg)
    return Reading(list(passages.values()), notes)


def _passages(file: SourceFile, cutter: Cutter, notes: list[str]) -> Iterator[Excerpt]:
    def refuse(reason: str, detail: str) -> None:
        raise UnreadableError(reason, detail)

    remark: Note = lambda reason, detail: notes.append(f"{file.source}: {reason} ({detail})")  # noqa: E731
    for section in read_sections(file, hashlib.sha256(), refuse, remark=remark):
        for piece in cutter.cut(section):
            place = [f"{name} {value}" for name, value in piece.place.items() if name != "title"]
            title = piece.place.get("title") or title_of(piece.text)
            yield Excerpt(title, ", ".join([file.source, *place]), piece.text)
