"""Qwen3TwoStageRetriever: both first stages, overrides per call, runs, bad input."""

import asyncio
import logging
from typing import Any

import pytest
from langchain_classic.retrievers.document_compressors import CrossEncoderReranker
from langchain_core.documents import Document
from langchain_core.retrievers import BaseRetriever
from langchain_core.runnables import RunnableLambda
from langchain_core.tools import create_retriever_tool
from langchain_core.vectorstores import InMemoryVectorStore, VectorStore
from pydantic import ValidationError

from langchain_qwen3 import Qwen3CrossEncoder, Qwen3Reranker, Qwen3TwoStageRetriever
from tests.conftest import naming
from tests.langchain.conftest import QUESTION, RELEVANT, TEXTS, call

SYNC_AND_ASYNC = pytest.mark.parametrize("func", ["invoke", "ainvoke"])


class AllTexts(BaseRetriever):
    """A first stage that is no vector store and decides itself how much it returns."""

    def _get_relevant_documents(self, query, *, run_manager):
        return [Document(text) for text in TEXTS]


class Unscored(VectorStore):
    """A vector store of the least kind: it tells no scores."""

    def similarity_search(self, query, k=4, **kwargs):
        return [Document(text) for text in TEXTS[:k]]

    @classmethod
    def from_texts(cls, texts, embedding, metadatas=None, **kwargs):
        raise NotImplementedError


class Spy(InMemoryVectorStore):
    """Remembers with which arguments it was searched, and whether asynchronously."""

    def similarity_search_with_score(
        self, query, k=4, *, expr=None, timeout=None, topn=None, threshold=None, **kwargs
    ):
        self._remember(k, False, expr=expr, timeout=timeout, topn=topn, threshold=threshold)
        return super().similarity_search_with_score(query, k=k, **kwargs)

    async def asimilarity_search_with_score(
        self,
        query,
        k=4,
        *,
        expr=None,
        timeout=None,  # noqa: ASYNC109 - as in Milvus
        topn=None,
        threshold=None,
        **kwargs,
    ):
        self._remember(k, True, expr=expr, timeout=timeout, topn=topn, threshold=threshold)
        return await super().asimilarity_search_with_score(query, k=k, **kwargs)

    def _remember(self, k: int, asynchronous: bool, **given: Any) -> None:
        given = {name: value for name, value in given.items() if value is not None}
        self.searched = {"k": k, "async": asynchronous, **given}


@pytest.fixture
def spy(embeddings) -> Spy:
    store = Spy(embeddings)
    store.add_texts(TEXTS)
    return store


# Two stages


@SYNC_AND_ASYNC
async def test_it_returns_the_best_three_of_the_candidates(retriever, func):
    found = await call(retriever, func, QUESTION)
    assert len(found) == 3
    assert {d.page_content for d in found[:2]} == RELEVANT
    scores = [d.metadata["relevance_score"] for d in found]
    assert scores == sorted(scores, reverse=True)


async def test_async_equals_sync(retriever):
    assert await retriever.ainvoke(QUESTION) == retriever.invoke(QUESTION)
    assert (await retriever.abatch([QUESTION] * 3))[2] == retriever.batch([QUESTION] * 3)[1]


@SYNC_AND_ASYNC
async def test_the_stores_own_score_is_kept(retriever, embeddings, func):
    vectors = dict(zip(TEXTS, embeddings.embed_documents(TEXTS), strict=True))
    query = embeddings.embed_query(QUESTION)
    for document in await call(retriever, func, QUESTION):
        cosine = sum(a * b for a, b in zip(vectors[document.page_content], query, strict=True))
        assert document.metadata["retrieval_score"] == pytest.approx(cosine, abs=1e-5)


@SYNC_AND_ASYNC
async def test_a_store_without_scores_will_do(reranker, func):
    retriever = Qwen3TwoStageRetriever(vectorstore=Unscored(), reranker=reranker, top_n=2)
    found = await call(retriever, func, QUESTION)
    assert {d.page_content for d in found} == RELEVANT
    assert "retrieval_score" not in found[0].metadata


@SYNC_AND_ASYNC
async def test_ids_and_metadata_come_through_and_the_store_keeps_its_own(
    retriever, store, func, documents
):
    for document in await call(retriever, func, QUESTION):
        (original,) = store.get_by_ids([document.id])
        assert original in documents
        assert document.metadata.items() > original.metadata.items()


@SYNC_AND_ASYNC
async def test_an_empty_store_gives_nothing(embeddings, func):
    retriever = Qwen3TwoStageRetriever(
        vectorstore=InMemoryVectorStore(embeddings),
        reranker=Qwen3Reranker(model="/no/such/folder"),
    )
    assert await call(retriever, func, QUESTION) == []


@SYNC_AND_ASYNC
async def test_a_search_that_finds_nothing_is_told_once(embeddings, reranker, caplog, func):
    retriever = Qwen3TwoStageRetriever(
        vectorstore=InMemoryVectorStore(embeddings), reranker=reranker
    )
    with caplog.at_level(logging.WARNING, "langchain_qwen3"):
        for _ in range(2):
            await call(retriever, func, QUESTION)
    (message,) = caplog.messages
    assert message.startswith("InMemoryVectorStore returned no candidates: is it empty? Were")


@pytest.mark.parametrize("as_retriever", [False, True])
def test_a_filter_may_be_why_nothing_is_found(store, reranker, caplog, as_retriever):
    arguments = {"filter": lambda document: False}
    stage = (
        {"retriever": store.as_retriever(search_kwargs={"k": 4, **arguments})}
        if as_retriever
        else {"vectorstore": store, "search_kwargs": arguments}
    )
    with caplog.at_level(logging.WARNING, "langchain_qwen3"):
        Qwen3TwoStageRetriever(reranker=reranker, **stage).invoke(QUESTION)
    (message,) = caplog.messages
    assert "either it is empty" in message
    assert "or it is narrowed to nothing by: filter (" in message


def test_any_other_retriever_may_have_its_reasons_to_find_nothing(reranker, caplog):
    nothing: RunnableLambda[str, list[Document]] = RunnableLambda(lambda query: [])
    with caplog.at_level(logging.WARNING, "langchain_qwen3"):
        Qwen3TwoStageRetriever(retriever=nothing, reranker=reranker).invoke(QUESTION)
    assert "RunnableLambda returned no candidates" in caplog.text
    assert "by: its own filter or threshold" in caplog.text


def test_what_the_reranker_drops_is_not_spoken_of(store, caplog):
    strict = Qwen3Reranker(model="tiny", score_threshold=1.0)
    with caplog.at_level(logging.WARNING, "langchain_qwen3"):
        found = Qwen3TwoStageRetriever(vectorstore=store, reranker=strict).invoke(QUESTION)
    assert found == []
    assert caplog.messages == []


# How many


@pytest.mark.parametrize(
    ("settings", "overrides", "asked"),
    [
        ({}, {}, 10),
        ({"top_n": 25}, {}, 25),
        ({}, {"top_n": 25}, 25),
        ({"top_n": None}, {}, 10),
        ({"k": 4}, {}, 4),
        ({"k": 4, "top_n": 25}, {}, 4),
        ({"k": 4}, {"k": 50}, 50),
        ({"k": 4}, {"k": None}, 10),
    ],
)
@SYNC_AND_ASYNC
async def test_a_store_is_asked_for_k(spy, reranker, func, settings, overrides, asked):
    retriever = Qwen3TwoStageRetriever(vectorstore=spy, reranker=reranker, **settings)
    await call(retriever, func, QUESTION, **overrides)
    assert spy.searched == {"k": asked, "async": func == "ainvoke"}


@pytest.mark.parametrize(
    ("settings", "overrides", "count"),
    [
        ({}, {}, 3),
        ({"top_n": 1}, {}, 1),
        ({"top_n": None}, {}, 6),
        ({"top_n": 1}, {"top_n": 5}, 5),
        ({}, {"top_n": None}, 6),
        ({"k": 2}, {}, 2),
    ],
)
@SYNC_AND_ASYNC
async def test_it_returns_top_n(store, reranker, func, settings, overrides, count):
    retriever = Qwen3TwoStageRetriever(vectorstore=store, reranker=reranker, **settings)
    assert len(await call(retriever, func, QUESTION, **overrides)) == count


def test_its_top_n_counts_and_not_the_rerankers(store):
    reranker = Qwen3Reranker(model="tiny", top_n=1)
    retriever = Qwen3TwoStageRetriever(vectorstore=store, reranker=reranker, top_n=4)
    assert len(retriever.invoke(QUESTION)) == 4


@SYNC_AND_ASYNC
async def test_arguments_reach_the_store(spy, reranker, func):
    retriever = Qwen3TwoStageRetriever(
        vectorstore=spy, reranker=reranker, search_kwargs={"expr": "a > 1", "timeout": 3}
    )
    await call(retriever, func, QUESTION, expr="a > 2")
    assert spy.searched == {"k": 10, "async": func == "ainvoke", "expr": "a > 2", "timeout": 3}


@SYNC_AND_ASYNC
async def test_instruction_and_threshold_can_be_given_per_call(retriever, func):
    plain = await call(retriever, func, QUESTION)
    sentence = "Given a question, retrieve texts about animals"
    asked = await call(retriever, func, QUESTION, instruction=sentence)
    assert [d.metadata["relevance_score"] for d in asked] != [
        d.metadata["relevance_score"] for d in plain
    ]
    best = plain[0].metadata["relevance_score"]
    assert await call(retriever, func, QUESTION, score_threshold=best) == plain[:1]
    assert await call(retriever, func, QUESTION, score_threshold=1) == []


# Other first stages


@SYNC_AND_ASYNC
async def test_the_first_stage_may_be_any_retriever(reranker, func):
    retriever = Qwen3TwoStageRetriever(retriever=AllTexts(), reranker=reranker)
    found = await call(retriever, func, QUESTION)
    assert {d.page_content for d in found[:2]} == RELEVANT


@SYNC_AND_ASYNC
async def test_the_first_k_of_any_retriever_are_reranked(reranker, func):
    retriever = Qwen3TwoStageRetriever(retriever=AllTexts(), reranker=reranker, k=2, top_n=None)
    assert {d.page_content for d in await call(retriever, func, QUESTION)} == set(TEXTS[:2])
    assert len(await call(retriever, func, QUESTION, k=5)) == 5
    assert len(await call(retriever, func, QUESTION, k=None)) == 6


@SYNC_AND_ASYNC
async def test_a_vector_stores_retriever_is_asked_for_k(store, reranker, func):
    first_stage = store.as_retriever(search_type="mmr", search_kwargs={"k": 5})
    retriever = Qwen3TwoStageRetriever(retriever=first_stage, reranker=reranker, top_n=None)
    assert len(await call(retriever, func, QUESTION)) == 5
    assert len(await call(retriever, func, QUESTION, k=2)) == 2
    assert len(await call(retriever, func, QUESTION, k=6)) == 6


@SYNC_AND_ASYNC
async def test_the_first_stage_may_be_a_chain(reranker, store, func):
    chain = RunnableLambda(str.strip) | store.as_retriever()
    retriever = Qwen3TwoStageRetriever(retriever=chain, reranker=reranker, top_n=2)
    found = await call(retriever, func, f"  {QUESTION}")
    assert {d.page_content for d in found} == RELEVANT


@SYNC_AND_ASYNC
async def test_the_second_stage_may_be_another_compressor(store, func):
    compressor = CrossEncoderReranker(model=Qwen3CrossEncoder(model="tiny"), top_n=4)
    retriever = Qwen3TwoStageRetriever(vectorstore=store, reranker=compressor, top_n=2)
    assert {d.page_content for d in await call(retriever, func, QUESTION)} == RELEVANT
    with pytest.raises(
        ValueError, match=naming("CrossEncoderReranker", "instruction", "Qwen3Reranker")
    ):
        await call(retriever, func, QUESTION, instruction="fact_check")


# In LangChain


@SYNC_AND_ASYNC
async def test_both_stages_are_runs_below_the_retrievers(retriever, runs, func):
    found = await call(retriever, func, QUESTION, {"callbacks": [runs]})
    outer = runs.named("Qwen3TwoStageRetriever")
    first, second = runs.named("VectorStoreRetriever"), runs.named("Qwen3Reranker")
    assert (outer["kind"], first["kind"], second["kind"]) == ("retriever", "retriever", "chain")
    assert outer["parent"] is None
    assert first["parent"] == second["parent"] == outer["id"]
    assert len(first["output"]) == len(TEXTS)
    assert second["input"]["query"] == QUESTION
    assert second["input"]["documents"] == len(TEXTS)
    assert second["output"] == outer["output"] == found


async def test_both_stages_are_in_the_event_stream(retriever):
    events = [event async for event in retriever.astream_events(QUESTION)]
    ended = [event["name"] for event in events if event["event"].endswith("_end")]
    assert ended == ["VectorStoreRetriever", "Qwen3Reranker", "Qwen3TwoStageRetriever"]


@SYNC_AND_ASYNC
async def test_an_error_of_a_stage_ends_the_runs(store, runs, func):
    broken = Qwen3Reranker(model="/no/such/folder")
    retriever = Qwen3TwoStageRetriever(vectorstore=store, reranker=broken)
    with pytest.raises(OSError, match=naming("reranker", "'/no/such/folder'", "'tiny'")):
        await call(retriever, func, QUESTION, {"callbacks": [runs]})
    assert "error" in runs.named("Qwen3TwoStageRetriever")
    assert "error" in runs.named("Qwen3Reranker")


def test_as_a_tool_of_an_agent(retriever):
    tool = create_retriever_tool(
        retriever, "search", "Searches.", response_format="content_and_artifact"
    )
    message = tool.invoke(
        {"name": "search", "args": {"query": QUESTION}, "id": "1", "type": "tool_call"}
    )
    assert len(message.artifact) == 3
    assert TEXTS[1] in message.content


async def test_concurrent_calls_do_not_mix(retriever):
    questions = [QUESTION, "What do cats do?", "How much is the cheapest plan?"]
    expected = retriever.batch(questions)
    found = await asyncio.gather(*(retriever.ainvoke(q) for q in questions * 3))
    for one, other in zip(found, expected * 3, strict=True):
        assert [d.page_content for d in one] == [d.page_content for d in other]


# Bad input


@pytest.mark.parametrize(
    ("settings", "error"),
    [
        ({"vectorstore": None}, "either vectorstore= or retriever=, but neither was given"),
        ({"retriever": AllTexts()}, "either vectorstore= or retriever=, but both were given"),
        ({"k": 0}, "k must be at least 1, or None for all, but got 0"),
        ({"top_n": 0}, "top_n must be at least 1, or None for all, but got 0"),
        ({"search_kwargs": {"k": 5}}, "search_kwargs holds 'k': pass k= to the retriever itself"),
        ({"topn": 5}, r"unknown argument 'topn': did you mean top_n\?"),
        ({"reranker": None}, "reranker\n  Input should be"),
        ({"vectorstore": "milvus.db"}, r"vectorstore= takes a vector store .*; got str"),
    ],
)
def test_a_wrong_setting_is_refused_at_once(store, reranker, settings, error):
    with pytest.raises(ValidationError, match=error):
        Qwen3TwoStageRetriever(**{"vectorstore": store, "reranker": reranker} | settings)


@pytest.mark.parametrize(
    ("override", "error"),
    [
        ({"k": 0}, "k must be at least 1, or None for all, but got 0"),
        ({"k": "50"}, "k must be at least 1, or None for all, but got '50'"),
        ({"top_n": -1}, "top_n must be at least 1, or None for all, but got -1"),
        ({"score_threshold": 2}, "score_threshold must be None or a number from 0 to 1, got 2"),
        ({"instruction": "fact_chek"}, "unknown task name 'fact_chek'"),
    ],
)
@SYNC_AND_ASYNC
async def test_a_wrong_override_is_refused_before_the_search(spy, reranker, func, override, error):
    retriever = Qwen3TwoStageRetriever(vectorstore=spy, reranker=reranker)
    with pytest.raises(ValueError, match=error):
        await call(retriever, func, QUESTION, **override)
    assert not hasattr(spy, "searched")


@pytest.mark.parametrize(
    ("query", "kind", "error"),
    [
        (None, TypeError, "query must be a string, got NoneType"),
        (3, TypeError, "query must be a string, got int: 3"),
        ("", ValueError, r"query is blank \(''\)"),
        (" \n", ValueError, "query is blank"),
        ("a\ud800", ValueError, "query holds a lone surrogate"),
    ],
)
@SYNC_AND_ASYNC
async def test_a_query_that_asks_nothing_is_refused(retriever, func, query, kind, error):
    with pytest.raises(kind, match=error):
        await call(retriever, func, query)


@SYNC_AND_ASYNC
@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("topn", "top_n"),
        ("top_N", "top_n"),
        ("top_k", "k"),
        ("similarity_top_k", "k"),
        ("instructions", "instruction"),
        ("score_treshold", "score_threshold"),
    ],
)
async def test_a_misspelt_argument_is_not_handed_on(retriever, func, name, meant):
    with pytest.raises(TypeError, match=rf"unknown argument '{name}': did you mean {meant}\?"):
        await call(retriever, func, QUESTION, **{name: 1})


def test_arguments_of_the_first_stage_are_not_taken_for_misspelt(spy, reranker):
    retriever = Qwen3TwoStageRetriever(
        vectorstore=spy, reranker=reranker, search_kwargs={"topn": 1}
    )
    others: dict[str, Any] = {"expr": 2, "threshold": 5, "timeout": 6}
    retriever.invoke(QUESTION, **others)
    assert spy.searched == {"k": 10, "async": False, "topn": 1, **others}


@pytest.mark.parametrize("key", ["relevance_score", "retrieval_score"])
def test_metadata_that_a_score_replaces_are_spoken_of(
    embeddings, reranker, caplog, monkeypatch, key
):
    monkeypatch.setattr("langchain_qwen3.reranker._replaced", set())
    store = InMemoryVectorStore(embeddings)
    store.add_documents([Document(text, metadata={key: "mine"}) for text in ("a", "b")])
    retriever = Qwen3TwoStageRetriever(vectorstore=store, reranker=reranker)
    found = retriever.invoke("a")
    (record,) = [r for r in caplog.records if repr(key) in r.message]
    assert "is replaced by the score of that name: rename the key" in record.message
    caplog.clear()
    reranker.compress_documents(found, "b")
    plain = retriever.model_copy(update={"score_metadata": False})
    assert plain.invoke("a")[0].metadata[key] == "mine"
    assert not caplog.records
