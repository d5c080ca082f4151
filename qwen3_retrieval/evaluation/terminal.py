"""The report as tables in the terminal."""

from rich.box import SIMPLE
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from qwen3_retrieval.evaluation.result import Report, System, candidates_of
from qwen3_retrieval.evaluation.wording import STAGES, milliseconds, recommended_rows

SHOWN_NOTES = 5


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
    if report.sweep is None:
        return
    if report.recommendation is not None:
        table = Table(title="Recommended", title_justify="left", show_header=False, box=None)
        for name, value in recommended_rows(report.recommendation).items():
            table.add_row(name, escape(value))
        console.print(table)
    console.print(escape(report.sweep.reason), highlight=False)


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


def _maker(synthetic: str) -> str:
    if synthetic == "headings":
        return "the headings of your own files (taken out of the passages under them)"
    return f"passages by {synthetic}"
