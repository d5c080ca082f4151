"""The readers' results: sections of text, with the places where they may be cut."""

import importlib
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Final

from qwen3_core.common.extras import how_to_install

Note = Callable[[str, str], None]
"""Called for an omitted part of a file: with the reason, then the place and details, or ""."""

MAX_METADATA: Final = 16_384
"""The most bytes of a passage's metadata (as JSON): Milvus stores at most 65,536 bytes of dynamic
fields per row, and LlamaIndex's store writes them twice, once as JSON in JSON."""

PLACE: Final = ("title", "page", "slide", "sheet", "attachment")
"""Metadata that locate a text in its file. Equal texts may differ in them."""

RESERVED: Final = frozenset(
    (
        *("pk", "text", "vector", "id", "embedding", "doc_id", "document_id", "ref_doc_id"),
        *("corpus", "source", "sources", "places", "relevance_score"),
        *("sparse", "sparse_embedding"),  # for full-text search
    )
)
"""Reserved names: the stores, the components or this package use them."""


class UnreadableError(Exception):
    """A file cannot be read. `reason` is a general reason, `detail` concerns this file."""

    def __init__(self, reason: str, detail: str = "") -> None:
        """Set the reason and the detail."""
        super().__init__(f"{reason} ({detail})" if detail else reason)
        self.reason = reason
        self.detail = detail


@dataclass(frozen=True, slots=True)
class Block:
    """A part of a text to keep whole if possible: a heading, paragraph, list, table or code.

    A block ends where the next one begins.
    """

    start: int
    """Start, in characters."""
    level: int = 0
    """1 to 6 for headings, else 0."""
    heading: str = ""
    """A heading's words."""
    cuts: tuple[int, ...] = ()
    """Preferred cuts of a block that is too long: rows, items, lines; ascending."""
    heads: tuple[tuple[int, int, int], ...] = ()
    """Of each table in it: start and end of its header, and end of the table. The header is
    repeated in pieces that begin below it in the table."""


@dataclass(frozen=True, slots=True)
class Section:
    """A part of a file that is cut separately: the whole file, a page, a sheet, a record."""

    text: str
    size: int
    """Bytes of the file that were read for it."""
    blocks: tuple[Block, ...] = (Block(0),)
    """Blocks in order; the first one begins at 0."""
    place: dict[str, Any] = field(default_factory=dict)
    """Its place in the file: keys of `PLACE`."""
    metadata: dict[str, Any] = field(default_factory=dict)
    """Fields from the file itself, such as a record's."""
    markdown: bool = False
    """Whether the text is Markdown."""
    matter: str = ""
    """Unparsed front matter before the text; its values are in `place` and `metadata`."""


def plain_blocks(text: str, *, by_lines: bool = False) -> tuple[Block, ...]:
    r"""Blocks of a text without markup, separated by blank lines.

    Args:
        text: With "\\n" as line ends.
        by_lines: Whether to cut long blocks at lines, as in source code, not at sentences.
    """
    starts = [0]
    lines: list[list[int]] = [[]]
    position, blank = 0, False
    for line in text.split("\n"):
        if not line.strip():
            blank = True
        elif blank and position:
            starts.append(position)
            lines.append([])
            blank = False
        elif by_lines and position > starts[-1]:
            lines[-1].append(position)
            blank = False
        else:
            blank = False
        position += len(line) + 1
    return tuple(Block(s, cuts=tuple(c)) for s, c in zip(starts, lines, strict=True))


def usable_metadata(fields: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    """A file's own fields under names that the stores do not use, without empty ones.

    A name that is reserved, or does not begin with a letter, gets the prefix "record_".

    Raises:
        ValueError: If two get one name, if they are too large for a row, or if a row cannot store a
            value: NaN, infinity, a string that is not valid text.
    """
    metadata: dict[str, Any] = {}
    for key, value in fields:
        name = f"record_{key}" if key in RESERVED or not key[:1].isalpha() else key
        if name in metadata:
            msg = f"two fields would be called {name!r}: rename one"
            raise ValueError(msg)
        if value is not None:
            metadata[name] = value
    described = json.dumps(metadata, ensure_ascii=False, allow_nan=False)
    if "\\u0000" in described:
        msg = "it holds NUL characters"
        raise ValueError(msg)
    try:
        size = len(described.encode())
    except UnicodeEncodeError as error:
        msg = "it spells a lone surrogate, which is no character"
        raise ValueError(msg) from error
    if size > MAX_METADATA:
        msg = f"{size} bytes of metadata beside the text; a row has room for {MAX_METADATA}"
        raise ValueError(msg)
    return metadata


def need(package: str, distribution: str, kind: str) -> Any:
    """Import a package of the extra `ingest`.

    Raises:
        UnreadableError: If it is not installed.
    """
    try:
        return importlib.import_module(package)
    except ModuleNotFoundError as error:
        reason = f"reading {kind} needs {distribution}: {how_to_install('ingest')}"
        raise UnreadableError(reason) from error


def clean(text: str) -> str:
    """Replace lone surrogates and NULs, which come from broken fonts, by U+FFFD."""
    return text.encode("utf-8", "replace").decode().replace("\0", "\ufffd")
