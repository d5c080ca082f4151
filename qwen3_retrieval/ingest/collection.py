"""The rows of a corpus in a collection."""

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from qwen3_retrieval.ingest.chunks import (
    PLACE_FIELDS,
    chunk_id,
    corpus_prefix,
    place_key,
    places_of_row,
    source_key,
)

BATCH: Final = 1000
"""Ids per request."""


@dataclass
class Holdings:
    """The rows of a corpus; about 200 bytes per row."""

    files: dict[str, set[bytes]] = field(default_factory=dict)
    """File key -> its entries: the digest of a row and the key of a place in the file."""
    rows: dict[bytes, int] = field(default_factory=dict)
    """Row digest -> number of its places."""

    def add(self, digest: bytes, row: Mapping[str, Any]) -> None:
        """Record a row."""
        places = places_of_row(row)
        self.rows[digest] = len(places)
        for place in places:
            entries = self.files.setdefault(source_key(place["source"]), set())
            entries.add(digest + place_key(place))


def read_holdings(
    client: Any, collection: str, id_field: str, corpus: str, *, repair: bool
) -> Holdings:
    """Read the rows of a corpus, without duplicates.

    Milvus Lite 3.2 returns rows twice if it was killed during a flush, after it wrote them to a
    segment and before it removed them from its log: it replays them with the same sequence number,
    so it cannot distinguish them. Deleting such an id removes both rows. The chunk is then missing
    like any other.

    Args:
        client: A `pymilvus.MilvusClient`.
        collection: The collection, which need not exist.
        id_field: Name of its primary key.
        corpus: Name of the corpus.
        repair: Whether to delete duplicate rows.

    Raises:
        ValueError: If an older version of this package wrote the rows.
    """
    if not client.has_collection(collection):
        return Holdings()
    client.load_collection(collection)  # a run that was killed early may not have loaded it
    while True:
        held = Holdings()
        doubled: set[bytes] = set()
        for digest, row in _rows(client, collection, id_field, corpus):
            if digest in held.rows:
                doubled.add(digest)
            held.add(digest, row)
        if not doubled:
            return held
        if not repair:
            for digest in doubled:
                del held.rows[digest]
            for entries in held.files.values():
                entries -= {entry for entry in entries if entry[:16] in doubled}
            return held
        delete_rows(client, collection, corpus, doubled)


def _rows(
    client: Any, collection: str, id_field: str, corpus: str
) -> Iterator[tuple[bytes, dict[str, Any]]]:
    prefix = corpus_prefix(corpus)
    pages = client.query_iterator(
        collection,
        batch_size=BATCH,
        filter=f'{id_field} like "{prefix}%"',
        output_fields=[id_field, *PLACE_FIELDS],
        consistency_level="Strong",
    )
    while page := pages.next():
        for row in page:
            try:
                digest = bytes.fromhex(row[id_field].removeprefix(prefix))
            except ValueError as error:
                msg = (
                    f"an older version filled the collection {collection!r}, with a row for each "
                    "place of a text: drop it, or choose another collection"
                )
                raise ValueError(msg) from error
            yield digest, row
    pages.close()


def read_rows(
    client: Any, collection: str, corpus: str, digests: Sequence[bytes]
) -> Iterator[tuple[bytes, dict[str, Any]]]:
    """All stored fields of these rows, including vectors."""
    names = {chunk_id(corpus, digest): digest for digest in digests}
    for row in client.get(collection, ids=list(names), output_fields=["*"]):
        key = next(value for value in row.values() if value in names)
        yield names[key], row


def delete_rows(client: Any, collection: str, corpus: str, digests: Iterable[bytes]) -> None:
    """Delete rows."""
    ids = [chunk_id(corpus, digest) for digest in sorted(digests)]
    for start in range(0, len(ids), BATCH):
        client.delete(collection, ids=ids[start : start + BATCH])


def fingerprint(entries: set[bytes]) -> str:
    """A short digest of a file's entries."""
    return hashlib.sha256(b"".join(sorted(entries))).hexdigest()[:32]
