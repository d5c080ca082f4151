"""What readers make of files: sections of text, with the places where they may be cut."""

import importlib
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Final

from qwen3_core.common.extras import how_to_install

Note = Callable[[str, str], None]
"""Told of a part of a file that is left out: the reason, then where and what, or ""."""

MAX_METADATA: Final = 16_384
"""Bytes of metadata (as JSON) that one passage may have: Milvus keeps at most 65,536 bytes of
dynamic fields in a row, and LlamaIndex's store writes them twice, once as JSON in JSON."""

PLACE: Final = ("title", "page", "slide", "sheet", "attachment")
"""Metadata that say where in its file a text stands. Equal texts may differ in them."""

RESERVED: Final = frozenset(
    (
        *("pk", "text", "vector", "id", "embedding", "doc_id", "document_id", "ref_doc_id"),
        *("corpus", "source", "sources", "places", "relevance_score"),
        *("sparse", "sparse_embedding"),  # of full-text search
    )
)
"""Names that the stores, the components or we ourselves use."""


class UnreadableError(Exception):
    """A file cannot be read. `reason` is one of few, `detail` is about this file."""

    def __init__(self, reason: str, detail: str = "") -> None:
        """Say why."""
        super().__init__(f"{reason} ({detail})" if detail else reason)
        self.reason = reason
        self.detail = detail


@dataclass(frozen=True, slots=True)
class Block:
    """A part of a text that is best kept whole: a heading, a paragraph, a list, a table, code.

    A block ends where the next one begins.
    """

    start: int
    """Where it begins, in characters."""
    level: int = 0
    """1 to 6: it is a heading."""
    heading: str = ""
    """A heading's words."""
    cuts: tuple[int, ...] = ()
    """Where a block that is too long is cut first: rows, items, lines; ascending."""
    head: tuple[int, int] | None = None
    """Start and end of a table's header, which is repeated in pieces that begin behind it."""


@dataclass(frozen=True, slots=True)
class Section:
    """A part of a file that is cut on its own: all of it, a page, a sheet, a record."""

    text: str
    size: int
    """Bytes of the file that were read for it."""
    blocks: tuple[Block, ...] = (Block(0),)
    """In order; the first begins at 0."""
    place: dict[str, Any] = field(default_factory=dict)
    """Where in the file it stands: keys of `PLACE`."""
    metadata: dict[str, Any] = field(default_factory=dict)
    """Fields that the file itself gives it, such as a record's."""
    markdown: bool = False
    """Whether the text is Markdown."""
    matter: str = ""
    """Front matter as it stands before the text; what it says is in `place` and `metadata`."""


def plain_blocks(text: str, *, by_lines: bool = False) -> tuple[Block, ...]:
    r"""Blocks of a text without markup: what blank lines separate.

    Args:
        text: With "\\n" as line ends.
        by_lines: Cut a long block at its lines, as source code, rather than at sentences.
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
    """A file's own fields under names that the stores leave free, without empty ones.

    A name that is taken, or begins with no letter, is kept as "record_" plus the name.

    Raises:
        ValueError: If a row has no room for them, or a string is no text.
    """
    metadata = {
        f"record_{key}" if key in RESERVED or not key[:1].isalpha() else key: value
        for key, value in fields
        if value is not None
    }
    described = json.dumps(metadata, ensure_ascii=False)
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
    """Without lone surrogates and NULs, which broken fonts give: U+FFFD stands in their places."""
    return text.encode("utf-8", "replace").decode().replace("\0", "\ufffd")
