"""Reads the sections of a file of any supported kind."""

import codecs
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Final, Protocol

from qwen3_retrieval.documents.corpus import KINDS, FileKind, SourceFile, why_skipped
from qwen3_retrieval.documents.encoding import decode
from qwen3_retrieval.documents.epub import read_epub
from qwen3_retrieval.documents.html import read_html
from qwen3_retrieval.documents.mail import read_mail
from qwen3_retrieval.documents.markdown import front_matter, markdown_blocks
from qwen3_retrieval.documents.office import read_docx, read_pptx, read_xlsx
from qwen3_retrieval.documents.pdf import read_pdf
from qwen3_retrieval.documents.records import read_json, read_table, record
from qwen3_retrieval.documents.text import Note, Section, UnreadableError, plain_blocks

READERS: Final = "reading 2"
"""Version of the readers; after a change, the next ingest reads all files again."""


class Hasher(Protocol):
    """A `hashlib` object."""

    def update(self, data: bytes, /) -> None:
        """Add bytes."""


def read_sections(
    file: SourceFile,
    hasher: Hasher,
    report: Note,
    *,
    text_field: str = "text",
    encoding: str | None = None,
    remark: Note | None = None,
) -> Iterator[Section]:
    """The sections of a file, in order.

    JSON lines are read one by one; invalid ones are reported and omitted. Any other file is read
    whole before the first section is yielded.

    Args:
        file: The file.
        hasher: Updated with every byte of the file.
        report: Called for each invalid line or record.
        text_field: Name of the field with a JSON record's text.
        encoding: Encoding of text files that are not Unicode.
        remark: Called for parts without readable text: scanned pages of a PDF, attachments of an
            e-mail.

    Raises:
        UnreadableError: If the file cannot be read.
    """
    try:
        if file.kind == "jsonl":
            yield from _read_lines(file, hasher, text_field, encoding, report)
            return
        data = file.path.read_bytes()
    except OSError as error:
        raise UnreadableError(error.strerror or str(error)) from error
    hasher.update(data)
    yield from _read(file.kind, data, text_field, encoding, report, remark or report)


def _read(
    kind: FileKind, data: bytes, text_field: str, encoding: str | None, report: Note, remark: Note
) -> Iterator[Section]:
    def attachment(name: str, content: bytes, declared: str | None) -> Iterator[Section]:
        suffix = PurePosixPath(name).suffix
        inner = KINDS.get(suffix.lower())
        if inner is None:
            raise UnreadableError(why_skipped(suffix))
        if inner == "jsonl":
            inner = "text"
        return _read(inner, content, text_field, _known(declared) or encoding, report, remark)

    if kind == "markdown":
        yield _markdown(data, encoding)
    elif kind == "html":
        yield read_html(data, encoding)
    elif kind == "pdf":
        yield from read_pdf(data, remark)
    elif kind == "docx":
        yield read_docx(data, remark)
    elif kind == "xlsx":
        yield from read_xlsx(data, remark)
    elif kind == "pptx":
        yield from read_pptx(data, remark)
    elif kind == "epub":
        yield from read_epub(data)
    elif kind == "mail":
        yield from read_mail(data, attachment, remark, encoding)
    elif kind == "table":
        yield read_table(data, encoding)
    elif kind == "json":
        yield from read_json(data, encoding, text_field, report)
    else:
        text = decode(data, encoding)
        yield Section(text, len(data), plain_blocks(text, by_lines=kind == "code"))


def _known(encoding: str | None) -> str | None:
    """The encoding, if Python has it."""
    try:
        return codecs.lookup(encoding).name if encoding else None
    except LookupError:
        return None


def _markdown(data: bytes, encoding: str | None) -> Section:
    whole = decode(data, encoding)
    fields, text = front_matter(whole)
    title = str(fields.pop("title", "")).strip()
    return Section(
        *(text, len(data), markdown_blocks(text), {"title": title} if title else {}, fields),
        markdown=True,
        matter=whole[: len(whole) - len(text)],
    )


def _read_lines(
    file: SourceFile, hasher: Hasher, text_field: str, encoding: str | None, report: Note
) -> Iterator[Section]:
    with file.path.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            hasher.update(line)
            if not line.strip():
                continue
            if number == 1 and line.startswith((b"\xff\xfe", b"\xfe\xff")):
                reason = "JSON lines in UTF-16: save them as UTF-8"
                raise UnreadableError(reason)
            try:
                yield record(decode(line, encoding), text_field, len(line))
            except UnreadableError as error:
                report("a bad line", f"line {number}: {error}")
            except ValueError as error:
                report("a bad line", f"line {number}: {error}")
