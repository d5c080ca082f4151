#!/usr/bin/env python3
"""Calculates the cost of indexing many chunks, from adjustable figures.

python tools/scale_table.py [--tokens 300] [--rate 250] [--price 2.5]
"""

import argparse
from dataclasses import dataclass

SIZES = {"1 M": 10**6, "100 M": 10**8, "10 B": 10**10}
WORDS = {1024: "full", 256: "cut"}


@dataclass(frozen=True)
class Figures:
    """The figures behind the table; the defaults are those of docs/scale.md."""

    tokens: float = 300
    """Tokens of a chunk."""
    rate: float = 30_000
    """Tokens that one worker embeds in a second."""
    workers: int = 8
    """Workers, each a GPU."""
    price: float = 2.5
    """Dollars for a worker's hour."""
    links: int = 16
    """HNSW's M; the lowest layer keeps 2 M neighbours of 4 bytes for each vector."""
    row_bytes: int = 1500
    """Bytes of a row beside its vector: text, id, metadata."""
    node_bytes: float = 64e9
    """Memory of one query node."""
    fill: float = 0.7
    """Share of that memory for vectors and index."""
    write_rate: float = 5_203
    """Rows that one core writes to Parquet in a second."""


def hours(chunks: int, figures: Figures) -> float:
    """Hours that all workers need to embed so many chunks."""
    return chunks * figures.tokens / figures.rate / figures.workers / 3600


def dollars(chunks: int, figures: Figures) -> float:
    """Price of those hours; it does not depend on the number of workers."""
    return hours(chunks, figures) * figures.workers * figures.price


def vector_bytes(chunks: int, dimensions: int) -> int:
    """Bytes of float32 vectors."""
    return 4 * chunks * dimensions


def hnsw_bytes(chunks: int, dimensions: int, figures: Figures) -> int:
    """Memory of an HNSW index: the vectors, and 2 M links of 4 bytes for each."""
    return vector_bytes(chunks, dimensions) + 4 * 2 * figures.links * chunks


def nodes(size: float, figures: Figures) -> int:
    """Number of query nodes for `size` bytes."""
    return int(-(-size // (figures.node_bytes * figures.fill)))


def human(size: float) -> str:
    """Bytes in decimal units, three digits."""
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if size < 1000:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} PB"


def table(figures: Figures) -> str:
    """The Markdown table."""
    rows: list[tuple[str, list[str]]] = [
        (
            f"embed, hours on {figures.workers} workers",
            [f"{hours(n, figures):,.1f}" for n in SIZES.values()],
        ),
        ("embed, dollars", [f"{dollars(n, figures):,.0f}" for n in SIZES.values()]),
        (
            "write Parquet, core hours",
            [f"{n / figures.write_rate / 3600:,.2f}" for n in SIZES.values()],
        ),
        ("rows without vectors", [human(n * figures.row_bytes) for n in SIZES.values()]),
    ]
    for dimensions, word in WORDS.items():
        name = f"{dimensions} dimensions ({word})"
        sizes = [hnsw_bytes(n, dimensions, figures) for n in SIZES.values()]
        rows += [
            (f"vectors, {name}", [human(vector_bytes(n, dimensions)) for n in SIZES.values()]),
            (f"HNSW in memory, {name}", [human(size) for size in sizes]),
            (f"query nodes for it, {name}", [f"{nodes(size, figures):,}" for size in sizes]),
        ]
    lines = [f"| | {' | '.join(SIZES)} |", "| --- |" + " ---: |" * len(SIZES)]
    lines += [f"| {name} | {' | '.join(cells)} |" for name, cells in rows]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description="What indexing many chunks takes.")
    for name, value in vars(Figures()).items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=type(value), default=value)
    print(table(Figures(**vars(parser.parse_args()))))


if __name__ == "__main__":
    main()
