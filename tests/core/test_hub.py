"""Golden values of the published weights; run with `pytest -m hub` where the hub answers.

Sources: the README of QwenLM/Qwen3-Embedding, the tests of sentence-transformers
(test_pretrained.py, cross_encoder/test_model.py), and the Milvus tutorial on Qwen3 reranking.
"""

import numpy as np
import pytest

from qwen3_core import Embedder, Reranker

pytestmark = [pytest.mark.hub, pytest.mark.timeout(3600)]

PLANETS = [
    "Venus is often called Earth's twin because of its similar size and proximity.",
    "Mars, known for its reddish appearance, is often referred to as the Red Planet.",
    "Jupiter, the largest planet in our solar system, has a prominent red spot.",
    "Saturn, famous for its rings, is sometimes mistaken for the Red Planet.",
]
RED_PLANET = "Which planet is known as the Red Planet?"
CAPITAL, GRAVITY = "What is the capital of China?", "Explain gravity"
FACTS = [
    "The capital of China is Beijing.",
    (
        "Gravity is a force that attracts two bodies towards each other. It gives weight to "
        "physical objects and is responsible for the movement of planets around the sun."
    ),
]


@pytest.fixture(scope="module")
def embedder() -> Embedder:
    return Embedder("Qwen/Qwen3-Embedding-0.6B", dtype="float32")


@pytest.fixture(scope="module")
def reranker() -> Reranker:
    return Reranker("Qwen/Qwen3-Reranker-0.6B", dtype="float32")


def test_similarities_of_the_readme(embedder):
    found = embedder.embed_queries([CAPITAL, GRAVITY]) @ embedder.embed_documents(FACTS).T
    expected = [[0.76455683, 0.14142509], [0.13549736, 0.59995496]]
    np.testing.assert_allclose(found, expected, atol=5e-3)


def test_similarities_of_the_planets(embedder):
    found = embedder.embed_queries([RED_PLANET]) @ embedder.embed_documents(PLANETS).T
    np.testing.assert_allclose(found[0], [0.4838, 0.69335, 0.58793, 0.6647], rtol=0.01)


def test_first_components_of_the_tutorials_vector(embedder):
    vector = embedder.embed_documents(["This is a test"])[0]
    assert vector.shape == (1024,)
    np.testing.assert_allclose(vector[:3], [-0.00992, -0.03025, -0.01149], atol=2e-3)


def test_scores_of_the_readme(reranker):
    found = [
        reranker.rerank([d], q)[0].score for q, d in zip((CAPITAL, GRAVITY), FACTS, strict=True)
    ]
    np.testing.assert_allclose(found, [0.9995, 0.9972], atol=2e-3)


def test_log_odds_of_the_planets(reranker):
    expected = [-3.109297752380371, 7.120389938354492, -0.3787546157836914, 3.541637420654297]
    np.testing.assert_allclose(reranker.score(PLANETS, RED_PLANET), expected, atol=1e-3)


def test_the_tutorials_answer(embedder, reranker, milvus_faq_folder):
    files = sorted(milvus_faq_folder.glob("*.md"))
    chunks = [chunk for file in files for chunk in file.read_text("utf-8").split("# ")]
    query = "How is data stored in milvus?"
    dense = embedder.embed_documents(chunks) @ embedder.embed_queries([query])[0]
    candidates = np.argsort(-dense)[:10]
    assert dense[candidates[0]] == pytest.approx(0.8307, abs=0.01)
    best = reranker.rerank([chunks[i] for i in candidates], query)[0]
    assert chunks[candidates[best.index]].lstrip().startswith("Where does Milvus store data?")
    assert best.score == pytest.approx(0.99979, abs=1e-3)
