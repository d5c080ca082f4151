"""The text of a web page as a browser shows it: blocks separate, inline elements joined."""

import codecs
import html
import re
from itertools import islice
from typing import Any, Final

from qwen3_retrieval.documents.encoding import decode
from qwen3_retrieval.documents.text import Block, Section, UnreadableError, clean, need

# Source: the HTML standard, "Rendering", sections "Hidden elements", "Flow content", "Tables" and
# "Form controls".
_PARAGRAPHS: Final = frozenset(
    (
        *("p", "pre", "listing", "xmp", "blockquote", "ul", "ol", "dl", "dir", "menu", "figure"),
        *("fieldset", "table", "hr", "h1", "h2", "h3", "h4", "h5", "h6"),
    )
)
"""Blocks with an empty line before and after."""
_LINES: Final = frozenset(
    (
        *("address", "article", "aside", "body", "center", "dd", "details", "dialog", "div", "dt"),
        *("figcaption", "footer", "form", "header", "hgroup", "html", "legend", "li", "main"),
        *("nav", "optgroup", "option", "search", "section", "summary", "caption", "tr", "thead"),
        *("tbody", "tfoot", "textarea", "select"),
    )
)
"""Blocks that begin and end a line."""
_BOXES: Final = frozenset(("button", "meter", "progress", "input", "object", "text"))
"""Inline elements that are separate boxes; <text> occurs in SVG."""
_HIDDEN: Final = frozenset(
    (
        *("script", "style", "template", "noscript", "title", "head", "datalist", "noembed"),
        *("noframes", "iframe", "video", "audio", "canvas", "annotation", "annotation-xml"),
        *("desc", "metadata", "defs", "area", "base", "link", "meta", "param"),
    )
)
_VERBATIM: Final = frozenset(("pre", "listing", "xmp", "textarea"))
_HEADINGS: Final = frozenset(f"h{level}" for level in range(1, 7))
_DECLARED: Final = re.compile(
    rb"""<meta[^>]*?charset\s*=\s*["']?\s*([\w.:-]+)|^\s*<\?xml[^>]*?encoding\s*=\s*["']([\w.:-]+)""",
    re.IGNORECASE,
)
_AS_BROWSERS: Final = {
    **dict.fromkeys(("iso8859-1", "ascii"), "cp1252"),
    **dict.fromkeys(("gb2312", "gbk"), "gb18030"),
    **dict.fromkeys(("tis-620", "iso8859-11"), "cp874"),
    "shift_jis": "cp932",
    "euc_kr": "cp949",
    "iso8859-9": "cp1254",
}
"""What browsers read for a declared character set (the Encoding standard, "Names and labels")."""
_XHTML: Final = re.compile(r"<\?xml\b|xmlns\s*=\s*[\"']http://www\.w3\.org/1999/xhtml[\"']")
_SELF_CLOSED: Final = re.compile(
    r"""<([A-Za-z][\w:.-]*)((?:\s+[\w:.-]+\s*=\s*(?:"[^"]*"|'[^']*'))*+)\s*/>
    | <!\[CDATA\[(.*?)\]\]>""",
    re.VERBOSE | re.DOTALL,
)
_VOID: Final = frozenset(
    (
        *("area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source"),
        *("track", "wbr"),
    )
)
_SIGNS: Final = {"mfrac": "/", "msup": "^", "msub": "_", "msubsup": "_^", "mroot": "√"}
"""What MathML shows by position, as signs before the second and third part."""
_BLANKS: Final = re.compile("[ \t\n\r\f]+")  # CSS's white space, without the no-break space
_NOT_SHOWN: Final = re.compile(
    r"(?:^|;)\s*(?:display\s*:\s*none|visibility\s*:\s*(?:hidden|collapse))", re.IGNORECASE
)
_SPAN: Final = re.compile(r"\s*\+?(\d{1,9})")
_MOST_COLUMNS: Final = 100
"""The most columns of a cell; the standard allows 1,000, for which a small file could fill memory
with tabs."""
_MOST_ROWS: Final = 65_534
_WIDEST: Final = 256
"""Cells to the right of this many columns reach into no row below, so that time stays linear."""
_RAISED: Final = re.compile(r"\s*[0-9+\u2212-]{1,9}\s*")
_AS_RAISED: Final = str.maketrans("0123456789+-\u2212", "⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻⁻")
_AS_IT_STANDS: Final = re.compile(
    r"(?:^|;)\s*white-space\s*:\s*(?:pre|break-spaces)", re.IGNORECASE
)


def read_html(data: bytes, encoding: str | None = None) -> Section:
    """The text of a page, with its title.

    Raises:
        UnreadableError: If its encoding cannot be determined.
    """
    if declared := _DECLARED.search(data[:4096]):
        word = (declared[1] or declared[2]).decode()
        try:
            name = codecs.lookup(word.lower().removeprefix("x-")).name
        except LookupError as error:
            reason = "its character set is unknown"
            raise UnreadableError(reason, f"it says {word!r}") from error
        encoding = _AS_BROWSERS.get(name, name)
    markup = decode(data, encoding)
    if _XHTML.search(markup[:4096]):
        markup = _SELF_CLOSED.sub(_closed, markup)
    return html_section(markup, len(data))


def _closed(found: re.Match[str]) -> str:
    """XHTML's self-closed element or CDATA section in HTML, whose parser would swallow text."""
    name, attributes, characters = found.groups()
    if characters is not None:
        return html.escape(characters, quote=False)
    return found[0] if name.lower() in _VOID else f"<{name}{attributes}></{name}>"


def html_section(markup: str, size: int, *, verbatim: bool = False, heads: bool = False) -> Section:
    """The text of markup.

    Args:
        markup: HTML or XHTML.
        size: Bytes of the file that were read for it.
        verbatim: Whether to keep all white space, as in <pre>.
        heads: Whether a table's first row is its header even if no cell is marked so.
    """
    lexbor = need("selectolax.lexbor", "selectolax", "HTML")
    root = lexbor.LexborHTMLParser(clean(markup)).root
    page = _Page(heads=heads)
    title = ""
    if root is not None:
        _show(root, page, verbatim=verbatim)
        found = root.css_first("head > title")
        title = " ".join(found.text().split()) if found is not None else ""
    text, blocks = page.close()
    return Section(text, size, blocks, {"title": title} if title else {})


class _Grid:
    """Where the cells of a table lie, as in the standard's "forming a table"."""

    def __init__(self) -> None:
        self._below: dict[int, int] = {}  # by column: rows below that a cell reaches into
        self._taken: set[int] = set()  # columns of this row that cells above reach into
        self._next = 0
        self._last = 0  # column of the last cell

    def section(self) -> None:
        """Begin a thead, tbody or tfoot, in which no cell from above reaches."""
        self._below = {}

    def row(self) -> None:
        """Begin a row."""
        self._taken = set(self._below)
        self._below = {column: n - 1 for column, n in self._below.items() if n > 1}
        self._next = self._last = 0

    def cell(self, columns: int, rows: int) -> int:
        """Place a cell; returns how many columns it is to the right of the last one."""
        column = self._next
        while column in self._taken:
            column += 1
        if rows > 1:
            reached = range(column, min(column + columns, _WIDEST))
            self._below |= dict.fromkeys(reached, rows - 1)
        self._next = column + columns
        step, self._last = column - self._last, column
        return step


class _Page:
    """Collects words and breaks into a text with blocks."""

    def __init__(self, *, heads: bool) -> None:
        self._heads = heads
        self._parts: list[str] = []
        self._length = 0
        self._breaks = 0
        self._space = False
        self._tabs = 0
        self._cell = False  # whether an empty cell is open
        self._blocks: list[Block] = []
        self._cuts: list[int] = []  # of the last block
        self._heads_found: list[tuple[int, int, int]] = []
        self._fresh = True  # whether the next words begin a block
        self._tables = 0
        self._grids: list[_Grid] = []  # of the open tables
        self._readings: list[str] = []  # of the open ruby
        self._rows: list[tuple[int, bool]] = []  # of the outermost table: start, whether a header
        self._level = 0  # level of the open heading
        self._opened = (0, 0)  # numbers of blocks and parts before it
        self._row: bool | None = None  # for a row that begins: whether it is a header
        self._first_cell = self._row_empty = True

    def words(self, text: str) -> None:
        """Add text, with white space collapsed to single spaces."""
        text = _BLANKS.sub(" ", text)
        if text.startswith(" "):
            self._space = True
        if text.strip(" "):
            self._put(text.strip(" "))
            self._space = text.endswith(" ")

    def verbatim(self, text: str) -> None:
        """Add text unchanged."""
        if not text:
            return
        begin = self._put(text)
        if not self._tables and not self._level:
            self._cuts += [begin + found.end() for found in re.finditer("\n", text[:-1])]

    def space(self) -> None:
        """Separate the following text by a space."""
        self._space = True

    def line(self) -> None:
        """Begin a new line."""
        if not self._cell:
            self._breaks = max(1, self._breaks)

    def paragraph(self) -> None:
        """Begin a new block."""
        if self._cell:
            return
        self._breaks = 2
        if not self._tables:
            self._fresh = True

    def line_break(self) -> None:
        """A <br>."""
        if not self._cell:
            self._breaks = min(2, self._breaks + 1)

    def heading(self, level: int) -> None:
        """Begin a heading, or with level 0 end the open one."""
        if self._tables:
            return
        if level:
            self._opened = (len(self._blocks), len(self._parts))
        elif len(self._blocks) > self._opened[0]:  # it has words
            start = self._blocks[-1].start
            words = "".join(self._parts[self._opened[1] :])
            self._close_block()
            self._blocks[-1] = Block(start, self._level, " ".join(words.split()))
        self._level = level

    def table(self, *, begins: bool) -> None:
        """Begin or end a table."""
        if begins:
            self.paragraph()
            self._tables += 1
            self._grids.append(_Grid())
            return
        self._tables -= 1
        del self._grids[-1:]
        self._cell = False
        if not self._tables:
            self._tabs = 0
            self._finish_rows()
            self.paragraph()

    def rows(self) -> None:
        """Begin a thead, tbody or tfoot."""
        if self._grids:
            self._grids[-1].section()
        self.line()

    def row(self, *, header: bool) -> None:
        """Begin a table row."""
        if self._grids:
            self._grids[-1].row()
        self._cell, self._tabs = False, 0
        self.line()
        self._first_cell = self._row_empty = True
        if self._tables == 1:
            self._row = header

    def cell(self, columns: int, rows: int) -> None:
        """Begin a cell of a row, over several columns and rows; it is written in the first."""
        step = self._grids[-1].cell(columns, rows) if self._grids else int(not self._first_cell)
        self._tabs += step
        if not self._first_cell:
            self._space = False
            if not self._row_empty:
                self._breaks = 0
        self._first_cell = False
        self._cell = True

    def reading(self, text: str) -> None:
        """Keep the reading of a ruby's characters."""
        self._readings.append(text)

    def ruby_ends(self) -> None:
        """Write the readings behind the characters, in brackets."""
        if any(self._readings):
            self.words(f"({''.join(self._readings)})")
        self._readings = []

    def close(self) -> tuple[str, tuple[Block, ...]]:
        """The text and its blocks."""
        self._close_block()
        return clean("".join(self._parts)), tuple(self._blocks) or (Block(0),)

    def _put(self, text: str) -> int:
        """Append text; returns its start."""
        if self._length and self._breaks:
            self._add("\n" * self._breaks)
        elif self._length and self._space and not self._tabs:
            self._add(" ")
        begins = self._length
        if self._row is not None and self._tables:
            self._rows.append((begins, self._row))
            self._row = None
        if self._fresh:
            self._close_block()
            self._blocks.append(Block(begins if self._blocks else 0))
            self._fresh = False
        elif self._breaks and not self._tables:
            self._cuts.append(begins)
        if self._tabs:
            self._add("\t" * self._tabs)
        self._breaks, self._tabs = 0, 0
        self._space = self._cell = self._row_empty = False
        start = self._length
        self._add(text)
        return start

    def _add(self, text: str) -> None:
        self._parts.append(text)
        self._length += len(text)

    def _finish_rows(self) -> None:
        rows, self._rows = self._rows, []
        if not rows or self._fresh:
            return
        starts = [start for start, _ in rows]
        count = 0  # of header rows
        while count < len(rows) and rows[count][1]:
            count += 1
        if not count and self._heads:
            count = 1
        if 0 < count < len(rows):
            self._heads_found = [(starts[0], starts[count], self._length)]
        self._cuts += starts[max(1, count) :]

    def _close_block(self) -> None:
        if self._blocks and (self._cuts or self._heads_found):
            start = self._blocks[-1].start
            cuts = tuple(sorted({cut for cut in self._cuts if cut > start}))
            self._blocks[-1] = Block(start, cuts=cuts, heads=tuple(self._heads_found))
        self._cuts, self._heads_found = [], []


def _show(root: Any, page: _Page, *, verbatim: bool) -> None:
    """Visit all nodes without recursion: a page may nest a hundred thousand tags."""
    stack = [(root, root.child, verbatim)]
    while stack:
        parent, node, as_it_stands = stack.pop()
        if node is None:
            _end(parent, page)
            continue
        stack.append((parent, node.next, as_it_stands))
        if node.is_text_node:
            (page.verbatim if as_it_stands else page.words)(node.text_content)
        elif not node.is_element_node or not _is_shown(node):
            continue
        elif node.tag in ("rt", "rp") and parent.tag in ("ruby", "rtc", "rb"):
            if node.tag == "rt":
                page.reading(" ".join(node.text().split()))
        elif node.tag == "sup" and _RAISED.fullmatch(node.text()):
            page.words(node.text().translate(_AS_RAISED))
        else:
            style = node.attributes.get("style") or ""
            inner = as_it_stands or node.tag in _VERBATIM or bool(_AS_IT_STANDS.search(style))
            _begin(node, page)
            if parent.tag in _SIGNS:
                _math(node, page, _SIGNS[parent.tag])
            stack.append((node, node.child, inner))


def _is_shown(node: Any) -> bool:
    attributes = node.attributes
    if node.tag in _HIDDEN or _NOT_SHOWN.search(attributes.get("style") or ""):
        return False
    # A browser's search finds text that is hidden "until-found".
    return bool(attributes.get("hidden", "until-found") == "until-found")


def _begin(node: Any, page: _Page) -> None:
    name, attributes = node.tag, node.attributes
    if name == "br":
        page.line_break()
    elif name == "table":
        page.table(begins=True)
    elif name == "tr":
        page.row(header=node.parent.tag == "thead" or not node.css_matches(":has(> td)"))
    elif name in ("thead", "tbody", "tfoot"):
        page.rows()
    elif name in ("td", "th"):
        page.cell(
            _span(attributes.get("colspan"), _MOST_COLUMNS) or 1,
            _span(attributes.get("rowspan"), _MOST_ROWS) or _MOST_ROWS,  # 0: to the last row
        )
    elif name in _PARAGRAPHS:
        page.paragraph()
        if name in _HEADINGS:
            page.heading(int(name[1]))
    elif name in _LINES:
        page.line()
    elif name in _BOXES:
        page.space()
    if name == "optgroup" and attributes.get("label"):
        page.words(attributes["label"])
        page.line()
    if name == "input" and attributes.get("type") in ("submit", "button", "reset"):
        page.words(attributes.get("value") or "")
        page.space()


def _span(given: str | None, most: int) -> int:
    """The rows or columns of a cell."""
    found = _SPAN.match(given or "")
    return 1 if found is None else min(int(found[1]), most)


def _math(part: Any, page: _Page, signs: str) -> None:
    """Write the sign before a part of a fraction, power or index, and a bracket around several."""
    before, position = part.prev, 0
    while before is not None and position <= len(signs):
        position += before.is_element_node
        before = before.prev
    if 0 < position <= len(signs):
        page.words(signs[position - 1])
    if _is_several(part):
        page.words("(")


def _is_several(node: Any) -> bool:
    is_part = node.tag == "mrow" and node.parent is not None and node.parent.tag in _SIGNS
    return is_part and len(list(islice(node.iter(), 2))) > 1


def _end(node: Any, page: _Page) -> None:
    name = node.tag
    if name == "mrow" and _is_several(node):
        page.words(")")
    elif name == "ruby":
        page.ruby_ends()
    elif name == "table":
        page.table(begins=False)
    elif name in _PARAGRAPHS:
        if name in _HEADINGS:
            page.heading(0)
        page.paragraph()
    elif name in _LINES:
        page.line()
    elif name in _BOXES:
        page.space()
