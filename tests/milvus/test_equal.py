"""Many equal and nearly equal texts: none of the others is lost, in both frameworks."""

import logging
from typing import Any

import pytest
from milvus_lite.server_manager import server_manager_instance

from langchain_qwen3 import Qwen3Reranker, Qwen3TwoStageRetriever
from llama_index_qwen3 import Qwen3Rerank, two_stage_query_engine
from qwen3_core import Embedder
from qwen3_core.milvus import rebuild_index
from tests.conftest import naming
from tests.milvus.stores import LangChain

QUESTION = "How is data stored in Milvus?"
ANSWER = "Data in Milvus is stored in segments."
OTHERS = {"answer": ANSWER} | {f"other-{i}": f"Cats sleep {i} hours a day." for i in range(20)}
EQUAL = {f"equal-{i}": "Page intentionally left blank." for i in range(300)}
NEAR = {f"near-{i}": f"Page {i} intentionally left blank." for i in range(100)}
TEXTS = EQUAL | NEAR | OTHERS


@pytest.fixture
def reopen(open_store, uri):
    """Open the collection in a new server of Milvus Lite, as another process would."""

    def open_it(**options):
        if "://" not in uri:
            server_manager_instance.release_server(uri)
        return open_store(**options)

    return open_it


def best(texts):
    """Ids of the ten best by exact search; of equal ones any."""
    embedder = Embedder("tiny")
    scores = embedder.embed_documents(list(texts.values())) @ embedder.embed_queries([QUESTION])[0]
    return sorted(zip(scores, texts, strict=True), reverse=True)[:10]


def check(store, texts):
    hits = store.search(QUESTION, 10)
    expected = best(texts)
    assert hits[0].id == "answer"
    assert [hit.score for hit in hits] == pytest.approx([s for s, _ in expected], abs=1e-4)


@pytest.mark.parametrize("index_type", [None, "IVF_FLAT"])
def test_nothing_is_lost_before_and_after_a_restart(open_store, reopen, index_type):
    store = open_store(index_type=index_type)
    store.add(TEXTS)
    check(store, TEXTS)
    check(reopen(), TEXTS)


def test_nothing_is_lost_beside_deleted_ones(open_store, reopen):
    open_store().add(TEXTS)
    store = reopen()
    store.delete(list(EQUAL))
    check(store, NEAR | OTHERS)
    check(reopen(), NEAR | OTHERS)


def test_what_a_graph_has_lost_is_told_and_found_again(open_store, reopen, uri, caplog):
    if "://" in uri:
        pytest.skip("a server builds no graph for a segment of less than 1,024 rows")
    few = dict(list(OTHERS.items())[:2])
    open_store(index_type="HNSW").add(EQUAL | few)
    store = reopen()
    assert "has the index HNSW, whose search on Milvus Lite can miss passages" in caplog.text
    store.delete(list(EQUAL))
    assert store.search(QUESTION, 10) == []
    ask(store)
    assert "returned no candidates: it holds 2 rows, which its index no longer" in caplog.text
    assert "qwen3_core.milvus.rebuild_index(" in caplog.text

    assert rebuild_index(uri, store.store.collection_name) == "FLAT"
    check(open_store(), few)
    check(reopen(), few)


def test_a_filter_that_leaves_nothing_is_told_as_one(open_store, caplog):
    store = open_store()
    store.add({"a": "x", "b": "y"})
    ask(store, "pk == 'z'" if isinstance(store, LangChain) else "id == 'z'")
    assert "returned no candidates: it holds 2 rows, but it is narrowed to nothing" in caplog.text


def test_only_a_collection_without_rows_is_called_empty(open_store, caplog):
    store = open_store()
    store.add({"a": "x"})
    store.delete(["a"])
    ask(store)
    assert "returned no candidates: it is empty" in caplog.text


def test_a_server_gets_another_index_too(open_store, uri):
    store = open_store(rows=50)
    store.add(OTHERS)
    name = store.store.collection_name
    assert rebuild_index(uri, name, index_type="HNSW") == "HNSW"
    check(open_store(), OTHERS)
    with pytest.raises(ValueError, match=naming("HNSW", "index_type='FLAT'", "rebuild_index(")):
        open_store(index_type="FLAT")
    assert rebuild_index(uri, name) == "FLAT"
    check(open_store(index_type="FLAT"), OTHERS)


def ask(store, expression=None):
    """Search through the two stages, which log that the first returned nothing."""
    logging.getLogger().setLevel(logging.WARNING)
    if isinstance(store, LangChain):
        retriever = Qwen3TwoStageRetriever(
            vectorstore=store.store, reranker=Qwen3Reranker(model="tiny")
        )
        assert retriever.invoke(QUESTION, **({"expr": expression} if expression else {})) == []
        return
    from llama_index.core import QueryBundle
    from llama_index.core.llms import MockLLM

    given: dict[str, Any] = {}
    if expression:
        given = {"vector_store_kwargs": {"string_expr": expression}}
    engine = two_stage_query_engine(
        store.store,
        MockLLM(),
        embed_model=store.model,
        reranker=Qwen3Rerank(model="tiny"),
        **given,
    )
    assert engine.retrieve(QueryBundle(QUESTION)) == []
