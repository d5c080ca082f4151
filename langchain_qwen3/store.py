"""LangChain's Milvus store with document ids, checked rows, and support for any event loop."""

import uuid
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence, Sized
from difflib import get_close_matches
from typing import Any, ClassVar, Final

from langchain_core.documents import Document
from langchain_core.vectorstores import VectorStoreRetriever
from langchain_milvus import Milvus
from pymilvus import AsyncMilvusClient

from langchain_qwen3._first_stage_arguments import FILTER_LIKE, MILVUS_DENSE, MILVUS_HYBRID
from qwen3_core.common.validation import check_texts
from qwen3_core.metadata import with_metadata
from qwen3_core.milvus.analyzers import splits_at_spaces, warn_of_unspaced
from qwen3_core.milvus.collection import check_metadata, check_stored_texts
from qwen3_core.milvus.connection import HoldsConnection
from qwen3_core.milvus.filters import check_expression, check_partitions, literal
from qwen3_core.milvus.loops import LoopClients
from qwen3_core.milvus.plan import Plan, Planned

MAX_ID_BYTES: Final = 65_535

ADD_OPTIONS: Final = ("partition_name", "partial_update")
"""Further arguments of Milvus's insert and upsert."""

DELETE_OPTIONS: Final = ("timeout", "partition_name")
"""Further arguments of Milvus's delete."""

FUNCTION_RANKER_SINCE: Final = (2, 6)
"""First server release that takes a ranker as a `Function`, like Milvus Lite."""


class Qwen3Milvus(HoldsConnection, Milvus):
    """`langchain_milvus.Milvus`, created by `open_milvus` or `Milvus(**milvus_kwargs(...))`.

    It differs from its base class as follows:

    - Documents are added under their `Document.id`, or `ids=`; those without one get a UUID. A
      document with an existing id replaces the stored one. Results have their id, also in their
      metadata as `pk`. Documents can be fetched and deleted by id, whatever characters it has.
    - A metadata key that is a field of the collection (`text`, `pk`, `vector`, `sparse`) is
      refused; it would replace the passage or the id. A text that Milvus cannot store is refused
      too.
    - A filter with a key that Milvus would misread, such as `doc-type == "a"`, is refused, and so
      is a search argument that pymilvus would ignore.
    - With `metadata_keys`, the vectors include that metadata; the stored text is unchanged.
    - A hybrid search takes `k` candidates of each kind and fuses them by reciprocal rank, unless
      `fetch_k=`, `reranker=` or `ranker_type=` change that.
    - Its asynchronous methods work in any event loop, and in several one after another.
    """

    _EMBEDDINGS: ClassVar[str] = "embeddings"
    _MADE_WITH_IT: ClassVar[str] = "retriever or chain"

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        planned = kwargs.get("connection_args")
        self.plan: Plan | None = planned.plan if isinstance(planned, Planned) else None
        """The plan of `milvus_kwargs`; None if the store was created without it."""
        if self.plan is not None:
            _use_embeddings(self.plan.embeddings, args, kwargs)
            if self.plan.found is not None:  # overrides the choice of `from_texts` without ids
                kwargs["auto_id"] = self.plan.found.auto_id
        self._loop_clients = LoopClients(lambda: AsyncMilvusClient(**self._connection_args))
        self._warned_of_unspaced = False
        self._takes_function_ranker: bool | None = None
        self._has_partition_key: bool | None = None
        super().__init__(*args, **kwargs)

    @property
    def aclient(self) -> AsyncMilvusClient:
        """The asynchronous client of the running event loop."""
        client: AsyncMilvusClient = self._loop_clients.get()
        return client

    @property
    def metadata_keys(self) -> tuple[str, ...]:
        """The metadata that is embedded before a document's text."""
        return (self.plan.metadata_keys if self.plan is not None else None) or ()

    # Adding

    def add_documents(self, documents: list[Document], **kwargs: Any) -> list[str]:
        """Add documents under their ids; existing ones are replaced.

        Args:
            documents: The documents. `ids=` takes precedence over `Document.id`.
            **kwargs: As in `add_texts`; also `partition_name` and `partial_update`.

        Returns:
            The ids.

        Raises:
            TypeError: If an id is not a string, or an argument is unknown.
            ValueError: If an id is repeated or too long, if documents have ids and the collection
                generates its own, or if a document's text or metadata cannot be stored unchanged.
            pymilvus.exceptions.MilvusException: If Milvus fails.
        """
        texts, metadatas = _parts(documents)
        return self.add_texts(texts, metadatas, **_with_ids(documents, kwargs))

    async def aadd_documents(self, documents: list[Document], **kwargs: Any) -> list[str]:
        """Like `add_documents`, without blocking the event loop."""
        texts, metadatas = _parts(documents)
        return await self.aadd_texts(texts, metadatas, **_with_ids(documents, kwargs))

    def add_texts(
        self,
        texts: Iterable[str],
        metadatas: list[dict[str, Any]] | None = None,
        timeout: float | None = None,
        batch_size: int = 1000,
        *,
        ids: Sequence[str | None] | None = None,
        **kwargs: Any,
    ) -> list[str]:
        """Embed and add texts; see `add_documents`."""
        _check_added(kwargs)
        texts, given = self._checked(texts, metadatas, ids)
        if not texts:
            return []
        vectors = self._embedding.embed_documents(self._embedded(texts, metadatas))
        if given is None:
            return self._as_strings(
                super().add_embeddings(texts, vectors, metadatas, timeout, batch_size, **kwargs)
            )
        return self.add_embeddings(
            texts, vectors, metadatas, timeout, batch_size, ids=given, **kwargs
        )

    async def aadd_texts(
        self,
        texts: Iterable[str],
        metadatas: list[dict[str, Any]] | None = None,
        timeout: float | None = None,  # noqa: ASYNC109 - the base class has it
        batch_size: int = 1000,
        *,
        ids: Sequence[str | None] | None = None,
        **kwargs: Any,
    ) -> list[str]:
        """Like `add_texts`, without blocking the event loop."""
        _check_added(kwargs)
        texts, given = self._checked(texts, metadatas, ids)
        if not texts:
            return []
        vectors = await self._embedding.aembed_documents(self._embedded(texts, metadatas))
        if given is None:
            return self._as_strings(
                await super().aadd_embeddings(
                    texts, vectors, metadatas, timeout, batch_size, **kwargs
                )
            )
        return await self.aadd_embeddings(
            texts, vectors, metadatas, timeout, batch_size, ids=given, **kwargs
        )

    def add_embeddings(
        self,
        texts: list[str],
        embeddings: Any,
        metadatas: list[dict[str, Any]] | None = None,
        timeout: float | None = None,
        batch_size: int = 1000,
        *,
        ids: Sequence[str | None] | None = None,
        **kwargs: Any,
    ) -> list[str]:
        """Add texts with their vectors; see `add_documents`."""
        _check_added(kwargs)
        texts, given = self._checked(texts, metadatas, ids)
        if given is None:
            return self._as_strings(
                super().add_embeddings(texts, embeddings, metadatas, timeout, batch_size, **kwargs)
            )
        write = self.client.upsert
        for rows in self._batches(texts, embeddings, metadatas, given, batch_size):
            if self._by_partition_key():
                ids_of_rows = [row[self._primary_field] for row in rows]
                self.client.delete(self.collection_name, filter=self._of_ids(ids_of_rows))
                write = self.client.insert
            write(self.collection_name, rows, self.timeout or timeout, **kwargs)
        return given

    async def aadd_embeddings(
        self,
        texts: list[str],
        embeddings: Any,
        metadatas: list[dict[str, Any]] | None = None,
        timeout: float | None = None,  # noqa: ASYNC109 - the base class has it
        batch_size: int = 1000,
        *,
        ids: Sequence[str | None] | None = None,
        **kwargs: Any,
    ) -> list[str]:
        """Like `add_embeddings`, without blocking the event loop."""
        _check_added(kwargs)
        texts, given = self._checked(texts, metadatas, ids)
        if given is None:
            return self._as_strings(
                await super().aadd_embeddings(
                    texts, embeddings, metadatas, timeout, batch_size, **kwargs
                )
            )
        write = self.aclient.upsert
        for rows in self._batches(texts, embeddings, metadatas, given, batch_size):
            if self._by_partition_key():
                ids_of_rows = [row[self._primary_field] for row in rows]
                await self.aclient.delete(self.collection_name, filter=self._of_ids(ids_of_rows))
                write = self.aclient.insert
            await write(self.collection_name, rows, self.timeout or timeout, **kwargs)
        return given

    def upsert(
        self,
        ids: list[str] | None = None,
        documents: list[Document] | None = None,
        batch_size: int = 1000,
        timeout: float | None = None,
        **kwargs: Any,
    ) -> None:
        """Same as `add_documents`, which also replaces existing documents."""
        _check_added(kwargs)
        if self.auto_id and ids and documents:
            texts, metadatas = _parts(documents)
            vectors = self._embedding.embed_documents(self._embedded(texts, metadatas))
            for rows in self._numbered(ids, texts, vectors, metadatas, batch_size):
                self.client.upsert(self.collection_name, rows, self.timeout or timeout, **kwargs)
        elif documents:
            more = {} if ids is None else {"ids": ids}
            self.add_documents(documents, batch_size=batch_size, timeout=timeout, **more, **kwargs)

    async def aupsert(
        self,
        ids: list[str] | None = None,
        documents: list[Document] | None = None,
        batch_size: int = 1000,
        timeout: float | None = None,  # noqa: ASYNC109 - the base class has it
        **kwargs: Any,
    ) -> None:
        """Like `upsert`, without blocking the event loop."""
        _check_added(kwargs)
        if self.auto_id and ids and documents:
            texts, metadatas = _parts(documents)
            vectors = await self._embedding.aembed_documents(self._embedded(texts, metadatas))
            for rows in self._numbered(ids, texts, vectors, metadatas, batch_size):
                await self.aclient.upsert(
                    self.collection_name, rows, self.timeout or timeout, **kwargs
                )
        elif documents:
            more = {} if ids is None else {"ids": ids}
            await self.aadd_documents(
                documents, batch_size=batch_size, timeout=timeout, **more, **kwargs
            )

    # Searching

    def as_retriever(self, **kwargs: Any) -> VectorStoreRetriever:
        """A retriever over this store, as in LangChain.

        Raises:
            TypeError: If the retriever would ignore an argument, such as a filter that is not in
                `search_kwargs`.
        """
        for name in kwargs:
            if name not in VectorStoreRetriever.model_fields:
                msg = (
                    f"as_retriever would ignore {name}=: arguments of the search go into "
                    f"search_kwargs={{{name!r}: ...}}"
                )
                raise TypeError(msg)
        return super().as_retriever(**kwargs)

    def _collection_search(
        self, embedding_or_text: Any, k: int = 4, param: Any = None, expr: Any = None,
        timeout: float | None = None, **kwargs: Any,
    ) -> Any:  # fmt: skip
        _check_search(expr, kwargs)
        return super()._collection_search(embedding_or_text, k, param, expr, timeout, **kwargs)

    async def _acollection_search(
        self, embedding_or_text: Any, k: int = 4, param: Any = None, expr: Any = None,
        timeout: float | None = None, **kwargs: Any,  # noqa: ASYNC109 - the base class has it
    ) -> Any:  # fmt: skip
        _check_search(expr, kwargs)
        return await super()._acollection_search(
            embedding_or_text, k, param, expr, timeout, **kwargs
        )

    def _collection_hybrid_search(
        self, query: str, k: int = 4, param: Any = None, expr: Any = None,
        fetch_k: int | None = None, reranker: Any = None, ranker_type: Any = None,
        ranker_params: Any = None, timeout: float | None = None, **kwargs: Any,
    ) -> Any:  # fmt: skip
        _check_search(expr, kwargs)
        ranker = self._ranker(query, reranker, ranker_type, ranker_params)
        with warnings.catch_warnings():
            _ignore_ranker_type(ranker)
            return super()._collection_hybrid_search(
                query, k, param, expr, k if fetch_k is None else fetch_k, timeout=timeout,
                **ranker, **kwargs,
            )  # fmt: skip

    async def _acollection_hybrid_search(
        self, query: str, k: int = 4, param: Any = None, expr: Any = None,
        fetch_k: int | None = None, reranker: Any = None, ranker_type: Any = None,
        ranker_params: Any = None, timeout: float | None = None, **kwargs: Any,  # noqa: ASYNC109 - the base class has it
    ) -> Any:  # fmt: skip
        _check_search(expr, kwargs)
        ranker = self._ranker(query, reranker, ranker_type, ranker_params)
        return await super()._acollection_hybrid_search(
            query, k, param, expr, k if fetch_k is None else fetch_k, timeout=timeout,
            **ranker, **kwargs,
        )  # fmt: skip

    def _ranker(
        self, query: str, reranker: Any, ranker_type: Any, ranker_params: Any
    ) -> dict[str, Any]:
        """The store's arguments for fusing two lists; by default reciprocal rank fusion."""
        self._warn_of_unspaced([query])
        if reranker is not None:
            if ranker_type is not None or ranker_params is not None:
                msg = "reranker= and ranker_type= both say how to fuse the lists: pass one of them"
                raise ValueError(msg)
            return {"reranker": reranker}
        kind, params = ranker_type or "rrf", ranker_params or {}
        if not self._function_ranker() or kind not in ("rrf", "weighted"):
            return {"ranker_type": kind, "ranker_params": params}
        from pymilvus import Function, FunctionType

        settings = {"k": 60} if kind == "rrf" else {"weights": [1.0, 1.0]}
        function = Function(
            name=kind,
            input_field_names=[],
            function_type=FunctionType.RERANK,
            params={"reranker": kind} | settings | params,
        )
        return {"reranker": function}

    def _function_ranker(self) -> bool:
        if self._takes_function_ranker is None:
            version = str(self.client.get_server_version())
            numbers = version.lstrip("v").split(".")[:2]
            self._takes_function_ranker = version.startswith("milvus_lite") or (
                all(number.isdecimal() for number in numbers)
                and tuple(map(int, numbers)) >= FUNCTION_RANKER_SINCE
            )
        return self._takes_function_ranker

    def search_by_metadata(
        self, expr: str, fields: list[str] | None = None, limit: int = 10
    ) -> list[Document]:
        """Documents that match an expression, in no particular order."""
        check_expression(expr)
        return super().search_by_metadata(expr, fields, limit)

    async def asearch_by_metadata(
        self, expr: str, fields: list[str] | None = None, limit: int = 10
    ) -> list[Document]:
        """Like `search_by_metadata`, without blocking the event loop."""
        check_expression(expr)
        return await super().asearch_by_metadata(expr, fields, limit)

    def get_by_ids(self, ids: Sequence[str], /) -> list[Document]:
        """The existing documents with these ids, in no particular order."""
        if not ids or self.col is None:
            return []
        rows = self.client.query(
            self.collection_name,
            filter=self._of_ids(ids),
            output_fields=self._get_output_fields(),
            timeout=self.timeout,
        )
        return [self._parse_document(dict(row)) for row in rows]

    async def aget_by_ids(self, ids: Sequence[str], /) -> list[Document]:
        """Like `get_by_ids`, without blocking the event loop."""
        if not ids or self.col is None:
            return []
        rows = await self.aclient.query(
            self.collection_name,
            filter=self._of_ids(ids),
            output_fields=self._get_output_fields(),
            timeout=self.timeout,
        )
        return [self._parse_document(dict(row)) for row in rows]

    def _parse_document(self, data: dict[str, Any]) -> Document:
        id_ = data.get(self._primary_field)
        document = super()._parse_document(data)
        document.id = None if id_ is None else str(id_)
        return document

    # Deleting

    def delete(
        self, ids: list[str] | None = None, expr: str | None = None, **kwargs: Any
    ) -> bool | None:
        """Delete by id or by expression.

        Args:
            ids: The documents' ids.
            expr: A filter expression.
            **kwargs: `timeout`, `partition_name`.

        Raises:
            TypeError: If another argument is given.
            ValueError: If both or neither are given, or the expression has a key that Milvus would
                misread.
        """
        return super().delete(expr=self._to_delete(ids, expr, kwargs), **kwargs)

    async def adelete(
        self, ids: list[str] | None = None, expr: str | None = None, **kwargs: Any
    ) -> bool | None:
        """Like `delete`, without blocking the event loop."""
        return await super().adelete(expr=self._to_delete(ids, expr, kwargs), **kwargs)

    def _to_delete(self, ids: Any, expr: str | None, options: Iterable[str]) -> str:
        for name in options:
            if name not in DELETE_OPTIONS:
                msg = (
                    f"{name}= would not narrow what is deleted: delete takes ids= or expr=, and "
                    f"{', '.join(DELETE_OPTIONS)}"
                )
                raise TypeError(msg)
        if (ids is None) == (expr is None):
            given = "neither was" if ids is None else "both were"
            msg = f"delete takes either ids= or expr=, but {given} given"
            raise ValueError(msg)
        if ids is not None:
            return self._of_ids(ids)
        check_expression(expr)
        return str(expr)

    def _of_ids(self, ids: Sequence[str]) -> str:
        known = _numbers(ids) if self.auto_id else check_texts(ids, "ids")
        return f"{self._primary_field} in {literal(known)}"

    # Rows

    @property
    def _embedding(self) -> Any:
        if isinstance(self.embedding_func, list) or self.embedding_func is None:
            msg = "this store takes one embedding function: use langchain_milvus.Milvus for several"
            raise ValueError(msg)
        return self.embedding_func

    def _checked(
        self,
        texts: Iterable[str],
        metadatas: Sequence[Mapping[str, Any]] | None,
        ids: Sequence[str | None] | None,
    ) -> tuple[list[str], list[str] | None]:
        """The texts as a list, and their ids; None if Milvus generates the ids."""
        texts = check_texts(texts, "texts")
        check_stored_texts(texts)
        for name, values in (("metadatas", metadatas), ("ids", ids)):
            if isinstance(values, (str, Mapping)):
                msg = f"{name} must be a list with one for each text, got {type(values).__name__}"
                raise TypeError(msg)
            if values is not None and not isinstance(values, Sized):
                msg = f"{name} must be a list, got {type(values).__name__}: write list(...)"
                raise TypeError(msg)
            if values is not None and len(values) != len(texts):
                msg = f"{len(texts)} texts were given, but {len(values)} {name}: give one for each"
                raise ValueError(msg)
        self._warn_of_unspaced(texts)
        if self.auto_id:
            if ids is not None and any(id_ is not None for id_ in ids):
                msg = (
                    f"collection {self.collection_name!r} numbers its documents itself, but ids "
                    f"were given (first: {next(i for i in ids if i is not None)!r:.80}): leave "
                    "them out, or make a collection with auto_id=False"
                )
                raise ValueError(msg)
            return texts, None
        given = [str(uuid.uuid4()) if id_ is None else id_ for id_ in ids or [None] * len(texts)]
        seen: set[str] = set()
        for i, id_ in enumerate(check_texts(given, "ids")):
            if id_ in seen:
                msg = f"ids[{i}] is {id_!r:.200} a second time: give each text an id of its own"
                raise ValueError(msg)
            if len(id_.encode()) > MAX_ID_BYTES:
                msg = (
                    f"ids[{i}] has {len(id_.encode()):,} bytes: an id has at most {MAX_ID_BYTES:,}"
                )
                raise ValueError(msg)
            seen.add(id_)
        return texts, given

    def _batches(
        self,
        texts: list[str],
        vectors: list[list[float]],
        metadatas: list[dict[str, Any]] | None,
        ids: list[str],
        batch_size: int,
    ) -> Iterator[list[dict[str, Any]]]:
        """Rows to write; creates the collection first if it does not exist."""
        rows = self._prepare_insert_list(texts, [vectors], metadatas, ids)
        if rows and not self.client.has_collection(self.collection_name):
            self._init(
                embeddings=[vectors],
                metadatas=metadatas,
                partition_names=self.partition_names,
                replica_number=self.replica_number,
                timeout=self.timeout,
            )
        return (rows[i : i + batch_size] for i in range(0, len(rows), batch_size))

    def _numbered(
        self,
        ids: list[str],
        texts: list[str],
        vectors: list[list[float]],
        metadatas: list[dict[str, Any]],
        batch_size: int,
    ) -> Iterator[list[dict[str, Any]]]:
        """Rows that replace rows whose ids Milvus generated."""
        numbers = _numbers(ids)
        if len(set(numbers)) != len(texts):
            msg = f"{len(texts)} documents were given, but {len(set(numbers))} ids: one for each"
            raise ValueError(msg)
        rows = self._prepare_insert_list(texts, [vectors], metadatas, numbers, force_ids=True)
        return (rows[i : i + batch_size] for i in range(0, len(rows), batch_size))

    def _embedded(
        self, texts: list[str], metadatas: Sequence[Mapping[str, Any] | None] | None
    ) -> list[str]:
        """The texts to embed, with the metadata before them."""
        if not self.metadata_keys or metadatas is None:
            return texts
        return [
            with_metadata(text, metadata, self.metadata_keys)
            for text, metadata in zip(texts, metadatas, strict=True)
        ]

    def _by_partition_key(self) -> bool:
        """Whether rows have a partition key.

        With one, an upsert of Milvus 2.3 writes rows to a partition where no search looks.
        """
        if self._has_partition_key is None:
            fields = self.client.describe_collection(self.collection_name)["fields"]
            self._has_partition_key = any(field.get("is_partition_key") for field in fields)
        return self._has_partition_key

    def _prepare_insert_list(
        self,
        texts: list[str],
        embeddings: Any,
        metadatas: list[dict[str, Any]] | None = None,
        ids: list[Any] | None = None,
        force_ids: bool = False,
    ) -> list[dict[str, Any]]:
        if metadatas is not None:
            metadatas = [
                self._storable(text, metadata, None if ids is None else ids[i])
                for i, (text, metadata) in enumerate(zip(texts, metadatas, strict=True))
            ]
        return super()._prepare_insert_list(texts, embeddings, metadatas, ids, force_ids)

    def _storable(
        self, text: str, metadata: Mapping[str, Any] | None, id_: object
    ) -> dict[str, Any]:
        """Metadata without the row's own fields; the store would let it replace them.

        Raises:
            ValueError: If a key is a field of the store and has another value.
        """
        kept = dict(metadata or {})
        check_metadata(kept, f"document {text!r:.60}")
        own = {self._text_field: text, self._primary_field: id_}
        for key in (*own, *self.vector_fields, "$meta"):
            if key in kept and kept[key] == own.get(key, object()):
                del kept[key]
            elif key in kept:
                msg = (
                    f"metadata key {key!r} is a field of the Milvus collection itself, and would "
                    f"replace it (document {text!r:.60}): rename the key"
                )
                raise ValueError(msg)
        return kept

    def _warn_of_unspaced(self, texts: Iterable[str]) -> None:
        plan = self.plan
        if plan is None or not plan.hybrid or self._warned_of_unspaced:
            return
        if splits_at_spaces(plan.analyzer):
            self._warned_of_unspaced = warn_of_unspaced(texts, plan.collection_name, lite=plan.lite)

    @staticmethod
    def _as_strings(ids: Iterable[object]) -> list[str]:
        return [str(id_) for id_ in ids]


def _use_embeddings(planned: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Fill in the embeddings from `milvus_kwargs`.

    Raises:
        ValueError: If other embeddings are given.
    """
    if not args:
        kwargs.setdefault("embedding_function", planned)
    if (args[0] if args else kwargs["embedding_function"]) is not planned:
        msg = "the store gets other embeddings than milvus_kwargs: give both the same object"
        raise ValueError(msg)


def _parts(documents: Iterable[Document]) -> tuple[list[str], list[dict[str, Any]]]:
    documents = list(documents)
    return [d.page_content for d in documents], [d.metadata for d in documents]


def _with_ids(documents: Iterable[Document], kwargs: dict[str, Any]) -> dict[str, Any]:
    ids = [document.id for document in documents]
    return {"ids": ids if any(id_ is not None for id_ in ids) else None} | kwargs


def _numbers(ids: Any) -> list[Any]:
    """Ids generated by Milvus, converted back to numbers."""
    try:
        return [int(id_) for id_ in ([ids] if isinstance(ids, str) else ids)]
    except ValueError as error:
        msg = f"this collection numbers its documents, so an id is a number: {error}"
        raise ValueError(msg) from error


def _check_added(options: Iterable[str]) -> None:
    """Refuse arguments that pymilvus would ignore.

    Raises:
        TypeError: If one is unknown.
    """
    known = ("ids", "metadatas", "batch_size", "timeout", *ADD_OPTIONS)
    for name in options:
        if name not in ADD_OPTIONS:
            meant = get_close_matches(name, known, n=1)
            hint = f"did you mean {meant[0]}=?" if meant else f"it takes {', '.join(known)}"
            msg = f"{name}= would not reach the collection: {hint}"
            raise TypeError(msg)


def _check_search(expression: str | None, options: Mapping[str, Any]) -> None:
    """Refuse arguments and filters that pymilvus or Milvus would ignore or misread.

    Raises:
        TypeError: If an argument is unknown.
        ValueError: If the filter has a key that Milvus would misread, or there are no partitions.
    """
    check_expression(expression)
    check_partitions("partition_names", options.get("partition_names"))
    for name in options:
        if name not in MILVUS_DENSE | MILVUS_HYBRID:
            meant = ": a filter is expr=" if name in FILTER_LIKE else ""
            msg = (
                f"{name}= would not reach the search{meant} (it takes "
                f"{', '.join(sorted(MILVUS_DENSE))})"
            )
            raise TypeError(msg)


def _ignore_ranker_type(ranker: Mapping[str, Any]) -> None:
    """Silence the store's deprecation of `ranker_type`: servers before 2.6 need it."""
    if "ranker_type" in ranker:
        warnings.filterwarnings("ignore", "The 'ranker_type'", DeprecationWarning)


def _new(cls: type[Milvus], *_: Any, **kwargs: Any) -> Milvus:
    """Make `Milvus(**milvus_kwargs(...))` a `Qwen3Milvus`; other stores are not affected."""
    is_ours = cls is Milvus and isinstance(kwargs.get("connection_args"), Planned)
    return object.__new__(Qwen3Milvus if is_ours else cls)


Milvus.__new__ = staticmethod(_new)  # type: ignore[assignment, method-assign]
