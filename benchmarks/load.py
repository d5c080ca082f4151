"""Many callers at once: are the answers right, and what does sharing an engine bring?

    python benchmarks/load.py --seconds 60 --threads 64 --coroutines 256
    python benchmarks/load.py --model random-0.6b-shape
    python benchmarks/load.py --json load.json
    python benchmarks/load.py --only soak --seconds 3600

Four measurements, on one embedder and one reranker: mixed load with every answer checked, queries
while documents are indexed, throughput against one lock, and how fast SIGTERM ends it all. A fifth
one runs on request alone: mixed load for long, with memory, threads and file descriptors watched.
"""

import argparse
import asyncio
import gc
import itertools
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks import machine
from benchmarks.callers import Callers, LoopClock, Outcome, Tick
from benchmarks.checkpoints import random_pair
from benchmarks.systems import (
    Locked,
    PackLog,
    Pair,
    Shared,
    System,
    Waiting,
)
from benchmarks.workload import (
    MIXED,
    QUERIES,
    SHORT,
    SIZES,
    SMALL_SIZES,
    RequestKind,
    Workload,
    percentiles,
)
from qwen3_core.model.buffers import give_back_freed
from qwen3_core.model.linear import STEP
from qwen3_core.settings import Dtype

TOLERANCE = {"float32": 1e-5, "bfloat16": 0.05}
"""Accepted distance from the serial answer: distance of vectors of length 1, difference of
log-odds. bfloat16 has 8 bits, and the other sequences in a pack change the rounding of products."""

INDEXERS = 4
"""Threads that embed documents while queries are timed."""

ASKERS = 8
"""Callers whose queries are timed then."""

STAGGER = 1.0
"""Seconds over which coroutines begin when the event loop is watched. Clients do not arrive in the
same millisecond; that many calls begun in one round of the loop hold it for as long as they take
together, whatever they call."""

WORST = 5
"""Number of the longest event loop holds to show."""

MANY = 16
"""Requests of a round of throughput at least."""

MEASUREMENTS = ("mixed", "latency", "throughput", "sigterm")

SOAK_PARTS = 8
"""Equal parts of a long run; the first one warms up, the others are compared."""

KINDS: tuple[RequestKind, ...] = ("query", "rerank", "documents")

console = Console(highlight=False, width=None if sys.stdout.isatty() else 110)


@dataclass
class Report:
    """All measurements, as tables and as JSON."""

    data: dict[str, Any] = field(default_factory=dict)
    missed: list[str] = field(default_factory=list)

    def table(self, key: str, title: str, rows: list[Mapping[str, Any]]) -> None:
        """Add rows with the same columns, and print them."""
        self.data[key] = rows
        table = Table(title=title, title_justify="left", title_style="bold")
        for i, column in enumerate(rows[0]):
            table.add_column(column, justify="right" if i else "left")
        for row in rows:
            table.add_row(*map(_shown, row.values()))
        console.print(table)

    def target(self, what: str, value: float, limit: float, *, at_least: bool = False) -> None:
        """Print whether a target is met."""
        met = value >= limit if at_least else value <= limit
        word = "at least" if at_least else "at most"
        line = f"{what}: {_shown(value)} (target: {word} {_shown(limit)})"
        self.data.setdefault("targets", []).append(
            {"target": what, "value": value, "limit": limit, "met": met}
        )
        if not met:
            self.missed.append(line)
        console.print(f"{'met   ' if met else 'MISSED'} {line}", style=None if met else "bold red")


def _shown(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.3g}" if abs(value) < 100 else f"{value:.0f}"
    return str(value)


def milliseconds(values: Mapping[str, float]) -> dict[str, float]:
    """Seconds by name as milliseconds."""
    return {f"{name}, ms": 1000 * value for name, value in values.items()}


@dataclass
class Bench:
    """The systems under load, the workload, and the number of callers."""

    options: argparse.Namespace
    pair: Pair
    workload: Workload
    shared: Shared
    serial: float
    """Mean seconds of a short request that is alone."""
    report: Report

    @property
    def callers(self) -> Callers:
        """As many callers as the options say."""
        return Callers(
            self.workload, threads=self.options.threads, coroutines=self.options.coroutines
        )

    def check(self, name: str, outcome: Outcome, tolerance: float) -> dict[str, Any]:
        """Counts of failures."""
        counts = {
            "wrong": outcome.wrong(lambda _: tolerance),
            "lost": outcome.lost,
            "doubled": outcome.doubled,
            "failed": len(outcome.failures),
        }
        for failure in set(outcome.failures):
            console.print(f"{name}: {failure}", style="bold red")
        return {"requests": outcome.issued, **counts}

    def rates(self, numbers: list[int], took: float) -> dict[str, float]:
        """Requests and tokens per second."""
        tokens = sum(self.shared.tokens(self.workload.requests[i]) for i in numbers)
        return {"requests/s": len(numbers) / took, "tokens/s": tokens / took}


def mixed_load(bench: Bench, idle: list[Tick], beside: list[Tick]) -> None:
    """All callers, all kinds of requests, every answer checked."""
    workload, shared, report = bench.workload, bench.shared, bench.report
    before = [c.stats() for c in (shared.embedder, shared.reranker)]
    numbers = workload.sample(MIXED, 200_000, seed=1)
    with PackLog() as log:
        outcome = bench.callers.run(
            shared, itertools.cycle(numbers), seconds=bench.options.seconds, stagger=STAGGER
        )
    after = [c.stats() for c in (shared.embedder, shared.reranker)]
    tolerance = TOLERANCE[bench.pair.dtype]
    sent = list(itertools.islice(itertools.cycle(numbers), outcome.issued))
    sequences = sum(max(1, len(workload.requests[i].documents)) for i in sent)
    computed = sum(b.sequences - a.sequences for a, b in zip(before, after, strict=True))
    distances = {k: [a.distance for a in outcome.answers if a.kind == k] for k in KINDS}
    rows: list[Mapping[str, Any]] = [
        {
            "kind": kind,
            "answers": len(distances[kind]),
            **milliseconds(percentiles(outcome.times(kind))),
            "farthest": max(distances[kind], default=float("nan")),
            "other's answer": workload.least_distance_between(kind),
        }
        for kind in KINDS
    ]
    title = (
        f"Mixed load: {bench.options.threads} threads, {bench.options.coroutines} coroutines, "
        f"{outcome.took:.0f} s; distance from the serial answers"
    )
    report.table("mixed", title, rows)
    counts = bench.check("engine", outcome, tolerance)
    packs = [took for _, took in log.packs]
    work = {
        **counts,
        **bench.rates(sent, outcome.took),
        "packs": len(packs),
        "pack, ms": 1000 * statistics.fmean(packs),
        "sequences": sequences,
        "computed": computed,
    }
    report.table("mixed_work", "Its work", [work])
    control = bench.callers.run(
        Waiting(shared, workload, {kind: statistics.median(outcome.times(kind)) for kind in KINDS}),
        itertools.cycle(numbers),
        seconds=bench.options.seconds / 2,
        stagger=STAGGER,
    )
    report_loop(report, idle, beside, control.clock.ticks, outcome.clock.ticks)
    for name in ("wrong", "lost", "doubled", "failed"):
        report.target(f"{name} answers under mixed load", counts[name], 0)
    report.target("sequences lost or computed twice", abs(sequences - computed), 0)


def report_loop(
    report: Report, idle: list[Tick], beside: list[Tick], control: list[Tick], load: list[Tick]
) -> None:
    """How long the event loop was held, by whom, and how long it is without our calls."""
    late = "a 1 ms sleep is late"
    rows = {
        f"{late}, nothing going on": [t.late for t in idle],
        f"{late} beside plain matrix products": [t.late for t in beside],
        f"{late} beside the threads, without our calls": [t.late for t in control],
        f"{late} under the whole load": [t.late for t in load],
        "our calls between two ticks, wall clock": [t.ours for t in load],
        "our calls between two ticks, processor time": [t.ours_cpu for t in load],
        "garbage collections between two ticks": [t.collecting for t in load],
        "waits for a processor between two ticks": [t.queueing for t in load],
    }
    report.table(
        "loop",
        "How long the event loop was held, ms",
        [{"what": what, **milliseconds(percentiles(values))} for what, values in rows.items()],
    )
    worst = sorted(load, key=lambda t: -max(t.late, t.ours))[:WORST]
    report.table(
        "loop_worst",
        "The longest holds under the whole load, ms",
        [{name: 1000 * value for name, value in asdict(tick).items()} for tick in worst],
    )
    ours = max(rows["our calls between two ticks, wall clock"])
    cpu = max(rows["our calls between two ticks, processor time"])
    report.target("event loop held by our calls, wall clock, ms", 1000 * ours, 20)
    report.target("event loop held by our calls, processor time, ms", 1000 * cpu, 20)


def queries_beside_indexing(bench: Bench) -> None:
    """Queries at a moderate rate while documents are embedded without a pause."""
    rows: list[Mapping[str, Any]] = []
    workload = bench.workload
    seconds = max(bench.options.seconds / 4, 2)
    callers = Callers(workload, threads=ASKERS // 2, coroutines=ASKERS // 2)
    queries = itertools.cycle(workload.sample({"query": 1}, 1000, seed=2))
    documents = itertools.cycle(workload.sample({"documents": 1}, 1000, seed=3))
    full_pack = float("nan")
    for system in (bench.shared, Locked(bench.shared)):
        with PackLog() as log:
            outcome = callers.run(
                system,
                queries,
                seconds=seconds,
                pause=ASKERS * bench.serial * 2,
                background=documents,
                background_threads=INDEXERS,
            )
        times = percentiles(outcome.times("query"))
        row = {
            "through": system.name,
            "queries": len(outcome.times("query")),
            "document calls": len(outcome.times("documents")),
            **milliseconds(times),
        }
        if system is bench.shared:
            budget = bench.shared.embedder.engine.encoder.pack_tokens
            full = [took for tokens, took in log.packs if tokens > budget / 2]
            full_pack = statistics.fmean(full or [took for _, took in log.packs])
            p95 = times["p95"]
        rows.append({**row, "full pack, ms": 1000 * full_pack})
    title = f"Queries while {INDEXERS} threads index documents"
    bench.report.table("queries", title, rows)
    bench.report.target("query p95 under bulk load, in packs", p95 / full_pack, 2)


def throughput(
    bench: Bench, systems: list[System], mix: Mapping[RequestKind, int], what: str
) -> None:
    """The same requests through each system in turn, several times."""
    rounds, workload = bench.options.rounds, bench.workload
    share = bench.options.seconds / 12
    count = max(MANY, min(round(share / bench.serial), 4000))
    took: dict[str, list[float]] = {system.name: [] for system in systems}
    wrong: dict[str, int] = dict.fromkeys(took, 0)
    numbers = workload.sample(mix, count, seed=4)
    for i in range(rounds):
        for system in systems if i % 2 == 0 else systems[::-1]:
            outcome = bench.callers.run(system, numbers)
            counts = bench.check(system.name, outcome, TOLERANCE[bench.pair.dtype])
            wrong[system.name] += counts["wrong"] + counts["lost"] + counts["failed"]
            took[system.name].append(outcome.took)
    engine = took[bench.shared.name]
    ratios = {
        name: statistics.median(t / e for t, e in zip(times, engine, strict=True))
        for name, times in took.items()
    }
    rows: list[Mapping[str, Any]] = [
        {
            "through": name,
            **bench.rates(numbers, statistics.median(times)),
            "median, s": statistics.median(times),
            "fastest, s": min(times),
            "slowest, s": max(times),
            "time / engine's": ratios[name],
            "wrong": wrong[name],
        }
        for name, times in took.items()
    ]
    title = (
        f"Throughput, {what}: {count} requests, {rounds} rounds in turn, median of paired ratios"
    )
    bench.report.table(f"throughput_{what}", title, rows)
    if mix is SHORT:
        ratio = ratios[Locked.name]
        bench.report.target("throughput against one lock", ratio, 1.5, at_least=True)


@dataclass(frozen=True)
class Part:
    """A part of a long run: counts, rates, and the process's resources at its end."""

    requests: int
    wrong: int
    lost: int
    doubled: int
    failed: int
    rate: float
    """Requests per second of wall clock: what else the machine does changes it."""
    cpu: float
    """Seconds of processor time per request, of all threads of this process."""
    query: float
    """Median seconds of a query."""
    memory: float
    """Resident once freed memory is given back, in MiB; nan but on Linux."""
    in_use: float
    """Of it, what is allocated and not freed, in MiB; nan but with glibc."""
    threads: int
    files: float
    """Open file descriptors; nan but on Linux."""


def soak(callers: Callers, system: System, seconds: float, tolerance: float) -> list[Part]:
    """Mixed load for so long, in `SOAK_PARTS` parts, every answer compared with the serial one."""
    return [
        soak_part(callers, system, seconds / SOAK_PARTS, tolerance, seed)
        for seed in range(SOAK_PARTS)
    ]


def visit_every_size(shared: Shared) -> None:
    """Run packs of every size once, so that later growth is not due to new sizes.

    oneDNN keeps programs for each number of rows (`qwen3_core.model.linear.STEP`), some five MB a
    number; under load, some numbers come for the first time after most of an hour.
    """
    for words in range(1, shared.embedder.engine.encoder.pack_tokens, STEP):
        text = " ".join(["disk"] * words)  # as many tokens
        shared.embedder.embed_documents([text])
        shared.reranker.score([text], "Which disk?")


def soak_part(
    callers: Callers, system: System, seconds: float, tolerance: float, seed: int
) -> Part:
    """Run one part; its answers are not stored, so that any growth is the system's."""
    numbers = callers.workload.sample(MIXED, 100_000, seed=seed)
    begin = time.process_time()
    outcome = callers.run(system, itertools.cycle(numbers), seconds=seconds, stagger=STAGGER)
    cpu = time.process_time() - begin
    counts = (
        *(outcome.issued, outcome.wrong(lambda _: tolerance), outcome.lost, outcome.doubled),
        *(len(outcome.failures), outcome.issued / outcome.took, cpu / outcome.issued),
        percentiles(outcome.times("query"))["p50"],
    )
    del outcome
    gc.collect()
    give_back_freed()  # else this reads the phase of the worker's minute
    memory, files = machine.held()
    return Part(*counts, memory, machine.in_use(), threading.active_count(), files)


def report_soak(bench: Bench, parts: list[Part]) -> None:
    """Report growth, and whether the end is slower than the beginning."""
    title = f"Mixed load for {bench.options.seconds:.0f} s, part by part; memory in MiB"
    bench.report.table("soak", title, [asdict(part) for part in parts])
    after = parts[1:]  # after the warm-up
    half = len(after) // 2
    early, late = (
        statistics.median(part.cpu for part in some) for some in (after[:half], after[-half:])
    )
    growth = max(part.memory for part in after) / after[0].memory - 1
    target = bench.report.target
    target("growth of memory after the first part, percent", 100 * growth, 2)
    target("threads more at the end", after[-1].threads - after[0].threads, 0)
    target("file descriptors more at the end", after[-1].files - after[0].files, 0)
    target("processor time per request, second half to first", late / early, 1.1)
    for name in ("wrong", "lost", "doubled", "failed"):
        target(f"{name} answers in the long run", sum(getattr(part, name) for part in parts), 0)


def sigterm(bench: Bench) -> None:
    """Time from SIGTERM to exit, of a process under full load and of an idle one."""
    rows: list[Mapping[str, Any]] = []
    for how in ("default", "handler", "idle"):
        command = [sys.executable, __file__, "--until-killed", how]
        command += ["--model", bench.options.model, "--dtype", bench.pair.dtype]
        command += ["--threads", str(bench.options.threads)]
        command += ["--coroutines", str(bench.options.coroutines)]
        command += ["--pair", bench.pair.embedding, bench.pair.reranker]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        if process.stdout.readline() != "under load\n":
            msg = f"the process to be ended ended by itself, code {process.wait()}"
            raise RuntimeError(msg)
        time.sleep(2)
        begin = time.perf_counter()
        process.send_signal(signal.SIGTERM)
        try:
            code: int | None = process.wait(timeout=60)
        except subprocess.TimeoutExpired:
            process.kill()
            code = None
        rows.append(
            {"SIGTERM": how, "ended after, s": time.perf_counter() - begin, "code": str(code)}
        )
    bench.report.table(
        "sigterm", "SIGTERM under mixed load; handler: sys.exit; idle: handler, no load", rows
    )
    for row in rows[:2]:
        bench.report.target(f"SIGTERM, {row['SIGTERM']}, s", row["ended after, s"], 2)


def until_killed(bench: Bench, how: str) -> None:
    """Endless mixed load, by threads that the interpreter joins at exit."""
    if how != "default":
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    shared, workload = bench.shared, bench.workload
    numbers = itertools.cycle(workload.sample(MIXED, 10_000, seed=5))
    workload.expected = [np.empty(0)] * len(workload.requests)
    shared.answer(workload.requests[0])
    shared.answer(workload.requests[2])
    print("under load", flush=True)
    if how == "idle":
        time.sleep(3600)
    bench.callers.run(shared, numbers, daemon=False)


@contextmanager
def models(options: argparse.Namespace) -> Iterator[Pair]:
    """The pair to load."""
    dtype: Dtype = options.dtype or ("float32" if options.model == "tiny" else "bfloat16")
    if options.pair:
        embedding, reranker = options.pair
        yield Pair(embedding, reranker, dtype)
    elif options.model == "tiny":
        yield Pair("tiny", "tiny", dtype)
    elif options.model == "random-0.6b-shape":
        with tempfile.TemporaryDirectory() as folder:
            console.print("writing two models with random weights ...")
            embedding, reranker = map(str, random_pair(Path(folder)))
            yield Pair(embedding, reranker, dtype)
    else:
        embedding = options.model.replace("Reranker", "Embedding")
        reranker = options.model.replace("Embedding", "Reranker")
        yield Pair(embedding, reranker, dtype)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--seconds", type=float, default=30, help="of mixed load (default 30)")
    parser.add_argument("--threads", type=int, default=64)
    parser.add_argument("--coroutines", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=3, help="of the throughput measurement")
    parser.add_argument(
        "--model",
        default="tiny",
        help='"tiny", "random-0.6b-shape", or a name such as "Qwen/Qwen3-Embedding-0.6B"',
    )
    parser.add_argument("--dtype", choices=["float32", "bfloat16"])
    parser.add_argument(
        "--only",
        nargs="+",
        choices=[*MEASUREMENTS, "soak"],
        default=MEASUREMENTS,
        help="of the measurements, these (default all but soak)",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there too")
    parser.add_argument(
        "--until-killed", choices=["default", "handler", "idle"], help=argparse.SUPPRESS
    )
    parser.add_argument("--pair", nargs=2, help=argparse.SUPPRESS)
    return parser.parse_args()


def idle_clock() -> list[Tick]:
    """The event loop clock's record while this process is otherwise idle."""
    clock = LoopClock()
    asyncio.run(clock.run(2))
    return clock.ticks


def beside_products() -> list[Tick]:
    """The clock's record while two threads multiply matrices, as in any busy process."""
    import torch

    stop = threading.Event()

    def multiply() -> None:
        matrix = torch.rand(512, 512)
        while not stop.is_set():
            matrix @ matrix

    threads = [threading.Thread(target=multiply, daemon=True) for _ in range(2)]
    for thread in threads:
        thread.start()
    clock = LoopClock()
    asyncio.run(clock.run(4))
    stop.set()
    for thread in threads:
        thread.join()
    return clock.ticks


def timed(function: Callable[[], object]) -> float:
    begin = time.perf_counter()
    function()
    return time.perf_counter() - begin


def main() -> int:
    options = arguments()
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    if not options.until_killed:
        idle = idle_clock()
    large = options.model != "tiny"
    with models(options) as pair:
        workload = Workload(SMALL_SIZES if large else SIZES, each=10 if large else 60)
        shared = Shared(pair)
        bench = Bench(options, pair, workload, shared, 0.0, Report())
        if options.until_killed:
            until_killed(bench, options.until_killed)
            return 0
        shared.answer(workload.requests[0])
        shared.answer(workload.requests[2])
        facts = {
            "model": options.model,
            "dtype": shared.embedder.engine.encoder.dtype,
            "pack": f"{shared.embedder.engine.encoder.pack_tokens} tokens",
            **machine.describe(),
        }
        bench.report.data["machine"] = facts
        for name, value in facts.items():
            console.print(f"{name:13} {value}")
        console.print("answering every request alone, for comparison ...")
        workload.answer_serially(shared)
        # Like servers after loading. Otherwise the first full garbage collection visits hundreds of
        # thousands of objects from the imports of torch and transformers, and stops all threads for
        # the time of a hundred calls.
        gc.collect()
        gc.freeze()
        short = workload.sample(SHORT, 20, seed=6)
        bench.serial = timed(lambda: [shared.answer(workload.requests[i]) for i in short]) / len(
            short
        )
        if "mixed" in options.only:
            mixed_load(bench, idle, beside_products())
        if "latency" in options.only:
            queries_beside_indexing(bench)
        if "throughput" in options.only:
            systems: list[System] = [shared, Locked(shared)]
            throughput(bench, systems, QUERIES, "queries")
            throughput(bench, systems, SHORT, "short")
        if "sigterm" in options.only:
            sigterm(bench)
        if "soak" in options.only:
            tolerance = TOLERANCE[pair.dtype]
            visit_every_size(shared)
            report_soak(bench, soak(bench.callers, shared, options.seconds, tolerance))
    console.print(f"load average at the end: {machine.load_average()}")
    if options.json:
        bench.report.data["load average at the end"] = machine.load_average()
        options.json.write_text(json.dumps(bench.report.data, indent=2), encoding="utf-8")
    return 1 if bench.report.missed else 0


if __name__ == "__main__":
    sys.exit(main())
