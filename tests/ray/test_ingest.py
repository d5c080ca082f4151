"""examples/ray_ingest.py: the shards and, where Ray is installed, the job on two workers."""

import argparse
import importlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time

import numpy as np
import pytest

from tests.conftest import ROOT, TINY, free_port

pq = pytest.importorskip("pyarrow.parquet", reason="pyarrow comes with Milvus Lite and Ray Data")
pytestmark = pytest.mark.timeout(900)

FILES = 12
METADATA = {"source": "a.md", "title": "Keys"}


@pytest.fixture(autouse=True)
def without_tokens(monkeypatch):
    """Ray reads this once in a process, so that all clusters of these tests must agree."""
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")


@pytest.fixture
def ingest(monkeypatch):
    """The example, as a module."""
    monkeypatch.syspath_prepend(str(ROOT / "examples"))
    return importlib.import_module("ray_ingest")


@pytest.fixture
def corpus(tmp_path):
    folder = tmp_path / "corpus"
    folder.mkdir()
    for i in range(FILES):
        text = f"# How is shelf {i} reached?\n\nBy ladder {i}.\n\n# Who owns it?\n\nNumber {i}.\n"
        (folder / f"{i:02}.md").write_text(text, encoding="utf-8")
    return folder


def options(corpus, framework="langchain", **changes):
    return argparse.Namespace(
        **{
            "framework": framework,
            "corpus": str(corpus),
            "model": "tiny",
            "base_url": None,
            "dimensions": 64,
            "workers": 2,
            "cpus": 1,
            "gpus": 0,
            "address": None,
            "uri": None,
            "token": None,
            "collection": "qwen3",
            **changes,
        }
    )


def shard_of(ingest, corpus, out, framework):
    """One shard of the whole corpus, made without Ray."""
    folder, sources = ingest.find_files(str(corpus))
    settings = {"model": "tiny", "dimensions": 64}
    group = {"folder": str(folder), "sources": sources}
    group = ingest.read_and_split(group, framework, settings)
    embed = ingest.EmbedShard(framework, settings, str(out))
    result = embed(group)
    return group, out / result["shard"], embed


@pytest.mark.parametrize("framework", ["langchain", "llama_index"])
def test_the_file_has_the_schema_that_bulk_import_takes(ingest, corpus, tmp_path, framework):
    group, path, embed = shard_of(ingest, corpus, tmp_path, framework)
    table = pq.read_table(path)
    assert tuple(table.column_names) == ingest.SCHEMAS[framework]
    vector = "vector" if framework == "langchain" else "embedding"
    assert str(table.schema.field(vector).type) == "list<element: float>"
    assert {str(f.type) for f in table.schema if f.name != vector} == {"string"}
    meta = json.loads(table["$meta"][0].as_py())
    assert meta["source"] == "00.md"
    assert ("_node_content" in meta) == (framework == "llama_index")
    written = path.stat().st_mtime_ns
    assert embed(group)["skipped"]
    assert path.stat().st_mtime_ns == written
    assert not list(tmp_path.glob("*.part"))


def test_a_changed_file_or_setting_makes_another_shard(ingest, corpus):
    group = {"folder": str(corpus), "sources": ["00.md"]}
    models = ("tiny", str(TINY / "embedding"))
    names = [ingest.read_and_split(group, "langchain", {"model": m})["shard"] for m in models]
    (corpus / "00.md").write_text("# Another", encoding="utf-8")
    names.append(ingest.read_and_split(group, "langchain", {"model": "tiny"})["shard"])
    assert len(set(names)) == 3


def test_a_file_that_is_no_text_is_reported(ingest, corpus, tmp_path):
    (corpus / "03.md").write_bytes(b"\xff")
    group, path, _ = shard_of(ingest, corpus, tmp_path, "langchain")
    (error,) = group["errors"]
    assert error.startswith("03.md: not UTF-8 text (byte 0xff at 0")
    assert pq.read_table(path).num_rows == 2 * (FILES - 1)


def test_langchain_opens_the_collection_as_its_own(ingest, corpus, tmp_path):
    from langchain_core.documents import Document
    from langchain_milvus import Milvus

    from langchain_qwen3 import Qwen3Embeddings, milvus_kwargs

    _, path, _ = shard_of(ingest, corpus, tmp_path, "langchain")
    uri = str(tmp_path / "lc.db")
    assert ingest.upsert([path], options(corpus, uri=uri)) == 2 * FILES
    assert ingest.upsert([path], options(corpus, uri=uri)) == 2 * FILES  # nothing twice
    embeddings = Qwen3Embeddings(model="tiny", dimensions=64)
    imported = Milvus(**milvus_kwargs(embeddings, uri=uri))
    own = Milvus(**milvus_kwargs(embeddings, uri=uri, collection_name="own"))
    rows = pq.read_table(path).to_pylist()
    documents = [Document(r["text"], metadata=json.loads(r["$meta"])) for r in rows]
    own.add_documents(documents, ids=[r["pk"] for r in rows])
    for question in ("ladder 3", "Who owns number 7?"):
        found, expected = (
            s.similarity_search_with_score(question, k=2 * FILES) for s in (imported, own)
        )
        # Documents of equal score may come in either order.
        assert len(found) == 2 * FILES
        expected_by_id = {d.metadata["pk"]: (d, score) for d, score in expected}
        for document, score in found:
            same, same_score = expected_by_id[document.metadata["pk"]]
            assert document == same
            assert score == pytest.approx(same_score, abs=1e-5)
    fields = [
        [(f["name"], f["type"], f["params"]) for f in s.client.describe_collection(n)["fields"]]
        for s, n in ((imported, "qwen3"), (own, "own"))
    ]
    assert fields[0] == fields[1]


def test_llama_index_opens_the_collection_as_its_own(ingest, corpus, tmp_path):
    from llama_index.core import StorageContext, VectorStoreIndex
    from llama_index.core.vector_stores.utils import metadata_dict_to_node
    from llama_index.vector_stores.milvus import MilvusVectorStore

    from llama_index_qwen3 import Qwen3Embedding, milvus_kwargs

    _, path, _ = shard_of(ingest, corpus, tmp_path, "llama_index")
    uri = str(tmp_path / "li.db")
    assert ingest.upsert([path], options(corpus, "llama_index", uri=uri)) == 2 * FILES
    model = Qwen3Embedding(model="tiny", dimensions=64)
    imported, own = (
        MilvusVectorStore(
            **milvus_kwargs(model, uri=uri, collection_name=name, use_async_client=False)
        )
        for name in ("qwen3", "own")
    )
    rows = pq.read_table(path).to_pylist()
    nodes = [metadata_dict_to_node(json.loads(r["$meta"]), text=r["text"]) for r in rows]
    VectorStoreIndex(
        nodes, storage_context=StorageContext.from_defaults(vector_store=own), embed_model=model
    )
    ids = [r["id"] for r in rows]
    stored = [
        {r["id"]: r for r in s.client.query(s.collection_name, ids=ids, output_fields=["*"])}
        for s in (imported, own)
    ]
    assert set(stored[0]) == set(ids)
    for key in ids:
        row, same = stored[0][key], stored[1][key]
        np.testing.assert_allclose(row.pop("embedding"), same.pop("embedding"), atol=1e-5)
        assert row == same
    index = VectorStoreIndex.from_vector_store(imported, embed_model=model)
    hits = index.as_retriever(similarity_top_k=3).retrieve("ladder 3")
    assert len(hits) == 3
    assert all(hit.node.metadata["source"] == hit.node.ref_doc_id for hit in hits)
    assert all(hit.node.get_content() and hit.node_id in ids for hit in hits)


def test_two_workers_one_killed_give_the_rows_of_one_process(ingest, corpus, tmp_path, monkeypatch):
    pytest.importorskip("ray", reason='Ray is not installed: pip install ".[ray]"')
    monkeypatch.setenv("OMP_NUM_THREADS", "1")

    out, killed = tmp_path / "out", tmp_path / "killed"
    out.mkdir()

    class MortalShard(ingest.EmbedShard):  # type: ignore[name-defined,misc]
        def __call__(self, group):
            if list(out.glob("*.parquet")) and not killed.exists():
                killed.touch()
                os.kill(os.getpid(), signal.SIGKILL)
            return super().__call__(group)

    monkeypatch.setattr(ingest, "EmbedShard", MortalShard)
    groups = [{"folder": str(corpus), "sources": [f"{i:02}.md"]} for i in range(FILES)]
    results = list(ingest.embed_groups(groups, options(corpus), out))
    assert killed.exists()
    assert len({r["shard"] for r in results}) == len(results) == FILES

    _, path, _ = shard_of(ingest, corpus, tmp_path, "langchain")
    expected = {r["pk"]: r for r in pq.read_table(path).to_pylist()}
    tables = [pq.read_table(file).to_pylist() for file in sorted(out.glob("*.parquet"))]
    rows = [row for table in tables for row in table]
    assert sorted(row["pk"] for row in rows) == sorted(expected)  # none lost, none twice
    for row in rows:
        same = expected[row["pk"]]
        np.testing.assert_allclose(row.pop("vector"), same["vector"], atol=1e-5)
        assert row == {k: v for k, v in same.items() if k != "vector"}


class PoisonedShard:
    """EmbedShard with a model that fails on some text; `base` reaches the workers with it."""

    base: type

    def __init__(self, **settings):
        self.shard = self.base(**settings)
        embedder = self.shard.embed._embedder
        whole = embedder.embed_documents

        def embed(texts):
            if any("poison" in text for text in texts):
                msg = "a vector has length 0"
                raise FloatingPointError(msg)
            return whole(texts)

        embedder.embed_documents = embed

    def __call__(self, group):
        return self.shard(group)


def test_on_a_cluster_a_rerun_skips_what_is_done_and_reports_a_bad_text(
    ingest, corpus, tmp_path, monkeypatch, cluster
):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    out = tmp_path / "out"
    out.mkdir()
    for i in range(FILES - 1):  # an earlier run was interrupted before the last
        settings = {"model": "tiny", "base_url": None, "dimensions": 64}
        group = {"folder": str(corpus), "sources": [f"{i:02}.md"]}
        embed = ingest.EmbedShard("langchain", settings, str(out))
        embed(ingest.read_and_split(group, "langchain", settings))
    before = {path: path.stat().st_mtime_ns for path in out.iterdir()}
    assert len(before) == FILES - 1
    with (corpus / f"{FILES - 1:02}.md").open("a", encoding="utf-8") as file:
        file.write("\n# What is poison?\n\nThis text.\n")

    shard = type("PoisonedShard", (PoisonedShard,), {"base": ingest.EmbedShard})
    monkeypatch.setattr(ingest, "EmbedShard", shard)
    groups = [{"folder": str(corpus), "sources": [f"{i:02}.md"]} for i in range(FILES)]
    results = list(ingest.embed_groups(groups, options(corpus, address=cluster), out))
    assert sum(result["skipped"] for result in results) == FILES - 1
    (errors,) = (list(result["errors"]) for result in results if not result["skipped"])
    assert errors == ["11.md: FloatingPointError: a vector has length 0"]
    assert {path: path.stat().st_mtime_ns for path in before} == before
    (new,) = set(out.iterdir()) - set(before)
    assert pq.read_table(new).num_rows == 2  # all but the bad one


@pytest.fixture
def cluster(tmp_path, without_tokens):
    """Address of a Ray cluster of one node, started as an operator would."""
    pytest.importorskip("ray", reason='Ray is not installed: pip install ".[ray]"')
    port = free_port()
    # A folder of its own, as Ray notes there which cluster runs, and forgets to remove the note
    # when it is killed; a short one, as sockets with paths of more than 107 bytes cannot be opened.
    folder = tempfile.mkdtemp(prefix="ray", dir="/tmp")
    command = [
        *(sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block"),
        *(f"--port={port}", "--node-ip-address=127.0.0.1", "--include-dashboard=false"),
        f"--temp-dir={folder}",
        *("--num-cpus=3", f"--object-store-memory={256 << 20}", "--disable-usage-stats"),
    ]
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    with (tmp_path / "ray.log").open("wb") as log:
        head = subprocess.Popen(command, stdout=log, stderr=log, env=env, start_new_session=True)
    deadline = time.monotonic() + 120
    while b"Ray runtime started" not in (tmp_path / "ray.log").read_bytes():
        assert head.poll() is None, (tmp_path / "ray.log").read_text()
        assert time.monotonic() < deadline
        time.sleep(0.2)
    yield f"127.0.0.1:{port}"
    head.terminate()  # with --block it ends its node's processes before it ends
    try:
        head.wait(10)
    except subprocess.TimeoutExpired:
        os.killpg(head.pid, signal.SIGKILL)
        head.wait()
    shutil.rmtree(folder, ignore_errors=True)
