"""Chunks: rows to write, with ids derived from their content, and all places of their text."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from qwen3_core.metadata import metadata_header
from qwen3_retrieval.documents.cutting import Piece
from qwen3_retrieval.documents.text import PLACE, RESERVED

MAX_PLACES: Final = 16
"""The most places of one row: Milvus stores at most 65,536 bytes besides the text. A text with more
places has several rows."""

Place = dict[str, Any]
"""A `source`, the path of a file, and the place in the file: keys of `PLACE`."""


@dataclass
class Chunk:
    """A row to write."""

    corpus: str
    digest: bytes
    """16 bytes, derived from text, fields and number."""
    text: str
    fields: dict[str, Any]
    """A record's fields besides its text. Texts with different fields are different rows."""
    places: list[Place] = field(default_factory=list)
    """All places of the text, up to `MAX_PLACES`."""

    @property
    def id(self) -> str:
        """The corpus and the digest."""
        return chunk_id(self.corpus, self.digest)

    @property
    def sources(self) -> list[str]:
        """The files that contain it, by name."""
        return sorted({place["source"] for place in self.places})

    @property
    def document_id(self) -> str:
        """One id per file. A text of several files has its own, and survives a file's deletion."""
        return f"{corpus_prefix(self.corpus)}{source_key(chr(0).join(self.sources))}"

    @property
    def metadata(self) -> dict[str, Any]:
        """The stored metadata: the first place, and all sources."""
        places = sorted(self.places, key=_described)
        more = {"places": places} if len(places) > 1 or self.fields.keys() & set(PLACE) else {}
        own = {"corpus": self.corpus, "sources": self.sources}
        return {**self.fields, **places[0], **own, **more}


def chunk_of_row(corpus: str, digest: bytes, row: Mapping[str, Any]) -> Chunk:
    """The chunk of a stored row."""
    places = places_of_row(row)
    fields = {
        key: value
        for key, value in row.items()
        if key not in RESERVED and key not in places[0] and key[:1] not in ("_", "$")
    }
    return Chunk(corpus, digest, row["text"], fields, places)


def places_of_row(row: Mapping[str, Any]) -> list[Place]:
    """The places in a stored row."""
    if "places" in row:
        return [dict(place) for place in row["places"]]
    return [{key: row[key] for key in ("source", *PLACE) if key in row}]


PLACE_FIELDS: Final = ("source", "places", *PLACE)
"""Fields that `places_of_row` reads."""


def make_chunk(corpus: str, piece: Piece, number: int, header: str = "") -> Chunk:
    """The row of a passage, without its places.

    Args:
        corpus: Name of the corpus.
        piece: The passage.
        number: 1, or more if earlier rows of this text are full.
        header: The metadata that is embedded before the text. Equal texts with different ones are
            different rows.
    """
    parts = (_described(piece.metadata), piece.text, str(number), *([header] if header else []))
    return Chunk(corpus, _digest(*parts)[:16], piece.text, piece.metadata)


def header_of(corpus: str, piece: Piece, place: Place, keys: Sequence[str]) -> str:
    """The metadata that is embedded before a passage, as its row will have it.

    Raises:
        ValueError: If a value is neither a string, a number nor a bool.
    """
    if not keys:
        return ""
    return metadata_header(Chunk(corpus, b"", "", piece.metadata, [place]).metadata, keys)


def corpus_prefix(name: str) -> str:
    """Prefix of the ids of all chunks of a corpus: hexadecimal digits and a hyphen."""
    return f"{_digest(name).hex()[:12]}-"


def chunk_id(corpus: str, digest: bytes) -> str:
    """The primary key of a row."""
    return f"{corpus_prefix(corpus)}{digest.hex()}"


def source_key(source: str) -> str:
    """A short key of a file: 16 hexadecimal digits."""
    return _digest(source).hex()[:16]


def place_key(place: Place) -> bytes:
    """A short key of a place: 8 bytes."""
    return _digest(_described(place))[:8]


def _described(value: Any) -> str:
    return json.dumps(value, sort_keys=True, ensure_ascii=False)


def _digest(*parts: str) -> bytes:
    return hashlib.sha256("\0".join(parts).encode()).digest()
