"""What the built-in systems return is what the components themselves return."""

import numpy as np
import pytest

from qwen3_core import Embedder, Reranker
from qwen3_core.prompts import TASKS
from qwen3_retrieval.evaluation import load_dataset
from qwen3_retrieval.evaluation.cache import (
    Cache,
    Keys,
    from_number,
    to_bytes,
    to_number,
    to_vector,
)
from qwen3_retrieval.evaluation.lexical import Lexical, top, words
from qwen3_retrieval.evaluation.models import Models
from qwen3_retrieval.evaluation.result import Setting
from qwen3_retrieval.evaluation.settings import EvaluationSettings, Pair
from qwen3_retrieval.evaluation.systems import Systems, fuse
from tests.conftest import naming
from tests.evaluation.conftest import CORPUS

pytestmark = pytest.mark.filterwarnings("ignore::qwen3_core.tokenizer.TruncationWarning")

PAIR = Pair(model="tiny", dtype="float32")
TASK = TASKS["question_answering"]


@pytest.fixture(scope="module")
def texts() -> list[str]:
    return [p.text for p in load_dataset(CORPUS, model="tiny").passages][:24]


QUESTIONS = ["How are vectors compared?", "What does a reranker read?"]


@pytest.fixture(scope="module")
def systems(texts, cache) -> Systems:
    return Systems(texts, QUESTIONS, Models(PAIR, Cache(cache)), Lexical(texts))


@pytest.mark.parametrize("instruction", [None, TASK])
@pytest.mark.parametrize("dimensions", [None, 64])
def test_dense_is_the_embedder(systems, texts, instruction, dimensions):
    embedder = Embedder("tiny", dtype="float32", dimensions=dimensions)
    documents = embedder.embed_documents(texts)
    queries = (
        embedder.embed_documents(QUESTIONS)
        if instruction is None
        else embedder.embed_queries(QUESTIONS, instruction=instruction)
    )
    setting = Setting("dense", False, k=8, dimensions=dimensions, instruction=instruction)
    found = systems.rank(setting, [0, 1])
    for ranking, cosines, query in zip(
        found, systems.cosines(setting, [0, 1]), queries, strict=True
    ):
        expected = documents @ query
        assert expected[ranking.passages] == pytest.approx(np.sort(expected)[::-1][:8], abs=1e-5)
        assert cosines[:8] == pytest.approx(expected[ranking.passages], abs=1e-5)


@pytest.mark.parametrize("max_length", [None, 160])
def test_rerank_is_the_reranker(systems, texts, max_length):
    setting = Setting("dense", True, k=8, instruction=TASK, max_length=max_length)
    reranker = Reranker("tiny", dtype="float32", instruction=TASK, max_length=max_length)
    (ranking,) = systems.rank(setting, [1])
    assert len(ranking.passages) == 8
    expected = reranker.score([texts[i] for i in ranking.passages], QUESTIONS[1])
    assert ranking.scores == pytest.approx(expected, abs=1e-5)
    assert (np.diff(ranking.scores) <= 0).all()


def test_hybrid_is_reciprocal_rank_fusion():
    # 1/(60 + rank): 7 is second and first, 5 first and absent, 9 absent and second, 3 third.
    assert fuse([np.array([5, 7, 3]), np.array([7, 9])]).tolist() == [7, 5, 9, 3]
    assert fuse([np.array([], int), np.array([4])]).tolist() == [4]


def test_hybrid_is_made_of_both(systems):
    bm25, dense, hybrid = (
        {
            int(i)
            for i in systems.rank(Setting(first, False, k=5, instruction=TASK), [0])[0].passages
        }
        for first in ("bm25", "dense", "hybrid")
    )
    assert len(hybrid) == 5
    assert hybrid <= bm25 | dense


def test_bm25_ranks_by_rare_words_and_leaves_out_what_shares_none():
    index = Lexical(["the cat sleeps", "the dog sleeps", "the bird", "", "!!"])
    assert index.search("A DOG?", 5).tolist() == [1]
    assert index.search("sleeps cat", 5).tolist() == [0, 1]
    assert index.search("unicorn", 5).tolist() == []
    assert index.search("?", 5).tolist() == []


def test_words_of_scripts_without_spaces_are_pairs_of_characters():
    assert words("Milvus 数据库 is v2.4") == ["milvus", "数据", "据库", "is", "v2", "4"]
    assert Lexical(["向量数据库", "全文检索"]).search("数据在哪里", 5).tolist() == [0]


def test_ties_keep_their_order():
    scores = np.array([0.5, 0.9, 0.5, 0.5, 0.1])
    assert top(scores, 3).tolist() == [1, 0, 2]
    assert top(scores, 9).tolist() == [1, 0, 2, 3, 4]
    assert top(scores, 5, above=0.1).tolist() == [1, 0, 2, 3]


def test_cached_vectors_are_not_computed_again(texts, tmp_path, embedded):
    path = tmp_path / "cache"
    with Cache(path) as cache:
        first = Models(PAIR, cache).document_vectors(texts[:6], None)
    embedded.clear()
    with Cache(path) as cache:
        # Two are new, one is there twice.
        again = Models(PAIR, cache).document_vectors([*texts[:8], texts[7]], None)
    assert embedded == texts[6:8]
    assert np.array_equal(again[:6], first)
    assert np.array_equal(again[7], again[8])


def test_max_length_counts_only_where_it_cuts(texts, tmp_path, embedded):
    with Cache(tmp_path / "cache") as cache:
        models = Models(PAIR, cache)
        lengths = [models.tokens(text) or 0 for text in texts]
        whole = models.document_vectors(texts, None)
        limit = int(np.median(lengths)) + 20
        embedded.clear()
        cut = models.document_vectors(texts, limit)
    assert embedded == [t for t, n in zip(texts, lengths, strict=True) if n + 20 > limit]
    expected = Embedder("tiny", dtype="float32", max_length=limit).embed_documents(texts)
    assert np.allclose(cut, expected, atol=1e-5)
    assert not np.allclose(cut, whole, atol=1e-2)


@pytest.mark.parametrize(
    "other",
    [
        {"model": "m2"},
        {"revision": "r"},
        {"prompt": "p"},
        {"max_length": 5},
        {"dtype": "float32"},
    ],
)
def test_other_settings_have_other_keys(other):
    base = {"model": "m", "revision": None, "prompt": None, "max_length": None, "dtype": "auto"}
    assert Keys(**base)("text") != Keys(**base | other)("text")
    assert Keys(**base)("text") != Keys(**base)("other text")
    assert Keys(**base)("a", "bc") != Keys(**base)("ab", "c")


def test_cache_keeps_what_it_is_given(tmp_path):
    vector = np.linspace(-1, 1, 7, dtype=np.float32)
    with Cache(tmp_path / "sub" / "cache") as cache:
        cache.put([(b"v", to_bytes(vector))])
        cache.put((f"n{i}".encode(), from_number(i / 3)) for i in range(1200))
    with Cache(tmp_path / "sub" / "cache") as cache:
        assert np.array_equal(to_vector(cache.get([b"v"])[b"v"]), vector)
        found = cache.get([f"n{i}".encode() for i in range(1300)])
        assert {key: to_number(value) for key, value in found.items()} == {
            f"n{i}".encode(): i / 3 for i in range(1200)
        }


def test_a_file_that_is_no_cache(tmp_path):
    path = tmp_path / "notes.txt"
    path.write_text("These are my notes, which nobody may overwrite. " * 100)
    with pytest.raises(ValueError, match=naming("notes.txt", "cache", "file is not a database")):
        Cache(path)
    assert path.read_text().startswith("These are my notes")


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"k": 0}, "k must be a whole number, at least 1, got 0"),
        ({"sweep_k": (5, 0)}, "sweep_k must be"),
        ({"dimensions": 8}, "dimensions must be an integer from 32"),
        ({"more_instructions": ("web_serch",)}, "unknown task name 'web_serch'"),
        ({"margin": 1.0}, "margin must be above 0 and below 1"),
    ],
)
def test_settings_out_of_range(wrong, message):
    with pytest.raises(ValueError, match=message):
        EvaluationSettings(**wrong)
