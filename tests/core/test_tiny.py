"""What the card of the bundled pair says it does, under several instructions each.

The bundled corpus and its questions are no part of its training; neither is the Milvus FAQ.
"""

import re
import runpy
from typing import NamedTuple

import numpy as np
import pytest

from qwen3_core import Embedder, Reranker
from tests.conftest import ROOT, TINY

INSTRUCTIONS = (
    None,
    "question_answering",
    "Given a question, find the section of a manual that answers it",
    "Find passages that help with this problem",
)
K = 10


class Places(NamedTuple):
    """Of the right passages: how many come first, and their mean reciprocal rank among K."""

    first: int
    mrr: float


def places(ranks: np.ndarray) -> Places:
    return Places(int((ranks == 1).sum()), float(np.where(ranks <= K, 1 / ranks, 0).mean()))


@pytest.fixture(scope="module")
def embedder():
    with Embedder("tiny", dtype="float32") as embedder:
        yield embedder


@pytest.fixture(scope="module")
def reranker():
    with Reranker("tiny", dtype="float32") as reranker:
        yield reranker


@pytest.fixture(scope="module")
def passages() -> dict[str, str]:
    """The bundled corpus: title to the passage with its title."""
    files = sorted((ROOT / "examples" / "corpus").glob("*.md"))
    parts = [
        p for file in files for p in re.split(r"^# ", file.read_text("utf-8"), flags=re.MULTILINE)
    ]
    return {part.partition("\n")[0].strip(): part.strip() for part in parts if part.strip()}


@pytest.fixture(scope="module")
def questions() -> dict[str, str]:
    """Questions in words of their own, with the title of the passage that answers."""
    found: dict[str, str] = runpy.run_path(str(ROOT / "examples" / "_questions.py"))["QUESTIONS"]
    return found


def dense_top(embedder, questions, passages, instruction) -> np.ndarray:
    vectors = embedder.embed_documents(list(passages.values()))
    asked = embedder.embed_queries(list(questions), instruction=instruction)
    return np.argsort(-(asked @ vectors.T), axis=1, kind="stable")[:, :K]


def places_in(top: np.ndarray, questions, passages) -> Places:
    titles = list(passages)
    gold = np.array([titles.index(title) for title in questions.values()])
    hits = top == gold[:, None]
    return places(np.where(hits.any(1), hits.argmax(1) + 1, K + 1))


@pytest.mark.parametrize("part", ["embedding", "reranker"])
def test_each_model_has_at_most_20_megabytes(part):
    assert 0 < (TINY / part / "model.safetensors").stat().st_size <= 20_000_000


@pytest.mark.parametrize("instruction", INSTRUCTIONS)
def test_dense_search_finds_right_passages(embedder, questions, passages, instruction):
    found = places_in(dense_top(embedder, questions, passages, instruction), questions, passages)
    assert found.mrr > 0.48  # 0.53 to 0.60


@pytest.mark.parametrize("instruction", INSTRUCTIONS)
def test_half_of_the_dimensions_find_nearly_as_much(embedder, questions, passages, instruction):
    with Embedder("tiny", dtype="float32", dimensions=128) as shortened:
        full, half = (
            places_in(dense_top(each, questions, passages, instruction), questions, passages)
            for each in (embedder, shortened)
        )
    assert half.mrr > full.mrr - 0.1


@pytest.mark.parametrize("instruction", INSTRUCTIONS)
def test_reranking_puts_more_right_passages_first(
    embedder, reranker, questions, passages, instruction
):
    texts = list(passages.values())
    top = dense_top(embedder, questions, passages, instruction)
    reranked = np.array(
        [
            [
                row[r.index]
                for r in reranker.rerank([texts[i] for i in row], q, instruction=instruction)
            ]
            for q, row in zip(questions, top, strict=True)
        ]
    )
    before, after = (places_in(order, questions, passages) for order in (top, reranked))
    assert after.first >= before.first + 2  # 3 to 6
    assert after.mrr > before.mrr + 0.08  # 0.12 to 0.14


@pytest.mark.parametrize("instruction", INSTRUCTIONS)
def test_scores_tell_relevant_from_off_topic(reranker, passages, instruction):
    """Each title asks about its own passage; the off-topic passages say nothing of any title."""
    off_topic = [
        "The cat sleeps on the sofa most of the day.",
        "Paris is the capital of France.",
        "Bananas are rich in potassium.",
        "The museum is closed on Mondays.",
        "Bread is baked from flour, water and yeast.",
    ]

    def probabilities(title: str, texts: list[str]) -> np.ndarray:
        log_odds: np.ndarray = reranker.score(texts, title, instruction=instruction)
        scores: np.ndarray = 1 / (1 + np.exp(-log_odds))
        return scores

    relevant = np.array([probabilities(title, [passages[title]])[0] for title in passages])
    others = np.array([probabilities(title, off_topic) for title in passages])
    assert others.max() < 0.1
    assert np.quantile(relevant, 0.05) > 0.7
