"""Retrieval results of a pair of checkpoints on (queries, documents, right answers)."""

import json
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from .data import DevSet
from .scoring import BM25, Embedder, Reranker, rank_metrics

TOP_K = 10
DIMENSIONS = (32, 64, 128)


def evaluate_set(
    dev: DevSet, embedder: Embedder, reranker: Reranker | None
) -> dict[str, dict[str, float]]:
    """Metrics of BM25, dense retrieval (full and sliced) and dense top 10 reranked."""
    documents, queries = embedder.documents(dev.documents), embedder.queries(dev.queries)
    dense = queries @ documents.T
    bm25 = BM25(dev.documents)
    lexical = np.stack([bm25(q) for q in dev.queries])
    results = {"bm25": rank_metrics(lexical, dev.gold), "dense": rank_metrics(dense, dev.gold)}
    for width in DIMENSIONS:
        q, d = (_unit(x[:, :width]) for x in (queries, documents))
        results[f"dense {width}"] = rank_metrics(q @ d.T, dev.gold)
    if reranker:
        top = np.argsort(-dense, 1, kind="stable")[:, :TOP_K]
        pairs = [
            (q, dev.documents[i]) for q, row in zip(dev.queries, top, strict=True) for i in row
        ]
        reranked = np.full(dense.shape, -np.inf)
        np.put_along_axis(reranked, top, reranker(pairs).reshape(top.shape), 1)
        results["dense + rerank"] = rank_metrics(reranked, dev.gold)
    return results


def read_faq(folder: Path) -> DevSet:
    """The Milvus FAQ pages cut at ``"# "`` as the Milvus tutorial cuts them.

    Each question is removed from its own chunk, so that finding it is not a string match.
    """
    documents: list[str] = []
    queries: list[str] = []
    gold: list[int] = []
    for path in sorted(folder.glob("*.md")):
        for part in path.read_text(encoding="utf-8").split("# "):
            head, _, rest = part.partition("\n")
            question = head.strip().endswith("?")
            if question:
                queries.append(head.strip())
                gold.append(len(documents))
            documents.append(re.sub(r"#+\s*$", "", rest if question else part).strip())
    return DevSet("Milvus FAQ 2.4.6", queries, documents, gold)


def read_parallel_faq(path: Path) -> list[DevSet]:
    """Questions and answers of the Milvus FAQ in each language of a file, English first.

    Keys of its rows: version, lang, question, answer.
    """
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    languages = sorted({row["lang"] for row in rows}, key=lambda lang: (lang != "en", lang))
    sets = []
    for lang in languages:
        own = [row for row in rows if row["lang"] == lang]
        queries, documents = [r["question"] for r in own], [r["answer"] for r in own]
        name = f"Milvus FAQ {own[0]['version']} {lang}"
        sets.append(DevSet(name, queries, documents, list(range(len(own)))))
    return sets


def tutorial_question(
    faq: DevSet, embedder: Embedder, reranker: Reranker
) -> dict[str, list[tuple[str, float]]]:
    """Top 3 of both stages for the Milvus tutorial's question, and two off-topic passages."""
    question = "How is data stored in milvus?"
    titles = {i: q for q, i in zip(faq.queries, faq.gold, strict=True)}
    texts = [f"{titles[i]}\n\n{d}" if i in titles else d for i, d in enumerate(faq.documents)]
    dense = (embedder.queries([question]) @ embedder.documents(texts).T)[0]
    top = np.argsort(-dense, kind="stable")[:TOP_K]
    scores = reranker([(question, texts[i]) for i in top])
    off_topic = ["The weather in Paris is mild in spring.", "Bananas are rich in potassium."]
    off_scores = reranker([(question, text) for text in off_topic])

    def show(order: Sequence[int], values: Sequence[float]) -> list[tuple[str, float]]:
        return [
            (titles.get(i, texts[i][:60]), round(float(v), 4))
            for i, v in zip(order, values, strict=True)
        ]

    best = np.argsort(-scores, kind="stable")[:3]
    return {
        "dense": show(list(top[:3]), list(dense[top[:3]])),
        "rerank": show([int(top[j]) for j in best], [float(scores[j]) for j in best]),
        "off topic": [(t, round(float(s), 4)) for t, s in zip(off_topic, off_scores, strict=True)],
    }


def table(results: dict[str, dict[str, dict[str, float]]]) -> str:
    """Markdown table: one row per set and method."""
    lines = ["| set | method | R@1 | R@10 | MRR@10 |", "| --- | --- | --- | --- | --- |"]
    for name, methods in results.items():
        for method, value in methods.items():
            numbers = " | ".join(f"{value[k]:.3f}" for k in ("R@1", "R@10", "MRR@10"))
            lines.append(f"| {name} | {method} | {numbers} |")
    return "\n".join(lines)


def _unit(rows: np.ndarray) -> np.ndarray:
    normalised: np.ndarray = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return normalised
