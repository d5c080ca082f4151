"""Cuts sections into passages: at headings, then blocks, rows and lines, sentences, words.

A passage is an exact slice of its section's text, without blank lines at its ends. A passage that
begins within a table also begins with the table's header.
"""

import re
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any, Final, Literal

import regex

from qwen3_core.common.validation import ArgumentError
from qwen3_core.milvus.collection import MAX_TEXT_BYTES
from qwen3_core.model.loading import load_tokenizer
from qwen3_core.settings import DEFAULT_EMBEDDING_MODEL, TINY
from qwen3_core.tokenizer import Qwen3Tokenizer
from qwen3_retrieval.documents.text import Block, Section

CHUNK_SIZE: Final = 512
"""The most tokens of a passage."""

CHUNK_OVERLAP: Final = 64
"""The most tokens that a passage repeats from the previous one, in whole sentences or lines."""

MAX_TITLE: Final = 200
"""The most characters of a title; longer ones are shortened."""

CUTTING: Final = "cutting 1"
"""Version of the cutting; after a change, the next ingest reads all files again."""

Splitter = Literal["structure", "headers", "framework", "none"]

SplitText = Callable[[str], list[str]]

LoadTokenizer = Callable[[], Qwen3Tokenizer]


@dataclass(frozen=True, slots=True)
class Piece:
    """A passage as cut at one place; `ingest` stores pieces with equal texts as one `Chunk`."""

    text: str
    place: dict[str, Any]
    """Its place in the file: keys of `PLACE`; the title is the path of its headings."""
    metadata: dict[str, Any]
    """Fields from its file."""
    body: int = 0
    """End of its headings in `text`."""
    headings: tuple[str, ...] = ()
    """The headings above it, outermost first."""
    part: int = 0
    """Number, within the section, of the text below one heading; all its pieces share it."""


@dataclass(frozen=True, slots=True)
class FrameworkSplitters:
    """The splitters of LangChain or LlamaIndex."""

    at_headings: Callable[[str], list[tuple[str, list[str]]]]
    """Splits a Markdown text into parts, each with its headings: outermost first, own last."""
    to_size: SplitText
    """Splits a text into pieces."""


_Part = tuple[int, Sequence[str], Iterable[tuple[str, int]]]
"""A number, headings, and texts, each with the length of the headings at its beginning."""


@dataclass(frozen=True, slots=True)
class Cutter:
    """Cuts sections into passages."""

    tokenizer: LoadTokenizer
    """Loads the embedding model's tokenizer; called when there is something to cut."""
    splitter: Splitter = "structure"
    chunk_size: int = CHUNK_SIZE
    chunk_overlap: int = CHUNK_OVERLAP
    framework: FrameworkSplitters | None = None
    """For the splitter "framework"."""

    def __post_init__(self) -> None:
        """Check the sizes.

        Raises:
            ValueError: If a size is out of range.
        """
        check_sizes(self.chunk_size, self.chunk_overlap)

    def cut(self, section: Section) -> Iterator[Piece]:
        """The passages of a section, in order; never blank, and never headings alone."""
        own = section.place.get("title", "")
        for number, headings, texts in self._parts(section):
            title = heading_path(headings) or str(own)
            place = {key: value for key, value in section.place.items() if key != "title"}
            if title:
                place["title"] = title[:MAX_TITLE]
            for text, body in texts:
                for part in split_to_fit(text):
                    end = min(body, len(part))
                    named = tuple(filter(None, headings))
                    yield Piece(part, place, section.metadata, end, named, number)
                    body = 0

    def _parts(self, section: Section) -> Iterator[_Part]:
        text = section.text
        if self.splitter == "headers" and section.markdown:
            for number, part in enumerate(split_at_headings(section.matter + text)):
                yield number, [part.strip().partition("\n")[0].strip(" \t#")], [(part, 0)]
        elif all(block.level for block in section.blocks) or not text.strip():
            return
        elif self.splitter == "none":
            yield 0, [], [(text, 0)]
        elif self.splitter == "framework":
            assert self.framework is not None  # noqa: S101 - for the type checker
            parts = self.framework.at_headings(text) if section.markdown else [(text, [])]
            for number, (part, headings) in enumerate(parts):
                yield number, headings, ((piece, 0) for piece in self.framework.to_size(part))
        else:
            for number, group in enumerate(_groups(section)):
                texts = self._by_structure(text, group)
                if self.splitter == "headers":
                    texts = iter([(text[group.start : group.end], group.body - group.start)])
                yield number, group.headings, texts

    def _by_structure(self, text: str, group: "_Group") -> Iterator[tuple[str, int]]:
        spans = _Spans(text, group, self.tokenizer(), self.chunk_size, self.chunk_overlap)
        for start, piece in spans:
            yield piece, max(0, group.body - start)


def check_sizes(chunk_size: int, chunk_overlap: int) -> None:
    """Check the passages' sizes.

    Raises:
        ValueError: If a size is out of range.
    """
    if chunk_size < 1:
        msg = f"chunk_size must be at least 1, got {chunk_size}"
        raise ArgumentError(msg, "chunk_size")
    if not 0 <= chunk_overlap < chunk_size:
        msg = (
            f"chunk_overlap must be from 0 to chunk_size - 1 = {chunk_size - 1}, "
            f"got {chunk_overlap}"
        )
        raise ArgumentError(msg, "chunk_overlap")


def tokenizer_of(model: str, base_url: str | None = None) -> LoadTokenizer:
    """A function that loads a model's tokenizer at first use. All published sizes share one.

    Args:
        model: Hub name, folder, or "tiny"; with `base_url` it may be the server's alias.
        base_url: Address of the server that runs the model.
    """
    own = base_url is None or model == TINY or "/" in model or Path(model).is_dir()
    name = model if own else DEFAULT_EMBEDDING_MODEL
    return cache(lambda: load_tokenizer(name, "embedding"))


@dataclass(frozen=True, slots=True)
class _Group:
    """Headings and the text below them, up to the next heading."""

    blocks: list[Block]
    end: int
    headings: list[str]
    body: int
    """End of its headings."""

    @property
    def start(self) -> int:
        return self.blocks[0].start


def _groups(section: Section) -> Iterator[_Group]:
    """The parts of a section between headings.

    A heading without text below it belongs to the next part; at the end, to the last one.
    """
    ends = [block.start for block in section.blocks[1:]] + [len(section.text)]
    path: list[tuple[int, str]] = []
    found: list[_Group] = []
    blocks: list[Block] = []  # of the current part
    for block, end in zip(section.blocks, ends, strict=True):
        has_words = bool(found) and found[-1].blocks is blocks
        if block.level:
            if has_words:
                blocks = []
            path = [each for each in path if each[0] < block.level] + [(block.level, block.heading)]
        blocks.append(block)
        if block.level:
            continue
        if has_words:
            found[-1] = replace(found[-1], end=end)
        elif section.text[block.start : end].strip():
            found.append(_Group(blocks, end, [heading for _, heading in path], block.start))
    if found and found[-1].blocks is not blocks:
        last = found[-1]
        found[-1] = replace(last, blocks=[*last.blocks, *blocks], end=len(section.text))
    yield from found


_SENTENCE: Final = regex.compile(
    r"\p{SB=ST}+[\p{SB=CL}\p{SB=EX}]*\s*|\p{SB=AT}+\p{SB=CL}*\s+|\n[ \t]*\n\s*"
)
"""The end of a sentence in any script (Unicode's Sentence_Break), with the white space after it."""
_LINE: Final = regex.compile(r"\n")
_WORD: Final = regex.compile(r"[^\S\u00a0\u202f\u2007]+|[，、；：,;]+[\p{SB=CL}]*")
"""The end of a word: white space, except no-break spaces; or a mark within a sentence."""
_GRAPHEME: Final = regex.compile(r"\X")
_BLANK_LINES: Final = re.compile(r"(?:[ \t]*\n)*")


class _Spans:
    """Cuts a group into pieces; iteration yields each piece's start and text."""

    def __init__(
        self, text: str, group: _Group, tokenizer: Qwen3Tokenizer, size: int, overlap: int
    ) -> None:
        self._text = text
        self._group = group
        self._tokenizer = tokenizer
        self._size = size
        self._overlap = overlap
        # A heading is not separated from the text after it.
        self._blocks = [
            block.start
            for before, block in pairwise(group.blocks)
            if not before.level and not block.level
        ]
        self._lines = sorted(cut for block in group.blocks for cut in block.cuts)
        self._starts = [block.start for block in group.blocks]

    def __iter__(self) -> Iterator[tuple[int, str]]:
        done = start = self._group.start
        while done < self._group.end:
            head = self._head(start)
            end = self._end(start, head)
            if end <= done:  # the overlap leaves no room for new text
                start, head = done, self._head(done)
                end = self._end(start, head)
            start += self._blank(start, end)
            piece = self._text[start:end].rstrip(" \t\n")
            if piece.strip():
                yield start, head + piece
            done = end
            start = self._overlapping(start, end)

    def _blank(self, start: int, end: int) -> int:
        """The length of the blank lines at a span's beginning."""
        found = _BLANK_LINES.match(self._text, start, end)
        return found.end() - start if found else 0

    def _head(self, start: int) -> str:
        """The header of the table in which a piece begins, if it begins after the header."""
        table = self._table(start)
        if table is None or start < table[1]:
            return ""
        head = self._text[slice(*table[:2])].rstrip("\n") + "\n"
        return head if 2 * self._tokens(head) <= self._size else ""

    def _table(self, position: int) -> tuple[int, int, int] | None:
        """The table at a position, as in `Block.heads`."""
        block = self._group.blocks[bisect_right(self._starts, position) - 1]
        return next((table for table in block.heads if table[0] <= position < table[2]), None)

    def _tokens(self, text: str) -> int:
        return len(self._tokenizer.encode(text))

    def _end(self, start: int, head: str) -> int:
        """The end of a piece that begins at `start`."""
        stop = self._group.end
        limit = self._limit(start, self._size - self._tokens(head) if head else self._size)
        while limit < stop or head:
            end = stop if limit >= stop else self._best_cut(start, limit)
            if end > limit or limit <= start + 1:
                return end  # a single grapheme with more tokens than the limit
            # The parts together may have other tokens than separately.
            piece = self._text[start:end].rstrip(" \t\n")
            if self._tokens(head + piece) <= self._size:
                return end
            limit = end - 1
        return stop

    def _limit(self, start: int, size: int) -> int:
        """The end of a piece of `size` tokens."""
        width = 8 * size
        while True:
            window = self._text[start : min(start + width, self._group.end)]
            part = self._tokenizer.cut_text(window.rstrip(" \t\n"), size)
            if len(part) < len(window.rstrip(" \t\n")):
                return max(start + 1, start + len(part))
            if start + width >= self._group.end:
                return self._group.end
            width *= 2

    def _best_cut(self, start: int, limit: int) -> int:
        """The last good cut up to `limit`, preferably one that leaves a piece of some size."""
        low = start + (limit - start) // 4
        for places in (self._blocks, self._lines):
            at = bisect_right(places, limit) - 1
            if at >= 0 and places[at] > low:
                return places[at]
        for pattern in (_SENTENCE, _LINE, _WORD):
            ends = _ends(pattern, self._text, start, limit)
            if ends and ends[-1] > low:
                return ends[-1]
        ends = _ends(_GRAPHEME, self._text, start, min(limit + 64, self._group.end))
        fitting = [end for end in ends if end <= limit]
        return fitting[-1] if fitting else ends[0]

    def _overlapping(self, start: int, end: int) -> int:
        """The start of the next piece: before `end` by the overlap."""
        if not self._overlap or end >= self._group.end or self._table(end) is not None:
            return end
        low = max(start, self._starts[bisect_right(self._starts, start) - 1]) + 1
        text = self._text
        places: set[int] = set()
        for known in (self._blocks, self._lines):
            places.update(known[bisect_left(known, low) : bisect_left(known, end)])
        places |= {place for place in _ends(_SENTENCE, text, start, end) if place < end}
        best = end
        for place in sorted(places, reverse=True):
            if self._tokens(text[place:end].rstrip(" \t\n")) > self._overlap:
                break
            best = place
        return best


def _ends(pattern: regex.Pattern[str], text: str, start: int, end: int) -> list[int]:
    """The ends of all matches within a part of a text."""
    return [found.end() for found in pattern.finditer(text, start, end)]


def heading_path(headings: Sequence[str]) -> str:
    """Headings as shown in a citation, "Install > Docker"; long paths lose their beginning."""
    named = [name for heading in headings if (name := heading.strip())]
    while len(named) > 1 and len(" > ".join(named)) > MAX_TITLE:
        del named[0]
    return " > ".join(named)


def split_to_fit(text: str, limit: int = MAX_TEXT_BYTES) -> Iterator[str]:
    """Split a text into parts of at most `limit` bytes of UTF-8; blank parts are omitted.

    It is cut at white space if there is some in the second half of a part.
    """
    data = text.encode()
    while len(data) > limit:
        part = data[:limit].decode(errors="ignore")  # a split character goes to the next part
        spaces = list(re.finditer(r"\s", part[len(part) // 2 :]))
        if spaces:
            part = part[: len(part) // 2 + spaces[-1].end()]
        if part.strip():
            yield part
        data = data[len(part.encode()) :]
    rest = data.decode()
    if rest.strip():
        yield rest


def split_at_headings(text: str) -> list[str]:
    """Cut at every "# ", exactly as in the Milvus tutorial."""
    return text.split("# ")


def title_of(text: str) -> str:
    """The first line with words, without heading or list marks."""
    lines = (line.strip(" \t#*-") for line in text.splitlines())
    return next((line for line in lines if line), "(no words)")
