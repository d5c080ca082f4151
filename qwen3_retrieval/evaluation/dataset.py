"""Passages, questions, and which passages answer which question."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

Kind = Literal["beir", "table", "markdown", "python"]

MAX_MISSING: Final = 0.05
"""Share of judgements that may name what is not in the corpus; more of them is an error."""


class DatasetError(ValueError):
    """The data cannot be used as they are; the message names file and line where it can."""


@dataclass(frozen=True, slots=True)
class Passage:
    """A text that can be found."""

    id: str
    text: str
    unit: str
    """What is judged: the passage itself (then equal to `id`), or the section or file that it is a
    piece of. A unit is found where its first passage is found."""
    source: str = ""
    """File that it comes from, where there is one."""
    title: str = ""


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked, and what answers it."""

    id: str
    text: str
    relevant: Mapping[str, int]
    """Unit -> grade, 1 or more."""


@dataclass(frozen=True)
class Dataset:
    """What systems are measured on."""

    name: str
    kind: Kind
    passages: list[Passage]
    questions: list[Question]
    synthetic: str = ""
    """How questions were made that no person asked: "headings", or "LLM" and its name; else ""."""
    notes: list[str] = field(default_factory=list)
    """What was left out, each with its reason."""

    def __post_init__(self) -> None:
        """Check that it hangs together.

        Raises:
            DatasetError: If there are no passages or questions, ids occur twice, a question is
                blank or nothing answers it, or it names a unit that no passage belongs to.
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
        """How many units there are to be found."""
        return len({passage.unit for passage in self.passages})


def check_missing(missing: list[str], total: int, where: Path) -> list[str]:
    """What to note of judgements that name what is not there.

    Args:
        missing: One text for each of them, with its place.
        total: All judgements.
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
