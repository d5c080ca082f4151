"""Indexes by size, and coarse-to-fine search, on a small file and on a server."""

import time

import numpy as np
import pytest
from langchain_core.documents import Document
from langchain_milvus import Milvus

from langchain_qwen3 import Qwen3Embeddings, Qwen3Reranker, Qwen3TwoStageRetriever, milvus_kwargs
from qwen3_core.milvus.coarse import CoarseIndex
from qwen3_core.milvus.index import LITE

QUESTION = "How is data stored in Milvus?"
ANSWER = "Data in Milvus is stored in segments."
ROWS = 1500  # a server builds no index for a segment of less than 1,024
TEXTS = {f"id-{i}": f"This is filler number {i}." for i in range(ROWS)} | {"id-7": ANSWER}


@pytest.fixture
def in_one_framework(request):
    """A server takes its time for each collection, and the index is the same with either."""
    if "llama_index-server" in request.node.name:
        pytest.skip("on a server in one framework")


@pytest.mark.usefixtures("in_one_framework")
@pytest.mark.parametrize("index_type", ["FLAT", "DISKANN"])
def test_a_hundred_are_found_in_a_collection_of_each_index(open_store, uri, index_type):
    if "://" not in uri and index_type not in LITE:
        with pytest.raises(ValueError, match=f"Milvus Lite has no {index_type} index"):
            open_store(index_type=index_type)
        return
    store = open_store(index_type=index_type, dimensions=32)
    store.add(dict(list(TEXTS.items())[:150]))
    assert describe(store)["index_type"] == index_type
    check_hits(store.search(QUESTION, 100))
    # Opened by somebody who does not know the index, it is searched in the index's own words.
    check_hits(open_store(dimensions=32).search(QUESTION, 100))


@pytest.mark.usefixtures("in_one_framework")
def test_a_hundred_are_found_through_a_built_ivf_index(open_store):
    """HNSW is in test_suite.py."""
    store = open_store(index_type="IVF_SQ8", rows=ROWS, dimensions=32)
    store.add(TEXTS)
    build(store)
    assert describe(store)["index_type"] == "IVF_SQ8"
    check_hits(store.search(QUESTION, 100))
    check_hits(open_store(dimensions=32).search(QUESTION, 100))


@pytest.mark.usefixtures("in_one_framework")
def test_short_vectors_find_candidates_and_full_ones_order_them(open_store, uri):
    store = open_store(index_type="FLAT")
    store.add(dict(list(TEXTS.items())[:400]))
    coarse = CoarseIndex(uri, store.store.collection_name, dimensions=64)
    with pytest.raises(ValueError, match=r"not up to date: call update\(\)"):
        coarse.expression([0.0] * 256, 10)
    assert coarse.update() == 400
    assert coarse.update() == 0

    vector = query_vector(store)
    exact = [hit.id for hit in store.search(QUESTION, 10)]
    found = [hit.id for hit in store.search(QUESTION, 10, coarse.expression(vector, 100))]
    assert found[0] == "id-7"
    assert len(set(found) & set(exact)) >= 9
    # As many candidates as rows: nothing is lost, and the order is that of the full vectors.
    whole = store.search(QUESTION, 10, coarse.expression(vector, 400))
    assert [hit.id for hit in whole] == exact
    few = store.ids(coarse.expression(vector, 5))
    assert len(few) == 5

    store.delete(["id-7"])
    store.add({"new": ANSWER})
    assert coarse.update() == 1
    assert store.ids(coarse.expression(vector, 1)) == {"new"}


def test_coarse_search_before_the_reranker(tmp_path):
    """Numbered by Milvus, through the retriever, with the collection's own filter word."""
    uri = str(tmp_path / "milvus.db")
    embeddings = Qwen3Embeddings(model="tiny")
    store = Milvus(**milvus_kwargs(embeddings, uri=uri, auto_id=True, rows=100))
    store.add_documents([Document(ANSWER), Document("Bread is baked."), Document("The sea.")])
    coarse = CoarseIndex(uri, "qwen3", dimensions=32)
    coarse.update()
    retriever = Qwen3TwoStageRetriever(
        vectorstore=store, reranker=Qwen3Reranker(model="tiny"), k=2, top_n=1
    )
    expression = coarse.expression(embeddings.embed_query(QUESTION), 2)
    (best,) = retriever.invoke(QUESTION, expr=expression)
    assert best.page_content == ANSWER


def test_what_coarse_search_refuses(tmp_path):
    uri = str(tmp_path / "milvus.db")
    with pytest.raises(ValueError, match="there is no collection 'qwen3': let a vector store fill"):
        CoarseIndex(uri, "qwen3")
    embeddings = Qwen3Embeddings(model="tiny", dimensions=64)
    Milvus(**milvus_kwargs(embeddings, uri=uri)).add_texts(["x"], ids=["1"])
    with pytest.raises(ValueError, match="from 1 to 63, got 64"):
        CoarseIndex(uri, "qwen3", dimensions=64)
    coarse = CoarseIndex(uri, "qwen3", dimensions=32)
    coarse.update()
    # The collection is made anew with another model, under the same ids.
    other = Qwen3Embeddings(model="tiny", dimensions=64, max_length=99)
    Milvus(**milvus_kwargs(other, uri=uri, drop_old=True)).add_texts(["x"], ids=["1"])
    coarse = CoarseIndex(uri, "qwen3", dimensions=32)
    with pytest.raises(ValueError, match=r"not up to date: call update\(\)"):
        coarse.expression([0.0] * 64, 1)
    assert coarse.update() == 1


def check_hits(hits):
    assert len({hit.id for hit in hits}) == 100
    assert hits[0].id == "id-7"


def query_vector(store):
    model = store.model
    embed = getattr(model, "embed_query", None) or model.get_query_embedding
    return np.asarray(embed(QUESTION), np.float32)


def build(store):
    name = store.store.collection_name
    store.client.flush(name)
    deadline = time.monotonic() + 120
    while describe(store).get("indexed_rows", ROWS) < ROWS:
        assert time.monotonic() < deadline, describe(store)
        time.sleep(0.2)
    # Loads the index in place of the fresh rows.
    store.client.release_collection(name)
    store.client.load_collection(name)


def describe(store):
    name = store.store.collection_name
    (index,) = store.client.list_indexes(name)
    return store.client.describe_index(name, index)
