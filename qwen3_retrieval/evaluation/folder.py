"""A folder of documents: the passages that an ingest stores, and questions from their headings."""

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from qwen3_core.metadata import metadata_header
from qwen3_retrieval.documents.corpus import SourceFile, find_corpus, why_skipped
from qwen3_retrieval.documents.cutting import Cutter, Piece
from qwen3_retrieval.documents.reading import read_sections
from qwen3_retrieval.documents.text import Note, UnreadableError
from qwen3_retrieval.evaluation.dataset import Dataset, DatasetError, Passage, Question

MIN_ANSWER: Final = 80
"""The least characters of a section whose heading becomes a question."""


@dataclass
class Part:
    """The text between a heading and the next one of any level."""

    id: str
    source: str
    headings: tuple[str, ...]
    """Headings from the outermost to its own; empty before the first heading."""
    length: int = 0
    """Number of characters below its headings."""
    units: set[str] = field(default_factory=set)
    """Units of its passages; a text that also occurs in another part may have that part's unit."""

    @property
    def answers(self) -> set[str]:
        """The units with its text: itself, unless all of its text also occurs elsewhere."""
        return {self.id} if self.id in self.units else self.units


@dataclass
class Folder:
    """The contents of a folder."""

    parts: list[Part]
    passages: list[Passage]
    """The passages as an ingest stores them, without duplicate texts."""
    bodies: list[str]
    """The passages without the headings at their beginning."""
    notes: list[str]
    """Omitted files and parts, each with the reason."""


def read_folder(
    path: Path,
    cutter: Cutter,
    leave_out: Sequence[Path] = (),
    metadata_keys: Sequence[str] = (),
) -> Folder:
    """The passages of all files of a folder.

    Args:
        path: Folder or file.
        cutter: Cuts the files.
        leave_out: Files to omit, such as the questions themselves.
        metadata_keys: Metadata that the models read before each passage.

    Raises:
        OSError: If there is no such folder or file.
        ValueError: If it contains nothing to read.
    """
    corpus = find_corpus(path)
    folder = Folder([], [], [], list(corpus.unreadable))
    folder.notes += [f"{each}: {why_skipped(each.suffix)}" for each in corpus.skipped]
    stored: dict[tuple[str, str], Passage] = {}
    away = {each.resolve() for each in leave_out}
    for file in corpus.files:
        if file.path.resolve() in away:
            continue
        try:
            for part, piece in _pieces(file, cutter, folder):
                own = {"source": file.source, "corpus": corpus.name}
                try:
                    header = metadata_header(
                        {**piece.metadata, **piece.place, **own}, metadata_keys
                    )
                except ValueError as error:  # left out and named, as in an ingest
                    folder.notes.append(f"{file.source}: {error}")
                    continue
                passage = stored.get((header, piece.text))
                if passage is None:
                    title = piece.headings[-1] if piece.headings else piece.place.get("title", "")
                    key = digest(*([header] if header else []), piece.text)
                    passage = Passage(key, piece.text, part.id, file.source, title, header)
                    stored[header, piece.text] = passage
                    folder.passages.append(passage)
                    folder.bodies.append(piece.text[piece.body :].strip())
                part.units.add(passage.unit)
                part.length += len(piece.text) - piece.body
        except UnreadableError as error:
            folder.notes.append(f"{file.source}: {error}")
    return folder


def _pieces(file: SourceFile, cutter: Cutter, folder: Folder) -> Iterator[tuple[Part, Piece]]:
    report: Note = lambda reason, detail: folder.notes.append(  # noqa: E731
        f"{file.source}: {reason} ({detail})"
    )
    for number, section in enumerate(read_sections(file, hashlib.sha256(), report)):
        part = None
        for piece in cutter.cut(section):
            key = digest(file.source, str(number), str(piece.part))
            if part is None or part.id != key:
                part = Part(key, file.source, piece.headings)
                folder.parts.append(part)
            yield part, piece


def read_headings(
    path: Path,
    cutter: Cutter,
    leave_out: Sequence[Path] = (),
    metadata_keys: Sequence[str] = (),
) -> Dataset:
    """Passages of a folder, and a question from each heading with an answer below it.

    The passages lack their headings, so that finding them by the heading is not mere string
    matching.

    Raises:
        OSError: If there is no such folder or file.
        DatasetError: If there is nothing to read, or no heading with text below it; or if the
            models are to read titles, which are the questions.
    """
    if "title" in metadata_keys:
        msg = (
            "the questions are made of the headings, which are the titles: to measure what "
            "metadata_keys='title' changes, bring a CSV of questions, or --llm to make some"
        )
        raise DatasetError(msg)
    folder = read_folder(path, cutter, leave_out, metadata_keys)
    questions = list(heading_questions(folder.parts))
    if not questions:
        msg = (
            f"no heading in {str(path)!r} has {MIN_ANSWER} characters of text under it, so no "
            "question can be made from it: bring a CSV of questions, or --llm to make some"
        )
        raise DatasetError(msg)
    pairs = zip(folder.passages, folder.bodies, strict=True)
    passages = [replace(passage, text=body) for passage, body in pairs]
    name, notes = path.resolve().name, folder.notes
    return Dataset(name, "markdown", passages, questions, synthetic="headings", notes=notes)


def heading_questions(parts: list[Part]) -> Iterator[Question]:
    """A question for each part with a unique heading, including headings above it if necessary.

    "Overview" occurs in every file: such a heading gets the ones above it until it is unique.
    """
    named = [part for part in parts if part.headings]
    depth = max((len(part.headings) for part in named), default=0)
    for length in range(1, depth + 1):
        counts = Counter(_wording(part, length) for part in named)
        unique: list[Part] = []
        rest: list[Part] = []
        for part in named:
            wording = _wording(part, length)
            # A single word says too little if there are further headings.
            clear = counts[wording] == 1 and (
                " " in wording or not wording.isascii() or length >= len(part.headings)
            )
            (unique if clear else rest).append(part)
        for part in unique:
            if part.length >= MIN_ANSWER:
                yield Question(part.id, _wording(part, length), dict.fromkeys(part.answers, 1))
        named = rest


def _wording(part: Part, length: int) -> str:
    """Its heading, after those above it: "Install Milvus: Prerequisites"."""
    return ": ".join(dict.fromkeys(part.headings[-length:]))


def digest(*parts: str) -> str:
    """An id of one text, or of several together: 16 hexadecimal digits."""
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]
