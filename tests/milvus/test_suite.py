"""The same behaviour of both stores on Milvus Lite and on a standalone server."""

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from pymilvus.exceptions import MilvusException

from qwen3_core import Embedder
from qwen3_core.milvus.collection import FINGERPRINT_KEY
from qwen3_core.milvus.filters import literal
from tests.milvus.stores import LangChain

QUESTION = "How is data stored in Milvus?"
ANSWER = "Data in Milvus is stored in segments."
TEXTS = {f"id-{i}": f"This is filler number {i}." for i in range(120)} | {"id-7": ANSWER}

HOSTILE = [
    "it's",
    'say "hi"',
    "back\\slash",
    "end\\",
    "\\'",
    '\\"',
    "x' or 1 == 1 or 'x' == 'x",
    'x" or number >= 0 or "x" == "x',
    '\\" or number >= 0 or \\"',
    "線 ünï 🎉",
    "two\nlines\r\n",
    "a\ttab",
    "nul\x00",
    "\u2028\u200b\x7f",
    "100 %_",
    "{name}",
    "\\u0041",
    "\\n",
    "",
]


def test_a_hundred_are_found_best_first(open_store):
    store = open_store()
    store.add(TEXTS)
    hits = store.search(QUESTION, 100)
    assert len({hit.id for hit in hits}) == 100
    assert hits[0][:2] == ("id-7", ANSWER)
    assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)


def test_a_hundred_of_a_built_index_are_found_with_ef_for_them(open_store, request):
    """What a server holds of fresh rows it compares one by one; only then is HNSW asked."""
    store = open_store(dimensions=32, index_type="HNSW")
    store.add({f"id-{i}": f"This is filler number {i}." for i in range(3000)} | {"a": ANSWER})
    store.client.flush(_name(store))
    if "lite" not in request.node.name:
        _wait_for_index(store)
    hits = store.search(QUESTION, 100)
    assert len({hit.id for hit in hits}) == 100
    few = open_store(dimensions=32, k=10)  # ef is 64
    if "lite" in request.node.name:
        assert len(few.search(QUESTION, 100)) == 100
    else:
        with pytest.raises(MilvusException, match=r"ef\(64\) should be larger than k"):
            few.search(QUESTION, 100)
        assert few.search(QUESTION, 10)[0].id == hits[0].id


@pytest.mark.parametrize("metric", ["IP", "COSINE"])
def test_the_score_is_the_cosine_of_vectors_of_any_length(open_store, metric):
    store = open_store(metric=metric, dimensions=64)
    store.add(dict(list(TEXTS.items())[:8]))
    embedder = Embedder("tiny")
    query = embedder.embed_queries([QUESTION])[0, :64]
    for hit in store.search(QUESTION, 8):
        document = embedder.embed_documents([hit.text])[0, :64]
        cosine = query @ document / np.linalg.norm(query) / np.linalg.norm(document)
        assert hit.score == pytest.approx(cosine, abs=1e-4)


def test_vectors_of_another_length_or_model_are_refused(open_store):
    open_store(dimensions=64).add({"a": "x"})
    with pytest.raises(ValueError, match=r"holds vectors of 64 dimensions, but .* gives 32"):
        open_store(dimensions=32)
    store = open_store(dimensions=64)
    kept = store.client.describe_collection(_name(store))["properties"][FINGERPRINT_KEY]
    other = kept.replace('"max_length": 8192', '"max_length": 99')
    assert other != kept
    store.client.alter_collection_properties(_name(store), properties={FINGERPRINT_KEY: other})
    with pytest.raises(ValueError, match="were made with max_length 99, not 8192"):
        open_store(dimensions=64)


def test_hostile_values_stand_for_themselves(open_store):
    store = open_store()
    store.add(
        {f"id-{i}": f"text {i}" for i in range(len(HOSTILE))},
        value=HOSTILE,
        number=list(range(len(HOSTILE))),
    )
    for i, value in enumerate(HOSTILE):
        assert store.ids(f"value == {literal(value)}") == {f"id-{i}"}, value
    assert store.ids(f"value in {literal(HOSTILE[:9])}") == {f"id-{i}" for i in range(9)}
    assert store.ids(f"number in {literal([3, 4])}") == {"id-3", "id-4"}


def test_what_was_written_is_seen_at_once(open_store):
    store = open_store()
    for i in range(20):
        store.add({f"id-{i}": f"text {i}"})
        assert len(store.ids()) == i + 1
    store.delete([f"id-{i}" for i in range(5)])
    assert store.ids() == {f"id-{i}" for i in range(5, 20)}
    store.replace("id-5", ANSWER)
    assert len(store.ids()) == 15
    assert store.search(QUESTION, 1)[0][:2] == ("id-5", ANSWER)


def test_a_partition_key(open_store, request):
    if "llama_index" in request.node.name:
        pytest.skip("LlamaIndex's store creates no partition keys")
    store = open_store(more={"partition_key_field": "tenant", "num_partitions": 8})
    assert isinstance(store, LangChain)
    tenants = ["a", 'b" or tenant != "', "c\\"]
    store.add(
        {f"id-{i}": f"text {i}" for i in range(30)}, tenant=[tenants[i % 3] for i in range(30)]
    )
    for t, tenant in enumerate(tenants):
        assert store.ids(f"tenant == {literal(tenant)}") == {f"id-{i}" for i in range(t, 30, 3)}


def test_two_event_loops_each_with_a_store_of_its_own(open_store):
    open_store().add({"a": "Bread is baked.", "b": ANSWER})

    async def search():
        store = open_store()
        return [
            hits[0].id
            for hits in await asyncio.gather(*(store.asearch(QUESTION, 2) for _ in range(4)))
        ]

    assert asyncio.run(search()) == ["b"] * 4
    assert asyncio.run(search()) == ["b"] * 4


def test_eight_threads_write_and_read(open_store):
    store = open_store()
    store.add({"answer": ANSWER})

    def work(thread):
        for i in range(4):
            store.add({f"{thread}-{i}": f"filler {thread} {i}"})
            hits = store.search(QUESTION, 100)
            assert hits[0].id == "answer"
            assert f"{thread}-{i}" in {hit.id for hit in hits}

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))
    assert len(store.ids()) == 8 * 4 + 1


def test_a_text_too_long_for_milvus_is_refused(open_store):
    store = open_store()
    store.add({"a": "x" * 65_535})
    with pytest.raises(ValueError, match="65,535 bytes that a Milvus field holds"):
        store.add({"b": "x" * 65_536})
    assert store.ids() == {"a"}


def _wait_for_index(store):
    (name,) = store.client.list_indexes(_name(store))
    deadline = time.monotonic() + 120
    while True:
        index = store.client.describe_index(_name(store), name)
        if index["indexed_rows"] == 3001 and index["pending_index_rows"] == 0:
            break
        assert time.monotonic() < deadline, index
        time.sleep(0.5)
    # Loads the index in place of the fresh rows.
    store.client.release_collection(_name(store))
    store.client.load_collection(_name(store))


def _name(store):
    return store.store.collection_name
