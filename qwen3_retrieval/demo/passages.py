"""Passages of a folder or of uploaded files, for a search in memory."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from qwen3_retrieval.ingest.chunks import split_at_headings, split_to_fit, title_of
from qwen3_retrieval.ingest.corpus import KINDS, SourceFile, find_corpus
from qwen3_retrieval.ingest.reading import UnreadableError, read_sections

PASSAGE_BYTES: Final = 2_000
"""Bytes of UTF-8 in one passage at most: about 500 tokens of English."""

MAX_FILES: Final = 10
"""Files of one upload."""

MAX_FILE_MB: Final = 5
"""Size of one uploaded file, in units of 1,000,000 bytes."""

MAX_PASSAGES: Final = 2_000
"""Passages of one corpus: all are embedded at once, while somebody waits."""


@dataclass(frozen=True, slots=True)
class Passage:
    """A piece of a file."""

    title: str
    """Its first line with words in it."""
    source: str
    """File name, with the page of a PDF."""
    text: str


def read_folder(path: Path) -> list[Passage]:
    """The passages of a folder, or of one file.

    Raises:
        FileNotFoundError: If there is no such folder or file.
        ValueError: If it cannot be read, holds no text or too much of it.
    """
    return _read(find_corpus(path).files)


def read_uploads(paths: Sequence[Path]) -> list[Passage]:
    """The passages of uploaded files.

    Raises:
        ValueError: If there are too many, or one is too large, of an unknown kind or unreadable.
    """
    if len(paths) > MAX_FILES:
        msg = f"{len(paths)} files are too many: choose at most {MAX_FILES}"
        raise ValueError(msg)
    files = []
    for path in paths:
        kind, size = KINDS.get(path.suffix.lower()), path.stat().st_size
        if kind is None:
            msg = f"{path.name} is of no kind that can be read ({', '.join(KINDS)})"
            raise ValueError(msg)
        if size > MAX_FILE_MB * 1_000_000:
            msg = f"{path.name} is too large: at most {MAX_FILE_MB} MB can be read"
            raise ValueError(msg)
        files.append(SourceFile(path, path.name, kind, size))
    return _read(files)


def _read(files: Sequence[SourceFile]) -> list[Passage]:
    passages: dict[Passage, None] = {}  # none of them twice
    for file in files:
        try:
            for passage in _passages(file):
                passages[passage] = None
                if len(passages) > MAX_PASSAGES:
                    msg = f"this is more than {MAX_PASSAGES:,} passages: choose fewer files"
                    raise ValueError(msg)
        except UnreadableError as error:
            msg = f"{file.source} cannot be read: {error}"
            raise ValueError(msg) from error
    if not passages:
        msg = "there is no text in " + ", ".join(file.source for file in files)
        raise ValueError(msg)
    return list(passages)


def _passages(file: SourceFile) -> Iterator[Passage]:
    def refuse(problem: str) -> None:
        raise UnreadableError(problem)

    for section in read_sections(file, hashlib.sha256(), "text", refuse):
        page = section.metadata.get("page")
        source = file.source if page is None else f"{file.source}, page {page}"
        for part in split_at_headings(section.text) if section.markdown else [section.text]:
            for text in split_to_fit(part, PASSAGE_BYTES):
                yield Passage(title_of(text), source, text.strip())
