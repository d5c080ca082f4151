"""The main job through LangChain and through LlamaIndex: dense search, reranking, sources.

    python examples/demo.py
    python examples/demo.py --corpus handbook --question "Where do the spare keys hang?"

It needs no network: the corpus and the small models ship with the package. With OPENAI_API_KEY set,
an LLM answers.
"""

import argparse
import hashlib
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import get_args

from _output import (
    Hit,
    busy,
    explain_scores,
    say,
    show_answer,
    show_comparison,
    show_next_steps,
    show_question,
    show_tally,
)
from _questions import QUESTIONS

from qwen3_core.settings import TINY, Dtype, matching_reranker
from qwen3_retrieval.command import in_one_line, is_expected
from qwen3_retrieval.documents.cutting import Splitter

HERE = Path(__file__).resolve().parent
KEPT = HERE.parent / ".demo"
"""Folder of the Milvus Lite database."""

Results = tuple[list[Hit], list[Hit]]
"""Candidates in the order of dense search, and in that of the reranker."""


def read_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--question", help="what to ask; default: 24 questions about the bundled FAQ")
    add("--corpus", type=Path, default=HERE / "corpus", help="folder or file; default: a FAQ")
    add("--splitter", choices=get_args(Splitter), default="structure", help="as of the ingest")
    add("--model", default=TINY, help='embedding model: hub name, folder, or "tiny" (default)')
    add("--reranker", help="reranking model; default: the one that goes with --model")
    add("--dtype", choices=get_args(Dtype), default="auto", help="what the models compute in")
    add("--base-url", action="append", metavar="URL",
        help="server of the models; twice for the embedding server and the reranker's")  # fmt: skip
    add("--instruction", help="task name or sentence that tells both models what to look for")
    add("--top-k", type=int, default=10, metavar="K", help="candidates (default 10)")
    add("--top-n", type=int, default=3, metavar="N", help="passages to keep (default 3)")
    add("--uri", default=str(KEPT / "milvus.db"), help="Milvus Lite file or address of a server")
    add("--token", default=os.environ.get("MILVUS_TOKEN"), help="of the server")
    options = parser.parse_args()
    if options.question is None and options.corpus != HERE / "corpus":
        parser.error("--corpus is your own: give a --question too")
    if not 1 <= options.top_n <= options.top_k:
        parser.error(f"--top-n {options.top_n} is not from 1 to --top-k {options.top_k}")
    options.reranker = options.reranker or matching_reranker(options.model)
    options.base_url = options.base_url or [None]
    options.llm = os.environ.get("OPENAI_API_KEY") and os.environ.get("OPENAI_MODEL", "gpt-5-mini")
    # A collection for each corpus, splitter and model.
    parts = (str(options.corpus.resolve()), options.splitter, options.model)
    options.collection = hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]
    return options


def main(options: argparse.Namespace) -> None:
    say("Two-stage retrieval: dense search finds candidates, a reranker orders them.", "bold")
    say()
    # Imported here and not above, so that something is on the screen meanwhile.
    with busy("loading LangChain, embedding"):
        from _with_langchain import WithLangChain

        langchain = WithLangChain(options)
    with busy("loading LlamaIndex, embedding"):
        from _with_llama_index import WithLlamaIndex

        llama_index = WithLlamaIndex(options)

    shown = {options.question: ""}
    if options.question is None:
        results = {}
        for i, question in enumerate(QUESTIONS, start=1):
            with busy(f"question {i} of {len(QUESTIONS)}"):
                results[question] = langchain.search(question)
        show_tally(QUESTIONS, results)
        shown = extremes(results)
    for question, remark in shown.items():
        first, second = langchain.search(question), llama_index.search(question)
        same = [[hit.id for hit in hits] for hits in first] == [
            [hit.id for hit in hits] for hits in second
        ]
        agreed = "LangChain and LlamaIndex return the same order." if same else "LangChain returns:"
        show_question(question, remark + agreed)
        show_comparison(*first, options.top_n, QUESTIONS.get(question))
        if not same:
            say("LlamaIndex returns:", "dim")
            show_comparison(*second, options.top_n, QUESTIONS.get(question))
    explain_scores()

    question = next(iter(shown))
    show_question(question)
    show_answer("LangChain", *langchain.answer(question))
    show_answer("LlamaIndex", *llama_index.answer(question))
    show_next_steps(options)


def extremes(results: Mapping[str, Results]) -> dict[str, str]:
    """The question that reranking helped most and the one that it hurt most, each with why."""
    gains = {}
    for question, stages in results.items():
        before, after = ([hit.title for hit in hits] for hits in stages)
        answer = QUESTIONS[question]
        if answer in before:
            gains[question] = 1 / (1 + after.index(answer)) - 1 / (1 + before.index(answer))
    if not gains:  # with so small a --top-k that nothing was found
        return dict.fromkeys(list(results)[:1], "")
    best, worst = max(gains, key=gains.__getitem__), min(gains, key=gains.__getitem__)
    helped = "Reranking helped most here. " if gains[best] > 0 else "Reranking helped nowhere. "
    hurt = "Reranking hurt most here. " if gains[worst] < 0 else "Reranking hurt nowhere. "
    return {best: helped, worst: hurt}


def run() -> int:
    """Errors that the user can fix become one line on stderr."""
    options = read_options()
    if options.model == options.reranker == TINY:
        # Too small to gain from more threads, which slow each other down on a busy machine.
        os.environ.setdefault("OMP_NUM_THREADS", "1")
    try:
        if options.uri == str(KEPT / "milvus.db"):
            KEPT.mkdir(exist_ok=True)
            (KEPT / ".gitignore").write_text("*\n", encoding="utf-8")
        main(options)
    except KeyboardInterrupt:
        return 130
    except Exception as error:
        if not any(is_expected(error, package) for package in ("pymilvus", "openai")):
            raise
        print(f"demo.py: {in_one_line(error, {})}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(run())
