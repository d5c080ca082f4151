"""A folder of Markdown: its sections as passages, and questions made from their headings."""

import hashlib
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from qwen3_retrieval.evaluation.dataset import Dataset, DatasetError, Passage, Question
from qwen3_retrieval.ingest.chunks import split_to_fit
from qwen3_retrieval.ingest.corpus import find_corpus
from qwen3_retrieval.ingest.reading import UnreadableError, read_sections

MAX_PIECE: Final = 2000
"""Bytes of one passage, about 500 tokens of English; a longer section becomes several."""

MIN_ANSWER: Final = 80
"""Characters that a section has at least for its heading to become a question."""

_HEADING = re.compile(r"(#{1,6})[ \t]+(.+?)[ \t]*#*[ \t]*$")
_FENCE = re.compile(r" {0,3}(`{3,}|~{3,})")
_FRONT_MATTER = re.compile(r"\A---\n.*?\n(---|\.\.\.)\n", re.DOTALL)


@dataclass(frozen=True)
class Section:
    """The text between a heading and the next one of any level."""

    source: str
    headings: tuple[str, ...]
    """From the page's title to its own; empty before the first one."""
    text: str
    """Without its heading, so that finding it by the heading is no comparison of strings."""

    @property
    def id(self) -> str:
        """Follows from place and text."""
        parts = "\0".join((self.source, *self.headings, self.text))
        return hashlib.sha256(parts.encode()).hexdigest()[:16]


def read_folder(path: Path) -> tuple[list[Section], list[Passage], list[str]]:
    """Sections of all Markdown and text files, their passages, and what was left out.

    Raises:
        OSError: If there is no such folder or file.
        ValueError: If there is nothing to read in it.
    """
    corpus = find_corpus(path)
    files = [file for file in corpus.files if file.kind in ("markdown", "text")]
    if not files:
        msg = f"there is no Markdown or text file in {str(path)!r}"
        raise DatasetError(msg)
    notes = list(corpus.unreadable)
    sections: dict[str, Section] = {}
    for file in files:
        try:
            for whole in read_sections(file, hashlib.sha256(), "text", notes.append):
                for section in _sections(whole.text, file.source, whole.markdown):
                    sections.setdefault(section.id, section)
        except UnreadableError as error:
            notes.append(f"{file.source}: {error}")
    passages = []
    for key, section in sections.items():
        title = section.headings[-1] if section.headings else ""
        for number, piece in enumerate(split_to_fit(section.text, MAX_PIECE)):
            name = f"{key}-{number}"
            passages.append(Passage(name, piece.strip(), key, section.source, title))
    return list(sections.values()), passages, notes


def read_markdown(path: Path) -> Dataset:
    """Passages of a folder, and a question from each heading with an answer under it.

    Raises:
        OSError: If there is no such folder or file.
        DatasetError: If there is nothing to read, or no heading with a text under it.
    """
    sections, passages, notes = read_folder(path)
    questions = list(heading_questions(sections))
    if not questions:
        msg = (
            f"no heading in {str(path)!r} has {MIN_ANSWER} characters of text under it, so no "
            "question can be made from it: bring a CSV of questions, or --llm to make some"
        )
        raise DatasetError(msg)
    return Dataset(
        path.resolve().name, "markdown", passages, questions, synthetic="headings", notes=notes
    )


def heading_questions(sections: list[Section]) -> Iterator[Question]:
    """A question for each section whose heading, with those above it if need be, is its own.

    "Overview" stands in every file: such a heading gets the ones above it until it is unique.
    """
    named = [s for s in sections if s.headings]
    depth = max((len(s.headings) for s in named), default=0)
    for length in range(1, depth + 1):
        counts = Counter(_wording(s, length) for s in named)
        unique: list[Section] = []
        rest: list[Section] = []
        for section in named:
            wording = _wording(section, length)
            # A single word says too little, where there is more to say.
            clear = counts[wording] == 1 and (
                " " in wording or not wording.isascii() or length >= len(section.headings)
            )
            (unique if clear else rest).append(section)
        for section in unique:
            if len(section.text) >= MIN_ANSWER:
                yield Question(section.id, _wording(section, length), {section.id: 1})
        named = rest


def _wording(section: Section, length: int) -> str:
    """Its heading, behind those above it: "Install Milvus: Prerequisites"."""
    own = section.headings[-length:]
    return ": ".join(dict.fromkeys(own))


def _sections(text: str, source: str, markdown: bool) -> Iterator[Section]:
    if not markdown:
        if text.strip():
            yield Section(source, (), text.strip())
        return
    headings: list[tuple[int, str]] = []
    lines: list[str] = []
    fence = ""
    for line in _FRONT_MATTER.sub("", text).split("\n"):
        mark = _FENCE.match(line)
        if mark and not fence:
            fence = mark[1]
        elif mark and mark[1].startswith(fence) and line.strip() == mark[1]:
            fence = ""
        found = None if fence else _HEADING.match(line)
        if found is None:
            lines.append(line)
            continue
        yield from _section(source, headings, lines)
        level = len(found[1])
        headings = [h for h in headings if h[0] < level]
        headings.append((level, _plain(found[2])))
        lines = []
    yield from _section(source, headings, lines)


def _section(source: str, headings: list[tuple[int, str]], lines: list[str]) -> Iterator[Section]:
    text = "\n".join(lines).strip()
    if text:
        yield Section(source, tuple(name for _, name in headings if name), text)


def _plain(heading: str) -> str:
    """A heading's words, without anchors, links, and marks of code and emphasis."""
    heading = re.sub(r"\{#[^}]*\}\s*$|<[^>]+>", "", heading)
    heading = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", heading)
    return re.sub(r"[`*]+", "", heading).strip()
