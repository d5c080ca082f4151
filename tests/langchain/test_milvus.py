"""milvus_kwargs, on real Milvus Lite files: what the store does with them, and what is refused."""

import logging
import shutil
from typing import Any

import pytest
from langchain_classic.embeddings import CacheBackedEmbeddings
from langchain_core.documents import Document
from langchain_core.embeddings import DeterministicFakeEmbedding, Embeddings
from langchain_core.stores import InMemoryByteStore
from langchain_milvus import Milvus
from pymilvus import MilvusClient

from langchain_qwen3 import Qwen3Embeddings, Qwen3TwoStageRetriever, milvus_kwargs
from qwen3_core.milvus.collection import collection_properties
from tests.conftest import TINY, naming
from tests.langchain.conftest import QUESTION, RELEVANT, TEXTS

COUNT = 110
"""Documents in the store: more than the largest k asked for."""


@pytest.fixture(scope="module")
def uri(embeddings, tmp_path_factory):
    """A file with a filled collection, "qwen3"."""
    path = tmp_path_factory.mktemp("milvus") / "filled.db"
    store = Milvus(**milvus_kwargs(embeddings, uri=path))
    texts = [*TEXTS, *(f"This is filler number {i}." for i in range(len(TEXTS), COUNT))]
    # Metadata keys differ on purpose.
    documents = [Document(text, metadata={"number": i}) for i, text in enumerate(texts)]
    documents[1].metadata["author"] = "Ada"
    store.add_documents(documents, ids=[f"id-{i}" for i in range(COUNT)])
    return path


@pytest.fixture
def filled(embeddings, uri):
    """The filled collection, opened again."""
    return Milvus(**milvus_kwargs(embeddings, uri=uri))


@pytest.fixture
def new(embeddings, tmp_path):
    """A store in a file that does not exist yet."""
    return Milvus(**milvus_kwargs(embeddings, uri=tmp_path / "new.db"))


# What the arguments are


def test_the_arguments(tmp_path):
    embeddings = Qwen3Embeddings(model="no/such-model", dimensions=64)  # and nothing is loaded
    path = tmp_path / "a.db"
    assert milvus_kwargs(embeddings, uri=path, collection_name="docs", k=300, rows=20_000) == {
        "connection_args": {"uri": str(path)},
        "collection_name": "docs",
        "index_params": {
            "index_type": "IVF_FLAT",
            "metric_type": "IP",
            "params": {"params": {"nlist": 1}},  # Milvus Lite reads them there
        },
        "search_params": {"metric_type": "IP", "params": {"nprobe": 600}},
        "consistency_level": "Strong",
        "collection_properties": collection_properties(embeddings.embedder.fingerprint),
        "enable_dynamic_field": True,
        "auto_id": False,
        "drop_old": False,
    }


@pytest.mark.parametrize("k", [1, 10, 100, 1000])
def test_a_search_for_k_is_within_ef(embeddings, tmp_path, k):
    # A server refuses a search with ef below k; Milvus Lite does not.
    found = milvus_kwargs(embeddings, uri=tmp_path / "a.db", k=k, index_type="HNSW")
    assert found["search_params"]["params"]["ef"] >= k


def test_the_token_is_for_the_connection(embeddings, monkeypatch):
    asked: dict[str, object] = {}
    monkeypatch.setattr(
        "qwen3_core.milvus.plan.check_collection",
        lambda uri, name, **kwargs: asked.update(uri=uri, name=name, **kwargs),
    )
    uri = "https://in03-1.api.gcp-us-west1.zillizcloud.com"
    found = milvus_kwargs(embeddings, uri=uri, token="user:secret", metric="COSINE")
    assert found["connection_args"] == {"uri": uri, "token": "user:secret"}
    assert asked == {
        "uri": uri,
        "name": "qwen3",
        "dimensions": 256,
        "metric": "COSINE",
        "vector_field": "vector",
        "text_search_field": None,
        "auto_id": None,
        "fingerprint": embeddings.embedder.fingerprint,
        "analyzer": None,
        "index_type": None,
        "token": "user:secret",
        "db_name": None,
    }


# What the store does with them


def test_a_search_finds_what_was_just_added(new):
    new.add_texts(TEXTS, ids=[str(i) for i in range(len(TEXTS))])
    assert {d.page_content for d in new.similarity_search(QUESTION, k=2)} == RELEVANT


def test_a_hundred_candidates_can_be_asked_for(filled):
    found = filled.similarity_search_with_score(QUESTION, k=100)
    assert len(found) == 100
    scores = [score for _, score in found]
    assert scores == sorted(scores, reverse=True)


@pytest.mark.parametrize("metric", ["IP", "COSINE"])
def test_the_score_is_the_cosine(embeddings, tmp_path, metric):
    store = Milvus(**milvus_kwargs(embeddings, uri=tmp_path / "new.db", metric=metric))
    store.add_texts(TEXTS, ids=[str(i) for i in range(len(TEXTS))])
    query = embeddings.embed_query(QUESTION)
    vectors = dict(zip(TEXTS, embeddings.embed_documents(TEXTS), strict=True))
    for document, score in store.similarity_search_with_score(QUESTION, k=6):
        vector = vectors[document.page_content]
        assert score == pytest.approx(sum(a * b for a, b in zip(query, vector, strict=True)), 1e-4)


def test_documents_need_not_have_the_same_metadata(filled):
    (ada,) = filled.similarity_search(QUESTION, k=10, expr='author == "Ada"')
    assert ada.page_content == TEXTS[1]
    assert ada.metadata == {"pk": "id-1", "number": 1, "author": "Ada"}


def test_a_filter_reaches_milvus_through_the_two_stage_retriever(filled, reranker):
    retriever = Qwen3TwoStageRetriever(vectorstore=filled, reranker=reranker, k=100)
    found = retriever.invoke(QUESTION, expr="number >= 100", top_n=None)
    assert {d.metadata["number"] for d in found} == set(range(100, COUNT))


async def test_both_stages_asynchronously(filled, reranker):
    retriever = Qwen3TwoStageRetriever(vectorstore=filled, reranker=reranker, k=100, top_n=2)
    found = await retriever.ainvoke(QUESTION)
    assert {d.page_content for d in found} == RELEVANT
    assert found == retriever.invoke(QUESTION)


def test_what_is_indexed_need_not_be_embedded_again(embeddings, uri):
    again = Milvus(**milvus_kwargs(embeddings, uri=uri))
    there: list[Any] = again.get_pks('pk in ["id-1", "id-2", "new"]') or []
    assert sorted(there) == ["id-1", "id-2"]


def test_delete_and_upsert_by_id(new):
    new.add_texts(TEXTS, ids=[str(i) for i in range(len(TEXTS))])
    new.delete(ids=["1"])
    new.upsert(ids=["3"], documents=[Document("Milvus data is stored in segments, it says.")])
    found = new.similarity_search(QUESTION, k=10)
    assert len(found) == len(TEXTS) - 1
    assert found[0].page_content == "Milvus data is stored in segments, it says."


def test_milvus_may_number_the_documents(embeddings, tmp_path):
    store = Milvus(**milvus_kwargs(embeddings, uri=tmp_path / "a.db", auto_id=True))
    assert all(id_.isdecimal() for id_ in store.add_texts(TEXTS))
    assert len(store.similarity_search(QUESTION, k=100)) == len(TEXTS)


def test_what_milvus_numbered_opens_again(embeddings, tmp_path):
    Milvus(**milvus_kwargs(embeddings, uri=tmp_path / "a.db", auto_id=True)).add_texts(TEXTS)
    again = Milvus(**milvus_kwargs(embeddings, uri=tmp_path / "a.db"))
    (id_,) = again.add_texts(TEXTS[:1])
    assert len(again.similarity_search(QUESTION, k=100)) == len(TEXTS) + 1
    assert [d.page_content for d in again.get_by_ids([id_])] == TEXTS[:1]
    assert again.delete([id_])
    assert len(again.similarity_search(QUESTION, k=100)) == len(TEXTS)
    with pytest.raises(ValueError, match=naming("'qwen3'", "'1'", "auto_id=False")):
        again.add_documents([Document("x", id="1")])
    with pytest.raises(ValueError, match=naming("'qwen3'", "auto_id=True", "collection_name")):
        milvus_kwargs(embeddings, uri=tmp_path / "a.db", auto_id=False)


def test_drop_old_replaces_a_collection_that_does_not_fit(embeddings, tmp_path):
    uri = tmp_path / "a.db"
    Milvus(**milvus_kwargs(embeddings, uri=uri, auto_id=True)).add_texts(TEXTS)
    small = Qwen3Embeddings(model="tiny", dimensions=32)
    store = Milvus(**milvus_kwargs(small, uri=uri, auto_id=True, drop_old=True))
    store.add_texts(TEXTS[:2])
    assert len(store.similarity_search(QUESTION, k=10)) == 2


def test_other_embeddings_will_do(tmp_path):
    store = Milvus(**milvus_kwargs(DeterministicFakeEmbedding(size=8), uri=tmp_path / "a.db"))
    store.add_texts(["a"], ids=["1"])
    assert store.similarity_search("a")[0].page_content == "a"


# What is refused


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (
            {"embeddings": Qwen3Embeddings(model="tiny", dimensions=64)},
            "'qwen3' holds vectors of 256 dimensions, but the embedding model gives 64: choose",
        ),
        (
            {"embeddings": Qwen3Embeddings(model="tiny", max_length=100)},
            "the vectors of collection 'qwen3' were made with max_length 8192, not 100: ",
        ),
        ({"metric": "COSINE"}, "'qwen3' is indexed for the metric IP, but COSINE was asked for"),
        ({"auto_id": True}, "'qwen3' stores the caller's ids, but ids from Milvus were asked"),
    ],
    ids=["dimensions", "fingerprint", "metric", "auto_id"],
)
def test_a_collection_that_does_not_fit_is_refused_and_left_alone(embeddings, uri, change, error):
    with pytest.raises(ValueError, match=error):
        milvus_kwargs(**{"embeddings": embeddings, "uri": uri} | change)
    client = MilvusClient(str(uri))
    assert client.query("qwen3", filter="number >= 0", output_fields=["count(*)"]) == [
        {"count(*)": COUNT}
    ]


class Wrapper(Embeddings):
    """Embeddings within others, whose documents come out behind a prefix."""

    def __init__(self, inner: Embeddings, prefix: str = "") -> None:
        self._inner, self._prefix = inner, prefix

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        return self._inner.embed_documents([self._prefix + text for text in texts])

    def embed_query(self, text: str) -> list[float]:
        return self._inner.embed_query(text)


def cached(
    inner: Embeddings,
    store: InMemoryByteStore | None = None,
    queries: InMemoryByteStore | bool = False,
) -> Embeddings:
    return CacheBackedEmbeddings.from_bytes_store(
        inner,
        store or InMemoryByteStore(),
        namespace="one",
        query_embedding_cache=queries,
        key_encoder="sha256",
    )


@pytest.mark.parametrize("wrap", [cached, Wrapper, lambda e: Wrapper(cached(e))])
def test_a_wrapper_counts_as_what_it_wraps(embeddings, tmp_path, caplog, wrap):
    uri = tmp_path / "a.db"
    made = milvus_kwargs(wrap(embeddings), uri=uri)
    assert made["collection_properties"] == collection_properties(embeddings.embedder.fingerprint)
    assert not [r for r in caplog.records if r.name == "langchain_qwen3.milvus"]
    Milvus(**made).add_texts(["a"], ids=["1"])
    assert milvus_kwargs(wrap(embeddings), uri=uri)["collection_properties"] is None
    with pytest.raises(ValueError, match="made with max_length 8192, not 100"):
        milvus_kwargs(wrap(Qwen3Embeddings(model="tiny", max_length=100)), uri=uri)


def test_a_wrapper_that_hides_its_model_is_named(embeddings, tmp_path, caplog):
    class Hides(DeterministicFakeEmbedding):
        def embed_documents(self, texts: list[str]) -> list[list[float]]:
            vectors: list[list[float]] = embeddings.embed_documents(texts)
            return vectors

    for wrapper in (Hides(size=256), Wrapper(embeddings, "passage: this is about ")):
        caplog.clear()
        assert milvus_kwargs(wrapper, uri=tmp_path / "a.db")["collection_properties"] is None
        (record,) = [r for r in caplog.records if r.name == "langchain_qwen3.milvus"]
        assert f"{type(wrapper).__name__} does not tell" in record.message
        assert "'qwen3'" in record.message


def test_a_cache_that_another_model_filled_is_refused(embeddings, tmp_path):
    store = InMemoryByteStore()
    milvus_kwargs(cached(DeterministicFakeEmbedding(size=256), store), uri=tmp_path / "a.db")
    with pytest.raises(ValueError, match=r"another model filled it.*namespace"):
        milvus_kwargs(cached(embeddings, store), uri=tmp_path / "a.db")


def test_a_cache_that_mixes_queries_with_documents_is_refused(embeddings, tmp_path):
    one, uri = InMemoryByteStore(), tmp_path / "a.db"
    for shared in (cached(embeddings, queries=True), cached(embeddings, one, one)):
        with pytest.raises(
            ValueError, match=naming("CacheBackedEmbeddings", "query_embedding_cache=")
        ):
            milvus_kwargs(shared, uri=uri)
    assert milvus_kwargs(cached(embeddings, one, InMemoryByteStore()), uri=uri)


def test_a_collection_knows_its_model_under_other_names(tmp_path):
    """In a second process too: the collection is what is read."""
    first = Qwen3Embeddings(model="tiny")
    folder = shutil.copytree(TINY / "embedding", tmp_path / "Docs-Embedding-0___6B")
    Milvus(**milvus_kwargs(first, uri=tmp_path / "a.db")).add_texts(["a"], ids=["1"])
    later = Qwen3Embeddings(model=folder)
    assert milvus_kwargs(later, uri=tmp_path / "a.db")["collection_properties"] is None


@pytest.mark.parametrize(
    ("arguments", "kind", "error"),
    [
        ({"uri": "milvus"}, ValueError, "uri='milvus' is neither an address such as 'http://"),
        ({"uri": ":memory:"}, ValueError, "nor the path of a Milvus Lite file, which ends in"),
        ({"uri": None}, TypeError, "uri must be a string or a path, got NoneType"),
        ({"k": 0}, ValueError, "k must be an integer from 1 to 16384, got 0"),
        ({"k": 16_385}, ValueError, "k must be an integer from 1 to 16384, got 16385"),
        ({"k": None}, ValueError, "k must be an integer from 1 to 16384, got None"),
        ({"metric": "L2"}, ValueError, "metric must be one of IP, COSINE, got 'L2'"),
        ({"embeddings": "tiny"}, TypeError, "embeddings= takes embeddings of LangChain"),
    ],
)
def test_a_wrong_argument_is_refused(embeddings, tmp_path, arguments, kind, error):
    with pytest.raises(kind, match=error):
        milvus_kwargs(**{"embeddings": embeddings, "uri": tmp_path / "a.db"} | arguments)
    assert not (tmp_path / "a.db").exists()


def test_a_missing_folder_is_named(embeddings, tmp_path):
    with pytest.raises(
        FileNotFoundError,
        match=naming(str(tmp_path / "missing" / "a.db"), f"create {str(tmp_path / 'missing')!r}"),
    ):
        milvus_kwargs(embeddings, uri=tmp_path / "missing" / "a.db")


def test_a_file_in_the_way_is_named(embeddings, tmp_path):
    (tmp_path / "old.db").write_text("a database of Milvus Lite 2 was a file")
    with pytest.raises(
        ValueError,
        match=naming(f"uri={str(tmp_path / 'old.db')!r}", "folder", "choose another uri"),
    ):
        milvus_kwargs(embeddings, uri=tmp_path / "old.db")


def test_the_home_folder_may_be_a_tilde(embeddings, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert milvus_kwargs(embeddings, uri="~/a.db")["connection_args"]["uri"] == f"{tmp_path}/a.db"


def test_a_collection_that_nobody_filled_is_named(new, reranker, caplog):
    with caplog.at_level(logging.WARNING, "langchain_qwen3"):
        assert Qwen3TwoStageRetriever(vectorstore=new, reranker=reranker).invoke(QUESTION) == []
    assert "collection 'qwen3' (Qwen3Milvus) returned no candidates: it is empty" in caplog.text
