"""The examples' output: plain text and one kind of table, readable without colour."""

import shlex
import sys
import textwrap
from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path

from _corpus import IndexPlan
from _shared import Settings
from rich.console import Console
from rich.table import Table
from rich.text import Text

from qwen3_core.settings import DEFAULT_EMBEDDING_MODEL, DEFAULT_RERANKER_MODEL, TINY
from qwen3_retrieval.ingest.chunks import Chunk

WIDTH = 80


@dataclass(frozen=True)
class Hit:
    """A retrieved passage with its score."""

    id: str
    title: str
    source: str
    text: str
    score: float


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


def fact(name: str, value: str) -> None:
    """Print a named value."""
    grid = Table.grid(padding=(0, 1))
    grid.add_column(width=11)
    grid.add_column()
    grid.add_row(Text(name, style="dim"), value)
    console.print(grid)


def show_settings(settings: Settings, passages: Sequence[Chunk]) -> None:
    """Print the corpus and the models."""
    files = {passage.metadata["source"] for passage in passages}
    place = _short(settings.corpus)
    fact("corpus", f"{_count(passages, 'passage')} from {_count(files, 'file')} in {place}")
    if settings.model == settings.reranker == TINY:
        fact("models", "tiny (a bundled toy pair that needs no download)")
    else:
        fact("models", f"{_short(settings.model)} and {_short(settings.reranker)}")
    if settings.base_url:
        fact("servers", " and ".join(settings.base_url))


def show_indexing(
    framework: str, plan: IndexPlan, passages: Sequence[Chunk], seconds: float
) -> None:
    """Print the changes of the index."""
    if plan.missing:
        share = "all" if len(plan.missing) == len(passages) else f"{len(plan.missing)} of"
        what = f"embedded {share} {_count(passages, 'passage')} in {seconds:.1f} s"
    else:
        what = f"nothing to embed: the index holds all {_count(passages, 'passage')} already"
    if plan.stale:
        what += f"; deleted {len(plan.stale)} that left the corpus"
    fact(framework, what)


def show_question(question: str, remark: str = "") -> None:
    """Print the question, and a remark on it."""
    say()
    say(question, "bold")
    if remark:
        say(remark, "dim")


def show_ranking(title: str, hits: Sequence[Hit]) -> None:
    """Print the passages of one stage, each with its score."""
    say()
    say(title, "dim")
    for number, hit in enumerate(hits, start=1):
        _source(number, hit, f"{hit.score:.3f}")


def explain_scores() -> None:
    """Explain the scores of a comparison."""
    say()
    say("Scores: on the left the cosine of the vectors of question and passage; on the right the "
        "probability, by the reranker, that the passage answers the question.", "dim")  # fmt: skip


def show_tally(rows: Mapping[str, Sequence[int]], limits: Sequence[int]) -> None:
    """Print for how many questions the passage that answers came how far up.

    Args:
        rows: Stage -> for how many questions it was among the first 1, 3, ... passages.
        limits: Those numbers: 1, 3, ...
    """
    table = Table(box=None, padding=(0, 2, 0, 2), show_edge=False)
    table.add_column("")
    for limit in limits:
        table.add_column("first" if limit == 1 else f"in top {limit}", justify="right")
    for stage, counts in rows.items():
        table.add_row(stage, *map(str, counts))
    console.print(table)


def show_answer(framework: str, answer: str, hits: Sequence[Hit], cited: Sequence[int]) -> None:
    """Print an LLM's answer and the passages it read, those it cites marked."""
    say(f"{framework} answers from {_count(hits, 'passage')}:", "bold")
    _indented(answer.strip(), 2)
    for number, hit in enumerate(hits, start=1):
        _source(number, hit, "cited" if number in cited else "not cited")


def show_unanswered(framework: str, hits: Sequence[Hit], shown: Sequence[Hit] = ()) -> None:
    """Print the passages that an LLM would have read, unless they are those already `shown`."""
    if shown and [hit.id for hit in hits] == [hit.id for hit in shown]:
        say(f"{framework} would send the LLM the same passages.", "bold")
        return
    say(f"{framework} would send the LLM these passages (OPENAI_API_KEY is not set):", "bold")
    for number, hit in enumerate(hits, start=1):
        _source(number, hit)
        body = hit.text.strip().removeprefix(hit.title)
        _indented(" ".join(body.split()), 6, style="dim", max_lines=1)


def show_next_steps(settings: Settings) -> None:
    """Print the limits of the bundled models, and how to use the published ones."""
    if TINY not in (settings.model, settings.reranker):
        return
    say()
    say(
        "tiny is a toy. It shows that everything runs, not how well the real models search; for "
        "those (1.2 GB each, downloaded once) run"
    )
    given = [part.replace(settings.token or "\0", "...") for part in sys.argv]  # no key is shown
    command = shlex.join([_short(sys.executable), *given])
    # One line each, so that they can be copied from a narrow terminal.
    console.print(f"  {command} \\", style="bold", soft_wrap=True)
    console.print(
        f"    --model {DEFAULT_EMBEDDING_MODEL} --reranker {DEFAULT_RERANKER_MODEL}",
        style="bold",
        soft_wrap=True,
    )


def _source(number: int, hit: Hit, note: str = "") -> None:
    line = Text(f"  [{number}] ").append(hit.title, "cyan").append(f" ({hit.source})", "dim")
    console.print(line.append(f" {note}" if note else ""))


def _indented(text: str, indent: int, *, style: str = "", max_lines: int | None = None) -> None:
    """Print a text as one paragraph, wrapped, and cut to `max_lines`."""
    lines = textwrap.wrap(
        text,
        console.width,
        initial_indent=" " * indent,
        subsequent_indent=" " * indent,
        max_lines=max_lines,
        placeholder=" ...",
    )
    console.print(Text("\n".join(lines), style))


def _short(path: str) -> str:
    """A path relative to the working directory, if it is in there."""
    given = Path(path)
    if given.is_absolute() and given.is_relative_to(Path.cwd()):
        return str(given.relative_to(Path.cwd()))
    return path


def _count(things: Collection[object], noun: str) -> str:
    return f"{len(things)} {noun}{'' if len(things) == 1 else 's'}"
