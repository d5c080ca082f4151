"""Show reranking at work on a page in the browser.

    python -m qwen3_retrieval.demo
    python -m qwen3_retrieval.demo --corpus handbook --model Qwen/Qwen3-Embedding-0.6B
    python -m qwen3_retrieval.demo --corpus handbook --ask "Where is the data kept?"

With --ask it prints both orders of one question in the terminal. Otherwise it serves a page, on
this machine only, which loads nothing from other hosts.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Final

from qwen3_core.common.extras import how_to_install
from qwen3_core.components import make_embedder, make_reranker
from qwen3_core.settings import TINY, matching_reranker
from qwen3_retrieval.command import make_parser

if TYPE_CHECKING:
    from qwen3_retrieval.demo.search import Result

_HERE: Final = Path(__file__).resolve().parent
_IN_WHEEL: Final = _HERE / "corpus"
BUNDLED: Final = _IN_WHEEL if _IN_WHEEL.is_dir() else _HERE.parents[1] / "examples" / "corpus"
"""The examples' corpus: part of the wheel, or of a clone, next to the packages."""

K: Final = 10
"""Candidates that dense search finds, unless the page says otherwise."""

EXAMPLES: Final = (
    "Every passage is rated 0.99, how can I tell them apart?",
    "My data does not fit into RAM, what now?",
    "Opening the same .db file from a second script fails",
)
"""Questions about that corpus."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    options = _parser().parse_args(arguments)
    try:
        import_module("rich" if options.ask is not None else "gradio")
    except ModuleNotFoundError as error:
        print(  # noqa: T201
            f"demo: it needs {error.name}, which is not installed: {how_to_install('demo')}",
            file=sys.stderr,
        )
        return 1
    from qwen3_core.remote import ServerError
    from qwen3_retrieval.demo.passages import read_corpus
    from qwen3_retrieval.demo.search import Searcher
    from qwen3_retrieval.documents.cutting import Cutter, tokenizer_of

    paths = options.corpus or [BUNDLED]
    urls = options.base_url or [None]
    cutter = Cutter(tokenizer_of(options.model, urls[0]))
    reranker = options.reranker or matching_reranker(options.model)
    try:
        searcher = Searcher(
            make_embedder(options.model, dimensions=None, base_url=urls[0]),
            make_reranker(reranker, base_url=urls[-1]),
        )
        corpora = {}
        for path in paths:
            reading = read_corpus(path, cutter)
            for note in reading.notes:
                print(f"demo: left out: {note}", file=sys.stderr)  # noqa: T201
            passages = reading.passages
            print(f"embedding {len(passages):,} passages of {path}", flush=True)  # noqa: T201
            name = "Bundled FAQ" if path == BUNDLED else path.resolve().name
            corpora[name if name not in corpora else str(path)] = searcher.index(passages)
        if options.ask is not None:
            for corpus in corpora.values():
                _print(searcher.search(corpus, options.ask, K, None))
            return 0
    except (ValueError, OSError, ImportError, ServerError) as error:
        print(f"demo: {error}", file=sys.stderr)  # noqa: T201
        return 1
    from qwen3_retrieval.demo.page import Setup, build, serve

    setup = Setup(
        searcher,
        cutter,
        corpora,
        f"Models: {options.model} and {reranker}"
        + (", bundled toys that show the mechanism." if options.model == TINY else "."),
        () if options.corpus else EXAMPLES,
        options.llm,
    )
    try:
        serve(build(setup), options.host, options.port)
    except OSError as error:  # no free port
        print(f"demo: {error}", file=sys.stderr)  # noqa: T201
        return 1
    return 0


def _print(result: "Result") -> None:
    from rich.console import Console

    from qwen3_retrieval.comparison import show

    show(result.moves, K, Console())


def _parser() -> argparse.ArgumentParser:
    parser = make_parser("demo", __doc__)
    add = parser.add_argument
    add(
        "--corpus",
        action="append",
        type=Path,
        metavar="PATH",
        help="folder or file to search; may be given several times; default: a bundled "
        "FAQ on this package",
    )
    add(
        "--ask",
        metavar="QUESTION",
        help="print the dense and the reranked order of this question; start no page",
    )
    add("--model", default=TINY, help='embedding model: hub name, folder, or "tiny" (default)')
    add("--reranker", metavar="MODEL", help="reranking model; default: the one that goes with it")
    add(
        "--base-url",
        action="append",
        metavar="URL",
        help="server that runs the models; twice for the embedding server and the reranker's",
    )
    add(
        "--llm",
        default=os.environ.get("OPENAI_MODEL") or "gpt-4o",
        metavar="NAME",
        help="LLM that answers, if OPENAI_API_KEY or OPENAI_BASE_URL is set (default: %(default)s)",
    )
    add("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    add("--port", type=int, help="default: the first free one from 7860 on")
    return parser


if __name__ == "__main__":
    sys.exit(main())
