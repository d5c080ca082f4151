"""Parquet shards of examples/ray_ingest.py, taken by a server's own bulk import."""

import importlib
import time
import warnings

import pyarrow.parquet as pq
import pytest

from tests.conftest import ROOT
from tests.milvus.stores import LangChain, LlamaIndex

try:  # pymilvus 3.1 leaves out the interface that servers up to 2.3 import by
    from pymilvus import connections, utility
except ImportError:
    pytest.skip("this pymilvus has no bulk import for servers up to 2.3", allow_module_level=True)

FILES = 8
QUESTION = "By which ladder is shelf 3 reached?"


@pytest.mark.parametrize("store_class", [LangChain, LlamaIndex])
def test_the_store_searches_what_bulk_import_brought(server, store_class, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "examples"))
    ingest = importlib.import_module("ray_ingest")
    framework = "langchain" if store_class is LangChain else "llama_index"
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    for i in range(FILES):
        (corpus / f"{i}.md").write_text(f"# How is shelf {i} reached?\n\nBy ladder {i}.\n")
    settings = {"model": "tiny", "dimensions": 64}
    group = {"folder": str(corpus), "sources": sorted(p.name for p in corpus.iterdir())}
    # The server's own storage is the local disk, where a file's path is its name.
    shards = server.data / "shards"
    shards.mkdir(exist_ok=True)
    embed = ingest.EmbedShard(framework, settings, str(shards))
    shard = shards / embed(ingest.read_and_split(group, framework, settings))["shard"]

    name = f"bulk_{framework}"
    store = store_class(server.uri, name, dimensions=64)
    # LangChain's store creates its collection with the first text.
    store.add({"first": "Bread is baked."}, source=["x"], title=["y"])
    bulk_insert(server.uri, name, shard)
    # Such rows are in sealed segments, which the collection must be loaded anew to see at once.
    store.client.release_collection(name)
    store.client.load_collection(name)
    hits = store.search(QUESTION, 100)
    rows = {row["pk" if store_class is LangChain else "id"]: row for row in
            pq.read_table(shard).to_pylist()}  # fmt: skip
    assert {hit.id for hit in hits} == {*rows, "first"}
    assert len(rows) == FILES
    assert all(hit.text == rows[hit.id]["text"] for hit in hits if hit.id != "first")
    filtered = store.search(QUESTION, 100, 'source == "3.md"')
    assert [hit.text for hit in filtered] == [rows[filtered[0].id]["text"]]
    assert "ladder 3" in filtered[0].text
    store.client.drop_collection(name)


def bulk_insert(uri, collection, shard):
    """The call of servers before 2.4; pymilvus 3 warns that it will go."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        connections.connect(alias="default", uri=uri)
        task = utility.do_bulk_insert(collection, [str(shard)])
        deadline = time.monotonic() + 60
        while True:
            state = utility.get_bulk_insert_state(task)
            assert "Failed" not in state.state_name, state.failed_reason
            if state.state_name == "Completed":
                break
            assert time.monotonic() < deadline, state
            time.sleep(0.2)
        connections.disconnect("default")
