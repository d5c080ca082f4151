"""The report and a single question as tables in the terminal."""

from rich.box import SIMPLE
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from qwen3_retrieval.evaluation.result import Move, Report, System, View, candidates_of
from qwen3_retrieval.evaluation.settings import CUT
from qwen3_retrieval.evaluation.sweep import recommended_rows

STAGES = ("bm25", "embed", "search", "rerank")
"""Stages of a question, in order."""

SHOWN_NOTES = 5
SHOWN_TEXT = 160
"""Characters of a passage that are shown."""


def show(report: Report, console: Console) -> None:
    """Print the systems, the significance of their differences, and the recommendation."""
    data = report.data
    console.print(
        f"[bold]{escape(data.name)}[/]: {data.passages} passages, {len(data.questions)} questions"
    )
    if data.synthetic:
        console.print(f"[yellow]Synthetic questions[/], made from {escape(_maker(data.synthetic))}")
    for note in data.notes[:SHOWN_NOTES]:
        console.print(f"[yellow]note[/] {escape(note)}")
    if len(data.notes) > SHOWN_NOTES:
        console.print(f"[yellow]note[/] and {len(data.notes) - SHOWN_NOTES} more")
    console.print(_quality(report.systems))
    console.print(_cost(report.systems))
    main = report.comparisons[0].metric if report.comparisons else ""
    for comparison in report.comparisons:
        if report.compared == (comparison.first, comparison.second):
            console.print(
                f"{comparison.second} against {comparison.first}: {main} "
                f"{comparison.difference.mean:+.3f} "
                f"[{comparison.difference.low:+.3f}, {comparison.difference.high:+.3f}], "
                f"better on {comparison.better} questions, worse on {comparison.worse}; "
                f"p = {comparison.p:.3f} (randomisation test, Holm)",
                markup=False,
                highlight=False,
            )
    recommended = report.recommendation
    if recommended is None:
        return
    table = Table(title="Recommended", title_justify="left", show_header=False, box=None)
    for name, value in recommended_rows(recommended).items():
        table.add_row(name, escape(value))
    console.print(table)
    console.print(escape(recommended.reason), highlight=False)


def show_question(view: View, console: Console) -> None:
    """Print both rankings of one question side by side, and the moves by reranking."""
    table = Table(title=escape(view.question), title_justify="left", expand=True)
    table.add_column("", justify="right")
    table.add_column("dense", ratio=1)
    table.add_column("reranked", ratio=1)
    table.add_column("move", no_wrap=True)
    table.add_column("score", justify="right")
    before = {move.before: move for move in view.moves if move.before}
    after = {move.after: move for move in view.moves if move.after}
    for rank in range(1, CUT + 1):
        if rank not in before and rank not in after:
            break
        cells = [_passage(found.get(rank)) for found in (before, after)]
        new = after.get(rank)
        score = "" if new is None or new.score is None else f"{new.score:.3f}"
        table.add_row(str(rank), *cells, "" if new is None else _coloured(moved(new)), score)
    console.print(table)


def _passage(move: Move | None) -> str:
    if move is None:
        return ""
    text = escape(" ".join(f"{move.source}: {move.text}".split())[:SHOWN_TEXT])
    return f"[bold green]{text}[/]" if move.relevant else text


def _coloured(move: str) -> str:
    colour = {"▲": "green", "▼": "red"}.get(move[0])
    return f"[{colour}]{move}[/]" if colour else move


def moved(move: Move) -> str:
    """A passage's move up or down: "▲ 3", "▼ 1", "=", or "new"."""
    if move.after is None:
        return "not found" if move.before is None else "dropped"
    if move.before is None:
        return "new"
    up = move.before - move.after
    return "=" if up == 0 else f"▲ {up}" if up > 0 else f"▼ {-up}"


def _quality(systems: list[System]) -> Table:
    table = Table(title="Quality", title_justify="left", box=SIMPLE, padding=(0, 0))
    table.add_column("system", min_width=16)
    metrics = list(systems[0].metrics)
    for i, name in enumerate(metrics):
        table.add_column(name + (" " * 5 if i == 0 else ""), justify="right", no_wrap=i == 0)
    best = {name: max(system.metrics[name].mean for system in systems) for name in metrics}
    for system in systems:
        cells = []
        for i, name in enumerate(metrics):
            value = system.metrics[name]
            text = f"{value.mean:.3f}"
            if i == 0:
                text += f" ±{(value.high - value.low) / 2:.3f}"
            cells.append(f"[bold]{text}[/]" if value.mean == best[name] else text)
        table.add_row(escape(system.name), *cells)
    table.caption, table.caption_justify = candidates_of(systems) or None, "left"
    return table


def _cost(systems: list[System]) -> Table:
    table = Table(title="Cost of one question", title_justify="left", box=SIMPLE, padding=(0, 0))
    table.add_column("system", min_width=16)
    for name in (*STAGES, "total p50", "p95 ms", "tokens", "index MB"):
        table.add_column(name, justify="right")
    for system in systems:
        total = system.latency["total"]
        table.add_row(
            escape(system.name),
            *(milliseconds(system.latency[s].p50) if s in system.latency else "" for s in STAGES),
            milliseconds(total.p50),
            milliseconds(total.p95),
            "" if system.tokens is None else f"{system.tokens:,.0f}",
            "" if system.index_bytes is None else f"{system.index_bytes / 1e6:.1f}",
        )
    return table


def milliseconds(value: float) -> str:
    """Format milliseconds with significant digits only."""
    return f"{value:.2f}" if value < 10 else f"{value:,.0f}"


def _maker(synthetic: str) -> str:
    if synthetic == "headings":
        return "the headings of your own files (taken out of the passages under them)"
    return f"passages by {synthetic}"
