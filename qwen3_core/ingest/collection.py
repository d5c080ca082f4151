"""What a collection holds of a corpus."""

import hashlib
from collections.abc import Iterable
from typing import Any, Final

from qwen3_core.ingest.chunks import corpus_prefix

BATCH: Final = 1000
"""Ids that one request asks for or deletes."""

Holdings = dict[str, set[bytes]]
"""Digests of the chunks that a collection holds, by the key of their file; about 100 bytes each."""


def read_holdings(client: Any, collection: str, id_field: str, corpus: str) -> Holdings:
    """The ids of all rows of a corpus.

    Args:
        client: A `pymilvus.MilvusClient`.
        collection: The collection, which need not exist.
        id_field: Name of its primary key.
        corpus: Name of the corpus.
    """
    held: Holdings = {}
    if not client.has_collection(collection):
        return held
    client.load_collection(collection)  # a run that was killed early may not have come to that
    pages = client.query_iterator(
        collection,
        batch_size=BATCH,
        filter=f'{id_field} like "{corpus_prefix(corpus)}%"',
        output_fields=[id_field],
        consistency_level="Strong",
    )
    while page := pages.next():
        for row in page:
            _, key, digest = row[id_field].split("-")
            held.setdefault(key, set()).add(bytes.fromhex(digest))
    pages.close()
    return held


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
