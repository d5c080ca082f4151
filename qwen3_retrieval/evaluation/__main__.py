"""Is two-stage retrieval worth it on your own data, and at which settings?

    python -m qwen3_retrieval.evaluation docs
    python -m qwen3_retrieval.evaluation questions.csv --corpus docs --model tiny

DATASET is a folder of documents, cut like in an ingest (its headings become questions), a folder in
BEIR's layout (corpus.jsonl, queries.jsonl, qrels/*.tsv), or a .csv, .tsv or .jsonl of questions,
each with the passage or the source file that answers it. The command prints a table and writes a
page. It can be interrupted at any time: the same command resumes.
Exit code: 0 done; 1 failed; 2 the command is wrong; 130 interrupted.
"""

import argparse
import sys
import threading
import warnings
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, get_args

from tqdm import tqdm

from qwen3_core.settings import Dtype
from qwen3_retrieval.command import in_one_line, is_expected, make_parser
from qwen3_retrieval.documents.cutting import CHUNK_OVERLAP, CHUNK_SIZE, Cutter, tokenizer_of
from qwen3_retrieval.evaluation.extra import check_installed
from qwen3_retrieval.evaluation.load import MAX_QUESTIONS, load_dataset
from qwen3_retrieval.evaluation.settings import EvaluationSettings, Pair


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    parser = _parser()
    options = parser.parse_args(arguments)
    # The default lock is for several processes, and starts a process to track it.
    tqdm.set_lock(threading.RLock())
    if not options.debug:
        warnings.showwarning = _warn
    try:
        settings = _settings(options)
    except ValueError as error:
        parser.error(in_one_line(error, OPTIONS))
    try:
        check_installed()
        _evaluate(options, settings)
    except KeyboardInterrupt:
        _stop("interrupted", settings)
        return 130
    except Exception as error:
        if options.debug or not is_expected(error, "openai"):
            raise
        _stop(in_one_line(error, OPTIONS), settings)
        return 1
    return 0


def _evaluate(options: argparse.Namespace, settings: EvaluationSettings) -> None:
    from rich.console import Console

    from qwen3_retrieval.evaluation.page import write_html
    from qwen3_retrieval.evaluation.run import evaluate
    from qwen3_retrieval.evaluation.synthetic import make_questions
    from qwen3_retrieval.evaluation.terminal import show

    if options.llm:
        dataset = make_questions(
            *(options.dataset, options.llm, options.questions, settings.cache, settings.progress),
            cutter=Cutter(
                tokenizer_of(settings.pair.model, settings.pair.base_url),
                *("structure", options.chunk_size, options.chunk_overlap),
            ),
            leave_out=_ours(options),
            metadata_keys=options.metadata_keys,
        )
    else:
        dataset = load_dataset(
            options.dataset,
            corpus=options.corpus,
            split=options.split,
            max_questions=options.questions or None,
            leave_out=_ours(options),
            **_cutting(options, settings),
        )
    report = evaluate(dataset, settings)
    if options.json and str(options.json) == "-":
        print(report.to_json())  # noqa: T201
    else:
        show(report, Console())
        if options.json:
            report.write_json(options.json)
    if options.html is not None:
        write_html(report, options.html)
        print(f"report: {options.html.resolve()}", file=sys.stderr)  # noqa: T201


def _cutting(options: argparse.Namespace, settings: EvaluationSettings) -> dict[str, Any]:
    return {
        "model": settings.pair.model,
        "base_url": settings.pair.base_url,
        "chunk_size": options.chunk_size,
        "chunk_overlap": options.chunk_overlap,
        "metadata_keys": options.metadata_keys,
    }


def _ours(options: argparse.Namespace) -> list[Path]:
    """Files that the command writes; they may be in the folder that it reads."""
    return [path for path in (options.html, options.json) if path is not None]


def _settings(options: argparse.Namespace) -> EvaluationSettings:
    def given(prefix: str) -> dict[str, Any]:
        every = {each.name: getattr(options, f"{prefix}{each.name}") for each in fields(Pair)}
        return {name: value for name, value in every.items() if value is not None}

    pair, second = Pair(**given("")), given("second_")
    # Another server with the same model is also a second pair.
    named = {"model": pair.model} | ({} if "model" in second else {"reranker": pair.reranker})
    progress = options.progress
    return EvaluationSettings(
        pair=pair,
        second=Pair(**named | second) if second else None,
        instruction=options.instruction,
        more_instructions=tuple(options.try_instruction),
        dimensions=options.dimensions,
        max_length=options.max_length,
        k=options.k,
        sweep=options.sweep,
        sweep_k=tuple(options.sweep_k),
        sweep_questions=options.sweep_questions,
        latency_questions=options.latency_questions,
        margin=options.margin,
        cache=options.cache,
        progress=sys.stderr.isatty() if progress is None else progress,
    )


def _parser() -> argparse.ArgumentParser:
    parser = make_parser("evaluation", __doc__)
    default = EvaluationSettings()

    def add(to: Any, name: str, text: str, **more: Any) -> None:
        if more.get("default") not in (None, []) and not more.get("action"):
            text += " (default: %(default)s)"
        to.add_argument(name, help=text, **more)

    parser.add_argument("dataset", type=Path, metavar="DATASET", help="folder or file, see above")
    data = parser.add_argument_group("data")
    add(data, "--corpus", "folder that the passages or files of a table are in", type=Path,
        metavar="PATH")  # fmt: skip
    add(data, "--chunk-size", "tokens of a folder's passages at most, as of the ingest", type=int,
        metavar="N", default=CHUNK_SIZE)  # fmt: skip
    add(data, "--chunk-overlap", "tokens at most that a passage repeats of the one before it",
        type=int, metavar="N", default=CHUNK_OVERLAP)  # fmt: skip
    add(data, "--metadata-keys", "metadata that the models read before each passage of a folder, "
        "as of the ingest; default: none", nargs="+", default=[], metavar="KEY")  # fmt: skip
    add(data, "--split", 'which qrels of a BEIR dataset; default: "test", or the only one')
    add(data, "--questions", "ask so many at most; 0: all", type=_count_or_zero, metavar="N",
        default=MAX_QUESTIONS)  # fmt: skip
    add(data, "--llm", "OpenAI model that makes the questions from passages of a folder "
        "($OPENAI_API_KEY, and $OPENAI_BASE_URL for another server)", metavar="MODEL")  # fmt: skip
    for prefix, title in (("", "models"), ("second-", "a second pair of models, side by side")):
        group = parser.add_argument_group(title)
        first = default.pair.model if not prefix else None
        add(group, f"--{prefix}model", 'embedding model: hub name, folder, or "tiny"',
            default=first)  # fmt: skip
        add(group, f"--{prefix}reranker", 'reranking model; default "tiny" with "tiny", else '
            "Qwen/Qwen3-Reranker-0.6B", metavar="MODEL")  # fmt: skip
        add(group, f"--{prefix}base-url", "server that embeds, such as http://localhost:8000/v1 "
            "($QWEN3_API_KEY is its key)", metavar="URL")  # fmt: skip
        add(group, f"--{prefix}reranker-base-url", "server that reranks", metavar="URL")
        add(group, f"--{prefix}revision", "of the embedding model on the hub")
        add(group, f"--{prefix}reranker-revision", "of the reranking model on the hub",
            metavar="REVISION")  # fmt: skip
        add(group, f"--{prefix}device", "where the models run: cpu, cuda, cuda:1, mps")
        add(group, f"--{prefix}dtype", "what they compute in",
            choices=get_args(Dtype))  # fmt: skip
    group = parser.add_argument_group("settings")
    add(group, "--k", "candidates of each system, which a reranker reads", type=int, metavar="K",
        default=default.k)  # fmt: skip
    add(group, "--instruction", "task name or sentence for both models")
    add(group, "--dimensions", "length of the vectors, 32 to the model's", type=int, metavar="N")
    add(group, "--max-length", "tokens read of one text", type=int, metavar="N")
    add(group, "--sweep", "try other k, top_n, dimensions, instructions and max_length, and "
        "recommend a setting", action=argparse.BooleanOptionalAction, default=True)  # fmt: skip
    add(group, "--try-instruction", "another instruction for the sweep; can be repeated",
        action="append", default=[], metavar="INSTRUCTION")  # fmt: skip
    add(group, "--sweep-k", "numbers of candidates that the sweep tries", type=int, nargs="+",
        metavar="K", default=list(default.sweep_k))  # fmt: skip
    add(group, "--sweep-questions", "questions that the sweep asks at most", type=int,
        metavar="N", default=default.sweep_questions)  # fmt: skip
    add(group, "--latency-questions", "questions that are timed", type=int, metavar="N",
        default=default.latency_questions)  # fmt: skip
    add(group, "--margin", "nDCG@10 that the recommended setting may lose to the best, with 95 %% "
        "confidence", type=float, metavar="X", default=default.margin)  # fmt: skip
    group = parser.add_argument_group("output")
    add(group, "--html", "page to be written", type=Path, metavar="PATH",
        default=Path("evaluation.html"))  # fmt: skip
    add(group, "--json", "write everything as JSON; - is stdout, in place of the table",
        type=Path, metavar="PATH")  # fmt: skip
    add(group, "--cache", "file that keeps vectors and scores", type=Path, metavar="PATH",
        default=Path("evaluation.cache"))  # fmt: skip
    add(group, "--progress", "progress bars; default: where stderr is a terminal",
        action=argparse.BooleanOptionalAction)  # fmt: skip
    add(group, "--debug", "show the traceback of an error", action="store_true")
    return parser


def _count_or_zero(text: str) -> int:
    count = int(text)
    if count < 0:
        raise ValueError
    return count


def _warn(message: Warning | str, *_: Any, **__: Any) -> None:
    """Print a warning on one line, without its source line."""
    print(f"evaluation: {message}", file=sys.stderr)  # noqa: T201


OPTIONS = {
    each.name: f"--{each.name.replace('_', '-')}"
    for each in (*fields(Pair), *fields(EvaluationSettings))
    if each.name != "instruction"  # or one of --try-instruction
} | {"metadata_keys": "--metadata-keys"}
"""The command's names for arguments of the functions that it calls."""


def _stop(reason: str, settings: EvaluationSettings) -> None:
    print(f"evaluation: {reason}", file=sys.stderr)  # noqa: T201
    if settings.cache is not None and settings.cache.exists():
        kept = f"what was computed is in {settings.cache}; the same command goes on from it"
        print(f"evaluation: {kept}", file=sys.stderr)  # noqa: T201


if __name__ == "__main__":
    sys.exit(main())
