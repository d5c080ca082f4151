"""The tables of README.md and docs/explanation/speed.md, from what `speed.py --json` has written.

    python benchmarks/table.py
    python benchmarks/table.py benchmarks/results/*.json
    python benchmarks/table.py --print FILE ...

The unit is our time: 1 is as fast as this package, 2 takes twice as long. Files of the same machine
and dtype make one table. Each has our times too, in the same rounds, so that a system is compared
with what we took beside it. The README shows the first such table.
"""

import argparse
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.checkpoints import ROOT
from benchmarks.speed import OURS, SYSTEMS, ratios
from benchmarks.tasks import TASKS

RESULTS = ROOT / "benchmarks" / "results"
README = ROOT / "README.md"
PAGE = ROOT / "docs" / "explanation" / "speed.md"
BEGIN = "<!-- speed: made by `make bench-table` from benchmarks/results -->\n"
END = "<!-- end of speed -->\n"

NEAR = 1.05
"""Up to this multiple of our time, the README says that we do not win."""

COLUMNS = ("rerank-tutorial", "rerank-ragged-10", "embed-16", "query")
"""The README's."""

INT8 = "qwen3-retrieval, int8"
OWN = {OURS, INT8, "without prefix cache", "floor"}
"""Not peers."""

ROWS = {
    OURS: "here",
    INT8: 'here, `dtype="int8"`',
    "sentence-transformers": "sentence-transformers",
    "sentence-transformers, one by one": "sentence-transformers, one by one",
    "published code": "the models' published code",
    "OpenVINO, one by one": "OpenVINO, one by one",
    "OpenVINO int8, one by one": "OpenVINO in int8, one by one",
    "ONNX Runtime int8, one by one": "ONNX Runtime in int8, one by one",
    "vLLM": "vLLM on the CPU",
    "llama.cpp Q8_0": "llama.cpp, weights of 8 bits",
    "floor": "floor: the weight matrix products alone",
}
"""The README's, and their labels."""

ALL_TASKS = "[All tasks](docs/explanation/speed.md), with ranges and versions."

KINDS = {
    "Rerank": ("rerank",),
    "Embed": ("embed",),
    "Queries and many callers": ("query", "callers"),
}
"""The page's tables, and the methods of their tasks."""


@dataclass
class Cell:
    """What is known of a system in a task."""

    seconds: list[float] = field(default_factory=list)
    ratios: list[float] = field(default_factory=list)
    memory: float = 0.0
    difference: float = 0.0

    @property
    def ratio(self) -> float:
        """Median multiple of our time."""
        return median(self.ratios)


@dataclass
class Series:
    """All measurements in one dtype on one machine."""

    reports: list[dict[str, Any]] = field(default_factory=list)
    cells: dict[str, dict[str, Cell]] = field(default_factory=dict)
    """By task and system, in the order of `TASKS` and `SYSTEMS`."""

    def tasks(self, *methods: str) -> list[str]:
        """Measured tasks of these methods."""
        return [task for task in self.cells if TASKS[task].method in methods]

    def systems(self, tasks: Iterable[str]) -> list[str]:
        """Systems measured in one of these tasks."""
        found = {system for task in tasks for system in self.cells[task]}
        return [system for system in SYSTEMS if system in found]

    def fact(self, key: str) -> str:
        """A fact about the machine."""
        return str(self.reports[0]["machine"][key])

    @property
    def dtype(self) -> str:
        return str(self.reports[0]["dtype"])

    def measured(self) -> list[dict[str, Any]]:
        """All tasks of all reports."""
        return [task for report in self.reports for task in report["tasks"].values()]


def read(files: Iterable[Path]) -> list[Series]:
    """The files, by machine and dtype.

    Raises:
        ValueError: If a task lacks our own times, to which others are compared.
    """
    found: dict[tuple[str, ...], Series] = {}
    for file in files:
        report = json.loads(file.read_text("utf-8"))
        machine = report["machine"]
        key = (
            *(machine["processor"], machine["cores"], machine["instructions"], report["dtype"]),
            *(machine.get("GPU", ""), report.get("device", "cpu")),
        )
        series = found.setdefault(key, Series())
        series.reports.append(report)
        for task in TASKS:  # in their order
            systems = report["tasks"].get(task, {}).get("systems", {})
            if systems and OURS not in systems:
                msg = f"{file} has no {OURS} in {task}, to compare the others with"
                raise ValueError(msg)
            for system, row in systems.items():
                cell = series.cells.setdefault(task, {}).setdefault(system, Cell())
                cell.seconds += row["seconds"]
                cell.ratios += ratios(row, systems[OURS])
                cell.memory = max(cell.memory, row["memory"])
                cell.difference = max(cell.difference, row.get("difference", 0.0))
    for series in found.values():
        series.cells = {task: series.cells[task] for task in TASKS if task in series.cells}
    return list(found.values())


def digits(value: float, count: int = 2) -> str:
    """Two significant digits, without an exponent."""
    rounded = float(f"{value:.{count}g}")
    places = max(0, count - len(str(int(rounded)))) if rounded >= 1 else 2
    return f"{rounded:.{places}f}" if rounded >= 0.1 else f"{rounded:.3f}"


def seconds(value: float) -> str:
    """Seconds, or milliseconds if few."""
    return f"{digits(value)} s" if value >= 1 else f"{digits(1000 * value)} ms"


def markdown(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table; all columns but the first are numbers."""
    lines = [f"| {' | '.join(head)} |", f"| --- |{' ---: |' * (len(head) - 1)}"]
    lines += [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join(lines) + "\n"


def rows(
    series: Series, systems: Mapping[str, str], tasks: Sequence[str], *, spread: bool = False
) -> Iterator[list[str]]:
    """A row for each system that was measured in one of the tasks: its label, then its cells."""
    for system, label in systems.items():
        cells = [series.cells[task].get(system) for task in tasks]
        if any(cells):
            yield [label, *(shown(cell, system == OURS, spread) for cell in cells)]


def shown(cell: Cell | None, ours: bool, spread: bool) -> str:
    """Our time, or the multiple of it."""
    if cell is None:
        return ""
    if ours:
        return f"1 = {seconds(median(cell.seconds))}"
    text = digits(cell.ratio)
    if spread and len(cell.ratios) > 1:
        text += f" ({digits(min(cell.ratios))}-{digits(max(cell.ratios))})"
    return text


def not_won(series: Series) -> str:
    """A sentence on where others take at most `NEAR` of our time; the floor is no system."""
    found = [
        f"{system} takes {digits(cell.ratio)} of our time to {TASKS[task].title}"
        + (f", our int8 {digits(systems[INT8].ratio)}" if INT8 in systems else "")
        for task, systems in series.cells.items()
        for system, cell in systems.items()
        if system in others_of(systems) and cell.ratio <= NEAR
    ]
    if found:
        return f"**Where we do not win**: {'; '.join(found)}."
    return (
        f"**Time**: this package is the fastest in every task: every other system takes more than "
        f"{NEAR} times as long."
    )


def memory(series: Series, tasks: Iterable[str]) -> str:
    """Our peaks in some tasks, and the least and the largest of the others'."""
    found = []
    for task in tasks:
        cells = series.cells[task]
        ours = [digits(cells[OURS].memory)]
        if INT8 in cells:
            ours.append(f"in int8 {digits(cells[INT8].memory)}")
        others = [cell.memory for system, cell in cells.items() if system in others_of(cells)]
        if others:
            ours.append(f"others {span([digits(min(others)), digits(max(others))])}")
        found.append(f"to {TASKS[task].title} {', '.join(ours)}")
    return f"our peak in GiB {'; '.join(found)}"


def others_of(cells: Mapping[str, Cell]) -> list[str]:
    """The systems that are not ours; the floor is no system."""
    return [system for system in cells if system not in OWN]


def conditions(series: Series) -> str:
    """Where and how the series was measured."""
    tasks = series.measured()
    counts = sorted({len(c.seconds) for task in series.cells.values() for c in task.values()})
    rounds = f"{span(counts)} {'round' if counts[-1] == 1 else 'rounds'}"
    dates = sorted({task["date"] for task in tasks})
    loads = sorted(float(task["load average"][0].split(",")[0]) for task in tasks)
    commits = dict.fromkeys(report["commit"] for report in series.reports)
    return (
        f"Qwen3-0.6B's shape with random weights, {series.dtype}, on {series.fact('cores')} cores "
        f"of an {series.fact('processor')} ({series.fact('instructions')}) without a GPU; systems "
        f"in turn, medians of {rounds}; {span(dates)}, commit "
        f"{', '.join(commits)}, load average before a task {span(loads)}"
    )


def span(values: Sequence[Any]) -> str:
    """The least and the largest of sorted values."""
    return str(values[0]) if values[0] == values[-1] else f"{values[0]} to {values[-1]}"


def readme(series: Series) -> str:
    """The README's table and its three bullets."""
    tasks = [task for task in COLUMNS if task in series.cells]
    head = ["our time = 1; lower is faster", *(TASKS[task].title for task in tasks)]
    bullets = [
        f"- {not_won(series)}",
        f"- **Memory**: {memory(series, tasks)}.",
        f"- **How it was measured**: {conditions(series)}. {ALL_TASKS}",
    ]
    return markdown(head, rows(series, ROWS, tasks)) + "\n" + "\n".join(bullets) + "\n"


def page(series: Series) -> str:
    """A section of the page."""
    parts = [
        f"## {series.dtype}, {series.fact('processor')}, {series.fact('cores')} cores\n",
        f"{conditions(series)}.\n",
    ]
    for title, methods in KINDS.items():
        tasks = series.tasks(*methods)
        if tasks:
            systems = {name: name for name in SYSTEMS}
            head = ["our time = 1", *(TASKS[task].title for task in tasks)]
            parts += [f"### {title}\n", markdown(head, rows(series, systems, tasks, spread=True))]
    tasks = list(series.cells)
    head = ["GiB", *tasks]
    peaks = [
        [system, *(_peak(series.cells[task].get(system)) for task in tasks)]
        for system in series.systems(tasks)
    ]
    parts += ["### Peak memory\n", markdown(head, peaks)]
    parts += ["### Difference from our answers\n", differences(series)]
    parts += ["### Versions\n", versions(series)]
    return "\n".join(parts)


def _peak(cell: Cell | None) -> str:
    return digits(cell.memory) if cell and cell.memory else ""


def differences(series: Series) -> str:
    """The largest in all tasks that rerank, and in those that embed."""
    groups = {"log-odds": series.tasks("rerank"), "vectors": series.tasks("embed", "query")}
    found = []
    for system in series.systems(series.cells):
        cells = [
            [series.cells[task][system] for task in tasks if system in series.cells[task]]
            for tasks in groups.values()
        ]
        largest = [max((cell.difference for cell in some), default=0.0) for some in cells]
        if any(largest):
            found.append([system, *(f"{value:.1e}" if value else "" for value in largest)])
    return markdown(["largest difference", *groups], found)


def versions(series: Series) -> str:
    """What was installed, and what could not be measured."""
    machine = series.reports[0]["machine"]
    lines = [f"- {key} {machine[key]}" for key in ("python", "torch", "transformers")]
    found = {name: text for report in series.reports for name, text in report["versions"].items()}
    lines += [f"- {name}: {found[name]}" for name in SYSTEMS if found.get(name)]
    missing = {
        f"- left out of {task}: {name} ({reason})"
        for report in series.reports
        for task, row in report["tasks"].items()
        for name, reason in row["left out"].items()
        if name not in series.cells.get(task, {})
    }
    return "\n".join([*lines, *sorted(missing)]) + "\n"


def pages(files: Iterable[Path]) -> dict[Path, str]:
    """The text of both files, with their tables made anew."""
    found = read(files)
    if not found:
        msg = f"no files from `speed.py --json`, which belong in {RESULTS}"
        raise ValueError(msg)
    parts = {README: readme(found[0]), PAGE: "\n".join(map(page, found))}
    return {path: between(path.read_text("utf-8"), part) for path, part in parts.items()}


def between(text: str, part: str) -> str:
    """A text with another part between its marks."""
    marked = re.compile(f"(?<={re.escape(BEGIN)}).*?(?={re.escape(END)})", re.DOTALL)
    changed, count = marked.subn(lambda _: f"\n{part}\n", text)
    if count != 1:
        msg = f"{count} places between {BEGIN!r} and {END!r}, not one"
        raise ValueError(msg)
    return changed


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("files", nargs="*", type=Path, default=sorted(RESULTS.glob("*.json")))
    parser.add_argument("--print", action="store_true", help="print the tables, and write nothing")
    options = parser.parse_args()
    if options.print:
        for series in read(options.files):
            print(readme(series), page(series), sep="\n")
        return
    for path, text in pages(options.files).items():
        path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
