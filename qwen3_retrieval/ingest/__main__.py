"""Fill a Milvus collection from a folder of files, or bring it up to date.

    python -m qwen3_retrieval.ingest --corpus handbook --uri ./milvus.db --collection handbook

It can be interrupted at any time: the same command resumes.
Exit code: 0 complete; 1 failed, or nothing could be read; 2 the command is wrong; 3 done, but a
file that may contain text was omitted, in whole or in part; 130 interrupted.
"""

import argparse
import logging
import os
import sys
import threading
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, get_args

from tqdm import tqdm

from qwen3_core.milvus.index import IndexType
from qwen3_core.settings import Dtype
from qwen3_retrieval.command import in_one_line, is_expected, make_parser
from qwen3_retrieval.documents.corpus import SHOWN_KINDS
from qwen3_retrieval.documents.cutting import Splitter
from qwen3_retrieval.ingest.framework import FRAMEWORKS
from qwen3_retrieval.ingest.run import Ingest, Summary
from qwen3_retrieval.ingest.settings import IngestSettings


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if not options.debug:
        _quiet()
    # The default lock is for several processes, and starts a process to track it.
    tqdm.set_lock(threading.RLock())
    try:
        given = {each.name: getattr(options, each.name) for each in fields(IngestSettings)}
        several = {name: tuple(given[name] or ()) for name in ("exclude", "metadata_keys")}
        settings = IngestSettings(**given | several)
    except ValueError as error:
        parser.error(in_one_line(error, OPTIONS))
    if options.delete_missing and Path(options.corpus).is_file():
        parser.error("--delete-missing needs a folder as --corpus")
    ingest = None
    try:
        ingest = Ingest(settings, options.framework)
        summary = ingest.run()
    except KeyboardInterrupt:
        _stop("interrupted", ingest)
        return 130
    except Exception as error:
        if options.debug or not is_expected(error, "pymilvus"):
            raise
        _stop(in_one_line(error, OPTIONS), ingest)
        return 1
    _show(summary, settings)
    if not summary.incomplete:
        return 0
    return 3 if summary.chunks else 1


def _parser() -> argparse.ArgumentParser:
    parser = make_parser("ingest", __doc__)
    default = {each.name: each.default for each in fields(IngestSettings)}
    switch = argparse.BooleanOptionalAction

    def add(name: str, text: str, **more: Any) -> None:
        key = name.removeprefix("--").replace("-", "_")
        if key in default:
            more.setdefault("default", default[key])
        if more.get("default") is not None and not more.get("action"):
            text += " (default: %(default)s)"
        parser.add_argument(name, help=text, **more)

    add(
        "--corpus",
        f"folder, read with its subfolders, or a file: {SHOWN_KINDS}",
        type=Path,
        required=True,
        default=None,
        metavar="PATH",
    )
    add("--name", "the corpus's name in the collection; default: the folder's name")
    add("--uri", "Milvus Lite file, http://host:19530, or a Zilliz Cloud endpoint")
    add(
        "--token",
        '"user:password" or API key of the Milvus server; default: $MILVUS_TOKEN',
        default=os.environ.get("MILVUS_TOKEN") or None,
    )
    add("--db-name", "Milvus database, which must exist; default: Milvus's own", metavar="NAME")
    add("--collection", "Milvus collection, made if need be")
    add(
        "--index-type",
        "index of a new collection; default: one that finds all on Milvus Lite, IVF_FLAT on a "
        "server; of one that exists qwen3_core.milvus.rebuild_index changes it",
        choices=get_args(IndexType),
    )
    add(
        "--framework",
        "whose vector store can open the collection; default: the first that is installed",
        choices=tuple(FRAMEWORKS),
    )
    add("--model", 'embedding model: hub name, folder, or "tiny"')
    add("--base-url", "server that embeds, such as http://localhost:8000/v1", metavar="URL")
    add("--device", "where the model runs: cpu, cuda, cuda:1, mps")
    add("--dtype", "what it computes in", choices=get_args(Dtype))
    add("--dimensions", "length of the vectors, 32 to the model's", type=int, metavar="N")
    add(
        "--splitter",
        "structure: at headings, then blocks, table rows, sentences, words, to --chunk-size, the "
        "same for both frameworks; headers: Markdown at every '# '; framework: LangChain's or "
        "LlamaIndex's own splitters; none: a file, page or record is one chunk",
        choices=get_args(Splitter),
    )
    add("--chunk-size", "tokens of a chunk at most", type=int, metavar="N")
    add("--chunk-overlap", "tokens at most that a chunk repeats of the one before it, in whole "
        "sentences or lines", type=int, metavar="N")  # fmt: skip
    add("--text-field", "field of a JSON record that holds the text", metavar="NAME")
    add("--encoding", "of text files that are not Unicode, such as cp1252 or gb18030; default: "
        "they are reported", metavar="NAME")  # fmt: skip
    add("--metadata-keys", "metadata that is embedded before each text, such as title; the "
        "collection records it; default: none", nargs="+", default=None, metavar="KEY")  # fmt: skip
    parser.add_argument(
        "--exclude", help="files to leave alone, such as '*.log' or 'drafts/*'; can be repeated",
        action="append", default=[], metavar="PATTERN",
    )  # fmt: skip
    add("--batch-size", "chunks embedded and committed at once", type=int, metavar="N")
    add("--journal", "file for notes on finished files; default: beside a Milvus Lite database, "
        "else in the current folder", type=Path, metavar="PATH")  # fmt: skip
    add("--resume", "leave alone what is there already; --no-resume embeds every chunk again",
        action=switch)  # fmt: skip
    add("--delete-missing", "remove the chunks of files that are gone", action="store_true")
    add("--dry-run", "say what would be done, and change nothing; of the model it needs "
        "config.json and the tokenizer, to cut, but no weights", action="store_true")  # fmt: skip
    add("--progress", "a progress bar; default: where stderr is a terminal", action=switch)
    parser.add_argument(
        "--debug", action="store_true", help="show logs, and the traceback of an error"
    )
    return parser


OPTIONS = {each.name: f"--{each.name.replace('_', '-')}" for each in fields(IngestSettings)} | {
    "collection_name": "--collection",
    "api_key": "API key",  # not an option: the process list would show it
}
"""The command's names for arguments of the functions that it calls."""

LOUD = ("pymilvus", "milvus_lite", "grpc", "faiss", "langchain_milvus", "llama_index")
"""Loggers of libraries that log an error, some with a row's text, before they raise it."""


def _quiet() -> None:
    """Silence these loggers: `_stop` reports each error once."""
    try:
        import pymilvus  # noqa: F401 - imported first, because it sets its loggers' levels
    except ModuleNotFoundError:
        return
    for name in LOUD:
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")


def _stop(reason: str, ingest: Ingest | None) -> None:
    done = ingest.summary.written if ingest is not None else 0
    kept = f"; {done} chunks are written, and the same command goes on from there" if done else ""
    print(f"ingest: {reason}{kept}", file=sys.stderr)  # noqa: T201


def _show(summary: Summary, settings: IngestSettings) -> None:
    """Print the summary on stdout; omitted files were already reported on stderr."""
    would = settings.dry_run
    read = summary.files - summary.unchanged
    do, undo, redo = ("to write", "to delete", "to update") if would else (
        "written", "deleted", "updated")  # fmt: skip
    missing = updated = repeated = ""
    if summary.missing:
        what = "removed" if settings.delete_missing else "kept, see --delete-missing"
        missing = f", {summary.missing} gone ({what})"
    if summary.updated:
        updated = f", {summary.updated} {redo}"
    if summary.repeated:
        repeated = f"; {summary.repeated} stand in several places"
    changes = f"{summary.written} {do}, {summary.deleted} {undo}{updated}{repeated}"
    lines = [
        *(["dry run: nothing was embedded or changed"] if would else []),
        f"files     {summary.files}: {read} read, {summary.unchanged} unchanged{missing}",
        f"chunks    {summary.chunks}: {changes}",
        f"tokens    {summary.tokens}",
        f"seconds   {summary.seconds:.1f}",
    ]
    named = {"failures": summary.failures, "skipped": summary.skipped, "remarks": summary.remarks}
    for name, found in named.items():
        if found or name == "failures":
            lines.append(f"{name:<10}{len(found)}")
        counts = summary.counts.get(name, {})
        lines += [
            f"  {counts[reason]} {reason}" for reason in sorted(counts, key=lambda r: -counts[r])
        ]
    print("\n".join(lines))  # noqa: T201


if __name__ == "__main__":
    sys.exit(main())
