"""Coarse-to-fine search: short vectors find candidates, the collection's own vectors order them."""

from collections.abc import Iterator, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from qwen3_core.common.validation import got, is_count
from qwen3_core.milvus.collection import CONSISTENCY, FINGERPRINT_KEY, connect
from qwen3_core.milvus.filters import literal
from qwen3_core.milvus.index import index_params, search_params

BATCH: Final = 500
"""Rows read and written at once: 8 MB of vectors at 4096 dimensions."""


class CoarseIndex:
    """The first dimensions of a collection's vectors, in a collection of their own.

    Matryoshka models such as Qwen3-Embedding put what matters most into the first dimensions. An
    HNSW index of 128 of 1024 needs a seventh of the memory; what it finds is then compared by the
    full vectors, in a search that is filtered to these candidates. So it works with every store
    that takes a filter, and the collection itself need not have an index in memory (DISKANN, or
    FLAT with memory mapping).

    Example:
        ```python
        coarse = CoarseIndex("http://localhost:19530", "docs", dimensions=128)
        coarse.update()  # after documents were added or deleted
        expression = coarse.expression(embeddings.embed_query(question), 400)
        retriever.invoke(question, k=100, expr=expression)  # LlamaIndex: string_expr
        ```
    """

    def __init__(
        self,
        uri: str,
        collection_name: str,
        *,
        dimensions: int = 128,
        token: str | None = None,
        db_name: str | None = None,
    ) -> None:
        """Connect; nothing is created before `update`.

        Args:
            uri: As of `milvus_kwargs`.
            collection_name: A collection that exists, with one vector field of floats.
            dimensions: Length of the short vectors, less than that of the collection's.
            token: "user:password" or an API key, where the server wants one.
            db_name: The database, None for the default one.

        Raises:
            ValueError: If there is no such collection, or its vectors are not longer.
            pymilvus.exceptions.MilvusException: If the server does not answer.
        """
        self.dimensions = dimensions
        self.collection_name = collection_name
        self.name: Final = f"{collection_name}_first_{dimensions}"
        """The collection of the short vectors."""
        self._client = connect(uri, token, db_name)
        if not self._client.has_collection(collection_name):
            msg = f"there is no collection {collection_name!r}: let a vector store fill it first"
            raise ValueError(msg)
        description = self._client.describe_collection(collection_name)
        (self._key,) = (f for f in description["fields"] if f.get("is_primary"))
        (vector,) = (f for f in description["fields"] if "dim" in f.get("params", {}))
        self._vector = vector["name"]
        length = int(vector["params"]["dim"])
        if not is_count(dimensions) or dimensions >= length:
            msg = f"dimensions must be an integer from 1 to {length - 1}, {got(dimensions)}"
            raise ValueError(msg)
        self._made_with: str = (description.get("properties") or {}).get(FINGERPRINT_KEY, "")

    def update(self) -> int:
        """Add what the collection holds and this lacks, and delete what it holds no more.

        No text is embedded: the collection's vectors are cut. A row that was replaced under its old
        id keeps its old short vector, so drop the collection `name` first if texts change and ids
        do not. All ids are held in memory.

        Returns:
            How many rows were added.

        Raises:
            pymilvus.exceptions.MilvusException: If Milvus fails.
        """
        client = self._client
        client.load_collection(self.collection_name)
        if client.has_collection(self.name) and not self._fits():
            client.drop_collection(self.name)
        if not client.has_collection(self.name):
            self._create()
        client.load_collection(self.name)
        wanted, held = (set(self._ids(name)) for name in (self.collection_name, self.name))
        for ids in _batches(sorted(held - wanted)):
            client.delete(self.name, ids=ids)
        missing = sorted(wanted - held)
        for ids in _batches(missing):
            rows = client.get(
                self.collection_name,
                ids=ids,
                output_fields=[self._key["name"], self._vector],
                consistency_level=CONSISTENCY,
            )
            short = self._cut([row[self._vector] for row in rows])
            keys = [row[self._key["name"]] for row in rows]
            client.upsert(
                self.name,
                [{"id": key, "vector": v} for key, v in zip(keys, short, strict=True)],
            )
        return len(missing)

    def expression(self, vector: Sequence[float] | npt.NDArray[np.float32], k: int) -> str:
        """A filter that leaves the `k` rows whose short vectors are nearest.

        Args:
            vector: The query's, in full length.
            k: Candidates, from 1 to 16,384; some times as many as the search will ask for.

        Raises:
            ValueError: If `k` is out of range, or `update` was never called, or the collection was
                made anew with another model since.
            pymilvus.exceptions.MilvusException: If Milvus fails.
        """
        search = search_params(k)
        if not self._client.has_collection(self.name) or not self._fits():
            msg = f"the short vectors of {self.collection_name!r} are not up to date: call update()"
            raise ValueError(msg)
        (hits,) = self._client.search(
            self.name,
            list(self._cut([vector])),
            limit=k,
            search_params=search,
            output_fields=["id"],
            # It sees what this object's `update` wrote, and need not wait for more.
            consistency_level="Session",
        )
        return f"{self._key['name']} in {literal([hit['id'] for hit in hits])}"

    def _fits(self) -> bool:
        """Whether it was made from vectors of the same model."""
        kept = self._client.describe_collection(self.name).get("properties") or {}
        return bool(kept.get(FINGERPRINT_KEY, "") == self._made_with)

    def _create(self) -> None:
        from pymilvus import DataType

        client = self._client
        schema = client.create_schema(auto_id=False)
        length = self._key.get("params", {}).get("max_length")
        more = {} if length is None else {"max_length": int(length)}
        schema.add_field("id", self._key["type"], is_primary=True, **more)
        schema.add_field("vector", DataType.FLOAT_VECTOR, dim=self.dimensions)
        indexes = client.prepare_index_params()
        indexes.add_index("vector", **index_params())
        client.create_collection(
            self.name,
            schema=schema,
            index_params=indexes,
            consistency_level=CONSISTENCY,
            properties={FINGERPRINT_KEY: self._made_with} if self._made_with else None,
        )

    def _cut(self, vectors: Sequence[Any]) -> npt.NDArray[np.float32]:
        short = np.asarray(vectors, np.float32)[:, : self.dimensions]
        lengths = np.linalg.norm(short, axis=1, keepdims=True)
        # Zeros, which somebody else's model may have given, stay zeros and stop no update.
        cut: npt.NDArray[np.float32] = short / np.maximum(lengths, 1e-12)
        return cut

    def _ids(self, name: str) -> Iterator[Any]:
        key = self._key["name"] if name == self.collection_name else "id"
        pages = self._client.query_iterator(
            name, batch_size=1000, output_fields=[key], consistency_level=CONSISTENCY
        )
        while page := pages.next():
            yield from (row[key] for row in page)
        pages.close()


def _batches(ids: list[Any]) -> Iterator[list[Any]]:
    return (ids[start : start + BATCH] for start in range(0, len(ids), BATCH))
