#!/usr/bin/env python3
"""Retrieval in each language of a parallel FAQ, and from each language into English.

    python tools/language_table.py faq-v2.4.x.jsonl

Rows of the file: lang, file, anchor, question, answer; those of one (file, anchor) say the same in
all languages. Prints the table of qwen3_core/tiny/README.md. It can be stopped: with the same
--cache it goes on where it was.
"""

import argparse
import json
from dataclasses import replace
from pathlib import Path

from qwen3_retrieval.evaluation import Dataset, EvaluationSettings, Pair, Passage, Question
from qwen3_retrieval.evaluation.bench import Bench
from qwen3_retrieval.evaluation.cache import Cache

K = 10
"""Candidates that are reranked."""
PIVOT = "en"
METRICS = ("success@1", "MRR@10")
"""With one right answer to each question, success@1 is R@1."""

Faq = dict[str, dict[str, tuple[str, str]]]
"""Language -> place -> question and answer."""


def read(path: Path) -> Faq:
    faq: Faq = {}
    for line in path.read_text("utf-8").splitlines():
        row = json.loads(line)
        place = f"{row['file']}#{row['anchor']}"
        faq.setdefault(row["lang"], {})[place] = (row["question"], row["answer"])
    return faq


def dataset(faq: Faq, asked: str, searched: str) -> Dataset:
    """Questions in one language over all answers in another, or the same."""
    passages = [Passage(place, answer, place) for place, (_, answer) in faq[searched].items()]
    questions = [
        Question(place, question, {place: 1})
        for place, (question, _) in faq[asked].items()
        if place in faq[searched]
    ]
    return Dataset(f"{asked} to {searched}", "python", passages, questions)


def measure(data: Dataset, settings: EvaluationSettings, cache: Cache) -> dict[str, list[float]]:
    """R@1 and MRR@10 of BM25, of dense search, and of its first ten reranked."""
    bench = Bench(data, settings, cache)
    (systems,) = bench.pairs.values()
    ways = {
        "BM25": replace(bench.base, first="bm25"),
        "dense": bench.base,
        "dense + rerank": replace(bench.base, rerank=True),
    }
    found = {}
    for name, setting in ways.items():
        values, _ = bench.measure(systems, setting, bench.all)
        found[name] = [float(values[metric].mean()) for metric in METRICS]
    return found


def table(faq: Faq, settings: EvaluationSettings, cache: Cache) -> str:
    """Markdown: a row for each language, English first."""
    ways = ("BM25", "dense", "dense + rerank")
    into = ("dense", "dense + rerank")
    head = [*ways, *(f"{way}, into English" for way in into)]
    lines = [
        f"| R@1 / MRR@10 | {' | '.join(head)} |",
        f"| --- |{' --- |' * len(head)}",
    ]
    for language in sorted(faq, key=lambda each: (each != PIVOT, each)):
        own = measure(dataset(faq, language, language), settings, cache)
        cells = [own[way] for way in ways]
        if language != PIVOT:
            across = measure(dataset(faq, language, PIVOT), settings, cache)
            cells += [across[way] for way in into]
        shown = [f"{first:.3f} / {second:.3f}" for first, second in cells]
        shown += [""] * (len(head) - len(shown))
        lines.append(f"| {language} | {' | '.join(shown)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").strip(), formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("faq", type=Path, help="the rows, JSON lines")
    parser.add_argument("--model", default="tiny", help="embedding model (default: %(default)s)")
    parser.add_argument("--reranker", help="reranking model; default: the one that goes with it")
    parser.add_argument("--cache", type=Path, default=Path("evaluation.cache"))
    options = parser.parse_args()
    settings = EvaluationSettings(pair=Pair(model=options.model, reranker=options.reranker), k=K)
    with Cache(options.cache) as cache:
        print(table(read(options.faq), settings, cache))


if __name__ == "__main__":
    main()
