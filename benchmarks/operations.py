"""Where the time of a forward pass goes, by operation.

    python benchmarks/operations.py
    python benchmarks/operations.py --dtype int8 --embedding FOLDER

By default the model has the shape of Qwen3-0.6B and random weights.
"""

import argparse
import tempfile
from collections import Counter
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch.profiler import ProfilerActivity, profile, record_function

from benchmarks.checkpoints import random_pair
from benchmarks.tasks import QUESTION, ragged
from qwen3_core import Embedder
from qwen3_core.model.packing import TokenSequence, Work

PRODUCTS = ("_linear_pointwise", "qlinear_pointwise", "addmm", "mm", "product")
FUSED = "_scaled_dot_product_flash_attention_for_cpu"
GROUPS = {
    "weight products": PRODUCTS,
    "attention": ("bmm", FUSED, "_softmax", "cat", "attention"),
    "norms, rotary embeddings": ("linalg_vector_norm", "mul", "addcmul_", "norm", "rotate"),
    "SwiGLU, scales, sums": ("mul_", "silu_", "add_", "swiglu", "add"),
    "quantisation": ("amax", "amin", "maximum", "div", "round_", "bitwise_xor_", "quantize"),
    "copies, conversions": ("copy_",),
}
"""torch's operations, without their namespaces, and numba's kernels; all others are "the rest":
views, allocation, operations on one number per row, and Python between kernels."""


def name_kernels() -> None:
    """Let torch's profiler see numba's kernels, if there are any."""
    if find_spec("numba") is None:
        return
    from qwen3_core.model import numba_kernels

    run = numba_kernels.run

    def named(kernel: Any, *table: int) -> None:
        name = kernel._pyfunc.__qualname__  # noqa: SLF001
        with record_function(name.partition(".")[0]):
            run(kernel, *table)

    numba_kernels.run = named


def shares(embedder: Embedder, sequences: list[TokenSequence], passes: int) -> Counter[str]:
    """Milliseconds in each group, for one pass over the sequences."""
    encoder = embedder.engine.encoder
    group_of = {name: group for group, names in GROUPS.items() for name in names}

    def run() -> None:
        work = Work(sequences)
        while work.waiting:
            encoder.run(encoder.next_pack([([work], encoder.pack_tokens)]))

    run()
    run()
    with profile(activities=[ProfilerActivity.CPU]) as found:
        for _ in range(passes):
            with record_function("Python"):
                run()
    milliseconds: Counter[str] = Counter()
    for event in found.key_averages():
        group = group_of.get(event.key.rpartition("::")[2], "the rest")
        milliseconds[group] += event.self_cpu_time_total / 1000 / passes
    return milliseconds


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--embedding", help="hub name or folder, in place of random weights")
    parser.add_argument("--dtype", default="bfloat16", choices=["bfloat16", "float32", "int8"])
    args = parser.parse_args()
    name_kernels()
    with tempfile.TemporaryDirectory() as folder:
        model = args.embedding or random_pair(Path(folder))[0]
        embedder = Embedder(model, dtype=args.dtype, device="cpu")
        tokenizer = embedder.engine.tokenizer
    texts, _ = tokenizer.embedding_documents(ragged(4, (14, 340)), 8192)
    query, _ = tokenizer.embedding_queries([QUESTION], 8192)
    prefix = tokenizer.embedding_prefix(embedder.instruction)
    table = Table("operations", title=f"{args.dtype}, torch {torch.__version__}: milliseconds")
    columns = []
    for title, rows, start, passes in (("texts", texts, (), 1), ("query", query, prefix, 10)):
        sequences = [TokenSequence(start, row) for row in rows]
        table.add_column(f"{title}, {sum(map(len, rows))} tokens", justify="right")
        columns.append(shares(embedder, sequences, passes))
    for group in (*GROUPS, "the rest"):
        cells = [f"{found[group]:.1f} ({found[group] / found.total():.0%})" for found in columns]
        table.add_row(group, *cells)
    table.add_row("sum", *(f"{found.total():.1f}" for found in columns))
    Console().print(table)


if __name__ == "__main__":
    main()
