"""Retrievers of LangChain around and inside the two-stage one: each document comes once."""

import copy
import json
import pickle
from typing import Any

import pytest
from langchain_classic.retrievers import EnsembleRetriever, MergerRetriever, MultiQueryRetriever
from langchain_classic.retrievers.document_compressors import CrossEncoderReranker
from langchain_core.documents import Document
from langchain_core.language_models.fake_chat_models import FakeListChatModel
from langchain_core.load import dumps, loads
from langchain_core.vectorstores import InMemoryVectorStore
from pydantic import ValidationError

from langchain_qwen3 import Qwen3CrossEncoder, Qwen3Reranker, Qwen3TwoStageRetriever
from tests.conftest import naming
from tests.langchain.conftest import QUESTION, RELEVANT, TEXTS, call

OTHER_QUESTION = "Where does Milvus keep its data?"
QUESTIONS = FakeListChatModel(responses=[f"{QUESTION}\n{OTHER_QUESTION}"])
SCORES = {"relevance_score", "relevance_log_odds", "retrieval_score"}

FUNCS = pytest.mark.parametrize("func", ["invoke", "ainvoke"])


@pytest.fixture
def two(store: InMemoryVectorStore, reranker: Qwen3Reranker) -> Qwen3TwoStageRetriever:
    return Qwen3TwoStageRetriever(vectorstore=store, reranker=reranker, top_n=2)


def once(found: list[Document]) -> bool:
    return len({document.id for document in found}) == len(found)


@FUNCS
async def test_multi_query_over_it(two, func):
    multi = MultiQueryRetriever.from_llm(two, QUESTIONS)
    found = await call(multi, func, QUESTION)
    assert {document.page_content for document in found} == RELEVANT
    assert once(found)
    assert found[0].metadata.keys() >= SCORES


@FUNCS
async def test_ensemble_over_it(two, store, func):
    ensemble = EnsembleRetriever(retrievers=[two, store.as_retriever()], weights=[0.5, 0.5])
    found = await call(ensemble, func, QUESTION)
    assert once(found)
    by_key = EnsembleRetriever(retrievers=[two, two], weights=[0.5, 0.5], id_key="position")
    assert once(await call(by_key, func, QUESTION))


@FUNCS
async def test_what_several_members_find_is_reranked_once(two, store, reranker, func):
    merged = MergerRetriever(retrievers=[store.as_retriever(search_kwargs={"k": 6})] * 2)
    outer = Qwen3TwoStageRetriever(retriever=merged, reranker=reranker, top_n=None)
    found = await call(outer, func, QUESTION)
    assert sorted(document.page_content for document in found) == sorted(TEXTS)
    # k counts what is reranked.
    assert len(await call(outer, func, QUESTION, k=5)) == 5
    of_two = Qwen3TwoStageRetriever(
        retriever=MergerRetriever(retrievers=[two, two]), reranker=reranker, top_n=None
    )
    assert once(await call(of_two, func, QUESTION))


def test_documents_that_differ_are_kept(store, reranker):
    store.add_texts([TEXTS[1]], metadatas=[{"source": "another"}], ids=["another"])
    retriever = Qwen3TwoStageRetriever(vectorstore=store, reranker=reranker, top_n=None)
    texts = [document.page_content for document in retriever.invoke(QUESTION)]
    assert texts.count(TEXTS[1]) == 2


def test_scores_count_only_against_documents_without(two, documents):
    (one, _), (other, _) = two.invoke(QUESTION), two.invoke(OTHER_QUESTION)
    assert one.id == other.id
    assert one.metadata["relevance_score"] != other.metadata["relevance_score"]
    assert one == other
    assert not one != other  # noqa: SIM202 - __ne__ is what is tested
    plain = next(document for document in documents if document.id == one.id)
    assert one != plain
    assert one.metadata == dict(one.metadata)
    assert one.metadata != dict(other.metadata)
    changed = other.model_copy(deep=True)
    changed.metadata["position"] = 99
    assert one != changed


def test_metadata_with_scores_is_a_dictionary_like_any_other(two):
    (found, _) = two.invoke(QUESTION)
    metadata: Any = found.metadata
    assert isinstance(metadata, dict)
    assert json.loads(json.dumps(metadata)) == dict(metadata)
    assert found.model_dump()["metadata"] == dict(metadata)
    assert dict(loads(dumps(found)).metadata) == dict(metadata)
    for copied in (copy.deepcopy(found), pickle.loads(pickle.dumps(found))):
        assert dict(copied.metadata) == dict(metadata)
        assert copied == found


@FUNCS
async def test_scores_can_be_left_out(store, reranker, documents, func):
    bare = Qwen3TwoStageRetriever(
        vectorstore=store, reranker=reranker, top_n=2, score_metadata=False
    )
    found = await call(bare, func, QUESTION)
    assert {document.page_content for document in found} == RELEVANT
    for document in found:
        original = next(d for d in documents if d.id == document.id)
        assert document == original
        assert document is not original
        assert document.metadata is not original.metadata
    dumped = {dumps(d) for q in (QUESTION, OTHER_QUESTION) for d in bare.invoke(q)}
    assert len(dumped) == 2


@pytest.mark.parametrize("func", ["compress_documents", "acompress_documents"])
async def test_the_reranker_can_leave_them_out(documents, func):
    bare = Qwen3Reranker(model="tiny", score_metadata=False, top_n=2)
    found = await call(bare, func, documents, QUESTION)
    assert all(document in documents for document in found)
    scored = await call(bare, func, documents, QUESTION, score_metadata=True)
    assert [d.page_content for d in scored] == [d.page_content for d in found]
    assert scored[0].metadata.keys() > found[0].metadata.keys()


def test_another_compressor_decides_for_itself(store):
    other = CrossEncoderReranker(model=Qwen3CrossEncoder(model="tiny"))
    with pytest.raises(
        ValidationError,
        match=naming("score_metadata=False", "CrossEncoderReranker", "Qwen3Reranker"),
    ):
        Qwen3TwoStageRetriever(vectorstore=store, reranker=other, score_metadata=False)
