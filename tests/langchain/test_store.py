"""`open_milvus` and the store that it gives, on Milvus Lite."""

import asyncio
import copy
import logging
import pickle
from typing import Any

import pytest
from langchain_core.documents import Document
from langchain_core.embeddings import DeterministicFakeEmbedding
from langchain_milvus import Milvus
from pymilvus import MilvusClient

from langchain_qwen3 import Qwen3Embeddings, Qwen3TwoStageRetriever, milvus_kwargs, open_milvus
from langchain_qwen3.store import Qwen3Milvus
from tests.conftest import naming

ODD_IDS = ["plain", "it's", 'a "b"', "C:\\new\\table.md", "C:\\docs", "x\ny", "线\u2028", "%_"]
CHINESE = ["数据存储在对象存储中。", "猫整天睡觉。", "The disk is full."]


@pytest.fixture
def uri(tmp_path):
    return str(tmp_path / "milvus.db")


def restart(uri):
    """Forget the database, as the end of the process would."""
    from milvus_lite.server_manager import server_manager_instance

    server_manager_instance.release_server(uri)


def texts_of(store, **options):
    return {d.page_content for d in store.similarity_search("any", k=50, **options)}


# Ids


@pytest.mark.parametrize("add", ["add_documents", "aadd_documents"])
async def test_documents_keep_their_ids_and_do_not_double(embeddings, uri, add):
    documents = [Document(f"text {i}", id=id_) for i, id_ in enumerate(ODD_IDS)]
    for _ in range(2):
        store = open_milvus(embeddings, uri=uri)
        added = getattr(store, add)(documents)
        assert (await added if asyncio.iscoroutine(added) else added) == ODD_IDS
    restart(uri)
    store = open_milvus(embeddings, uri=uri)
    found = store.similarity_search("text", k=50)
    assert {d.id: d.page_content for d in found} == {d.id: d.page_content for d in documents}
    for id_ in ODD_IDS:
        assert [d.id for d in store.get_by_ids([id_])] == [id_]
        assert [d.id for d in await store.aget_by_ids([id_])] == [id_]
    assert store.delete(ODD_IDS[:4])
    assert await store.adelete(ODD_IDS[4:-1])
    assert [d.id for d in store.similarity_search("text", k=50)] == ODD_IDS[-1:]


def test_a_store_is_shared_by_copies_and_refuses_to_be_pickled(embeddings, reranker, uri):
    store = open_milvus(embeddings, uri=uri)
    store.add_texts(["a"], ids=["1"])
    retriever = Qwen3TwoStageRetriever(vectorstore=store, reranker=reranker)
    assert copy.deepcopy(retriever).vectorstore is copy.copy(store) is store
    for holder in (store, retriever, retriever.bind(expr="pk != '1'")):
        with pytest.raises(
            TypeError, match=naming("open_milvus(embeddings, uri=..., collection_name='qwen3')")
        ):
            pickle.dumps(holder)


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        *(("id", r"did you mean ids=\?"), ("metadata", r"did you mean metadatas=\?")),
        ("expr", "it takes ids, metadatas, batch_size"),
    ],
)
async def test_an_addition_takes_no_argument_that_it_would_drop(embeddings, uri, name, hint):
    store = open_milvus(embeddings, uri=uri)
    given: dict[str, Any] = {name: ["1"]}
    dropped = f"{name}= would not reach the collection: {hint}"
    with pytest.raises(TypeError, match=dropped):
        store.add_texts(["a"], **given)
    with pytest.raises(TypeError, match=dropped):
        await store.aadd_documents([Document("a")], **given)
    with pytest.raises(TypeError, match=dropped):
        store.upsert(documents=[Document("a")], **given)
    assert store.similarity_search("a") == []


def test_a_search_in_no_partition_is_refused(embeddings, uri):
    store = open_milvus(embeddings, uri=uri)
    store.add_texts(["a"], ids=["1"])
    with pytest.raises(ValueError, match=r"partition_names=\[\] names no partition"):
        store.similarity_search("a", partition_names=[])


async def test_a_deletion_takes_no_argument_that_it_would_drop(embeddings, uri):
    store = open_milvus(embeddings, uri=uri)
    store.add_texts(["a"], ids=["1"])
    for name in ("filter", "string_expr"):
        with pytest.raises(TypeError, match=naming(f"{name}=", "ids=", "expr=")):
            store.delete(["1"], **{name: "pk != '1'"})
        with pytest.raises(TypeError, match=naming(f"{name}=", "ids=", "expr=")):
            await store.adelete(["1"], **{name: "pk != '1'"})
    assert store.get_by_ids(["1"])


def test_what_was_found_can_be_added_again(embeddings, uri):
    store = open_milvus(embeddings, uri=uri)
    store.add_documents([Document("a", id="1", metadata={"author": "Ada"})])
    store.add_documents(store.similarity_search("a"))
    (found,) = store.similarity_search("a", k=10)
    assert found == Document("a", id="1", metadata={"author": "Ada", "pk": "1"})


def test_documents_without_ids_get_some(embeddings, uri):
    store = open_milvus(embeddings, uri=uri)
    ids = store.add_documents([Document("a"), Document("b", id="b")])
    assert ids[1] == "b"
    assert {d.id for d in store.similarity_search("a", k=10)} == set(ids)
    assert len(store.add_texts(["c"])) == 1
    assert texts_of(store) == {"a", "b", "c"}


def test_ids_in_the_call_stand_before_those_of_documents(embeddings, uri):
    store = open_milvus(embeddings, uri=uri)
    assert store.add_documents([Document("a", id="1")], ids=["2"]) == ["2"]
    store.upsert(ids=["2"], documents=[Document("b")])
    store.upsert(documents=[Document("c", id="3")])
    assert {d.id: d.page_content for d in store.similarity_search("a")} == {"2": "b", "3": "c"}


@pytest.mark.parametrize(
    ("ids", "kind", "error"),
    [
        (["1", "1"], ValueError, r"ids\[1\] is '1' a second time"),
        (["1"], ValueError, "2 texts were given, but 1 ids"),
        ([1, 2], TypeError, r"ids\[0\] must be a string, got int"),
        (["1", "x" * 70_000], ValueError, r"ids\[1\] has 70,000 bytes: an id has at most 65,535"),
    ],
)
def test_ids_that_cannot_be_kept_are_refused(embeddings, uri, ids, kind, error):
    store = open_milvus(embeddings, uri=uri)
    with pytest.raises(kind, match=error):
        store.add_texts(["a", "b"], ids=ids)
    assert texts_of(store) == set()


def test_a_delete_says_what(embeddings, uri):
    store = open_milvus(embeddings, uri=uri)
    store.add_texts(["a"], [{"doc-type": "x"}], ids=["1"])
    both: dict[str, Any] = {"ids": ["1"], "expr": "pk == '1'"}
    for arguments in ({}, both):
        with pytest.raises(ValueError, match="either ids= or expr="):
            store.delete(**arguments)
    with pytest.raises(TypeError, match=r"ids .*got str"):
        store.delete("1")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="names a field 'doc-type'"):
        store.delete(expr='doc-type == "x"')
    assert store.delete(expr='$meta["doc-type"] == "x"')
    assert texts_of(store) == set()


# Rows


@pytest.mark.parametrize("key", ["text", "pk", "vector", "$meta"])
@pytest.mark.parametrize("opened", ["open_milvus", "Milvus"])
def test_metadata_does_not_replace_the_row(embeddings, uri, opened, key):
    store = (
        open_milvus(embeddings, uri=uri)
        if opened == "open_milvus"
        else Milvus(**milvus_kwargs(embeddings, uri=uri))
    )
    store.add_texts(["here"], [{"author": "Ada"}], ids=["1"])
    with pytest.raises(ValueError, match=naming(f"'{key}'", "'Data.'", "rename")):
        store.add_documents([Document("Data.", metadata={key: "Figure 3"}, id="2")])
    with pytest.raises(ValueError, match="rename the key"):
        store.upsert(ids=["1"], documents=[Document("Data.", metadata={key: "Figure 3"})])
    assert texts_of(store) == {"here"}


UNSTORABLE: list[tuple[dict[Any, Any], type[Exception], str]] = [
    ({"": "x"}, ValueError, "key of document 'Data.' is blank"),
    ({1: "x"}, TypeError, "must be a string, got int: 1"),
    ({"n": float("nan")}, ValueError, "'n' of document 'Data.' is a number that JSON"),
    ({"n": {"deep": [float("inf")]}}, ValueError, "is a number that JSON does not have"),
    ({"n": b"x"}, TypeError, "'n' of document 'Data.' cannot be stored"),
    ({"n": {1: "x"}}, TypeError, "'n' of document 'Data.' cannot be stored"),
    ({"n": "\udc00"}, TypeError, "'n' of document 'Data.' cannot be stored"),
]


@pytest.mark.parametrize(("metadata", "kind", "error"), UNSTORABLE)
def test_metadata_that_milvus_cannot_store_is_refused(embeddings, uri, metadata, kind, error):
    store = open_milvus(embeddings, uri=uri)
    store.add_texts(["here"], [{"author": "Ada"}], ids=["1"])
    with pytest.raises(kind, match=error):
        store.add_texts(["Data."], [metadata], ids=["2"])
    assert texts_of(store) == {"here"}


def test_metadatas_and_ids_are_lists(embeddings, uri):
    store = open_milvus(embeddings, uri=uri)
    with pytest.raises(TypeError, match=r"metadatas .*got d"):
        store.add_texts(["a"], metadatas={"x": 1})  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"ids .*got str"):
        store.add_texts(["a", "b"], ids="ab")


def test_metadata_of_a_hybrid_store_too(embeddings, uri):
    with pytest.raises(ValueError, match=naming("'sparse'", "'a'", "rename")):
        open_milvus(embeddings, uri=uri, hybrid=True).add_texts(["a"], [{"sparse": 1}])


def test_a_text_that_milvus_cannot_hold_is_refused_before_any_is_written(embeddings, uri):
    store = open_milvus(embeddings, uri=uri)
    with pytest.raises(ValueError, match=naming("texts[1]", "70,000", "65,535", "split")):
        store.add_texts(["a", "x" * 70_000])
    assert texts_of(store) == set()


# Searches


def test_a_search_refuses_what_it_would_ignore_or_misread(embeddings, uri, reranker):
    store = open_milvus(embeddings, uri=uri)
    store.add_texts(["a"], [{"doc-type": "x", "Header 1": "y"}], ids=["1"])
    for name in ("filter", "exp", "string_expr"):
        with pytest.raises(TypeError, match=f"{name}= would not reach the search"):
            store.similarity_search("a", **dict[str, Any]({name: "pk == '0'"}))
    retriever = Qwen3TwoStageRetriever(vectorstore=store, reranker=reranker)
    for key in ("doc-type", "Header 1"):
        for search in (store.similarity_search, store.max_marginal_relevance_search):
            with pytest.raises(ValueError, match=f"names a field '{key}'"):
                search("a", expr=f'{key} == "x"')
        with pytest.raises(ValueError, match=f"names a field '{key}'"):
            retriever.invoke("a", expr=f'{key} == "x"')
    assert len(retriever.invoke("a", expr='$meta["Header 1"] == "y"')) == 1


def test_a_store_works_in_one_event_loop_after_another(embeddings, uri):
    store = Milvus(**milvus_kwargs(embeddings, uri=uri))

    async def use(id_):
        await store.aadd_documents([Document(f"text {id_}", id=id_)])
        return {d.id for d in await store.asimilarity_search("text", k=10)}

    assert asyncio.run(use("1")) == {"1"}
    assert asyncio.run(use("2")) == {"1", "2"}


# Full-text search


def test_a_hybrid_search_takes_k_of_each_kind(embeddings, uri, recwarn):
    store = open_milvus(embeddings, uri=uri, hybrid=True)
    store.add_texts([f"Message {i} of bread." for i in range(20)])
    assert len(store.similarity_search("bread", k=15)) == 15
    scores = [score for _, score in store.similarity_search_with_score("bread", k=15)]
    assert 1 / 61 <= scores[0] <= 2 / 61 + 1e-6
    assert len(asyncio.run(store.asimilarity_search("bread", k=15))) == 15
    assert len(store.similarity_search("bread", k=15, fetch_k=3)) <= 6
    weighted = store.similarity_search("bread", ranker_type="weighted", ranker_params={})
    assert len(weighted) == 4
    assert not [w for w in recwarn if "ranker_type" in str(w.message)]
    with pytest.raises(ValueError, match="both say how to fuse"):
        store.similarity_search("bread", reranker=object(), ranker_type="rrf")


def test_words_of_chinese_are_found_with_jieba(embeddings, uri):
    pytest.importorskip("jieba", reason="jieba is not installed: pip install jieba")
    store = open_milvus(embeddings, uri=uri, hybrid=True, analyzer="chinese")
    store.add_texts(CHINESE, ids=["1", "2", "3"])
    restart(uri)
    store = open_milvus(embeddings, uri=uri, hybrid=True)  # keeps its analyzer
    for question, id_ in (("对象存储", "1"), ("猫", "2"), ("disk", "3")):
        (hits,) = store.client.search(
            "qwen3", [question], anns_field="sparse", limit=3, output_fields=["pk"]
        )
        assert [hit["pk"] for hit in hits] == [id_]
    with pytest.raises(
        ValueError, match=naming("'qwen3'", "'jieba'", "'standard'", "analyzer=", "collection_name")
    ):
        open_milvus(embeddings, uri=uri, hybrid=True, analyzer="standard")


def test_words_that_are_not_found_are_spoken_of_once(embeddings, uri, caplog):
    store = open_milvus(embeddings, uri=uri, hybrid=True)
    with caplog.at_level(logging.WARNING, "qwen3_core.milvus"):
        store.add_texts(["The disk is full."])
        assert "at spaces" not in caplog.text
        store.add_texts(CHINESE)
        store.similarity_search("对象存储")
    (record,) = (r for r in caplog.records if r.name == "qwen3_core.milvus.analyzers")
    assert "splits texts at spaces" in record.message
    assert "analyzer='jieba'" in record.message


@pytest.mark.parametrize(
    ("options", "kind", "error"),
    [
        ({"analyzer": "jieba"}, ValueError, "analyzer='jieba' .*: pass hybrid=True"),
        ({"analyzer": "english", "hybrid": True}, ValueError, "Lite has no analyzer 'english'"),
        ({"analyzer": "klingon", "hybrid": True}, ValueError, "no analyzer 'klingon'"),
        ({"analyzer": 1, "hybrid": True}, TypeError, "analyzer must be a name"),
        (
            {"analyzer": {"tokenizer": "standard", "filter": ["stemmer"]}, "hybrid": True},
            ValueError,
            "Milvus Lite ignores filter 'stemmer'",
        ),
        ({"analyzer": {"tokenizer": "icu"}, "hybrid": True}, ValueError, "does not take analyzer="),
    ],
)
def test_analyzers_that_are_not_there_are_refused(embeddings, uri, options, kind, error):
    with pytest.raises(kind, match=error):
        open_milvus(embeddings, uri=uri, **options)


# Opening


def test_the_same_store_either_way(embeddings, uri):
    assert type(open_milvus(embeddings, uri=uri)) is Qwen3Milvus
    assert type(Milvus(**milvus_kwargs(embeddings, uri=uri))) is Qwen3Milvus
    others = Milvus(DeterministicFakeEmbedding(size=8), connection_args={"uri": uri})
    assert type(others) is Milvus


def test_from_documents_and_from_texts(embeddings, uri):
    documents = [Document("a", id="1"), Document("b", id="2")]
    for _ in range(2):
        kwargs = milvus_kwargs(embeddings, uri=uri)
        store = Milvus.from_documents(documents, embeddings, **kwargs)
    assert {d.id for d in store.similarity_search("a", k=10)} == {"1", "2"}
    kwargs = milvus_kwargs(embeddings, uri=uri)
    Milvus.from_texts(["c"], embeddings, **kwargs)
    assert texts_of(store) == {"a", "b", "c"}
    with pytest.raises(ValueError, match="other embeddings than milvus_kwargs"):
        Milvus.from_texts(["c"], Qwen3Embeddings(model="tiny"), **kwargs)


def test_a_database_of_its_own(embeddings, uri):
    with pytest.raises(
        ValueError, match=naming("database 'tenant'", "create_database('tenant')", "db_name")
    ):
        open_milvus(embeddings, uri=uri, db_name="tenant")
    MilvusClient(uri).create_database("tenant")
    open_milvus(embeddings, uri=uri, db_name="tenant").add_texts(["a"], ids=["1"])
    open_milvus(embeddings, uri=uri).add_texts(["b"], ids=["1"])
    restart(uri)
    assert texts_of(open_milvus(embeddings, uri=uri, db_name="tenant")) == {"a"}
    assert texts_of(open_milvus(embeddings, uri=uri)) == {"b"}


@pytest.mark.parametrize("name", ["my-docs", "1docs", "döcs", "a b", "a.b", "", "x" * 256])
@pytest.mark.parametrize("drop_old", [False, True])
def test_a_name_that_a_server_refuses_is_refused(embeddings, uri, name, drop_old):
    with pytest.raises(ValueError, match=naming(f"collection_name={name!r}", "255", "ASCII")):
        milvus_kwargs(embeddings, uri=uri, collection_name=name, drop_old=drop_old)


def test_an_old_collection_stays_readable(embeddings, uri):
    plain = Milvus(
        embeddings,
        collection_name="my-docs",
        connection_args={"uri": uri},
        index_params={"index_type": "FLAT", "metric_type": "IP", "params": {}},
    )
    plain.add_texts(["a"], ids=["1"])
    (found,) = open_milvus(embeddings, uri=uri, collection_name="my-docs").similarity_search("a")
    assert (found.id, found.page_content) == ("1", "a")


def test_a_database_that_this_process_holds_is_said_so(embeddings, uri, tmp_path):
    open_milvus(embeddings, uri=uri).add_texts(["a"])
    link = tmp_path / "link.db"
    link.symlink_to(uri)
    with pytest.raises(ValueError, match=naming("link.db", "milvus.db", "uri")):
        open_milvus(embeddings, uri=link)
