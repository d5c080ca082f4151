"""Scores belong to their pairs, whatever the windows; what is cut is cut as documented."""

import pickle
import warnings
from typing import Any

import numpy as np
import pytest

from qwen3_core import Reranker
from qwen3_core.engine import local
from qwen3_core.inputs import documents_cut, fit_query
from qwen3_core.tokenizer import Qwen3Tokenizer, TruncationWarning
from tests.conftest import TINY, naming
from tests.reference import TASK, ReferenceReranker

QUERY = "Where does Milvus store the data that I insert?"


def tiny(**options) -> Reranker:
    return Reranker("tiny", dtype="float32", device="cpu", **options)


@pytest.fixture(scope="module")
def reranker() -> Reranker:
    return tiny()


@pytest.fixture(scope="module")
def tokenizer() -> Qwen3Tokenizer:
    return Qwen3Tokenizer((TINY / "reranker" / "tokenizer.json").read_text(encoding="utf-8"))


def test_scores_belong_to_their_pairs(reranker, monkeypatch):
    pairs = [(f"query {i % 3}", f"document {i} " * (7 - i)) for i in range(7)]
    expected = ReferenceReranker(TINY / "reranker").log_odds(pairs, 2048)
    assert np.ptp(expected) > 0.1, "the reference tells the pairs apart"
    np.testing.assert_allclose(reranker.score_pairs(pairs), expected, atol=1e-4)
    monkeypatch.setattr(
        local, "windows", lambda texts: (slice(i, min(i + 2, 7)) for i in range(0, 7, 2))
    )
    np.testing.assert_allclose(reranker.score_pairs(pairs), expected, atol=1e-4)


def test_no_pairs_load_no_model():
    scores = Reranker("no/such-model").score_pairs([])
    assert scores.shape == (0,)
    assert scores.dtype == np.float32


def test_scoring_is_never_overtaken(reranker, monkeypatch):
    worker = reranker.engine.worker
    seen: list[bool] = []
    admission = worker.admission

    def counted(*, bulk):
        seen.append(bulk)
        return admission(bulk=bulk)

    monkeypatch.setattr(worker, "admission", counted)
    reranker.score(["a document"], QUERY)
    assert seen == [False], "it is not bulk work, which waits for others"


def test_a_query_is_prepared_once_a_call(reranker, monkeypatch):
    seen = []
    prefix = Qwen3Tokenizer.rerank_prefix

    def counted(self, instruction, query):
        seen.append(query)
        return prefix(self, instruction, query)

    monkeypatch.setattr(Qwen3Tokenizer, "rerank_prefix", counted)
    monkeypatch.setattr(local, "windows", lambda texts: (slice(i, i + 1) for i in range(4)))
    reranker.score_pairs([(f"query {i % 2}", "a document") for i in range(4)])
    assert seen == ["query 0", "query 1"]


def test_documents_are_cut_where_the_prompt_is_full(reranker):
    prefix = len(reranker.engine.tokenizer.rerank_prefix(TASK, QUERY))
    rows, _ = reranker.engine.tokenizer.rerank_documents(["words " * 200], 10_000)
    full = prefix + len(rows[0])
    pairs = [(QUERY, "short"), ("Another?", "b"), (QUERY, "words " * 200), (QUERY, "words " * 201)]
    with warnings.catch_warnings():
        warnings.simplefilter("error", TruncationWarning)
        tiny(max_length=full).score_pairs(pairs[:3])
    with pytest.warns(
        TruncationWarning, match=naming("1 of", "documents[3]", f"max_length={full}")
    ):
        tiny(max_length=full).score_pairs(pairs)
    with pytest.warns(
        TruncationWarning, match=r"at least 2 of the documents \(such as documents\[2\]\)"
    ):
        tiny(max_length=full - 1).score_pairs(pairs)


def test_what_is_said_of_cut_documents():
    assert documents_cut([5, 3], 64) == (
        "at least 2 of the documents (such as documents[3]) do not fit into max_length=64 tokens "
        "beside query and instruction; the rest of them is not read. Split them, or raise "
        "max_length."
    )


def test_documents_of_later_windows_may_be_cut_too(monkeypatch):
    monkeypatch.setattr(local, "windows", lambda texts: (slice(i, i + 1) for i in range(3)))
    with pytest.warns(TruncationWarning) as caught:
        tiny(max_length=256).score(["short", "words " * 400, "words " * 500], QUERY)
    (warning,) = caught
    assert str(warning.message).startswith("at least 1 of the documents (such as documents[1]) do")


def test_a_query_may_take_half_and_no_token_more(tokenizer):
    said: list[str] = []
    own = len(tokenizer.rerank_prefix(TASK, QUERY)) - len(tokenizer.rerank_prefix(TASK, ""))
    whole = tokenizer.rerank_prefix(TASK, QUERY)
    long = 10_000
    assert fit_query(tokenizer, TASK, QUERY, long, said.append) == (QUERY, whole)
    around = tokenizer.rerank_template_length(TASK)
    query = QUERY * 30
    length = len(tokenizer.rerank_prefix(TASK, query)) + len(tokenizer.rerank_suffix) - around
    assert length > around > own
    assert fit_query(tokenizer, TASK, query, 2 * length, said.append)[0] == query
    assert said == []
    cut, prefix = fit_query(tokenizer, TASK, query, 2 * length - 2, said.append)
    assert cut == tokenizer.cut_text(query, length - 1) != query
    assert prefix == tokenizer.rerank_prefix(TASK, cut)
    (warning,) = said
    assert warning.startswith(
        f"the query takes {length} tokens; only the first {length - 1}, half of "
    )


def test_a_document_has_room_for_a_token_at_least(tokenizer):
    around = tokenizer.rerank_template_length(TASK)
    fit_query(tokenizer, TASK, "?", 2 * around + 1, print)
    fit_query(tokenizer, TASK, "?", 2 * around + 2, print)
    with pytest.raises(
        ValueError, match=naming(f"max_length={2 * around}", f"{around} tokens", "raise max_length")
    ):
        fit_query(tokenizer, TASK, "?", 2 * around, print)


def test_settings_reach_the_engine():
    given: dict[str, Any] = {"revision": "main", "device": "cpu", "dtype": "float32"}
    limits: dict[str, Any] = {"max_length": 512, "pack_tokens": 99, "timeout": 7.5}
    reranker = Reranker("no/such-model", instruction="finance", **given, **limits)
    copy = pickle.loads(pickle.dumps(reranker))
    for one in (reranker, copy):
        assert one._source == {"model": "no/such-model", "kind": "reranker", **given}
        assert one.max_length == 512
        assert (one._pack_tokens, one._timeout) == (99, 7.5)
        assert one.instruction.startswith("Given a financial question")


def test_progress_is_shown_on_request(reranker, capsys):
    reranker.rerank(["a", "b"], QUERY)
    assert capsys.readouterr().err == ""
    reranker.rerank(["a", "b"], QUERY, show_progress=True)
    assert "Reranking: 100%" in capsys.readouterr().err
