"""Indexes of each kind, on a small file and on a server."""

import time

import pytest

from qwen3_core.milvus.index import LITE_INDEXES

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
    if "://" not in uri and index_type not in LITE_INDEXES:
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


def check_hits(hits):
    assert len({hit.id for hit in hits}) == 100
    assert hits[0].id == "id-7"


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
