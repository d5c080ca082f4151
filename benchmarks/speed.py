"""How fast texts are embedded and candidates reranked, beside peers on the same checkpoints.

    python benchmarks/speed.py
    python benchmarks/speed.py --tasks rerank-50 embed-512 --systems qwen3-retrieval floor
    python benchmarks/speed.py --json benchmarks/results/bfloat16-servers.json
    python benchmarks/speed.py --embedding HUB_NAME --reranker HUB_NAME

By default the checkpoints have the shape of Qwen3-0.6B and random weights: speed does not depend on
the weights' values. The systems (benchmarks/peers.py, benchmarks/servers.py) take turns, each in a
process of its own. `--json` writes the file after each task; started again with the same file, it
measures the tasks that are still missing. benchmarks/table.py makes tables from such files.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks import peers, servers
from benchmarks.checkpoints import ROOT, random_pair
from benchmarks.machine import describe, load_average
from benchmarks.process import Checkpoints, Peer
from benchmarks.tasks import DEFAULT_TASKS, TASKS, MissingDataError, Task, by_model, in_turn
from qwen3_core.model.loading import resolve_device

OURS = "qwen3-retrieval"

SYSTEMS: dict[str, Callable[[Checkpoints], Any]] = {
    OURS: peers.Ours,
    "qwen3-retrieval, int8": peers.OursInt8,
    "without prefix cache": peers.WithoutPrefixCache,
    "published code": peers.Published,
    "sentence-transformers": peers.SentenceTransformers,
    "sentence-transformers, one by one": peers.OneByOne,
    "OpenVINO": servers.OpenVino,
    "OpenVINO, one by one": servers.OpenVinoOneByOne,
    "OpenVINO int8": servers.OpenVinoInt8,
    "OpenVINO int8, one by one": servers.OpenVinoInt8OneByOne,
    "ONNX Runtime int8": servers.OnnxInt8,
    "ONNX Runtime int8, one by one": servers.OnnxInt8OneByOne,
    "vLLM": servers.Vllm,
    "llama.cpp Q8_0": servers.LlamaCpp,
    "floor": peers.Floor,
}


def measure(
    running: dict[str, Peer], task: Task, arguments: tuple[Any, ...], rounds: int
) -> tuple[dict[str, dict[str, Any]], dict[str, str]]:
    """Each system's seconds by round, peak memory in GiB and largest difference from our answer.

    Also, by system, why one could not answer; it is then removed from those that run.
    """
    figures: dict[str, dict[str, Any]] = {}
    gone: dict[str, str] = {}
    answers: dict[str, np.ndarray] = {}
    for turn in range(rounds + 1):  # the first warms up
        for name, peer in list(running.items()):
            try:
                seconds, answers[name], memory = calls(peer, task, arguments, turn)
            except RuntimeError as error:  # such as a process killed for lack of memory
                gone[name] = str(error)
                running.pop(name).close()
                figures.pop(name, None)
                continue
            if turn:
                row = figures.setdefault(name, {"seconds": [], "memory": 0.0})
                row["seconds"].append(round(seconds, 4))
                row["memory"] = round(max(row["memory"], memory), 3)
    for name, row in figures.items():
        if name != OURS and OURS in figures and answers[name].size:
            row["difference"] = float(np.abs(answers[name] - answers[OURS]).max())
    return figures, gone


def calls(
    peer: Peer, task: Task, arguments: tuple[Any, ...], turn: int
) -> tuple[float, np.ndarray, float]:
    """A round: the median seconds of its calls, the last answer, and the largest peak memory."""
    numbers = range(turn * task.calls, (turn + 1) * task.calls) if turn else [0]
    found = [peer.run(task.method, *in_turn(number, arguments)) for number in numbers]
    seconds, answers, memory = zip(*found, strict=True)
    return median(seconds), answers[-1], max(memory)


def ratios(row: dict[str, Any], ours: dict[str, Any]) -> list[float]:
    """How many times our seconds a system took, round by round."""
    return [a / b for a, b in zip(row["seconds"], ours["seconds"], strict=True)]


def show(title: str, figures: dict[str, dict[str, Any]]) -> Table:
    """The figures of a task as a table."""
    table = Table("system", "seconds", "times ours", "(range)", "memory", "difference", title=title)
    for name, row in figures.items():
        times = ratios(row, figures[OURS]) if OURS in figures else []
        table.add_row(
            name,
            f"{median(row['seconds']):.3g}",
            f"{median(times):.2f}" if times else "",
            f"{min(times):.2f}-{max(times):.2f}" if times else "",
            f"{row['memory']:.1f} GiB",
            f"{row['difference']:.1e}" if "difference" in row else "",
        )
    return table


def revision() -> str:
    """The commit of this checkout, with a plus sign if code was changed since; or "unknown"."""

    def git(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = ["git", "-C", str(ROOT), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    found = git("rev-parse", "--short=12", "HEAD")
    if found.returncode:
        return "unknown"
    changed = git("diff", "--quiet", "HEAD", "--", "qwen3_core", "benchmarks/*.py").returncode
    return found.stdout.strip() + "+" * bool(changed)


def begin(file: Path | None, options: argparse.Namespace) -> dict[str, Any]:
    """The report to be filled: a new one, or that of a file that is to be continued."""
    machine = describe()
    del machine["load average"]  # which is noted for each task
    report: dict[str, Any] = {
        "machine": machine,
        "commit": revision(),
        "dtype": options.dtype,
        "device": options.device,
        "rounds": options.rounds,
        "versions": {},
        "tasks": {},
    }
    if file is None or not file.exists():
        return report
    found: dict[str, Any] = json.loads(file.read_text("utf-8"))
    for key in ("machine", "commit", "dtype", "device", "rounds"):
        if found.get(key) != report[key]:
            sys.exit(
                f"{file} has another {key} ({found.get(key)}, now {report[key]}): "
                "choose another file, which benchmarks/table.py merges with it"
            )
    return found


def run(
    report: dict[str, Any], given: Checkpoints, options: argparse.Namespace, console: Console
) -> None:
    """Measure the tasks that the report does not have, and write it after each."""
    wanted = [name for name in options.tasks if name not in report["tasks"]]
    for group in by_model(wanted):
        running: dict[str, Peer] = {}
        failed: dict[str, str] = {}
        try:
            for name in options.systems:
                try:
                    running[name] = Peer(SYSTEMS[name], given)
                    report["versions"][name] = running[name].version
                except RuntimeError as error:
                    failed[name] = str(error)
                    console.print(f"[yellow]without {name}: {error}")
            for task in group:
                try:
                    arguments = TASKS[task].arguments()
                except MissingDataError as error:
                    console.print(f"[yellow]without {task}: {error}")
                    continue
                method = TASKS[task].method
                able = {name: peer for name, peer in running.items() if method in peer.offers}
                load = [load_average()]
                figures, gone = measure(able, TASKS[task], arguments, options.rounds)
                load.append(load_average())
                for name, reason in gone.items():
                    del running[name]
                    console.print(f"[yellow]without {name}: {reason}")
                failed |= gone
                report["tasks"][task] = {
                    "date": time.strftime("%Y-%m-%d"),
                    "load average": load,
                    "left out": dict(failed),
                    "systems": figures,
                }
                console.print(show(TASKS[task].title, figures))
                if options.json:
                    options.json.parent.mkdir(parents=True, exist_ok=True)
                    text = json.dumps(report, indent=1, ensure_ascii=False)
                    options.json.write_text(text + "\n", encoding="utf-8")
        finally:
            for peer in running.values():
                peer.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=DEFAULT_TASKS)
    parser.add_argument("--systems", nargs="+", choices=SYSTEMS, default=list(SYSTEMS))
    parser.add_argument("--embedding", help="hub name or folder, in place of random weights")
    parser.add_argument("--reranker", help="hub name or folder, in place of random weights")
    parser.add_argument("--dtype", default="bfloat16", choices=["bfloat16", "float32"])
    parser.add_argument("--device", default="auto", help='"auto" takes a GPU if there is one')
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--json", type=Path, help="write the figures to this file, or continue it if it exists"
    )
    options = parser.parse_args()
    options.device = resolve_device(options.device)
    console = Console(width=None if sys.stdout.isatty() else 110)
    report = begin(options.json, options)
    for key, value in report["machine"].items():
        console.print(f"{key:13} {value}")
    with tempfile.TemporaryDirectory() as folder:
        embedding, reranker = options.embedding, options.reranker
        if not (embedding and reranker):
            embedding, reranker = map(str, random_pair(Path(folder)))
        given = Checkpoints(embedding, reranker, options.dtype, options.device)
        run(report, given, options, console)


if __name__ == "__main__":
    main()
