"""Passages, questions, and which passages answer which question."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

from qwen3_core.metadata import with_header

DatasetKind = Literal["beir", "table", "markdown", "python"]

MAX_MISSING: Final = 0.05
"""Share of judgements that may refer to items missing from the corpus; more is an error."""


class DatasetError(ValueError):
    """The data are invalid; the message names file and line if possible."""


@dataclass(frozen=True, slots=True)
class Passage:
    """A text that can be found."""

    id: str
    text: str
    unit: str
    """The judged item: the passage itself (then equal to `id`), or the section or file that
    contains it. A unit's rank is that of its first passage."""
    source: str = ""
    """The passage's file, if there is one."""
    title: str = ""
    header: str = ""
    """Metadata that the models read before the text (`qwen3_core.metadata`)."""

    @property
    def model_text(self) -> str:
        """What the models read; full-text search has the text alone, as in Milvus."""
        return with_header(self.header, self.text)


@dataclass(frozen=True, slots=True)
class Question:
    """A question and the units that answer it."""

    id: str
    text: str
    relevant: Mapping[str, int]
    """Unit -> grade, 1 or more."""


@dataclass(frozen=True)
class Dataset:
    """Passages and questions to measure systems on."""

    name: str
    kind: DatasetKind
    passages: list[Passage]
    questions: list[Question]
    synthetic: str = ""
    """Origin of synthetic questions: "headings", or "LLM" and its name; "" for real questions."""
    notes: list[str] = field(default_factory=list)
    """Omitted items, each with its reason."""

    def __post_init__(self) -> None:
        """Check that the dataset is consistent.

        Raises:
            DatasetError: If there are no passages or questions, ids occur twice, a question is
                blank or has no answer, or it names a unit without passages.
        """
        if not self.passages:
            raise DatasetError(f"{self.name}: there are no passages")  # noqa: EM102
        _unique([p.id for p in self.passages], f"{self.name}: passage")
        _unique([q.id for q in self.questions], f"{self.name}: question")
        units = {passage.unit for passage in self.passages}
        for question in self.questions:
            problem = _problem(question, units)
            if problem:
                msg = f"{self.name}: question {question.id!r} {problem}"
                raise DatasetError(msg)
        if not self.questions:
            msg = f"{self.name}: there are no questions with an answer among the passages"
            raise DatasetError(msg)

    @property
    def units(self) -> int:
        """The number of units."""
        return len({passage.unit for passage in self.passages})


def check_missing(missing: list[str], total: int, where: Path) -> list[str]:
    """Notes on judgements that refer to missing items.

    Args:
        missing: One text per judgement, with its place.
        total: Number of all judgements.
        where: The file.

    Raises:
        DatasetError: If there are more than `MAX_MISSING` of them.
    """
    if not missing:
        return []
    text = f"{where}: {len(missing)} of {total} judgements name what is not there"
    if len(missing) > MAX_MISSING * total:
        msg = f"{text}, more than {MAX_MISSING:.0%}; first: {missing[0]}"
        raise DatasetError(msg)
    return [f"{text}; first: {missing[0]}"]


def squeeze(text: str) -> str:
    """A text with single spaces in place of all white space, for comparisons."""
    return " ".join(text.split())


def _unique(ids: Iterable[str], what: str) -> None:
    seen = set()
    for each in ids:
        if each in seen:
            msg = f"{what} id {each!r} occurs twice"
            raise DatasetError(msg)
        seen.add(each)


def _problem(question: Question, units: set[str]) -> str:
    if not question.text.strip():
        return "is blank"
    if not question.relevant:
        return "has no answer: name at least one unit as relevant"
    unknown = next((unit for unit in question.relevant if unit not in units), None)
    if unknown is not None:
        return f"names {unknown!r}, which no passage belongs to"
    low = next((grade for grade in question.relevant.values() if grade < 1), None)
    return f"has the grade {low}: relevant is 1 or more" if low is not None else ""
