"""Word, Excel and PowerPoint files."""

import datetime as dt
import io
import re
import zipfile
from collections.abc import Iterable, Iterator
from itertools import zip_longest
from typing import Any, Final

from qwen3_retrieval.documents.html import html_section
from qwen3_retrieval.documents.text import Block, Note, Section, UnreadableError, need, plain_blocks

MAX_UNPACKED: Final = 1 << 30
"""The most bytes that a packed file may unpack to: a small file can be crafted to fill memory."""

_STYLES: Final = """
p[style-name='Title'] => h1:fresh
br[type='page'] => br
br[type='column'] => br
"""
_LOST: Final = (
    (re.compile(rb"</?w:(?:fldSimple|dir|bdo)\b[^>]*>"), b""),
    (re.compile(rb"<w:cr\b[^>]*/>"), b"<w:br/>"),
    (re.compile(rb"<w:ptab\b[^>]*/>"), b"<w:tab/>"),
)
"""Elements that mammoth drops with their text, and what stands for them: fields such as a caption's
number, text with a direction of its own, and other marks for breaks and tabs."""
_RUBY: Final = re.compile(rb"<w:ruby\b.*?</w:ruby>", re.DOTALL)
_RUBY_PART: Final = re.compile(rb"<w:(rt|rubyBase)\b.*?</w:\1>", re.DOTALL)
_WORDS: Final = re.compile(rb"<w:t\b[^>]*>([^<]*)</w:t>")
_DRAWN: Final = re.compile(rb"/2006/(chart|diagram)\"|<w:(object)\b")
"""Parts of a Word file that mammoth ignores without a message."""
_BACK: Final = re.compile(r'<a href="#(?:foot|end)note-ref-[^"]*">↑</a>')
"""mammoth's link from a note back to its place."""
_UNREAD: Final = "a part of a PowerPoint file that is not read"
_IGNORED: Final = re.compile(r"An unrecognised element was ignored: (?:\{[^}]*\})?(\S+)")


def read_docx(data: bytes, note: Note) -> Section:
    """Paragraphs, lists, tables, text boxes, footnotes; not headers, footers and comments.

    Args:
        data: The file's contents.
        note: Called for parts that are not read, such as formulas.

    Raises:
        UnreadableError: If it cannot be read.
    """
    kind = "Word file"
    mammoth = need("mammoth", "mammoth", "Word files")
    check_packed(data, kind)
    no_picture = mammoth.images.img_element(lambda _: {"src": ""})
    try:
        found = mammoth.convert_to_html(
            io.BytesIO(_with_all_text(data, note)),
            style_map=_STYLES,
            convert_image=no_picture,
            ignore_empty_paragraphs=True,
        )
    except Exception as error:  # a broken file can raise anything
        raise broken(kind, error) from error
    ignored = (_IGNORED.match(each.message) for each in found.messages)
    for name in dict.fromkeys(each[1] for each in ignored if each):
        what = "formulas" if name.endswith(("oMath", "oMathPara")) else name
        note("a part of a Word file that is not read", what)
    markup = _BACK.sub("", found.value)
    return html_section(markup, len(data), verbatim=True, heads=True)


def _with_all_text(data: bytes, note: Note) -> bytes:
    """The file with the text that mammoth would drop as ordinary text; notes what cannot be."""
    with zipfile.ZipFile(io.BytesIO(data)) as source:
        parts = {each: source.read(each) for each in source.namelist() if each.endswith(".xml")}
        changed = {}
        for name, part in parts.items():
            if not name.startswith("word/"):
                continue
            written = _RUBY.sub(_spelled_out, part)
            for pattern, instead in _LOST:
                written = pattern.sub(instead, written)
            if written != part:
                changed[name] = written
        found = _DRAWN.finditer(parts.get("word/document.xml", b""))
        for kind in dict.fromkeys((each[1] or each[2]).decode() for each in found):
            note("a part of a Word file that is not read", _NAMES[kind])
        if not changed:
            return data
        file = io.BytesIO()
        with zipfile.ZipFile(file, "w") as target:
            for name in source.namelist():
                target.writestr(name, changed.get(name) or source.read(name))
    return file.getvalue()


_NAMES: Final = {"chart": "a chart", "diagram": "SmartArt", "object": "an embedded object"}


def _spelled_out(found: re.Match[bytes]) -> bytes:
    """Characters with their reading in brackets, as in the text of a web page."""
    parts = {part[1]: b"".join(_WORDS.findall(part[0])) for part in _RUBY_PART.finditer(found[0])}
    reading = parts.get(b"rt", b"")
    behind = b"(" + reading + b")" if reading else b""
    return b'<w:t xml:space="preserve">' + parts.get(b"rubyBase", b"") + behind + b"</w:t>"


def read_xlsx(data: bytes, note: Note) -> Iterator[Section]:
    """Yield the sheets, with a line per row and tabs between cells.

    Args:
        data: The file's contents.
        note: Called for sheets that consist of a chart.

    Raises:
        UnreadableError: If it cannot be read.
    """
    kind = "Excel file"
    openpyxl = need("openpyxl", "openpyxl", "Excel files")
    check_packed(data, kind)
    try:
        # A formula that was never computed has no value: the formula itself is shown.
        books = [
            openpyxl.load_workbook(io.BytesIO(data), read_only=True, data_only=computed)
            for computed in (True, False)
        ]
        sheets = [(name, *(_rows(book[name]) for book in books)) for name in books[0].sheetnames
                  if hasattr(books[0][name], "iter_rows")]  # fmt: skip
    except Exception as error:
        raise broken(kind, error) from error
    for name in books[0].sheetnames:
        if name not in {sheet for sheet, *_ in sheets}:
            note("a part of an Excel file that is not read", f"sheet {name!r} (a chart)")
    for name, values, formulas in sheets:
        rows = []
        for row, raw in zip(values, formulas, strict=True):
            cells = [_cell(v if v is not None else f) for v, f in zip(row, raw, strict=True)]
            if any(cells):
                rows.append("\t".join(cells).rstrip("\t"))
        text, block = table_of(rows)
        yield Section(text, len(data) // len(sheets), (block,), {"sheet": name})


def _rows(sheet: Any) -> list[list[tuple[Any, str] | None]]:
    sheet.reset_dimensions()  # the size in the file may be wrong
    return [[_known(cell) for cell in row] for row in sheet.iter_rows()]


def _known(cell: Any) -> tuple[Any, str] | None:
    return None if cell.value is None else (cell.value, cell.number_format or "")


def _cell(known: tuple[Any, str] | None) -> str:
    """A cell's value as it is shown."""
    if known is None:
        return ""
    value, form = known
    if isinstance(value, dt.datetime):
        plain = value.time() == dt.time() and "h" not in form.lower()
        return value.date().isoformat() if plain else value.isoformat(sep=" ")
    if isinstance(value, (dt.date, dt.time)):
        return value.isoformat()
    if isinstance(value, dt.timedelta):
        minutes, seconds = divmod(round(value.total_seconds()), 60)
        return f"{minutes // 60}:{minutes % 60:02}:{seconds:02}"
    if isinstance(value, bool):
        return str(value).upper()
    if isinstance(value, int | float):
        return _number(value, form)
    value = getattr(value, "text", value)  # of a formula over several cells
    return str(value)


_QUOTED: Final = re.compile(r'"[^"]*"|\\.')


def _number(value: float, form: str) -> str:
    """A number with Excel's own digits; percentages and leading zeros as they are shown."""
    if re.fullmatch("0{2,}", form) and value == int(value):
        return f"{int(value):0{len(form)}}"
    percent = "%" in _QUOTED.sub("", form)
    value = value * 100 if percent else value
    whole = isinstance(value, int) or value.is_integer()
    return (f"{value:.0f}" if whole else f"{value:.15g}") + "%" * percent


def read_pptx(data: bytes, note: Note) -> Iterator[Section]:
    """Yield the slides: texts, tables, charts and notes.

    Args:
        data: The file's contents.
        note: Called for parts that are not read, such as SmartArt.

    Raises:
        UnreadableError: If it cannot be read.
    """
    kind = "PowerPoint file"
    pptx = need("pptx", "python-pptx", "PowerPoint files")
    check_packed(data, kind)
    try:
        slides = [_slide(each, note) for each in pptx.Presentation(io.BytesIO(data)).slides]
    except Exception as error:
        raise broken(kind, error) from error
    for number, (title, text) in enumerate(slides, 1):
        place = {"slide": number} | ({"title": title} if title else {})
        yield Section(text, len(data) // len(slides), plain_blocks(text, by_lines=True), place)


def _slide(slide: Any, note: Note) -> tuple[str, str]:
    parts = list(_shapes(slide.shapes, note))
    if slide.has_notes_slide and slide.notes_slide.notes_text_frame is not None:
        parts.append(_lines(slide.notes_slide.notes_text_frame.text))
    heading = slide.shapes.title
    title = " ".join(_lines(heading.text_frame.text).split()) if heading is not None else ""
    return title, "\n\n".join(part for part in parts if part.strip())


def _shapes(shapes: Iterable[Any], note: Note) -> Iterator[str]:
    for shape in shapes:
        if hasattr(shape, "shapes"):  # a group of shapes
            yield from _shapes(shape.shapes, note)
        elif getattr(shape, "has_table", False):
            rows = ([_lines(cell.text) for cell in row.cells] for row in shape.table.rows)
            yield "\n".join("\t".join(row) for row in rows)
        elif getattr(shape, "has_chart", False):
            yield _chart(shape, note)
        elif shape.has_text_frame:
            yield _lines(shape.text_frame.text)
        elif shape.element.tag.endswith("}graphicFrame"):
            note(_UNREAD, f"{shape.name!r} (SmartArt or an embedded object)")


def _chart(shape: Any, note: Note) -> str:
    """A chart's title, and its values as a table."""
    chart = shape.chart
    lines = [chart.chart_title.text_frame.text] if chart.has_title else []
    try:
        for plot in chart.plots:
            series = list(plot.series)
            lines.append("\t".join(["", *(each.name for each in series)]))
            columns = zip_longest(plot.categories, *(each.values for each in series))
            lines += ["\t".join("" if v is None else str(v) for v in row) for row in columns]
    except Exception as error:  # noqa: BLE001 - python-pptx does not know all kinds of charts
        note(_UNREAD, f"the values of {shape.name!r} (a chart: {type(error).__name__})")
    return "\n".join(lines)


def _lines(text: str) -> str:
    return text.replace("\v", "\n")  # a line break within a paragraph


def table_of(rows: list[str]) -> tuple[str, Block]:
    """Rows as one text with its block; the first row is the header."""
    starts = [0]
    for row in rows:
        starts.append(starts[-1] + len(row) + 1)
    heads = ((0, starts[1], starts[-1]),) if len(rows) > 1 else ()
    return "\n".join(rows), Block(0, cuts=tuple(starts[1:-1]), heads=heads)


def check_packed(data: bytes, kind: str) -> None:
    """Check that a file is a ZIP archive of acceptable unpacked size.

    Raises:
        UnreadableError: If it is not a ZIP archive, is encrypted, or unpacks to too much.
    """
    if data.startswith(b"\xd0\xcf\x11\xe0"):  # the container of encrypted and old files
        reason = f"not a readable {kind}"
        raise UnreadableError(reason, "encrypted, or of a format before 2007: save it anew")
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as file:
            size = sum(each.file_size for each in file.infolist())
    except (zipfile.BadZipFile, ValueError, OSError) as error:
        raise broken(kind, error) from error
    if size > MAX_UNPACKED:
        reason = f"a {kind} that unpacks to too much"
        raise UnreadableError(reason, f"{size} bytes, at most {MAX_UNPACKED} are read")


def broken(kind: str, error: Exception) -> UnreadableError:
    """The error for a file that its library cannot read."""
    return UnreadableError(f"not a readable {kind}", f"{type(error).__name__}: {error}")
