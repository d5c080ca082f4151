"""`milvus_kwargs` with LlamaIndex's own Milvus store, on Milvus Lite."""

import logging
import shutil
from typing import Any

import pytest
from llama_index.core import MockEmbedding, VectorStoreIndex
from llama_index.core.schema import MetadataMode, NodeRelationship, RelatedNodeInfo, TextNode
from llama_index.core.vector_stores import MetadataFilter, MetadataFilters
from llama_index.core.vector_stores.types import VectorStoreQuery
from llama_index.vector_stores.milvus import MilvusVectorStore

from llama_index_qwen3 import Qwen3Embedding, milvus_kwargs
from qwen3_core.milvus.collection import collection_properties
from tests.conftest import TINY, naming
from tests.llama_index.conftest import TEXTS, build_index, open_store, text_nodes

QUERY = "How is data stored in Milvus?"


def test_the_arguments(tmp_path, embed_model):
    assert milvus_kwargs(embed_model, uri=tmp_path / "x.db", k=200, rows=20_000) == {
        "uri": str(tmp_path / "x.db"),
        "token": "",
        "collection_name": "qwen3",
        "dim": 256,
        "similarity_metric": "IP",
        # Milvus Lite reads parameters within "params".
        "index_config": {"index_type": "IVF_FLAT", "metric_type": "IP", "params": {"nlist": 1}},
        "search_config": {"nprobe": 400},
        "consistency_level": "Strong",
        "collection_properties": collection_properties(embed_model.fingerprint),
        "upsert_mode": True,
        "overwrite": False,
        "use_async_client": True,
    }


def test_the_collection_is_made_as_asked(tmp_path, embed_model):
    store = open_store(tmp_path / "x.db", embed_model, metric="COSINE")
    index = store.client.describe_index("qwen3", "embedding")
    assert (index["index_type"], index["metric_type"]) == ("FLAT", "COSINE")
    collection = store.client.describe_collection("qwen3")
    assert collection["consistency_level_name"] == "Strong"
    (vector,) = (f for f in collection["fields"] if f["name"] == "embedding")
    assert vector["params"]["dim"] == embed_model.dim


def test_a_collection_knows_its_model_under_other_names(tmp_path, embed_model):
    build_index(tmp_path / "x.db", embed_model, TEXTS)
    folder = shutil.copytree(TINY / "embedding", tmp_path / "Docs-Embedding-0___6B")
    same = Qwen3Embedding(model=folder)
    assert milvus_kwargs(same, uri=tmp_path / "x.db")["collection_properties"] is None
    other = Qwen3Embedding(model=folder, max_length=100)
    with pytest.raises(ValueError, match="made with max_length 8192, not 100"):
        milvus_kwargs(other, uri=tmp_path / "x.db")


async def test_add_search_100_reopen_filter_and_delete(tmp_path, embed_model):
    """The whole life of a collection, in one."""
    path = tmp_path / "x.db"
    texts = [f"{TEXTS[i % len(TEXTS)]} ({i})" for i in range(120)]
    index = build_index(path, embed_model, texts)
    hits = index.as_retriever(similarity_top_k=100).retrieve(QUERY)
    assert len(hits) == 100
    scores = [hit.get_score() for hit in hits]
    assert scores == sorted(scores, reverse=True)
    best = index.vector_store.get_nodes(node_ids=[hits[0].node.node_id])[0]
    vector = embed_model.get_query_embedding(QUERY)
    shown = embed_model.get_text_embedding(best.get_content(MetadataMode.EMBED))
    assert scores[0] == pytest.approx(
        sum(a * b for a, b in zip(vector, shown, strict=True)), abs=1e-4
    )

    again = VectorStoreIndex.from_vector_store(
        open_store(path, embed_model), embed_model=embed_model
    )
    reopened = await again.as_retriever(similarity_top_k=100).aretrieve(QUERY)
    assert [hit.node.node_id for hit in reopened] == [hit.node.node_id for hit in hits]

    filters = MetadataFilters(filters=[MetadataFilter(key="number", value=7)])
    (only,) = again.as_retriever(similarity_top_k=100, filters=filters).retrieve(QUERY)
    assert only.node.node_id == "node-7"

    again.vector_store.delete_nodes(["node-7"])
    assert again.as_retriever(similarity_top_k=100, filters=filters).retrieve(QUERY) == []


def test_a_documents_nodes_are_deleted_by_its_id(tmp_path, embed_model):
    store = open_store(tmp_path / "x.db", embed_model)
    nodes = text_nodes()
    for i, node in enumerate(nodes):
        node.relationships[NodeRelationship.SOURCE] = RelatedNodeInfo(node_id=f"doc-{i % 2}")
    store.add(embed_model(nodes))
    store.delete("doc-0")
    assert _ids(store, embed_model) == {"node-1", "node-3", "node-5", "node-7"}


def test_adding_a_node_again_replaces_it(tmp_path, embed_model):
    store = open_store(tmp_path / "x.db", embed_model)
    store.add(embed_model(text_nodes()))
    store.add(embed_model([TextNode(id_="node-3", text="changed")]))
    assert _ids(store, embed_model) == {f"node-{i}" for i in range(len(TEXTS))}
    assert store.get_nodes(node_ids=["node-3"])[0].get_content() == "changed"


@pytest.mark.parametrize("metric", ["IP", "COSINE"])
def test_both_metrics_give_the_same_scores(tmp_path, embed_model, metric):
    store = open_store(tmp_path / "x.db", embed_model, metric=metric)
    store.add(embed_model([TextNode(text=QUERY)]))
    result: Any = store.query(
        VectorStoreQuery(query_embedding=embed_model.get_text_embedding(QUERY), similarity_top_k=1)
    )
    assert result.similarities == [pytest.approx(1, abs=1e-4)]


def test_another_dimension_is_refused_before_anything_is_written(corpus):
    other = Qwen3Embedding(model="tiny", dimensions=64)
    with pytest.raises(
        ValueError,
        match=naming("'qwen3'", "256 dimensions", "64", "collection_name", "dimensions=256"),
    ):
        milvus_kwargs(other, uri=corpus)


def test_vectors_made_otherwise_are_refused(corpus):
    other = Qwen3Embedding(model="tiny", max_length=100)
    with pytest.raises(
        ValueError, match=naming("'qwen3'", "max_length", "8192", "100", "collection_name")
    ):
        milvus_kwargs(other, uri=corpus)


def test_another_metric_is_refused(corpus, embed_model):
    with pytest.raises(ValueError, match=naming("'qwen3'", "IP", "COSINE", "collection_name")):
        milvus_kwargs(embed_model, uri=corpus, metric="COSINE")


def test_overwrite_replaces_a_collection_that_does_not_fit(tmp_path, embed_model):
    open_store(tmp_path / "x.db", embed_model)
    other = Qwen3Embedding(model="tiny", dimensions=64)
    store = open_store(tmp_path / "x.db", other, overwrite=True)
    store.add(list(other(text_nodes())))
    assert len(_ids(store, other)) == len(TEXTS)


def test_a_store_without_async_client_serves_sync_calls(corpus, embed_model):
    store = open_store(corpus, embed_model, use_async_client=False)
    assert store.aclient is None
    assert len(_ids(store, embed_model)) == len(TEXTS)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"k": 0}, "k must be an integer from 1 to 16384, got 0"),
        ({"k": 20_000}, "k must be an integer from 1 to 16384, got 20000"),
        ({"k": 1.5}, "k must be an integer from 1 to 16384, got 1.5"),
        ({"metric": "L2"}, "metric must be one of IP, COSINE, got 'L2'"),
        ({"uri": "milvus"}, "uri='milvus' is neither an address such as .* nor the path"),
        ({"uri": ":memory:"}, "uri=':memory:' is neither an address such as .* nor the path"),
    ],
)
def test_arguments_out_of_range_are_refused(no_loading, options, message):
    with pytest.raises(ValueError, match=message):
        milvus_kwargs(Qwen3Embedding(model="tiny"), **options)


def test_a_missing_folder_is_refused(tmp_path, embed_model):
    with pytest.raises(
        FileNotFoundError,
        match=naming(str(tmp_path / "missing" / "x.db"), f"create {str(tmp_path / 'missing')!r}"),
    ):
        milvus_kwargs(embed_model, uri=tmp_path / "missing" / "x.db")


def test_a_plain_file_in_the_way_is_refused(tmp_path, embed_model):
    path = tmp_path / "x.db"
    path.write_text("a database of Milvus Lite 2")
    with pytest.raises(
        ValueError, match=naming(f"uri={str(path)!r}", "folder", "choose another uri")
    ):
        milvus_kwargs(embed_model, uri=path)


def test_the_home_folder_is_found(tmp_path, monkeypatch, embed_model):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert milvus_kwargs(embed_model, uri="~/x.db")["uri"] == str(tmp_path / "x.db")


@pytest.mark.parametrize("uri", [None, 19530])
def test_a_uri_of_another_type_is_refused(embed_model, uri):
    with pytest.raises(TypeError, match="uri must be"):
        milvus_kwargs(embed_model, uri=uri)


def test_another_embedding_model_is_refused():
    other: Any = MockEmbedding(embed_dim=64)
    with pytest.raises(TypeError, match=naming("embed_model=", "Qwen3Embedding", "MockEmbedding")):
        milvus_kwargs(other)


def test_a_text_too_long_for_milvus_is_refused(tmp_path, embed_model, caplog):
    caplog.set_level(logging.CRITICAL)
    store = open_store(tmp_path / "x.db", embed_model)
    node = TextNode(text="x" * 70_000, embedding=[0.0] * embed_model.dim)
    with pytest.raises(ValueError, match=naming("texts[0]", "70,000", "65,535", "split")):
        store.add([node])


def _ids(store: MilvusVectorStore, embed_model: Qwen3Embedding) -> set[str]:
    query = VectorStoreQuery(
        query_embedding=embed_model.get_query_embedding(QUERY), similarity_top_k=100
    )
    return set(store.query(query).ids or [])
