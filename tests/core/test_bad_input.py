"""Bad input gets an error that names the value and the fix; odd but valid input gets an answer."""

import re

import numpy as np
import pytest

from qwen3_core import Embedder, QueryError, Reranker
from qwen3_core.base import normalised
from qwen3_core.common.validation import check_dimensions, check_threshold, check_top_n
from qwen3_core.milvus.index import choose_index, search_params
from qwen3_core.ranking import rank
from qwen3_core.settings import check_settings
from qwen3_core.tokenizer import TruncationWarning
from tests.conftest import naming

SURROGATE = "broken \ud83d text"


@pytest.fixture(scope="module")
def embedder() -> Embedder:
    return Embedder("tiny")


@pytest.fixture(scope="module")
def reranker() -> Reranker:
    return Reranker("tiny")


@pytest.mark.parametrize("value", [None, 3, b"bytes", ["nested"]])
def test_documents_that_are_no_strings(embedder, reranker, value):
    with pytest.raises(TypeError, match=r"documents\[1\] .*got"):
        embedder.embed_documents(["fine", value])
    with pytest.raises(TypeError, match=r"documents\[1\] .*got"):
        reranker.rerank(["fine", value], "query")


@pytest.mark.parametrize("value", ["one text", None, 3])
def test_something_else_than_a_list(embedder, reranker, value):
    with pytest.raises(TypeError, match=r"documents .*got"):
        embedder.embed_documents(value)
    with pytest.raises(TypeError, match=r"documents .*got"):
        reranker.rerank(value, "query")


@pytest.mark.parametrize("method", ["rerank", "score"])
def test_query_in_the_documents_place(reranker, method):
    with pytest.raises(TypeError, match=r"pass \(documents, query\)"):
        getattr(reranker, method)("query", ["document"])
    both = getattr(reranker, method)(query="query", documents=["document"])
    assert len(both) == 1


@pytest.mark.parametrize("value", [None, 3, ["query"]])
def test_query_that_is_no_string(reranker, value):
    with pytest.raises(TypeError, match=r"query .*got"):
        reranker.rerank(["document"], value)


@pytest.mark.parametrize("value", ["", "  \n\t"])
def test_blank_query(embedder, reranker, value):
    with pytest.raises(QueryError, match="query is blank"):
        embedder.embed_queries([value])
    with pytest.raises(QueryError, match="query is blank"):
        reranker.rerank(["document"], value)


def test_lone_surrogate(embedder, reranker):
    with pytest.raises(ValueError, match=r"documents\[0\] holds a lone surrogate, .* position 7"):
        embedder.embed_documents([SURROGATE])
    with pytest.raises(QueryError, match=r"query holds a lone surrogate"):
        reranker.rerank(["document"], SURROGATE)


@pytest.mark.parametrize("top_n", [0, -1, 1.5, True])
def test_top_n_below_one(reranker, top_n):
    with pytest.raises(ValueError, match=r"top_n .*got"):
        reranker.rerank(["document"], "query", top_n=top_n)


@pytest.mark.parametrize(
    ("check", "value", "said"),
    [
        (check_top_n, "5", "got '5' (of type str: pass an int)"),
        (check_top_n, 2.0, "got 2.0 (of type float: pass an int)"),
        (check_top_n, True, "got True (of type bool: pass an int)"),
        (check_top_n, 0, "got 0"),
        (check_dimensions, "64", "got '64' (of type str: pass an int)"),
        (check_dimensions, 31, "got 31"),
        (check_threshold, "0.5", "got '0.5' (of type str: pass a number)"),
        (check_threshold, False, "got False (of type bool: pass a number)"),
        (check_threshold, 2, "got 2"),
        (check_threshold, 1.5, "got 1.5"),
        (search_params, "5", "got '5' (of type str: pass an int)"),
        (lambda value: choose_index("", rows=value), "9", "got '9' (of type str: pass an int)"),
        (
            lambda value: check_settings(dtype="auto", max_length=value),
            "64",
            "got '64' (of type str: pass an int)",
        ),
        (
            lambda value: check_settings(dtype="auto", timeout=value),
            "3",
            "got '3' (of type str: pass a number)",
        ),
    ],
)
def test_a_number_of_another_type_is_told_so(check, value, said):
    with pytest.raises(ValueError, match=re.escape(said) + "$"):
        check(value)


@pytest.mark.parametrize("threshold", [-0.1, 1.1, "0.5", float("nan")])
def test_threshold_out_of_range(reranker, threshold):
    with pytest.raises(ValueError, match="score_threshold must be"):
        reranker.rerank(["document"], "query", score_threshold=threshold)


@pytest.mark.parametrize("dimensions", [31, 0, -5, 64.0, True, "64"])
def test_dimensions_out_of_range(dimensions):
    with pytest.raises(ValueError, match="dimensions must be"):
        Embedder("tiny", dimensions=dimensions)


def test_dimensions_beyond_the_model():
    with pytest.raises(ValueError, match=r"dimensions .*32\b.*256\b.*got 257"):
        Embedder("tiny", dimensions=257).embed_documents(["text"])


@pytest.mark.parametrize(("name", "value"), [("max_length", 0), ("pack_tokens", "many")])
def test_token_counts_out_of_range(name, value):
    with pytest.raises(ValueError, match=f"{name} must be"):
        Reranker("tiny", **{name: value})


def test_max_length_beyond_the_model():
    with pytest.raises(
        ValueError, match=naming("max_length=4096", "max_position_embeddings=2048", "'tiny'")
    ):
        Embedder("tiny", max_length=4096).embed_documents(["text"])


def test_max_length_without_room_for_a_document():
    with pytest.raises(
        ValueError, match=naming("document", "max_length=60", "68", "30", "raise max_length")
    ):
        Reranker("tiny", max_length=60).rerank(["document"], "query")


def test_instruction_that_fills_the_input():
    with pytest.raises(
        ValueError, match=naming("instruction", "124", "max_length=64", "raise max_length")
    ):
        Embedder("tiny", max_length=64, instruction="very long " * 60).embed_queries(["query"])


def test_unknown_dtype():
    with pytest.raises(
        ValueError, match=naming("dtype", "'half'", "'auto'", "'bfloat16'", "'int8'")
    ):
        Embedder("tiny", dtype="half")  # type: ignore[arg-type]


def test_empty_lists_load_no_model():
    embedder, reranker = Embedder("no/such-model", dimensions=64), Reranker("no/such-model")
    assert embedder.embed_documents([]).shape == (0, 64)
    assert embedder.embed_queries([]).shape == (0, 64)
    assert reranker.rerank([], "query") == []
    assert reranker.score_pairs([]).shape == (0,)


@pytest.mark.parametrize("text", ["", " ", "\x00", "🙂", "\n\n", "a" * 1000])
def test_odd_texts_get_an_answer(embedder, reranker, text):
    vector = embedder.embed_documents([text])
    assert np.linalg.norm(vector) == pytest.approx(1, abs=1e-5)
    (only,) = reranker.rerank([text], "query")
    assert 0 <= only.score <= 1


def test_duplicates_keep_their_order_and_their_scores(reranker):
    ranking = reranker.rerank(["same", "Milvus stores data.", "same", "same"], "What stores data?")
    same = [r for r in ranking if r.index != 1]
    assert [r.index for r in same] == [0, 2, 3]
    assert max(r.log_odds for r in same) - min(r.log_odds for r in same) < 1e-5


def test_top_n_beyond_the_list_gives_the_list(reranker):
    assert len(reranker.rerank(["a", "b"], "query", top_n=10)) == 2


def test_a_megabyte_of_text_is_cut_with_a_warning():
    embedder, reranker = Embedder("tiny", max_length=256), Reranker("tiny", max_length=256)
    text = "Milvus stores data in segments. " * 32_768
    assert len(text) == 2**20
    with pytest.warns(TruncationWarning, match=naming("1 of", "documents[1]", "max_length=256")):
        vectors = embedder.embed_documents(["short", text])
    with pytest.warns(TruncationWarning, match=naming("1 of", "documents[1]", "max_length=256")):
        ranking = reranker.rerank(["short", text], "Where is data stored?")
    assert np.isfinite(vectors).all()
    assert len(ranking) == 2


def test_truncation_is_said_once(recwarn):
    embedder = Embedder("tiny", max_length=16)
    for _ in range(3):
        embedder.embed_documents(["word " * 100])
    assert sum(w.category is TruncationWarning for w in recwarn) == 1


def test_a_long_query_does_not_push_the_document_out():
    reranker = Reranker("tiny", max_length=300)
    query = "Where does Milvus store the data that I insert into a collection? " * 40
    with pytest.warns(TruncationWarning, match=naming("query", "150", "max_length=300")):
        scores = reranker.score(["Milvus stores inserted data in object storage.", "Cats."], query)
    assert scores[0] != scores[1]


def test_ranking_is_stable_and_thresholds_come_after_top_n():
    ranking = rank([0.0, 2.0, 0.0, -3.0], top_n=3, score_threshold=0.5)
    assert [r.index for r in ranking] == [1, 0, 2]
    assert [r.index for r in rank([0.0, 2.0, -3.0], score_threshold=0.5)] == [1, 0]
    assert ranking[0].score == pytest.approx(1 / (1 + np.exp(-2.0)))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_score_that_is_not_finite_is_an_error(value):
    with pytest.raises(ValueError, match="log-odds of document 1 are"):
        rank([0.0, value])


def test_extreme_log_odds_do_not_overflow():
    high, low = rank([1000.0, -1000.0])
    assert (high.score, low.score) == (1.0, 0.0)


@pytest.mark.parametrize("bad", [0.0, np.nan, np.inf])
def test_a_vector_without_a_direction_is_an_error(bad):
    vectors = np.array([[3.0, 4.0], [bad, 0.0]], dtype=np.float32)
    np.testing.assert_allclose(normalised(vectors[:1], "the model"), [[0.6, 0.8]], rtol=1e-6)
    message = f"the model returned a vector of length {bad} for text 1: why?"
    with pytest.raises(FloatingPointError, match=re.escape(message)):
        normalised(vectors, "the model", "why?")
