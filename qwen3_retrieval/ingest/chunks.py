"""Chunks of text and the ids that follow from what they say and where they come from."""

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from qwen3_core.milvus.collection import MAX_TEXT_BYTES


@dataclass(frozen=True)
class Chunk:
    """A row to be."""

    id: str
    """`Ids.prefix` and the digest of its content."""
    document_id: str
    """The same for all chunks of one file."""
    text: str
    metadata: dict[str, Any]

    @property
    def digest(self) -> str:
        """What its id ends in."""
        return self.id.rpartition("-")[2]


def corpus_prefix(name: str) -> str:
    """What the ids of all chunks of a corpus begin with: hexadecimal digits and a hyphen."""
    return f"{_digest(name, length=12)}-"


def source_key(source: str) -> str:
    """The part of an id that names the file: 16 hexadecimal digits."""
    return _digest(source, length=16)


class ChunkMaker:
    """Makes the chunks of one file."""

    def __init__(self, corpus: str, source: str, splitter: str) -> None:
        """Start with a file.

        Args:
            corpus: Name of the corpus.
            source: Path of the file in it.
            splitter: Describes how it is cut; another splitter gives other ids.

        Raises:
            ValueError: If the file's name is no text.
        """
        try:
            source.encode()
        except UnicodeEncodeError as error:
            msg = "its name is not UTF-8"
            raise ValueError(msg) from error
        self._document_id = f"{corpus_prefix(corpus)}{source_key(source)}"
        self._place = {"corpus": corpus, "source": source}
        self._splitter = splitter
        self._seen: Counter[str] = Counter()

    def make(self, pieces: Iterable[str], metadata: dict[str, Any]) -> Iterator[Chunk]:
        """The chunks of pieces that have this metadata, without the blank ones.

        Equal ones are told apart by their number, so that each becomes a row.
        """
        metadata = {**metadata, **self._place}
        described = json.dumps(metadata, sort_keys=True, ensure_ascii=False)
        for piece in pieces:
            for text in split_to_fit(piece):
                content = _digest(self._splitter, described, text, length=64)
                self._seen[content] += 1
                digest = _digest(content, str(self._seen[content]), length=32)
                yield Chunk(f"{self._document_id}-{digest}", self._document_id, text, metadata)


def split_to_fit(text: str, limit: int = MAX_TEXT_BYTES) -> Iterator[str]:
    """The text in parts of at most `limit` bytes of UTF-8, none of them blank.

    It is cut at white space where there is some in the last half of a part.
    """
    data = text.encode()
    while len(data) > limit:
        part = data[:limit].decode(errors="ignore")  # what is cut through goes to the next
        spaces = list(re.finditer(r"\s", part[len(part) // 2 :]))
        if spaces:
            part = part[: len(part) // 2 + spaces[-1].end()]
        if part.strip():
            yield part
        data = data[len(part.encode()) :]
    rest = data.decode()
    if rest.strip():
        yield rest


def split_at_headings(text: str) -> list[str]:
    """Cut at every "# ", to the letter as in the Milvus tutorial."""
    return text.split("# ")


def heading_of(text: str) -> str:
    """The heading that a part of a Markdown text begins with, or ""."""
    found = re.match(r"\s*#{1,6}[ \t]+(.+)", text)
    return found[1].strip(" \t#") if found else ""


def title_of(text: str) -> str:
    """The first line with words in it, without the marks of a heading or a list."""
    lines = (line.strip(" \t#*-") for line in text.splitlines())
    return next((line for line in lines if line), "(no words)")


def _digest(*parts: str, length: int) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:length]
