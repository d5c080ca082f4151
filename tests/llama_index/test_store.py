"""`open_milvus` and the store that it gives, on Milvus Lite."""

import asyncio
import copy
import logging
import pickle
from typing import Any

import pytest
from llama_index.core import Document, StorageContext, VectorStoreIndex
from llama_index.core.indices.vector_store.retrievers import VectorIndexRetriever
from llama_index.core.llms import MockLLM
from llama_index.core.schema import QueryBundle, TextNode
from llama_index.core.vector_stores import (
    FilterCondition,
    FilterOperator,
    MetadataFilter,
    MetadataFilters,
)
from llama_index.core.vector_stores.types import VectorStoreQuery
from llama_index.vector_stores.milvus import MilvusVectorStore
from pymilvus import MilvusClient

from llama_index_qwen3 import (
    Qwen3Embedding,
    Qwen3Rerank,
    milvus_kwargs,
    open_milvus,
    two_stage_query_engine,
)
from llama_index_qwen3.store import Qwen3MilvusVectorStore
from tests.conftest import naming

AND, OR, NOT = FilterCondition.AND, FilterCondition.OR, FilterCondition.NOT
ODD_IDS = ["plain", "it's", 'a "b"', "C:\\new\\table.md", "C:\\docs", "x\ny", "线\u2028", "%_"]
CHINESE = ["数据存储在对象存储中。", "猫整天睡觉。", "The disk is full."]
ROWS: dict[str, dict[str, Any]] = {
    "public": {"secrecy": "public", "doc-type": "manual", "year": 2020},
    "secret": {"secrecy": "secret", "doc-type": "note", "year": 2024},
    "other": {"Header 1": "it's C:\\new"},
}


@pytest.fixture
def uri(tmp_path):
    return str(tmp_path / "milvus.db")


@pytest.fixture(scope="module")
def filled(embed_model, tmp_path_factory):
    """An index over rows that are called by their text."""
    store = open_milvus(embed_model, uri=tmp_path_factory.mktemp("store") / "milvus.db")
    return index_of(store, embed_model, [text_node(id_, **ROWS[id_]) for id_ in ROWS])


def text_node(id_, **metadata):
    hidden = list(metadata)
    return TextNode(id_=id_, text=id_, metadata=metadata, excluded_embed_metadata_keys=hidden)


def index_of(store, embed_model, nodes=()):
    context = StorageContext.from_defaults(vector_store=store)
    return VectorStoreIndex(list(nodes), storage_context=context, embed_model=embed_model)


def restart(uri):
    """Forget the database, as the end of the process would."""
    from milvus_lite.server_manager import server_manager_instance

    server_manager_instance.release_server(uri)


def found(index, **options):
    retriever = VectorIndexRetriever(index, similarity_top_k=50, **options)
    return {n.node.ref_doc_id or n.text for n in retriever.retrieve("any")}


def one(key, value, operator=FilterOperator.EQ):
    return MetadataFilter(key=key, value=value, operator=operator)


def several(condition, *filters):
    return MetadataFilters(filters=list(filters), condition=condition)


# Filters

SECRET, PUBLIC = one("secrecy", "secret"), one("secrecy", "public")


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        (several(NOT, SECRET), {"public", "other"}),
        (several(NOT, SECRET, PUBLIC), {"other"}),
        (several(NOT, several(NOT, SECRET)), {"secret"}),
        (several(NOT, several(AND, PUBLIC, one("year", 2020))), {"secret", "other"}),
        (several(AND, several(OR, SECRET, PUBLIC), several(NOT, SECRET)), {"public"}),
        (several(OR, SECRET, several(AND, PUBLIC, one("year", 1999))), {"secret"}),
        (several(AND, one("doc-type", "manual")), {"public"}),
        (several(AND, one("doc-type", ["manual", "x"], FilterOperator.IN)), {"public"}),
        (several(AND, one("doc-type", ["manual"], FilterOperator.NIN)), {"secret", "other"}),
        (several(AND, one("secrecy", "secret", FilterOperator.NE)), {"public", "other"}),
        (several(AND, one("Header 1", "it's C:\\new")), {"other"}),
        (several(AND, one("year", None, FilterOperator.IS_EMPTY)), {"other"}),
        (several(AND, one("id", ["secret"], FilterOperator.IN)), {"secret"}),
        (several(AND), {"public", "secret", "other"}),
    ],
)
def test_filters_mean_what_they_say(filled, filters, expected):
    assert found(filled, filters=filters) == expected
    engine = two_stage_query_engine(
        filled, MockLLM(), reranker=Qwen3Rerank(model="tiny"), filters=filters
    )
    assert {n.text for n in engine.retrieve(QueryBundle("any"))} == expected


def test_all_that_narrows_a_search_holds(filled):
    narrowed = {"filters": several(OR, SECRET, PUBLIC)}
    assert found(filled, **narrowed, vector_store_kwargs={"string_expr": "year > 2020"}) == {
        "secret"
    }
    assert found(filled, **narrowed, node_ids=["public", "other"]) == {"public"}
    assert found(filled, **narrowed, doc_ids=["nobody's"]) == set()
    assert found(filled, **narrowed, doc_ids=[]) == set()


def test_a_search_in_no_partition_is_refused(filled):
    with pytest.raises(ValueError, match=r"milvus_partition_names=\[\] names no partition"):
        found(filled, vector_store_kwargs={"milvus_partition_names": []})


async def test_what_deletes_or_gets_takes_no_argument_that_it_would_drop(filled):
    store = filled.vector_store
    for delete in (store.delete, store.delete_nodes):
        with pytest.raises(TypeError, match=naming("string_expr=", "node_ids=", "filters=")):
            delete(["public"], string_expr="year > 2020")
    for adelete in (store.adelete, store.adelete_nodes):
        with pytest.raises(TypeError, match=naming("string_expr=", "node_ids=", "filters=")):
            await adelete(["public"], string_expr="year > 2020")
    with pytest.raises(
        TypeError, match=naming("partition_name=", "nodes", "milvus_partition_name")
    ):
        store.add([TextNode(text="a")], partition_name="a")
    with pytest.raises(
        TypeError, match=naming("partition_name=", "async_add", "milvus_partition_name")
    ):
        await store.async_add([TextNode(text="a")], partition_name="a")
    with pytest.raises(TypeError, match=naming("expr=", "get_nodes", "node_ids=", "filters=")):
        store.get_nodes(["public"], expr="year > 2020")
    assert [n.node_id for n in store.get_nodes(["public"], limit=1)] == ["public"]


def test_a_store_is_shared_by_copies_and_refuses_to_be_pickled(filled):
    engine = two_stage_query_engine(filled, MockLLM(), reranker=Qwen3Rerank(model="tiny"))
    assert {n.text for n in copy.deepcopy(engine).retrieve(QueryBundle("any"))} == set(ROWS)
    assert copy.copy(filled.vector_store) is filled.vector_store
    store = filled.vector_store
    assert store.model_copy() is store.model_copy(deep=True) is store
    with pytest.raises(
        TypeError,
        match=naming(
            "another collection_name", "open_milvus(embed_model, uri=..., collection_name=...)"
        ),
    ):
        store.model_copy(update={"collection_name": "b"})
    assert store.collection_name == "qwen3"
    for holder in (store, filled, engine):
        with pytest.raises(
            TypeError, match=naming("open_milvus(embed_model, uri=..., collection_name='qwen3')")
        ):
            pickle.dumps(holder)


def test_nodes_whose_ids_do_not_fit_are_refused(filled):
    with pytest.raises(ValueError, match=naming("'a'", "two nodes", "give each an id")):
        filled.insert_nodes([TextNode(id_="a", text="one"), TextNode(id_="a", text="two")])
    with pytest.raises(ValueError, match=naming(f"'{'a' * 40}'", "70,000", "65,535")):
        filled.insert_nodes([TextNode(id_="a" * 70_000, text="one")])
    assert filled.vector_store.get_nodes(["a"]) == []


@pytest.mark.parametrize(
    ("options", "kind", "error"),
    [
        ({"filters": several(AND, one("year", None))}, TypeError, "'year' compares with None"),
        ({"vector_store_kwargs": {"expr": "year > 1"}}, TypeError, "no argument 'expr': a Milvus"),
        (
            {"vector_store_kwargs": {"string_expr": 'doc-type == "a"'}},
            ValueError,
            "names a field 'doc-type'",
        ),
    ],
)
def test_what_would_be_ignored_or_misread_is_refused(filled, options, kind, error):
    with pytest.raises(kind, match=error):
        found(filled, **options)


# Ids


@pytest.mark.parametrize("opened", ["open_milvus", "MilvusVectorStore"])
async def test_documents_and_nodes_are_known_by_any_id(embed_model, uri, opened):
    def open_it():
        if opened == "open_milvus":
            return open_milvus(embed_model, uri=uri)
        return MilvusVectorStore(**milvus_kwargs(embed_model, uri=uri))

    documents = [Document(id_=id_, text=id_) for id_ in ODD_IDS]
    context = StorageContext.from_defaults(vector_store=open_it())
    VectorStoreIndex.from_documents(documents, context, embed_model=embed_model)
    restart(uri)
    store = open_it()
    index = VectorStoreIndex.from_vector_store(store, embed_model=embed_model)
    left = set(ODD_IDS)
    for i, id_ in enumerate(ODD_IDS[:-2]):
        assert found(index, doc_ids=[id_]) == {id_}
        if i % 2:
            index.delete_ref_doc(id_)
        else:
            await index.adelete_ref_doc(id_)
        left -= {id_}
        assert found(index) == left


async def test_nodes_come_and_go_by_any_id(embed_model, uri):
    store = open_milvus(embed_model, uri=uri)
    index = index_of(store, embed_model, [text_node(id_, **{"a-b": "c"}) for id_ in ODD_IDS])
    for id_ in ODD_IDS:
        (node,) = store.get_nodes([id_])
        assert (node.node_id, node.get_content(), node.metadata) == (id_, id_, {"a-b": "c"})
        assert len(node.embedding or ()) == 256
        assert found(index, node_ids=[id_]) == {id_}
    assert len(await store.aget_nodes(filters=several(AND, one("a-b", "c")))) == len(ODD_IDS)
    store.delete_nodes(ODD_IDS[:3])
    await store.adelete_nodes(ODD_IDS[3:6], filters=several(AND, one("a-b", "c")))
    store.delete_nodes(ODD_IDS[6:], filters=several(NOT, one("a-b", "c")))
    assert found(index) == set(ODD_IDS[6:])
    for call in (store.delete_nodes, store.get_nodes):
        with pytest.raises(ValueError, match="which nodes"):
            call()


# Rows


@pytest.mark.parametrize("key", ["text", "id", "embedding", "doc_id", "ref_doc_id", "_node_type"])
def test_metadata_is_no_field_of_the_store(embed_model, uri, key):
    index = index_of(open_milvus(embed_model, uri=uri), embed_model)
    with pytest.raises(ValueError, match=naming(f"'{key}'", "'a'", "rename")):
        index.insert_nodes([text_node("a", **{key: "x"})])
    index.insert_nodes([text_node("a", author="x")])
    assert found(index) == {"a"}


@pytest.mark.parametrize(
    ("metadata", "kind", "error"),
    [
        ({" ": "x"}, ValueError, "key of node 'a' is blank"),
        ({"n": [float("nan")]}, ValueError, "'n' of node 'a' is a number that JSON does not"),
        ({"n": b"x"}, TypeError, "'n' of node 'a' cannot be stored"),
    ],
)
def test_metadata_that_milvus_cannot_store_is_refused(embed_model, uri, metadata, kind, error):
    index = index_of(open_milvus(embed_model, uri=uri), embed_model)
    with pytest.raises(kind, match=error):
        index.insert_nodes([text_node("a", **metadata)])
    assert found(index) == set()


def test_vectors_of_another_length_are_refused(embed_model, uri):
    store = open_milvus(embed_model, uri=uri)
    index_of(store, embed_model, [text_node("a")])
    short = VectorStoreIndex.from_vector_store(
        store, embed_model=Qwen3Embedding(model="tiny", dimensions=64)
    )
    with pytest.raises(ValueError, match=naming("query", "64", "'qwen3'", "256", "embed_model")):
        short.as_retriever().retrieve("a")
    with pytest.raises(ValueError, match=naming("'b'", "64", "'qwen3'", "256", "embed_model")):
        short.insert_nodes([text_node("b")])


@pytest.mark.parametrize(
    ("settings", "error"),
    [
        ({"dimensions": 64}, "holds vectors of 256 dimensions, but the embedding model gives 64"),
        ({"max_length": 100}, "were made with max_length 8192, not 100"),
    ],
)
def test_an_engine_refuses_another_model_than_the_store_s(embed_model, uri, settings, error):
    store = open_milvus(embed_model, uri=uri)
    index_of(store, embed_model, [text_node("a")])
    other = Qwen3Embedding(model="tiny", **settings)
    tiny = Qwen3Rerank(model="tiny")
    over_others = VectorStoreIndex.from_vector_store(store, embed_model=other)
    for source, model in ((store, other), (over_others, None)):
        engine = two_stage_query_engine(source, MockLLM(), embed_model=model, reranker=tiny)
        with pytest.raises(ValueError, match=error):
            engine.retrieve(QueryBundle("a"))
    same = Qwen3Embedding(model="tiny")
    engine = two_stage_query_engine(store, MockLLM(), embed_model=same, reranker=tiny)
    assert engine.retrieve(QueryBundle("a"))


# Modes and event loops


def test_all_modes_in_any_order(embed_model, uri):
    store = open_milvus(embed_model, uri=uri, hybrid=True)
    before = dict(store.search_config or {})
    index = index_of(store, embed_model, [text_node(t) for t in ("disk full", "cat", "sea")])
    for mode in ("default", "hybrid", "mmr", "hybrid", "sparse", "default", "text_search"):
        retriever = index.as_retriever(vector_store_query_mode=mode, similarity_top_k=2)
        assert retriever.retrieve("disk")[0].text == "disk full", mode
        again = asyncio.run(retriever.aretrieve("disk"))  # each in a loop of its own
        assert again[0].text == "disk full", mode
    assert store.search_config == before


def test_a_store_adds_in_one_event_loop_after_another(embed_model, uri):
    store = MilvusVectorStore(**milvus_kwargs(embed_model, uri=uri))
    for id_ in ("a", "b"):
        asyncio.run(store.async_add(list(embed_model([text_node(id_)]))))
    query = VectorStoreQuery(embed_model.get_query_embedding("a"), similarity_top_k=9)
    assert set(asyncio.run(store.aquery(query)).ids or ()) == {"a", "b"}
    without = open_milvus(embed_model, uri=uri, use_async_client=False)
    with pytest.raises(ValueError, match=naming("use_async_client=False", "leave it out")):
        asyncio.run(without.adelete("a"))


# Full-text search and opening


def test_words_of_chinese_are_found_with_jieba(embed_model, uri):
    pytest.importorskip("jieba", reason="jieba is not installed: pip install jieba")
    store = open_milvus(embed_model, uri=uri, hybrid=True, analyzer="jieba")
    index_of(store, embed_model, [text_node(text) for text in CHINESE])
    restart(uri)
    store = open_milvus(embed_model, uri=uri, hybrid=True)  # keeps its analyzer
    index = VectorStoreIndex.from_vector_store(store, embed_model=embed_model)
    sparse = index.as_retriever(vector_store_query_mode="sparse", similarity_top_k=3)
    for question, text in (("对象存储", CHINESE[0]), ("猫", CHINESE[1]), ("disk", CHINESE[2])):
        assert [n.text for n in sparse.retrieve(question)] == [text]
    with pytest.raises(
        ValueError, match=naming("'qwen3'", "'jieba'", "'standard'", "analyzer=", "collection_name")
    ):
        open_milvus(embed_model, uri=uri, hybrid=True, analyzer="standard")


def test_words_that_are_not_found_are_spoken_of_once(embed_model, uri, caplog):
    store = open_milvus(embed_model, uri=uri, hybrid=True)
    with caplog.at_level(logging.WARNING, "qwen3_core.milvus"):
        index = index_of(store, embed_model, [text_node("The disk is full.")])
        assert "at spaces" not in caplog.text
        index.insert_nodes([text_node(text) for text in CHINESE])
        index.as_retriever(vector_store_query_mode="hybrid").retrieve("对象存储")
    (record,) = (r for r in caplog.records if r.name == "qwen3_core.milvus.analyzers")
    assert "analyzer='jieba'" in record.message


def test_the_same_store_either_way(embed_model, uri):
    assert type(open_milvus(embed_model, uri=uri)) is Qwen3MilvusVectorStore
    ours = MilvusVectorStore(**milvus_kwargs(embed_model, uri=uri))
    assert type(ours) is Qwen3MilvusVectorStore
    assert type(MilvusVectorStore(uri=uri, dim=8, collection_name="x")) is MilvusVectorStore


def test_a_database_of_its_own(embed_model, uri):
    with pytest.raises(
        ValueError, match=naming("database 'tenant'", "create_database('tenant')", "db_name")
    ):
        open_milvus(embed_model, uri=uri, db_name="tenant")
    MilvusClient(uri).create_database("tenant")
    for db_name in ("tenant", None):
        store = open_milvus(embed_model, uri=uri, db_name=db_name)
        index_of(store, embed_model, [text_node(f"in {db_name}")])
    restart(uri)
    for db_name in ("tenant", None):
        store = open_milvus(embed_model, uri=uri, db_name=db_name)
        index = VectorStoreIndex.from_vector_store(store, embed_model=embed_model)
        assert found(index) == {f"in {db_name}"}
        assert asyncio.run(store.aget_nodes([f"in {db_name}"]))


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_name_that_a_server_refuses_is_refused(embed_model, uri, overwrite):
    with pytest.raises(ValueError, match=naming("collection_name='my-docs'", "255", "ASCII")):
        milvus_kwargs(embed_model, uri=uri, collection_name="my-docs", overwrite=overwrite)
