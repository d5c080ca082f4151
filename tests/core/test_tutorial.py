"""The tutorial's own job on its own data: 72 chunks of the Milvus FAQ, dense search, reranking."""

import numpy as np
import pytest

from qwen3_core import Embedder, Reranker

QUESTION = "How is data stored in milvus?"
ANSWER = "Where does Milvus store data?"


@pytest.fixture(scope="module")
def chunks(milvus_faq_folder) -> list[str]:
    files = sorted(milvus_faq_folder.glob("*.md"))
    return [chunk for file in files for chunk in file.read_text("utf-8").split("# ")]


def test_the_faq_has_72_chunks(chunks):
    assert len(chunks) == 72


def test_dense_search_finds_the_answer(chunks):
    embedder = Embedder("tiny")
    scores = embedder.embed_documents(chunks) @ embedder.embed_queries([QUESTION])[0]
    best = [chunks[i].partition("\n")[0].strip(" #") for i in np.argsort(-scores)[:3]]
    assert ANSWER in best


def test_reranking_puts_on_topic_chunks_before_off_topic_ones(chunks):
    reranker = Reranker("tiny")
    off_topic = ["The cat sleeps on the sofa most of the day.", "Paris is the capital of France."]
    on_topic = [c for c in chunks if c.lstrip().startswith(ANSWER)]
    assert len(on_topic) == 1
    ranking = reranker.rerank([*off_topic, *on_topic], QUESTION)
    assert ranking[0].index == 2
    assert all(r.score < 0.1 for r in ranking[1:])


def test_both_stages_put_the_answer_first(chunks):
    embedder, reranker = Embedder("tiny"), Reranker("tiny")
    scores = embedder.embed_documents(chunks) @ embedder.embed_queries([QUESTION])[0]
    candidates = [chunks[i] for i in np.argsort(-scores)[:10]]
    best = reranker.rerank(candidates, QUESTION)[0]
    assert candidates[best.index].lstrip(" #").startswith(ANSWER)
    assert best.score > 0.7
