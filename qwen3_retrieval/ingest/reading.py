"""Text from files: Markdown, plain text, HTML, PDF and JSON lines."""

import json
import logging
import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Protocol

from qwen3_core.common.extras import how_to_install
from qwen3_retrieval.ingest.corpus import SourceFile

if TYPE_CHECKING:
    from bs4 import BeautifulSoup

MAX_METADATA: Final = 16_384
"""Bytes of metadata (as JSON) that one chunk may have: Milvus keeps at most 65,536 bytes of dynamic
fields in a row, and LlamaIndex's store writes them twice, once as JSON in JSON."""

RESERVED: Final = frozenset(
    (
        *("pk", "text", "vector", "id", "embedding", "doc_id", "document_id", "ref_doc_id"),
        *("corpus", "source", "relevance_score"),
    )
)
"""Names that the stores, the components or we ourselves use; a record's field of such a name, or of
one that begins with "_" or "$", is kept as "record_" plus its name."""

Report = Callable[[str], None]
"""Told of a part of a file that is left out: its place and the reason."""


class UnreadableError(Exception):
    """A file cannot be read; the message says why."""


class Hasher(Protocol):
    """A `hashlib` object."""

    def update(self, data: bytes, /) -> None:
        """Add bytes."""


@dataclass(frozen=True)
class Section:
    """A part of a file that is split on its own: all of it, a page, a record."""

    text: str
    size: int
    """Bytes of the file that were read for it."""
    markdown: bool = False
    """Whether lines that begin with "#" are headings."""
    metadata: dict[str, Any] = field(default_factory=dict)


def read_sections(
    file: SourceFile, hasher: Hasher, text_field: str, report: Report
) -> Iterator[Section]:
    """The sections of a file, in order.

    JSON lines are read one by one, and a bad one is reported and left out. Any other file is
    read whole, before the first section comes.

    Args:
        file: The file.
        hasher: Gets every byte of it.
        text_field: Name of the field that holds a JSON record's text.
        report: Told of each bad line.

    Raises:
        UnreadableError: If the file cannot be read.
    """
    try:
        if file.kind == "jsonl":
            yield from _read_jsonl(file, hasher, text_field, report)
            return
        data = file.path.read_bytes()
    except OSError as error:
        raise UnreadableError(error.strerror or str(error)) from error
    hasher.update(data)
    if file.kind == "pdf":
        yield from _read_pdf(data)
    elif file.kind == "html":
        yield _read_html(data)
    else:
        yield Section(_decode(data), len(data), markdown=file.kind == "markdown")


def _decode(data: bytes) -> str:
    try:
        return data.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        msg = f"not UTF-8 text ({error.reason} at byte {error.start})"
        raise UnreadableError(msg) from error


def _read_jsonl(
    file: SourceFile, hasher: Hasher, text_field: str, report: Report
) -> Iterator[Section]:
    with file.path.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            hasher.update(line)
            if not line.strip():
                continue
            try:
                yield _record(line, text_field)
            except RecursionError:
                report(f"line {number}: nested too deeply")
            except ValueError as error:
                report(f"line {number}: {error}")


def _record(line: bytes, text_field: str) -> Section:
    try:
        record = json.loads(
            line.decode("utf-8-sig"),
            parse_constant=_no_number,
            parse_float=_finite,
            parse_int=_int64,
        )
    except UnicodeDecodeError as error:
        msg = f"not UTF-8 text ({error.reason} at byte {error.start})"
        raise ValueError(msg) from error
    except json.JSONDecodeError as error:
        msg = f"not JSON ({error.msg} at character {error.pos})"
        raise ValueError(msg) from error
    if not isinstance(record, dict):
        msg = f"a JSON {type(record).__name__}, not an object"
        raise ValueError(msg)
    text = record.pop(text_field, None)
    if not isinstance(text, str):
        msg = f"no string in the field {text_field!r} (--text-field names another)"
        raise ValueError(msg)
    if not text.strip():
        msg = f"the field {text_field!r} is blank"
        raise ValueError(msg)
    metadata = {
        f"record_{key}" if key in RESERVED or not key[:1].isalpha() else key: value
        for key, value in record.items()
        if value is not None
    }
    try:
        size = len(json.dumps(metadata, ensure_ascii=False).encode())
        text.encode()
    except UnicodeEncodeError as error:
        msg = "it spells a lone surrogate, which is no character"
        raise ValueError(msg) from error
    if size > MAX_METADATA:
        msg = f"{size} bytes of metadata beside the text; a row has room for {MAX_METADATA}"
        raise ValueError(msg)
    return Section(text, len(line), metadata=metadata)


def _no_number(name: str) -> float:
    msg = f"{name} is no JSON number"
    raise ValueError(msg)


def _finite(digits: str) -> float:
    if not math.isfinite(float(digits)):
        msg = f"the number {digits[:24]} is out of range"
        raise ValueError(msg)
    return float(digits)


def _int64(digits: str) -> int:
    if len(digits) > 20 or not -(2**63) <= int(digits) < 2**63:
        msg = f"the number {digits[:24]} does not fit into 64 bits"
        raise ValueError(msg)
    return int(digits)


def _read_pdf(data: bytes) -> list[Section]:
    try:
        from pypdf import PdfReader
    except ModuleNotFoundError as error:
        msg = f"reading PDF needs pypdf: {how_to_install('ingest')}"
        raise UnreadableError(msg) from error
    import io

    logging.getLogger("pypdf").setLevel(logging.ERROR)  # it warns of what it mends
    try:
        reader = PdfReader(io.BytesIO(data))
        title = str((reader.metadata and reader.metadata.title) or "").strip()
        texts = [_clean(page.extract_text()) for page in reader.pages]
    except Exception as error:  # a broken PDF can raise anything
        msg = f"not a readable PDF ({type(error).__name__}: {error})"
        raise UnreadableError(msg) from error
    if texts and not any(text.strip() for text in texts):
        msg = f"no text on its {len(texts)} pages: are they scanned images?"
        raise UnreadableError(msg)
    named = {"title": _clean(title)} if title else {}
    return [
        Section(text, len(data) // len(texts), metadata={**named, "page": number})
        for number, text in enumerate(texts, 1)
    ]


def _clean(text: str) -> str:
    """Without lone surrogates, which broken fonts and character references give."""
    return text.encode("utf-8", "replace").decode()


def _read_html(data: bytes) -> Section:
    try:
        from bs4 import BeautifulSoup
    except ModuleNotFoundError as error:
        msg = f"reading HTML needs beautifulsoup4: {how_to_install('ingest')}"
        raise UnreadableError(msg) from error
    soup = BeautifulSoup(data, "html.parser")
    if soup.contains_replacement_characters:
        msg = "its character set cannot be told: save it as UTF-8"
        raise UnreadableError(msg)
    title = " ".join(soup.title.get_text().split()) if soup.title else ""
    metadata = {"title": _clean(title)} if title else {}
    return Section(_clean(_html_text(soup)), len(data), markdown=True, metadata=metadata)


_BLOCKS: Final = frozenset(
    (
        *("p", "div", "section", "article", "main", "header", "footer", "aside", "blockquote"),
        *("pre", "ul", "ol", "li", "dl", "dt", "dd", "table", "tr", "figure", "figcaption"),
        *("br", "hr"),
    )
)
_HIDDEN: Final = frozenset(("script", "style", "template", "noscript", "title", "svg"))
_HEADINGS: Final = frozenset(f"h{level}" for level in range(1, 7))


def _html_text(soup: "BeautifulSoup") -> str:
    """All words of a page, a line per block, with headings marked as in Markdown.

    One pass without recursion: a page may hold a hundred thousand tags within one another.
    """
    from bs4.element import CData, NavigableString, Tag

    parts: list[str] = []
    heading: list[str] | None = None
    verbatim = 0  # how many <pre> are open
    open_tags = [(soup.name, iter(soup.contents))]
    while open_tags:
        name, contents = open_tags[-1]
        node = next(contents, None)
        if isinstance(node, Tag):
            if node.name in _HIDDEN:
                continue
            open_tags.append((node.name, iter(node.contents)))
            verbatim += node.name == "pre"
            if node.name in _HEADINGS and heading is None:
                heading = []
                open_tags[-1] = (f"outer {node.name}", open_tags[-1][1])
            elif node.name in _BLOCKS and heading is None:
                parts.append("\n")
        elif node is not None:
            # Comments and declarations are of other derived classes: those are no words.
            if type(node) not in (NavigableString, CData):
                continue
            words = str(node) if verbatim else re.sub(r"\s+", " ", str(node))
            (parts if heading is None else heading).append(words)
        else:
            open_tags.pop()
            verbatim -= name == "pre"
            if name.startswith("outer "):
                title = " ".join(filter(None, map(str.strip, heading or ())))
                parts.append(f"\n\n{'#' * int(name[-1])} {title}\n\n" if title else "")
                heading = None
            elif heading is None and name in ("td", "th"):
                parts.append(" ")
            elif heading is None and name in _BLOCKS:
                parts.append("\n")
    lines = (line.rstrip() for line in "".join(parts).split("\n"))
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip()
