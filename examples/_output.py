"""The demo's output: plain text and one kind of table, readable without colour."""

import shlex
import sys
from argparse import Namespace
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from qwen3_core.settings import DEFAULT_EMBEDDING_MODEL, DEFAULT_RERANKER_MODEL, TINY
from qwen3_retrieval.comparison import Move, show
from qwen3_retrieval.documents.cutting import title_of

WIDTH = 80


@dataclass(frozen=True)
class Hit:
    """A retrieved passage with its score."""

    id: str
    source: str
    text: str
    score: float
    metadata: Mapping[str, Any]

    @property
    def title(self) -> str:
        """Its headings, or its first line with words."""
        return self.metadata.get("title") or title_of(self.text)


def _console() -> Console:
    if hasattr(sys.stdout, "reconfigure"):  # a terminal without UTF-8 shows "?", not a traceback
        sys.stdout.reconfigure(errors="replace")
    console = Console(highlight=False, markup=False, emoji=False)
    console.width = min(console.width, 100) if console.is_terminal else WIDTH
    return console


console = _console()


def say(text: str = "", style: str | None = None) -> None:
    """Print a paragraph, wrapped at words."""
    console.print(text, style=style)


def busy(what: str) -> AbstractContextManager[object]:
    """Show a status on a terminal until the block ends."""
    return console.status(f"{what} ...") if console.is_terminal else nullcontext()


def show_question(question: str, remark: str = "") -> None:
    """Print the question, and a remark on it."""
    say()
    say(question, "bold")
    if remark:
        say(remark, "dim")


def show_comparison(
    dense: Sequence[Hit], reranked: Sequence[Hit], top_n: int, answer: str | None = None
) -> None:
    """Print the best of the first stage beside the best of the second.

    Args:
        dense: All candidates in the order of the first stage.
        reranked: The same in the order of the second stage.
        top_n: Rows to show.
        answer: Title of the passage that is known to answer, to be marked.
    """
    places = {hit.id: (before, hit) for before, hit in enumerate(dense, start=1)}
    moves = []
    for after, hit in enumerate(reranked, start=1):
        before, found = places[hit.id]
        marked = hit.title == answer
        moves.append(Move(hit, before, after, found.score, hit.score, relevant=marked))
    show(moves, top_n, console)


def explain_scores() -> None:
    """Explain the scores of a comparison."""
    say()
    say("Scores: on the left the cosine of the vectors of question and passage; on the right the "
        "probability, by the reranker, that the passage answers the question.", "dim")  # fmt: skip


def show_tally(
    answers: Mapping[str, str], results: Mapping[str, tuple[list[Hit], list[Hit]]]
) -> None:
    """Print how often each stage put the passage that answers among the first 1, 3 and all.

    Args:
        answers: Question -> title of the passage that answers it.
        results: Question -> candidates in the order of each stage.
    """
    k = max(len(dense) for dense, _ in results.values())
    limits = sorted({1, min(3, k), k})
    say()
    say(
        f"{len(results)} questions, worded differently from the corpus. How often the right "
        "passage (* below) comes"
    )
    table = Table(box=None, padding=(0, 2, 0, 2), show_edge=False)
    table.add_column("")
    for limit in limits:
        table.add_column("first" if limit == 1 else f"in top {limit}", justify="right")
    for i, stage in enumerate(("dense search", "then reranked")):
        titles = [(answers[q], [hit.title for hit in stages[i]]) for q, stages in results.items()]
        counts = [sum(answer in found[:limit] for answer, found in titles) for limit in limits]
        table.add_row(stage, *map(str, counts))
    console.print(table)


def show_answer(
    framework: str, answer: str | None, hits: Sequence[Hit], cited: Sequence[int]
) -> None:
    """Print an LLM's answer and what it read, or, without an LLM, what it would have read."""
    if answer is None:
        say(f"{framework} would send the LLM these passages (OPENAI_API_KEY is not set):", "bold")
    else:
        say(f"{framework} answers from {len(hits)} passages:", "bold")
        say(answer.strip())
    for number, hit in enumerate(hits, start=1):
        note = "" if answer is None else " cited" if number in cited else " not cited"
        line = Text(f"  [{number}] ").append(hit.title, "cyan")
        console.print(line.append(f" ({hit.source})", "dim").append(note))


def show_next_steps(options: Namespace) -> None:
    """Print the limits of the bundled models, and how to use the published ones."""
    if TINY not in (options.model, options.reranker):
        return
    say()
    say(
        "tiny is a toy. It shows that everything runs, not how well the real models search; for "
        "those (1.2 GB each, downloaded once) run"
    )
    given = [part.replace(options.token or "\0", "...") for part in sys.argv]  # no key is shown
    command = shlex.join([_short(sys.executable), *given])
    models = f"--model {DEFAULT_EMBEDDING_MODEL} --reranker {DEFAULT_RERANKER_MODEL}"
    # One line each, so that they can be copied from a narrow terminal.
    for line in (f"  {command} \\", f"    {models}"):
        console.print(line, style="bold", soft_wrap=True)


def _short(path: str) -> str:
    """A path relative to the working directory, if it is in there."""
    given = Path(path)
    if given.is_absolute() and given.is_relative_to(Path.cwd()):
        return str(given.relative_to(Path.cwd()))
    return path
