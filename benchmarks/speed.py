"""How fast texts are embedded and candidates reranked, beside peers on the same checkpoints.

    python benchmarks/speed.py
    python benchmarks/speed.py --tasks rerank-50 embed-512 --systems qwen3-retrieval floor
    python benchmarks/speed.py --embedding HUB_NAME --reranker HUB_NAME

By default the checkpoints have the shape of Qwen3-0.6B and random weights: speed does not depend on
the weights' values. The systems (benchmarks/peers.py) take turns, each in a process of its own;
ratios are medians of the rounds' ratios.
"""

import argparse
import json
import random
import sys
import tempfile
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.checkpoints import ROOT, random_pair
from benchmarks.machine import describe
from benchmarks.peers import SYSTEMS, Checkpoints, Peer

QUESTION = "How is data stored in Milvus?"
OURS = "qwen3-retrieval"


def passages(count: int) -> list[str]:
    """The first sections of the examples' corpus."""
    files = sorted((ROOT / "examples" / "corpus").glob("*.md"))
    found = [part for file in files for part in file.read_text("utf-8").split("# ") if part.strip()]
    return (found * (count // len(found) + 1))[:count]


def ragged(count: int, words: tuple[int, int]) -> list[str]:
    """Texts of very different lengths from that corpus, each from another place."""
    chance = random.Random(0)
    text = " ".join(passages(60)).split(" ")
    found = []
    for _ in range(count):
        length, start = chance.randint(*words), chance.randrange(len(text))
        found.append(" ".join((text[start:] + text * (length // len(text) + 1))[:length]))
    return found


TASKS: dict[str, tuple[str, str, tuple[Any, ...]]] = {
    "rerank-10": ("rerank", "rerank 10 passages", (QUESTION, passages(10))),
    "rerank-50": ("rerank", "rerank 50 passages", (QUESTION, passages(50))),
    "rerank-100": ("rerank", "rerank 100 passages", (QUESTION, passages(100))),
    "embed-16": ("embed", "embed 16 passages of 20-500 tokens", (ragged(16, (14, 340)),)),
    "embed-64": ("embed", "embed 64 passages of 20-500 tokens", (ragged(64, (14, 340)),)),
    "embed-512": ("embed", "embed 512 passages of 20-500 tokens", (ragged(512, (14, 340)),)),
    "embed-uniform": ("embed", "embed 32 passages of one length", (ragged(32, (80, 80)),)),
    "embed-8k": ("embed", "embed 8 documents of 8,192 tokens", (ragged(8, (7000, 7000)),)),
    "embed-8k-1": ("embed", "embed a document of 8,192 tokens", (ragged(1, (7000, 7000)),)),
    "query": ("query", "embed a query", (QUESTION,)),
}
"""By name: the systems' method, a title and the arguments."""

DEFAULT_TASKS = ("rerank-10", "embed-64", "query")


def in_turn(turn: int, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    """The arguments with other first words in every round, because servers cache prefixes.

    Round 0 warms up and takes 16 texts of a list at most.
    """
    if turn == 0:
        arguments = tuple(part[:16] if isinstance(part, list) else part for part in arguments)
    first, *rest = arguments
    first = [f"{turn} {text}" for text in first] if isinstance(first, list) else f"{turn} {first}"
    return first, *rest


def measure(
    peers: dict[str, Peer], method: str, arguments: tuple[Any, ...], rounds: int
) -> dict[str, dict[str, float]]:
    """Each system's median seconds, ratio to ours, peak memory and distance from our answer."""
    answers: dict[str, np.ndarray] = {}
    times: dict[str, list[float]] = {}
    memory: dict[str, float] = {}
    for turn in range(rounds + 1):  # the first warms up
        for name, peer in list(peers.items()):
            try:
                seconds, answers[name], memory[name] = peer.run(method, *in_turn(turn, arguments))
            except RuntimeError as error:  # such as a process killed for lack of memory
                print(f"without {name}: {error}", file=sys.stderr, flush=True)
                del peers[name]
                times.pop(name, None)
                continue
            if turn:
                times.setdefault(name, []).append(seconds)
    figures = {}
    for name, taken in times.items():
        row = figures[name] = {"seconds": median(taken), "memory": memory[name]}
        if OURS in times:
            ratios = [a / b for a, b in zip(taken, times[OURS], strict=True)]
            row |= {"ratio": median(ratios), "lowest": min(ratios), "highest": max(ratios)}
            if answers[name].size and name != OURS:
                row["difference"] = float(np.abs(answers[name] - answers[OURS]).max())
    return figures


def show(title: str, figures: dict[str, dict[str, float]]) -> Table:
    """The figures of a task as a table."""
    table = Table("system", "seconds", "times ours", "(range)", "memory", "difference", title=title)
    for name, row in figures.items():
        table.add_row(
            name,
            f"{row['seconds']:.3g}",
            f"{row['ratio']:.2f}" if "ratio" in row else "",
            f"{row['lowest']:.2f}-{row['highest']:.2f}" if "ratio" in row else "",
            f"{row['memory']:.1f} GiB",
            f"{row['difference']:.1e}" if "difference" in row else "",
        )
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=DEFAULT_TASKS)
    parser.add_argument("--systems", nargs="+", choices=SYSTEMS, default=list(SYSTEMS))
    parser.add_argument("--embedding", help="hub name or folder, in place of random weights")
    parser.add_argument("--reranker", help="hub name or folder, in place of random weights")
    parser.add_argument("--dtype", default="bfloat16", choices=["bfloat16", "float32"])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    args = parser.parse_args()
    console = Console()
    with tempfile.TemporaryDirectory() as folder:
        embedding, reranker = args.embedding, args.reranker
        if not (embedding and reranker):
            embedding, reranker = map(str, random_pair(Path(folder)))
        report: dict[str, Any] = {"machine": describe(), "dtype": args.dtype, "tasks": {}}
        for key, value in report["machine"].items():
            console.print(f"{key:13} {value}")
        given = Checkpoints(embedding, reranker, args.dtype)
        peers: dict[str, Peer] = {}
        try:
            for name in args.systems:
                try:
                    peers[name] = Peer(SYSTEMS[name], given)
                except RuntimeError as error:
                    console.print(f"[yellow]without {name}: {error}")
            for task in args.tasks:
                method, title, arguments = TASKS[task]
                running = {name: peer for name, peer in peers.items() if method in peer.offers}
                figures = measure(running, method, arguments, args.rounds)
                report["tasks"][task] = figures
                console.print(show(title, figures))
        finally:
            for peer in peers.values():
                peer.close()
    report["machine"]["load average, end"] = describe()["load average"]
    if args.json:
        args.json.write_text(json.dumps(report, indent=2), encoding="utf-8")


if __name__ == "__main__":
    main()
