"""Requirements of a Milvus collection for Qwen3 vectors, and checks of existing collections."""

import json
import logging
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple, cast
from urllib.parse import urlsplit

from qwen3_core.common.validation import ArgumentError
from qwen3_core.fingerprint import Fingerprint
from qwen3_core.milvus.analyzers import LITE, SERVER, analyzer_of
from qwen3_core.milvus.index import (
    FLAT_ROWS,
    GRAPHS,
    LITE_INDEXES,
    OLDEST,
    IndexType,
    Metric,
    is_lite,
    replace_index,
)

logger = logging.getLogger(__name__)

CONSISTENCY: Final = "Strong"
"""Searches see all earlier inserts; the stores' own default is "Session"."""

MAX_TEXT_BYTES: Final = 65_535
"""The most bytes of UTF-8 in a text: both stores create VARCHAR fields of this length, Milvus's
maximum. Milvus Lite counts characters instead of bytes."""

FINGERPRINT_KEY: Final = "qwen3_retrieval.fingerprint"
"""The collection property that stores the fingerprint, as JSON."""


def collection_properties(fingerprint: Fingerprint) -> dict[str, str]:
    """Properties for a new collection; `check_collection` reads the fingerprint from them."""
    return {FINGERPRINT_KEY: fingerprint.to_json()}


def check_stored_texts(texts: Sequence[str]) -> None:
    """Check that Milvus can store the texts, before any batch is written.

    Blank texts are logged: they are stored, and then take the places of passages in searches.

    Args:
        texts: The texts to add, after splitting.

    Raises:
        ValueError: If a text has more than `MAX_TEXT_BYTES` bytes in UTF-8.
    """
    lengths = [len(text.encode(errors="surrogatepass")) for text in texts]
    long = [i for i, length in enumerate(lengths) if length > MAX_TEXT_BYTES]
    if long:
        msg = (
            f"{len(long)} of {len(lengths)} texts (first: texts[{long[0]}], "
            f"{lengths[long[0]]:,} bytes) are longer than the {MAX_TEXT_BYTES:,} bytes that a "
            "Milvus field holds: split them into chunks"
        )
        raise ValueError(msg)
    blank = [i for i, text in enumerate(texts) if not text.strip()]
    if blank:
        logger.warning(
            "%d of %d texts (first: texts[%d]) are blank; a search can return them in place of "
            "passages: leave them out",
            *(len(blank), len(texts), blank[0]),
        )


def check_metadata(metadata: Mapping[Any, Any], what: str) -> None:
    """Check that Milvus can store metadata unchanged.

    A row with an empty key would make every later search of the collection fail. NaN and infinity
    would become null.

    Args:
        metadata: A document's metadata.
        what: The document, for the error.

    Raises:
        TypeError: If a key is not a string, or Milvus cannot store a value.
        ValueError: If a key is blank, or a number is NaN, infinite or beyond 64 bits.
    """
    import orjson  # pymilvus writes metadata with it

    for key, value in metadata.items():
        if not isinstance(key, str):
            msg = (
                f"a metadata key of {what} must be a string, got {type(key).__name__}: {key!r:.80}"
            )
            raise TypeError(msg)
        if not key.strip():
            msg = f"a metadata key of {what} is blank ({key!r:.80}): name it"
            raise ValueError(msg)
        try:
            orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY)
            json.dumps(value, allow_nan=False, default=str)
        except ValueError as error:
            msg = (
                f"metadata {key!r:.80} of {what} is a number that JSON does not have: leave it "
                f"out, got {value!r:.80}"
            )
            raise ValueError(msg) from error
        except TypeError as error:
            msg = (
                f"metadata {key!r:.80} of {what} cannot be stored in Milvus ({error}): convert it "
                f"to strings, numbers, lists and dictionaries, got {value!r:.80}"
            )
            raise TypeError(msg) from error


TEXT_INDEX: Final = {"index_type": "SPARSE_INVERTED_INDEX", "metric_type": "BM25"}
"""Index of a hybrid collection's sparse field, which Milvus's BM25 function fills."""

_OLDEST_WITH_BM25: Final = (2, 5)

SLOW_ROWS: Final = 5 * FLAT_ROWS
"""Rows from which a FLAT index on Milvus Lite is slow, and another index is advised."""


_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,254}")


def check_name(collection_name: str) -> str:
    """Return a new collection's name if a server would accept it; Milvus Lite accepts any.

    Raises:
        ValueError: If it is not 1 to 255 letters, digits and underscores, or begins with a digit.
    """
    if not _NAME.fullmatch(collection_name):
        msg = (
            f"collection_name={collection_name!r:.300} is not a valid name of a Milvus "
            "collection: use 1 to 255 ASCII letters, digits and underscores, the first not a digit"
        )
        raise ArgumentError(msg, "collection_name")
    return collection_name


def check_uri(uri: str | Path) -> str:
    """Return the uri as a string for Milvus; invalid paths are refused with a clear error.

    Args:
        uri: An address ("http://host:19530", a Zilliz Cloud endpoint) or the path of a Milvus Lite
            database that ends in ".db" in an existing folder; `~` is the home folder.

    Raises:
        TypeError: If it is neither a string nor a path.
        ValueError: If it is neither an address nor a valid path of a Milvus Lite database, or an
            address that contains a password.
        FileNotFoundError: If the folder of the database does not exist.
    """
    if isinstance(uri, str) and "://" in uri:
        if "@" in urlsplit(uri).netloc:
            msg = "uri holds a name or password: give token='user:password', which is never shown"
            raise ArgumentError(msg, "uri")
        return uri
    if not isinstance(uri, (str, Path)):
        msg = f"uri must be a string or a path, got {type(uri).__name__}: {uri!r:.80}"
        raise TypeError(msg)
    path = Path(uri).expanduser()
    if path.suffix != ".db":
        msg = (
            f"uri={str(uri)!r} is neither an address such as 'http://localhost:19530' nor the path "
            "of a Milvus Lite file, which ends in '.db'"
        )
        raise ArgumentError(msg, "uri")
    if not path.parent.is_dir():
        msg = f"the folder of uri={str(uri)!r} does not exist: create {str(path.parent)!r} first"
        raise FileNotFoundError(msg)
    if path.is_file():
        msg = (
            f"uri={str(uri)!r} is a plain file, but a Milvus Lite 3 database is a folder (one of "
            "Milvus Lite 2 cannot be opened any more): choose another uri"
        )
        raise ArgumentError(msg, "uri")
    return str(path)


class Found(NamedTuple):
    """The properties of an existing collection."""

    index_type: str
    """Index of its vectors, which determines the valid search parameters; "" if there is none."""
    auto_id: bool
    """Whether Milvus generates ids; otherwise the caller does."""
    analyzer: Any = None
    """`analyzer_params` of its full-text search; None for the default, or without that search."""
    metadata_keys: tuple[str, ...] | None = None
    """The metadata that its vectors include, as in `Fingerprint`; None if it does not say."""


def check_collection(
    uri: str,
    collection_name: str,
    *,
    dimensions: int,
    metric: Metric = "IP",
    vector_field: str = "vector",
    text_search_field: str | None = None,
    auto_id: bool | None = None,
    fingerprint: Fingerprint | None = None,
    analyzer: Any = None,
    index_type: IndexType | None = None,
    token: str | None = None,
    db_name: str | None = None,
) -> Found | None:
    """Check that a collection, if it exists, contains vectors of this kind, and load it.

    Call it before a vector store opens the collection: the stores check nothing, and Milvus Lite
    silently searches with the wrong metric. LlamaIndex's store also does not load a collection that
    another process created.

    A collection without a fingerprint was created by other software. It is accepted with a logged
    warning.

    Args:
        uri: Path of a Milvus Lite file ("./milvus.db"), or "http://host:19530", or a Zilliz Cloud
            endpoint.
        collection_name: The collection.
        dimensions: Length of the vectors that will be written or searched.
        metric: The requested metric.
        vector_field: Name of the collection's vector field.
        text_search_field: Name of the field for full-text search (BM25); None for none.
        auto_id: Whether Milvus should generate ids; None skips the comparison.
        fingerprint: Fingerprint of the vectors to write or search; None skips the comparison.
        analyzer: Requested `analyzer_params` of full-text search; None skips the comparison.
        index_type: The requested index; None skips the comparison.
        token: "user:password" or an API key, if the server requires one.
        db_name: The database; None for the default one.

    Returns:
        The collection's properties; None if there is no such collection.

    Raises:
        ValueError: If the collection exists with another dimension, metric, analyzer or kind of
            ids, with vectors of another model or other settings, or without a required field; if it
            does not exist and a server would refuse its name; if there is no such database; if the
            Milvus Lite file cannot be opened; if full-text search is requested and the server has
            none.
        pymilvus.exceptions.MilvusException: If the server does not answer.
    """
    client = connect(uri, token, db_name)
    try:
        if text_search_field is not None:
            what = "full-text search"
            _check_version(client, uri, _OLDEST_WITH_BM25, what, "search without hybrid=True")
        if index_type in OLDEST and not is_lite(uri):
            what = f"index_type={index_type!r}"
            _check_version(client, uri, OLDEST[index_type], what, "choose another index_type")
        if not collection_name:
            check_name(collection_name)
        if not client.has_collection(collection_name):
            check_name(collection_name)
            return None
        remedy = (
            "choose another collection_name, drop the collection, or change the setting to match"
        )
        description = client.describe_collection(collection_name)
        numbered = bool(description.get("auto_id"))
        if auto_id is not None and numbered != auto_id:
            found_ids, wanted = ("generates ids itself", "the caller's ids were")
            if auto_id:
                found_ids, wanted = ("stores the caller's ids", "ids from Milvus were")
            msg = (
                f"collection {collection_name!r} {found_ids}, but {wanted} asked for: pass "
                f"auto_id={numbered} or leave it out, choose another collection_name, or drop the "
                "collection"
            )
            raise ArgumentError(msg, "auto_id")
        fields = {f["name"]: f for f in description["fields"]}
        if vector_field not in fields:
            msg = (
                f"collection {collection_name!r} has no vector field {vector_field!r} "
                f"(its fields: {', '.join(fields)}): {remedy}"
            )
            raise ArgumentError(msg, "collection_name")
        if text_search_field is not None and text_search_field not in fields:
            msg = (
                f"collection {collection_name!r} was made without full-text search: it has no "
                f"field {text_search_field!r} (its fields: {', '.join(fields)}): {remedy}"
            )
            raise ArgumentError(msg, "collection_name")
        check_vectors(
            collection_name,
            description,
            dimensions=dimensions,
            vector_field=vector_field,
            fingerprint=fingerprint,
        )
        kept = None
        if text_search_field is not None:
            kept = _check_analyzer(collection_name, description, analyzer)
        found_index = ""
        indexes = client.list_indexes(collection_name, field_name=vector_field)
        for index_name in indexes:
            index = client.describe_index(collection_name, index_name)
            found_index = str(index.get("index_type", ""))
            found_metric = index.get("metric_type")
            if found_metric and found_metric != metric:
                msg = (
                    f"collection {collection_name!r} is indexed for the metric {found_metric}, but "
                    f"{metric} was asked for: {remedy}"
                )
                raise ArgumentError(msg, "metric")
        if indexes:
            _check_index(uri, collection_name, found_index, index_type)
            _load(client, uri, collection_name, fields[vector_field], found_index)
            _warn_of_index(client, uri, collection_name, found_index)
        return Found(found_index, numbered, kept, _metadata_keys(collection_name, description))
    finally:
        client.close()


def check_vectors(
    collection_name: str,
    description: dict[str, Any],
    *,
    dimensions: int | None = None,
    vector_field: str = "vector",
    fingerprint: Fingerprint | None = None,
) -> None:
    """Check that a collection contains vectors of a model.

    Args:
        collection_name: Its name, for the message.
        description: The result of `describe_collection`.
        dimensions: Length of the model's vectors; None skips the comparison.
        vector_field: Name of the collection's vector field.
        fingerprint: Fingerprint of the model's vectors; None skips the comparison.

    Raises:
        ValueError: If it contains other vectors.
    """
    fields = {f["name"]: f for f in description["fields"]}
    found = fields.get(vector_field, {}).get("params", {}).get("dim")
    if dimensions is not None and found is not None and int(found) != dimensions:
        msg = (
            f"collection {collection_name!r} holds vectors of {found} dimensions, but the "
            f"embedding model gives {dimensions}: choose another collection_name, drop the "
            f"collection, or use the model or the dimensions={found} that it was made with"
        )
        raise ArgumentError(msg, "dimensions")
    if fingerprint is not None:
        _check_fingerprint(collection_name, description, fingerprint)


def _check_analyzer(collection_name: str, description: dict[str, Any], analyzer: Any) -> Any:
    """The collection's analyzer; raises ValueError if it is not the requested one."""
    inputs = {name for f in description.get("functions") or () for name in _names(f)}
    fields = [f for f in description["fields"] if f["name"] in inputs]
    kept = next((found for f in fields if (found := analyzer_of(f)) is not None), None)
    is_default = kept is None and analyzer in (LITE["standard"], SERVER["standard"])
    if analyzer is not None and kept != analyzer and not is_default:
        msg = (
            f"full-text search in collection {collection_name!r} uses the analyzer "
            f"{kept or 'standard'!r}, but {analyzer!r} was asked for: leave analyzer= out, choose "
            "another collection_name, or drop the collection"
        )
        raise ArgumentError(msg, "analyzer")
    return kept


def _names(function: dict[str, Any]) -> list[str]:
    """The input fields of a function; pymilvus returns a list or the list's repr."""
    names = function.get("input_field_names") or ()
    return re.findall(r"[^\s\[\]',\"]+", names) if isinstance(names, str) else list(names)


def _check_index(uri: str, collection_name: str, found: str, wanted: str | None) -> None:
    rebuild = f"rebuild_index({uri!r}, {collection_name!r}"
    if is_lite(uri) and found not in (*LITE_INDEXES, "BRUTE_FORCE"):
        msg = (
            f"collection {collection_name!r} has the index {found}, which Milvus Lite cannot load "
            f"({', '.join(LITE_INDEXES)}): qwen3_core.milvus.{rebuild}) builds one that it can"
        )
        raise ValueError(msg)
    # Zilliz Cloud always builds its AUTOINDEX.
    if wanted is not None and found != wanted and (is_lite(uri) or found != "AUTOINDEX"):
        msg = (
            f"collection {collection_name!r} has the index {found}, but index_type={wanted!r} was "
            f"asked for: leave index_type out, or change the index with "
            f"qwen3_core.milvus.{rebuild}, index_type={wanted!r})"
        )
        raise ArgumentError(msg, "index_type")


def _load(
    client: Any, uri: str, collection_name: str, field: dict[str, Any], index_type: str
) -> None:
    """Load a collection; on Milvus Lite with a new index if the file of the present one is damaged.

    Milvus Lite writes the file in place, so a process that is killed meanwhile leaves half of it.
    The vectors are kept elsewhere.
    """
    from pymilvus.exceptions import MilvusException

    try:
        client.load_collection(collection_name)
    except MilvusException as error:
        if not is_lite(uri):
            raise
        logger.warning(
            "Milvus Lite cannot load the index of collection %r (%s); building it again from the "
            "vectors, of which none is lost",
            collection_name,
            error.message,
        )
        kept = cast("IndexType", index_type) if index_type in LITE_INDEXES else None
        replace_index(client, uri, collection_name, field, kept)


def _warn_of_index(client: Any, uri: str, collection_name: str, index_type: str) -> None:
    """Log if searches of a Milvus Lite collection miss passages or are needlessly slow."""
    if not is_lite(uri):
        return
    rebuild = f"qwen3_core.milvus.rebuild_index({uri!r}, {collection_name!r})"
    if index_type in GRAPHS:
        logger.warning(
            "collection %r has the index %s, whose search on Milvus Lite can miss passages beside "
            "many equal ones: %s builds one that finds all",
            collection_name,
            index_type,
            rebuild,
        )
    elif index_type == "FLAT":
        rows = int(client.get_collection_stats(collection_name).get("row_count", 0))
        if rows > SLOW_ROWS:
            logger.warning(
                "collection %r has grown to %d rows with the index FLAT, which finds all but takes "
                "longer than it needs: %s builds IVF_FLAT, which finds all faster",
                collection_name,
                rows,
                rebuild,
            )


def row_count(store: Any) -> int | None:
    """Count the rows of a vector store's Milvus collection; None for any other store.

    Args:
        store: A store of either framework.
    """
    name = getattr(store, "collection_name", None)
    client: Any = getattr(store, "client", None)
    if not isinstance(name, str) or not hasattr(client, "query"):
        return None
    try:
        if not client.has_collection(name):
            return 0
        (counted,) = client.query(
            name, filter="", output_fields=["count(*)"], consistency_level=CONSISTENCY
        )
        return int(counted["count(*)"])
    except Exception as error:  # noqa: BLE001 - the count is for a message; a search must not fail
        logger.debug("rows of %r could not be counted: %s", name, error)
        return None


def _check_version(client: Any, uri: str, oldest: tuple[int, int], what: str, instead: str) -> None:
    version = str(client.get_server_version())
    number = re.search(r"(\d+)\.(\d+)", version)
    if number and tuple(map(int, number.groups())) < oldest:
        msg = (
            f"{what} needs Milvus {oldest[0]}.{oldest[1]} or newer, but the server at {uri} is "
            f"{version}: update it, or {instead}"
        )
        raise ValueError(msg)


def _check_fingerprint(
    collection_name: str, description: dict[str, Any], fingerprint: Fingerprint
) -> None:
    kept = (description.get("properties") or {}).get(FINGERPRINT_KEY)
    if kept is None:
        if fingerprint.metadata_keys:
            msg = (
                f"collection {collection_name!r} does not say what its vectors were made with, so "
                f"metadata_keys={list(fingerprint.metadata_keys)} cannot be compared or recorded: "
                "choose another collection_name"
            )
            raise ArgumentError(msg, "metadata_keys")
        logger.warning(
            "collection %r does not store how its vectors were made; it is assumed that they "
            "were made with %s",
            collection_name,
            fingerprint.model,
        )
        return
    found = _parse_fingerprint(collection_name, kept)
    differences = found.differences(fingerprint)
    if differences:
        listed = "; ".join(
            f"{name} {there}, not {wanted}" for name, (there, wanted) in differences.items()
        )
        msg = (
            f"the vectors of collection {collection_name!r} were made with {listed}: vectors of "
            "different models or settings cannot be compared. Index the documents into another "
            "collection_name, or use the model and settings that the collection was made with"
        )
        keys_alone = list(differences) == ["metadata_keys"]
        raise ArgumentError(msg, "metadata_keys" if keys_alone else "collection_name")
    if found.compared_by(fingerprint) == "name":
        # A model on a server has no known weights, so this is not worth a warning.
        level = logging.INFO if fingerprint.weights is None else logging.WARNING
        logger.log(
            level,
            "collection %r and %s were compared by the model's name, since %s what the weights "
            "are: make sure that they are the same",
            collection_name,
            fingerprint.model,
            "the collection does not say" if found.weights is None else "it is not known here",
        )


def _parse_fingerprint(collection_name: str, kept: str) -> Fingerprint:
    try:
        return Fingerprint.from_json(kept)
    except ValueError as error:
        msg = f"property {FINGERPRINT_KEY!r} of collection {collection_name!r} is {error}"
        raise ValueError(msg) from error


def _metadata_keys(collection_name: str, description: dict[str, Any]) -> tuple[str, ...] | None:
    """The recorded metadata keys of a collection's vectors."""
    kept = (description.get("properties") or {}).get(FINGERPRINT_KEY)
    return None if kept is None else _parse_fingerprint(collection_name, kept).metadata_keys


def connect(uri: str, token: str | None, db_name: str | None = None) -> Any:
    """Connect a `pymilvus.MilvusClient`.

    Raises:
        ValueError: If the Milvus Lite file cannot be opened, or there is no such database.
        pymilvus.exceptions.MilvusException: If the server does not answer.
    """
    from pymilvus.exceptions import ConnectionConfigException, MilvusException

    try:
        client = _client(uri, token or "", db_name or "")
        if db_name:
            client.list_collections()  # Milvus reports a missing database here
    except ConnectionConfigException as error:
        if "://" in uri:
            raise
        raise ValueError(_why_not_opened(uri)) from error
    except MilvusException as error:
        if not db_name or "database" not in str(error.message):
            raise
        msg = (
            f"there is no database {db_name!r} at {uri!r}: create it with "
            f"MilvusClient({uri!r}).create_database({db_name!r}), or leave db_name out"
        )
        raise ValueError(msg) from error
    return client


def _client(uri: str, token: str, db_name: str) -> Any:
    """A new client; Milvus Lite is asked once more if it cannot be reached.

    Its server closes an idle channel ("too many pings"), and with pymilvus 2.6 the next client on
    that channel fails.
    """
    from pymilvus import MilvusClient
    from pymilvus.exceptions import ConnectionConfigException, MilvusException

    try:
        return MilvusClient(uri=uri, token=token, db_name=db_name)
    except ConnectionConfigException:
        raise
    except MilvusException:
        if not is_lite(uri):
            raise
    return MilvusClient(uri=uri, token=token, db_name=db_name)


def _why_not_opened(uri: str) -> str:
    """The likely reason; Milvus Lite writes it to its log only."""
    place = Path(uri).expanduser()
    for opened in _opened_here():
        if place.exists() and opened.exists() and place.samefile(opened):
            return (
                f"could not open the Milvus Lite database {uri!r}: this process has it open as "
                f"{str(opened)!r}. Give that uri here too"
            )
    place = place if place.exists() else place.parent
    if not os.access(place, os.W_OK):
        return (
            f"could not open the Milvus Lite database {uri!r}: {str(place)!r} cannot be "
            "written (read-only file system, or no permission), which searching needs too"
        )
    return (
        f"could not open the Milvus Lite database {uri!r}: most likely another process has it "
        "open, and it belongs to one at a time. Close the other (a notebook?), choose another "
        "uri, or use a Milvus server"
    )


def _opened_here() -> list[Path]:
    """The Milvus Lite databases that this process has open, as the paths that opened them."""
    from milvus_lite.server_manager import server_manager_instance

    return [Path(path) for path in list(server_manager_instance._servers)]  # noqa: SLF001
