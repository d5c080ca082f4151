"""Metadata that the models read before the page content, on Milvus Lite."""

import asyncio

import numpy as np
import pytest
from langchain_core.documents import BaseDocumentCompressor, Document
from langchain_core.embeddings import DeterministicFakeEmbedding
from langchain_core.vectorstores import InMemoryVectorStore
from langchain_milvus import Milvus
from pydantic import ValidationError
from pymilvus import MilvusClient

from langchain_qwen3 import Qwen3Reranker, Qwen3TwoStageRetriever, milvus_kwargs, open_milvus
from tests.conftest import naming
from tests.langchain.conftest import QUESTION, call

TITLED = Document("It is kept in segments.", id="1", metadata={"title": "Data in Milvus"})
PLAIN = Document("It sleeps all day.", id="2")
READ = "title: Data in Milvus\n\nIt is kept in segments."

MANY_DATABASES = pytest.mark.integration


@pytest.fixture
def uri(tmp_path):
    return str(tmp_path / "milvus.db")


@pytest.fixture
def titled(embeddings, uri):
    store = open_milvus(embeddings, uri=uri, metadata_keys=["title"])
    store.add_documents([TITLED, PLAIN])
    return store


def restart(uri):
    """Forget the database, as the end of the process would."""
    from milvus_lite.server_manager import server_manager_instance

    server_manager_instance.release_server(uri)


def rows_of(store):
    return store.client.query("qwen3", filter='pk != ""', output_fields=["*"])


def check_row(store, embeddings):
    (row,) = [row for row in rows_of(store) if row["text"] == TITLED.page_content]
    assert np.dot(row["vector"], embeddings.embed_documents([READ])[0]) == pytest.approx(1)
    assert row["title"] == TITLED.metadata["title"]


@MANY_DATABASES
@pytest.mark.parametrize("add", ["add_documents", "aadd_documents", "upsert", "aupsert"])
async def test_the_store_embeds_titles_and_stores_the_text(embeddings, uri, add):
    store = open_milvus(embeddings, uri=uri, metadata_keys=["title"])
    added = getattr(store, add)(documents=[TITLED, PLAIN])
    if add.startswith(("aa", "au")):
        await added
    check_row(store, embeddings)


@MANY_DATABASES
@pytest.mark.parametrize("upsert", ["upsert", "aupsert"])
async def test_a_row_with_a_generated_id_is_replaced_with_its_title(embeddings, uri, upsert):
    store = open_milvus(embeddings, uri=uri, metadata_keys=["title"], auto_id=True)
    ids = store.add_texts(["other"])
    await call(store, upsert, ids=ids, documents=[TITLED.model_copy(update={"id": None})])
    (found,) = store.similarity_search("any", k=5)
    row = store.client.query("qwen3", filter=f"pk == {found.id}", output_fields=["*"])[0]
    assert row["text"] == TITLED.page_content
    assert np.dot(row["vector"], embeddings.embed_documents([READ])[0]) == pytest.approx(1)


@MANY_DATABASES
def test_milvus_from_documents_embeds_titles(embeddings, uri):
    kwargs = milvus_kwargs(embeddings, uri=uri, metadata_keys=["title"])
    check_row(Milvus.from_documents([TITLED], embeddings, **kwargs), embeddings)


@MANY_DATABASES
def test_a_collection_keeps_its_keys_after_a_restart(embeddings, uri, titled):
    del titled
    restart(uri)
    store = open_milvus(embeddings, uri=uri)
    assert store.metadata_keys == ("title",)
    store.delete(["1"])
    store.add_documents([TITLED])
    check_row(store, embeddings)
    assert open_milvus(embeddings, uri=uri, metadata_keys=["title"]).metadata_keys == ("title",)
    for other in ([], ["author"], ["title", "author"]):
        with pytest.raises(ValueError, match=r"metadata_keys \['title'\], not"):
            open_milvus(embeddings, uri=uri, metadata_keys=other)


@MANY_DATABASES
def test_a_collection_without_keys_refuses_some(embeddings, uri):
    open_milvus(embeddings, uri=uri).add_documents([TITLED])
    assert open_milvus(embeddings, uri=uri, metadata_keys=[]).metadata_keys == ()
    with pytest.raises(ValueError, match=r"metadata_keys \[\], not \['title'\]"):
        open_milvus(embeddings, uri=uri, metadata_keys=["title"])


@MANY_DATABASES
def test_what_cannot_be_recorded_is_refused(embeddings, uri):
    foreign = DeterministicFakeEmbedding(size=256)
    with pytest.raises(ValueError, match="metadata_keys"):
        open_milvus(foreign, uri=uri, metadata_keys=["title"])
    client = MilvusClient(uri)
    client.create_collection("other", 256, metric_type="IP", index_type="FLAT")
    with pytest.raises(ValueError, match=r"metadata_keys.*choose another collection_name"):
        open_milvus(embeddings, uri=uri, collection_name="other", metadata_keys=["title"])


@MANY_DATABASES
@pytest.mark.parametrize("stage", ["vectorstore", "retriever", "bound"])
def test_the_reranker_reads_what_the_store_embedded(titled, reranker, stage):
    first = {
        "vectorstore": {"vectorstore": titled},
        "retriever": {"retriever": titled.as_retriever()},
        "bound": {"retriever": titled.as_retriever().bind(expr='pk != ""')},
    }[stage]
    retriever = Qwen3TwoStageRetriever(**first, reranker=reranker)
    (expected,) = reranker.rerank([READ], QUESTION)
    for found in (retriever.invoke(QUESTION), asyncio.run(retriever.ainvoke(QUESTION))):
        assert found[0].page_content == TITLED.page_content
        assert found[0].metadata["relevance_log_odds"] == pytest.approx(expected.log_odds, abs=1e-4)


@MANY_DATABASES
@pytest.mark.parametrize(("keys", "read"), [([], TITLED.page_content), (["title"], READ)])
def test_the_rerankers_own_keys_win(embeddings, titled, reranker, keys, read):
    own = reranker.model_copy(update={"metadata_keys": keys})
    (expected,) = reranker.rerank([read], QUESTION)
    plain = InMemoryVectorStore.from_documents([TITLED], embeddings)
    for store in (titled, plain):
        found = Qwen3TwoStageRetriever(vectorstore=store, reranker=own).invoke(QUESTION)
        assert found[0].metadata["relevance_log_odds"] == pytest.approx(expected.log_odds, abs=1e-4)


@MANY_DATABASES
def test_another_reranker_is_not_told(titled):
    class Reversed(BaseDocumentCompressor):
        def compress_documents(self, documents, query, callbacks=None):
            return list(documents)[::-1]

    found = Qwen3TwoStageRetriever(vectorstore=titled, reranker=Reversed()).invoke(QUESTION)
    assert len(found) == 2


@pytest.mark.parametrize("func", ["rerank", "arerank", "compress_documents", "acompress_documents"])
async def test_the_reranker_reads_its_keys(reranker, func):
    own = Qwen3Reranker(model="tiny", metadata_keys=["title"])
    expected = {r.log_odds for r in reranker.rerank([READ, PLAIN.page_content], QUESTION)}
    found = await call(own, func, [TITLED, PLAIN], QUESTION)
    if "documents" in func:
        assert {d.page_content for d in found} == {TITLED.page_content, PLAIN.page_content}
        got = [d.metadata["relevance_log_odds"] for d in found]
    else:
        got = [ranked.log_odds for ranked in found]
    assert sorted(got) == pytest.approx(sorted(expected), abs=1e-4)


@pytest.mark.parametrize("func", ["compress_documents", "acompress_documents"])
async def test_keys_of_a_call(reranker, func):
    (expected,) = reranker.rerank([READ], QUESTION)
    (found,) = await call(reranker, func, [TITLED], QUESTION, metadata_keys=["title"])
    assert found.metadata["relevance_log_odds"] == pytest.approx(expected.log_odds, abs=1e-4)
    with pytest.raises(ValueError, match=naming("metadata_keys", "''")):
        await call(reranker, func, [TITLED], QUESTION, metadata_keys=[""])


@MANY_DATABASES
@pytest.mark.parametrize("keys", ["title", [""], ["title", "title"], [5]])
def test_bad_keys_are_refused(embeddings, uri, keys):
    with pytest.raises(ValidationError, match="metadata_keys"):
        Qwen3Reranker(model="tiny", metadata_keys=keys)
    with pytest.raises((TypeError, ValueError), match="metadata_keys"):
        open_milvus(embeddings, uri=uri, metadata_keys=keys)


@MANY_DATABASES
def test_a_value_that_is_no_text_is_refused_before_anything_is_written(titled):
    with pytest.raises(ValueError, match="'title' is a list"):
        titled.add_documents([Document("a", id="3", metadata={"title": ["x"]})])
    assert {row["pk"] for row in rows_of(titled)} == {"1", "2"}
