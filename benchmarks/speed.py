"""How fast texts are embedded and candidates reranked, beside peers on the same checkpoints.

    python benchmarks/speed.py
    python benchmarks/speed.py --embedding HUB_NAME --reranker HUB_NAME

By default the checkpoints have the shape of Qwen3-0.6B and random weights: speed does not depend on
the weights' values. Peers: the published usage code (left-padded batch, all logits) and
sentence-transformers in its default batches. "Floor" is the time of the bare weight products for
the tokens that must be computed at least once. The systems take turns; ratios are medians of the
rounds' ratios.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from transformers import AutoModelForCausalLM, AutoTokenizer

from benchmarks.checkpoints import ROOT, random_pair
from benchmarks.machine import describe
from qwen3_core import Embedder, Reranker
from qwen3_core.prompts import IM_END, IM_START, RERANK_SYSTEM, TASKS
from qwen3_core.settings import Dtype

QUESTION = "How is data stored in Milvus?"
TASK = TASKS["web_search"]
HEAD = f"{IM_START}system\n{RERANK_SYSTEM}{IM_END}\n{IM_START}user\n"
TAIL = f"{IM_END}\n{IM_START}assistant\n<think>\n\n</think>\n\n"
OURS, FLOOR = "qwen3-retrieval", "floor"

System = Callable[[], np.ndarray]


def passages(count: int) -> list[str]:
    """The first sections of the examples' corpus."""
    files = sorted((ROOT / "examples" / "corpus").glob("*.md"))
    found = [part for file in files for part in file.read_text("utf-8").split("# ") if part.strip()]
    return (found * (count // len(found) + 1))[:count]


def published_reranker(folder: str, dtype: torch.dtype, documents: list[str]) -> System:
    """The models' published usage: one left-padded batch, logits of all tokens and positions."""
    tokenizer: Any = AutoTokenizer.from_pretrained(folder, padding_side="left")
    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype)
    model.eval()
    head, tail = (tokenizer.encode(text, add_special_tokens=False) for text in (HEAD, TAIL))
    yes, no = tokenizer.convert_tokens_to_ids(["yes", "no"])
    bodies = [f"<Instruct>: {TASK}\n<Query>: {QUESTION}\n<Document>: {d}" for d in documents]

    @torch.inference_mode()
    def run() -> np.ndarray:
        rows = tokenizer(bodies, add_special_tokens=False)["input_ids"]
        inputs = {"input_ids": [head + row + tail for row in rows]}
        batch = tokenizer.pad(inputs, padding=True, return_tensors="pt")
        logits = model(**batch).logits[:, -1].float()
        difference: np.ndarray = (logits[:, yes] - logits[:, no]).numpy()
        return difference

    return run


def cross_encoder(folder: str, dtype: str, documents: list[str]) -> System:
    """sentence-transformers' CrossEncoder in its default batches; raw log-odds."""
    from sentence_transformers import CrossEncoder

    model = CrossEncoder(
        folder,
        device="cpu",
        model_kwargs={"dtype": dtype},
        activation_fn=torch.nn.Identity(),
        prompts={"web_search": TASK},
        default_prompt_name="web_search",
    )
    pairs = [(QUESTION, document) for document in documents]
    return lambda: np.asarray(model.predict(pairs))


def sentence_transformer(folder: str, dtype: str, texts: list[str], batch_size: int) -> System:
    """sentence-transformers' SentenceTransformer on documents."""
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(folder, device="cpu", model_kwargs={"dtype": dtype})
    return lambda: np.asarray(model.encode_document(texts, batch_size=batch_size))


def floor(model: Any, tokens: int) -> System:
    """Every layer's weight products for so many tokens, and nothing else."""
    config, dtype = model.config, model.dtype
    wide = config.num_attention_heads * config.head_dim
    sizes = (config.hidden_size, wide, config.intermediate_size)
    hidden, heads, inner = (torch.randn(tokens, n, dtype=dtype) for n in sizes)

    @torch.inference_mode()
    def run() -> np.ndarray:
        for layer in model.layers:
            attention, mlp = layer.self_attn, layer.mlp
            for module in (attention.q_proj, attention.k_proj, attention.v_proj):
                module(hidden)
            attention.o_proj(heads)
            mlp.gate_proj(hidden), mlp.up_proj(hidden)
            mlp.down_proj(inner)
        return np.empty(0)

    return run


def measure(systems: dict[str, System], rounds: int) -> dict[str, dict[str, float]]:
    """Median seconds of each system, its ratio to ours, and how far its answer is from ours."""
    answers = {name: run() for name, run in systems.items()}  # the first run warms up
    times: dict[str, list[float]] = {name: [] for name in systems}
    for _ in range(rounds):
        for name, run in systems.items():
            begin = time.perf_counter()
            run()
            times[name].append(time.perf_counter() - begin)
    figures = {}
    for name, seconds in times.items():
        ratios = [a / b for a, b in zip(seconds, times[OURS], strict=True)]
        figures[name] = {"seconds": median(seconds), "ratio": median(ratios)}
        if answers[name].size:
            figures[name]["difference"] = float(np.abs(answers[name] - answers[OURS]).max())
    return figures


def tasks(embedding: str, reranker: str, dtype: Dtype) -> dict[str, dict[str, System]]:
    """What is measured: for each task the systems that do it."""
    documents, texts = passages(10), passages(64)
    ours_e = Embedder(embedding, dtype=dtype, device="cpu")
    ours_r = Reranker(reranker, dtype=dtype, device="cpu")
    torch_dtype = getattr(torch, dtype)
    tokenizer = ours_r.engine.tokenizer
    prefix = tokenizer.rerank_prefix(TASK, QUESTION)
    rows, _ = tokenizer.rerank_documents(documents, 8192)
    rerank_tokens = len(prefix) + sum(map(len, rows))
    rows, _ = ours_e.engine.tokenizer.embedding_documents(texts, 8192)
    embed_tokens = sum(map(len, rows))

    def rerank() -> np.ndarray:
        ours_r.engine.encoder.forget()  # a question asked twice would find its keys and values
        return ours_r.score(QUESTION, documents)

    return {
        f"rerank {len(documents)} passages ({rerank_tokens} tokens)": {
            OURS: rerank,
            "published code": published_reranker(reranker, torch_dtype, documents),
            "sentence-transformers": cross_encoder(reranker, dtype, documents),
            FLOOR: floor(ours_r.engine.encoder.model, rerank_tokens),
        },
        f"embed {len(texts)} passages ({embed_tokens} tokens)": {
            OURS: lambda: ours_e.embed_documents(texts),
            "sentence-transformers": sentence_transformer(embedding, dtype, texts, 32),
            "sentence-transformers, one by one": sentence_transformer(embedding, dtype, texts, 1),
            FLOOR: floor(ours_e.engine.encoder.model, embed_tokens),
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
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
        for name, systems in tasks(embedding, reranker, args.dtype).items():
            figures = report["tasks"][name] = measure(systems, args.rounds)
            table = Table("system", "seconds", "times ours", "difference", title=name)
            for system, row in figures.items():
                far = f"{row['difference']:.1e}" if "difference" in row else ""
                table.add_row(system, f"{row['seconds']:.2f}", f"{row['ratio']:.2f}", far)
            console.print(table)
    report["machine"]["load average, end"] = describe()["load average"]
    if args.json:
        args.json.write_text(json.dumps(report, indent=2), encoding="utf-8")


if __name__ == "__main__":
    main()
