"""The pages of a PDF."""

import re
import threading
from collections.abc import Callable, Iterator
from typing import Any, Final

from qwen3_retrieval.documents.text import (
    Note,
    Section,
    UnreadableError,
    clean,
    need,
    plain_blocks,
)

_NO_TITLE: Final = re.compile(
    r"\(?(untitled|anonymous|unspecified|unknown|no title|title|document|presentation)\)?[\s\d-]*"
    r"|(microsoft (word|powerpoint|excel) - )?"
    r"\S+\.(docx?|pptx?|xlsx?|odt|tex|dvi|indd|html?|txt|pdf)",
    re.IGNORECASE,
)
"""Titles that programs write by default."""


_ONE_AT_A_TIME: Final = threading.Lock()
"""PDFium is not thread-safe."""

_PASSWORD: Final = 4  # FPDF_ERR_PASSWORD


def read_pdf(data: bytes, note: Note) -> Iterator[Section]:
    """Yield the pages.

    Raises:
        UnreadableError: If it cannot be read, needs a password, or is a scan.
    """
    pdfium = need("pypdfium2", "pypdfium2", "PDF")
    try:
        with _ONE_AT_A_TIME, pdfium.PdfDocument(data) as document:
            title = " ".join(clean(document.get_metadata_value("Title")).split())
            if document.get_formtype():
                document.init_forms()
            pages = [_read_page(document, i, pdfium.raw) for i in range(len(document))]
    except pdfium.PdfiumError as error:
        if error.err_code == _PASSWORD:
            reason = "an encrypted PDF: it needs a password"
            raise UnreadableError(reason) from error
        reason = "not a readable PDF"
        raise UnreadableError(reason, str(error)) from error
    if not any(text.strip() for text, _ in pages):
        reason = "a PDF without text: it is a scan, to be run through OCR first"
        if not any(pictures for _, pictures in pages):
            reason = "a PDF without text"
        raise UnreadableError(reason, f"{len(pages)} pages")
    named = {} if not title or _NO_TITLE.fullmatch(title) else {"title": title}
    for number, (text, pictures) in enumerate(pages, 1):
        if pictures and not text.strip():
            note("a page without text: it is a scan", f"page {number}")
        size = len(data) // len(pages)
        yield Section(text, size, plain_blocks(text), {**named, "page": number})


def _read_page(document: Any, index: int, raw: Any) -> tuple[str, bool]:
    """A page's text with its filled fields, and whether it has pictures, which may contain text."""
    page = document[index]
    try:
        parts = [page.get_textpage().get_text_range(), *_written_on(page, raw)]
        text = clean("\n".join(part for part in parts if part))
        pictures = next(page.get_objects(filter=[raw.FPDF_PAGEOBJ_IMAGE]), None) is not None
    finally:
        page.close()
    # PDFium writes U+FFFE for a hyphen at the end of a line.
    return re.sub("\r\n?", "\n", text).replace("\ufffe", "-"), pictures


def _written_on(page: Any, raw: Any) -> Iterator[str]:
    """What is filled into a page's form, as "name: value", and typed onto the page."""
    for index in range(raw.FPDFPage_GetAnnotCount(page)):
        annotation = raw.FPDFPage_GetAnnot(page, index)
        kind = raw.FPDFAnnot_GetSubtype(annotation)
        if kind == raw.FPDF_ANNOT_WIDGET and page.formenv is not None:
            form = page.formenv
            name = _string(raw, raw.FPDFAnnot_GetFormFieldName, form, annotation)
            value = _string(raw, raw.FPDFAnnot_GetFormFieldValue, form, annotation)
            if value not in ("", "Off"):
                yield f"{name}: {value}" if name else value
        elif kind == raw.FPDF_ANNOT_FREETEXT:
            yield _string(raw, raw.FPDFAnnot_GetStringValue, annotation, b"Contents")
        raw.FPDFPage_CloseAnnot(annotation)


def _string(raw: Any, function: Callable[..., int], *arguments: Any) -> str:
    """The string that a function of PDFium writes into a buffer, in UTF-16 with a NUL."""
    size = function(*arguments, None, 0)
    buffer = (raw.FPDF_WCHAR * (size // 2))()
    function(*arguments, buffer, size)
    return bytes(buffer).decode("utf-16-le", "replace").rstrip("\0").strip()
