"""What a collection holds of a corpus."""

import hashlib
from collections.abc import Iterable
from typing import Any, Final

from qwen3_retrieval.ingest.chunks import corpus_prefix

BATCH: Final = 1000
"""Ids that one request asks for or deletes."""

Holdings = dict[str, set[bytes]]
"""Digests of the chunks that a collection holds, by the key of their file; about 100 bytes each."""


def read_holdings(
    client: Any, collection: str, id_field: str, corpus: str, *, repair: bool
) -> Holdings:
    """The ids of all rows of a corpus, without those that are there twice.

    Milvus Lite 3.2 shows rows twice if it was killed within a flush, after it wrote them to a
    segment and before it removed them from its log: it replays them with the same sequence number,
    by which it would have told them apart. Deleting such an id removes both rows, and the chunk is
    then missing like any other.

    Args:
        client: A `pymilvus.MilvusClient`.
        collection: The collection, which need not exist.
        id_field: Name of its primary key.
        corpus: Name of the corpus.
        repair: Delete rows that are there twice.
    """
    if not client.has_collection(collection):
        return {}
    client.load_collection(collection)  # a run that was killed early may not have come to that
    while True:
        held, doubled = _read(client, collection, id_field, corpus)
        if not doubled or not repair:
            return held
        for key, digests in doubled.items():
            delete_chunks(client, collection, corpus, key, digests)


def _read(client: Any, collection: str, id_field: str, corpus: str) -> tuple[Holdings, Holdings]:
    """What is there once, and what is there more than once."""
    held: Holdings = {}
    doubled: Holdings = {}
    pages = client.query_iterator(
        collection,
        batch_size=BATCH,
        filter=f'{id_field} like "{corpus_prefix(corpus)}%"',
        output_fields=[id_field],
        consistency_level="Strong",
    )
    while page := pages.next():
        for row in page:
            _, key, hexadecimal = row[id_field].split("-")
            digest = bytes.fromhex(hexadecimal)
            chunks = held.setdefault(key, set())
            if digest in chunks:
                doubled.setdefault(key, set()).add(digest)
            chunks.add(digest)
    pages.close()
    for key, digests in doubled.items():
        held[key] -= digests
    return held, doubled


def delete_chunks(
    client: Any, collection: str, corpus: str, key: str, digests: Iterable[bytes]
) -> None:
    """Delete chunks of one file."""
    prefix = f"{corpus_prefix(corpus)}{key}-"
    ids = [f"{prefix}{digest.hex()}" for digest in sorted(digests)]
    for start in range(0, len(ids), BATCH):
        client.delete(collection, ids=ids[start : start + BATCH])


def fingerprint(digests: set[bytes]) -> str:
    """A short name for a set of chunks."""
    return hashlib.sha256(b"".join(sorted(digests))).hexdigest()[:32]
