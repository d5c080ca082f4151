r"""Train the bundled pair, one stage per call or all of them.

    python -m tools.train_tiny.run --stage all --work /tmp/tiny --pairs pairs.jsonl.gz \
        --teacher all-MiniLM-L6-v2 --qwen3-tokenizer tokenizer.json --out qwen3_core/tiny

Every stage may be interrupted and called again: it goes on from its last checkpoint in ``--work``.
"""

import argparse
import json
from collections.abc import Callable
from pathlib import Path

import torch

from .embedding import train_embedding
from .evaluate import (
    evaluate_set,
    read_faq,
    read_parallel_faq,
    table,
    tutorial_question,
)
from .package import export
from .reranker import build_reranker
from .scoring import Embedder, Reranker
from .teacher import embed_workspace
from .vocabulary import train_tokenizer
from .workspace import Workspace, log


def main() -> None:
    """Parse arguments and run the chosen stages."""
    stages: dict[str, Callable[[argparse.Namespace, Workspace], None]] = {
        "tokenizer": _tokenizer,
        "teacher": lambda args, workspace: embed_workspace(workspace, args.teacher, args.first),
        "embedding": lambda args, workspace: train_embedding(workspace, args.seed),
        "reranker": lambda args, workspace: build_reranker(workspace, args.seed + 1),
        "package": lambda args, workspace: export(workspace, args.out),
        "evaluate": _evaluate,
    }
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--stage", choices=[*stages, "all"], default="all")
    parser.add_argument(
        "--work", type=Path, required=True, help="folder for all intermediate files"
    )
    parser.add_argument("--pairs", type=Path, required=True, help="pairs.jsonl.gz (keys s, q, d)")
    parser.add_argument("--teacher", help="folder of all-MiniLM-L6-v2")
    parser.add_argument("--first", type=int, help="pairs the teacher embeds (default: all)")
    parser.add_argument("--qwen3-tokenizer", type=Path, help="tokenizer.json of any Qwen3 model")
    parser.add_argument("--vocabulary", type=int, default=17408, help="entries of the vocabulary")
    parser.add_argument("--out", type=Path, default=Path("qwen3_core/tiny"), help="checkpoints")
    parser.add_argument("--faq", type=Path, help="folder of the Milvus 2.4.6 FAQ pages (evaluate)")
    parser.add_argument("--parallel-faq", type=Path, help="FAQ rows, jsonl (evaluate)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    args.work.mkdir(parents=True, exist_ok=True)
    workspace = Workspace(args.work, args.pairs)
    for name in stages if args.stage == "all" else [args.stage]:
        if missing := _missing(args, name):
            parser.error(f"stage {name} needs {missing}")
        log(f"stage {name}")
        stages[name](args, workspace)


def _missing(args: argparse.Namespace, stage: str) -> str:
    if stage == "tokenizer" and args.qwen3_tokenizer is None:
        return "--qwen3-tokenizer"
    return "--teacher" if stage == "teacher" and args.teacher is None else ""


def _tokenizer(args: argparse.Namespace, workspace: Workspace) -> None:
    path = workspace.root / "tokenizer.json"
    if not path.exists():
        tokenizer = train_tokenizer(args.qwen3_tokenizer, workspace.train, args.vocabulary)
        tokenizer.save(str(path))


def _evaluate(args: argparse.Namespace, workspace: Workspace) -> None:
    embedder, reranker = Embedder(args.out / "embedding"), Reranker(args.out / "reranker")
    sets = list(workspace.dev)
    if args.faq:
        sets.append(read_faq(args.faq))
    if args.parallel_faq:
        sets += read_parallel_faq(args.parallel_faq)
    results = {dev.name: evaluate_set(dev, embedder, reranker) for dev in sets}
    report: dict[str, object] = {"metrics": results}
    print(table(results))
    if args.faq:
        report["tutorial"] = tutorial_question(read_faq(args.faq), embedder, reranker)
        print(json.dumps(report["tutorial"], indent=1, ensure_ascii=False))
    (args.work / "results.json").write_text(json.dumps(report, indent=1, ensure_ascii=False))


if __name__ == "__main__":
    main()
