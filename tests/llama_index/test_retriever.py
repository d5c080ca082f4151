"""`Qwen3TwoStageRetriever`: two stages as one retriever, for engines, chats, fusion and agents."""

import inspect
import logging
from typing import Any

import pytest
from llama_index.core import VectorStoreIndex
from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.callbacks import CallbackManager, CBEventType, LlamaDebugHandler
from llama_index.core.chat_engine import CondensePlusContextChatEngine, CondenseQuestionChatEngine
from llama_index.core.indices.vector_store import VectorIndexRetriever
from llama_index.core.llms import MockLLM
from llama_index.core.postprocessor import LongContextReorder, SimilarityPostprocessor
from llama_index.core.query_engine import RetrieverQueryEngine
from llama_index.core.retrievers import QueryFusionRetriever
from llama_index.core.schema import QueryBundle
from llama_index.core.vector_stores import (
    FilterCondition,
    FilterOperator,
    MetadataFilter,
    MetadataFilters,
)
from llama_index.vector_stores.milvus import MilvusVectorStore

from llama_index_qwen3 import Qwen3Rerank, Qwen3TwoStageRetriever, two_stage_query_engine
from llama_index_qwen3.retriever import Search
from tests.conftest import naming
from tests.llama_index.conftest import TEXTS, text_nodes

QUERY = "How is data stored in Milvus?"


def ids(nodes) -> list[str]:
    return [found.node.node_id for found in nodes]


def where(key: str, value: Any, operator: FilterOperator = FilterOperator.EQ) -> MetadataFilters:
    return MetadataFilters(filters=[MetadataFilter(key=key, value=value, operator=operator)])


@pytest.fixture
def memory(embed_model) -> VectorStoreIndex:
    """The corpus in LlamaIndex's own store."""
    return VectorStoreIndex(text_nodes(), embed_model=embed_model)


def fusion(index, **options) -> QueryFusionRetriever:
    return QueryFusionRetriever(
        [index.as_retriever(similarity_top_k=k) for k in (4, 6)],
        llm=MockLLM(),
        num_queries=1,
        similarity_top_k=8,
        use_async=False,
        **options,
    )


# The two stages


async def test_it_returns_the_best_of_the_candidates(memory, reranker):
    retriever = Qwen3TwoStageRetriever(memory, reranker=reranker, top_k=6, top_n=4)
    candidates = memory.as_retriever(similarity_top_k=6).retrieve(QUERY)
    expected = reranker.postprocess_nodes(candidates, query_str=QUERY)[:4]
    assert retriever.retrieve(QUERY) == expected
    assert await retriever.aretrieve(QUERY) == expected
    assert retriever.retrieve(QueryBundle(QUERY)) == expected


@pytest.mark.parametrize(
    ("options", "candidates"),
    [
        ({}, 8),
        ({"top_k": 5}, 5),
        ({"similarity_top_k": 5}, 5),
        ({"top_n": 2}, 8),
    ],
)
def test_similarity_top_k_is_another_name_of_top_k(memory, options, candidates):
    counted: list[int] = []

    class Counting(SimilarityPostprocessor):
        def _postprocess_nodes(self, nodes, query_bundle=None):
            counted.append(len(nodes))
            return nodes

    nodes = Qwen3TwoStageRetriever(memory, reranker=Counting(), **options).retrieve(QUERY)
    assert counted == [candidates]
    assert len(nodes) == options.get("top_n", 3)


def test_more_nodes_than_ten_means_more_candidates(embed_model, reranker):
    index = VectorStoreIndex(text_nodes([f"Text {i}" for i in range(15)]), embed_model=embed_model)
    assert len(Qwen3TwoStageRetriever(index, reranker=reranker, top_n=12).retrieve(QUERY)) == 12


def test_any_node_postprocessor_will_do_as_reranker(memory):
    reorder = LongContextReorder()
    engine = two_stage_query_engine(memory, MockLLM(), reranker=reorder, top_k=6, top_n=5)
    candidates = memory.as_retriever(similarity_top_k=6).retrieve(QUERY)
    expected = reorder.postprocess_nodes(candidates, query_str=QUERY)[:5]
    assert engine.retrieve(QueryBundle(QUERY)) == expected


class First(SimilarityPostprocessor):
    top_n: int = 2

    def _postprocess_nodes(self, nodes, query_bundle=None):
        return nodes[: self.top_n]


def test_a_reranker_that_keeps_fewer_than_top_n_is_refused(memory):
    assert len(Qwen3TwoStageRetriever(memory, reranker=First()).retrieve(QUERY)) == 2
    with pytest.raises(ValueError, match=naming("First", "top_n=2", "top_n=5", "set top_n")):
        Qwen3TwoStageRetriever(memory, reranker=First(), top_n=5)


def test_a_retriever_will_do_as_first_stage(memory, reranker):
    first = fusion(memory)
    expected = reranker.postprocess_nodes(first.retrieve(QUERY), query_str=QUERY)[:3]
    assert Qwen3TwoStageRetriever(first, reranker=reranker).retrieve(QUERY) == expected
    engine = two_stage_query_engine(first, MockLLM(), reranker=reranker)
    assert engine.retrieve(QueryBundle(QUERY)) == expected
    only = Qwen3TwoStageRetriever(first, reranker=reranker, top_k=1)
    assert ids(only.retrieve(QUERY)) == ids(first.retrieve(QUERY))[:1]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (
            {"filters": where("number", 5)},
            "QueryFusionRetriever as first stage is not told filters",
        ),
        ({"alpha": 0.5}, "QueryFusionRetriever as first stage is not told alpha"),
    ],
)
def test_what_a_retriever_as_first_stage_is_not_told_is_refused(memory, options, said):
    with pytest.raises(ValueError, match=said):
        Qwen3TwoStageRetriever(fusion(memory), **options)
    with pytest.raises(TypeError, match=naming("QueryFusionRetriever", "filters", "members")):
        Qwen3TwoStageRetriever(fusion(memory)).with_filters(where("number", 5))


def test_an_embed_model_for_a_retriever_is_refused(memory, embed_model):
    with pytest.raises(
        ValueError, match=naming("QueryFusionRetriever", "embed_model", "vector store")
    ):
        Qwen3TwoStageRetriever(fusion(memory), embed_model=embed_model)


# What narrows the search


@pytest.mark.parametrize("kind", ["memory", "index"])
async def test_a_filter_for_one_query(request, reranker, kind):
    index = request.getfixturevalue(kind)
    engine = two_stage_query_engine(index, MockLLM(), reranker=reranker, top_n=8)
    late = engine.with_filters(where("number", 5, FilterOperator.GTE))
    assert set(ids(late.retrieve(QueryBundle(QUERY)))) == {"node-5", "node-6", "node-7"}
    narrower = late.with_filters(where("number", 7, FilterOperator.LT))
    response: Any = narrower.query(QUERY)
    assert set(ids(response.source_nodes)) == {"node-5", "node-6"}
    assert "citations" in response.metadata
    assert len(engine.retrieve(QueryBundle(QUERY))) == 8
    retriever: Any = engine.retriever
    found = retriever.with_filters(where("number", 5)).retrieve(QUERY)
    assert ids(found) == ["node-5"]


def test_an_expression_of_milvus_for_one_query(index, reranker):
    options: Any = {"vector_store_kwargs": {"string_expr": "number > 2 or number == 0"}}
    retriever = Qwen3TwoStageRetriever(index, reranker=reranker, top_n=8, **options)
    narrowed = retriever.with_filters(string_expr="number < 5 or number == 7")
    assert set(ids(narrowed.retrieve(QUERY))) == {"node-0", "node-3", "node-4", "node-7"}
    assert len(retriever.retrieve(QUERY)) == 6
    assert options == {"vector_store_kwargs": {"string_expr": "number > 2 or number == 0"}}


@pytest.fixture
def stock(corpus) -> MilvusVectorStore:
    """The corpus in a store as LlamaIndex itself makes it."""
    return MilvusVectorStore(
        uri=str(corpus), collection_name="qwen3", dim=256, upsert_mode=True, use_async_client=False
    )


@pytest.mark.parametrize("kind", ["memory", "index", "stock"])
def test_a_filter_that_excludes_excludes_in_every_store(request, embed_model, reranker, kind):
    store = request.getfixturevalue(kind)
    model = embed_model if kind == "stock" else None
    without = MetadataFilters(
        filters=[MetadataFilter(key="number", value=n) for n in (0, 1)],
        condition=FilterCondition.NOT,
    )
    retriever = Qwen3TwoStageRetriever(
        store, embed_model=model, reranker=reranker, filters=without, top_n=8
    )
    found = ids(retriever.retrieve(QUERY))
    assert set(found) == {f"node-{n}" for n in range(2, 8)}


def test_a_stock_store_of_milvus_is_told_all_or_refused(stock, embed_model, reranker):
    retriever = Qwen3TwoStageRetriever(
        stock,
        embed_model=embed_model,
        reranker=reranker,
        filters=where("number", 6, FilterOperator.LT),
        vector_store_kwargs={"string_expr": "number > 3 or number == 0"},
    )
    assert set(ids(retriever.retrieve(QUERY))) == {"node-0", "node-4", "node-5"}
    with pytest.raises(
        ValueError,
        match=naming("MilvusVectorStore", "filters", "string_expr", "node_ids", "open_milvus"),
    ):
        Qwen3TwoStageRetriever(
            stock, embed_model=embed_model, filters=where("number", 6), node_ids=["node-1"]
        )


@pytest.mark.parametrize(
    "narrowing",
    [{}, {"filters": None}, {"filters": MetadataFilters(filters=[])}, {"string_expr": " "}],
)
def test_a_filter_that_is_missing_is_refused(memory, reranker, narrowing):
    engine = two_stage_query_engine(memory, MockLLM(), reranker=reranker)
    with pytest.raises(ValueError, match="would narrow nothing"):
        engine.with_filters(**narrowing)


def test_either_filters_stay_together(memory, index, reranker):
    either = MetadataFilters(
        filters=[MetadataFilter(key="number", value=n) for n in (1, 2)],
        condition=FilterCondition.OR,
    )
    retriever = Qwen3TwoStageRetriever(index, reranker=reranker, filters=either)
    assert ids(retriever.with_filters(where("number", 2)).retrieve(QUERY)) == ["node-2"]
    assert retriever.with_filters(where("number", 5)).retrieve(QUERY) == []


@pytest.mark.parametrize(
    ("kind", "options", "said"),
    [
        ("memory", {"doc_ids": ["a"]}, "a SimpleVectorStore would ignore doc_ids=: give node_ids"),
        ("memory", {"alpha": 0.5}, "a SimpleVectorStore would ignore alpha="),
        (
            "memory",
            {"vector_store_kwargs": {"string_expr": "number > 2"}},
            r"would ignore vector_store_kwargs={'string_expr': ...}: give filters=",
        ),
        ("index", {"alpha": 0.5}, "a MilvusVectorStore would ignore alpha=: set hybrid_ranker"),
        ("index", {"sparse_top_k": 5}, "a MilvusVectorStore would ignore sparse_top_k="),
    ],
)
def test_what_the_store_would_ignore_is_refused(request, kind, options, said):
    with pytest.raises(ValueError, match=said):
        Qwen3TwoStageRetriever(request.getfixturevalue(kind), **options)


@pytest.mark.parametrize("kind", ["index", "memory"])
def test_a_search_within_some_nodes(request, reranker, kind):
    some = Qwen3TwoStageRetriever(
        request.getfixturevalue(kind), reranker=reranker, node_ids=["node-1", "node-4"]
    )
    assert set(ids(some.retrieve(QUERY))) == {"node-1", "node-4"}
    narrowed = some.with_filters(where("number", 4))
    assert ids(narrowed.retrieve(QUERY)) == ["node-4"]


def test_ids_that_would_not_narrow_a_search_are_refused(index):
    for name in ("node_ids", "doc_ids"):
        none: Any = {name: []}
        bare: Any = {name: "node-1"}
        with pytest.raises(ValueError, match=rf"{name}=\[\] would search nothing"):
            Qwen3TwoStageRetriever(index, **none)
        with pytest.raises(TypeError, match=naming(name, "list", "str", "'node-1'")):
            Qwen3TwoStageRetriever(index, **bare)


def test_an_expression_for_a_store_that_reads_none_is_refused(memory):
    with pytest.raises(ValueError, match="would ignore vector_store_kwargs"):
        Qwen3TwoStageRetriever(memory).with_filters(string_expr="number > 2")


def test_the_arguments_of_a_search_are_those_of_llama_index():
    theirs = set(inspect.signature(VectorIndexRetriever.__init__).parameters)
    assert set(Search.__annotations__) - {"vector_store_kwargs"} <= theirs


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"topk": 5}, r"unknown argument 'topk': did you mean top_k\?"),
        ({"filter": where("a", 1)}, r"unknown argument 'filter': did you mean filters\?"),
        ({"colour": 1}, "unknown argument 'colour': known are alpha, doc_ids"),
        ({"top_k": 3, "similarity_top_k": 3}, "two names of one argument"),
        ({"reranker": [Qwen3Rerank(model="tiny")]}, r"got list \(give one\)"),
        ({"filters": "year > 2020"}, r"vector_store_kwargs={'string_expr': ...}"),
    ],
)
def test_an_argument_that_is_none_is_refused(memory, options, said):
    with pytest.raises(TypeError, match=said):
        Qwen3TwoStageRetriever(memory, **options)


@pytest.mark.parametrize("name", ["top_k", "similarity_top_k", "top_n"])
@pytest.mark.parametrize("value", [0, -1, True, "5", 2.0])
def test_a_number_out_of_range_is_refused(memory, name, value):
    with pytest.raises(ValueError, match=rf"{name} .*got {value!r}"):
        Qwen3TwoStageRetriever(memory, **{name: value})


@pytest.mark.parametrize("query", ["", " ", "a\ud800"])
async def test_a_question_that_cannot_be_asked_is_refused(memory, no_loading, query):
    retriever = Qwen3TwoStageRetriever(memory)
    with pytest.raises(ValueError, match=r"query (is blank|holds a lone surrogate)"):
        retriever.retrieve(query)
    with pytest.raises(ValueError, match=r"query (is blank|holds a lone surrogate)"):
        await retriever.aretrieve(query)


def test_an_empty_retriever_is_told_once(embed_model, reranker, caplog):
    empty = fusion(VectorStoreIndex([], embed_model=embed_model))
    retriever = Qwen3TwoStageRetriever(empty, reranker=reranker)
    with caplog.at_level(logging.WARNING, "llama_index_qwen3"):
        assert retriever.retrieve(QUERY) == retriever.retrieve(QUERY) == []
    assert caplog.text.count("QueryFusionRetriever returned no candidates") == 1


def test_narrowing_to_nothing_is_told_once_however_often_it_is_narrowed(index, reranker, caplog):
    retriever = Qwen3TwoStageRetriever(index, reranker=reranker)
    with caplog.at_level(logging.WARNING, "llama_index_qwen3"):
        for number in (99, 98):
            assert retriever.with_filters(where("number", number)).retrieve(QUERY) == []
    assert caplog.text.count("by: filters") == 1


# In the framework's own engines


def test_a_fusion_of_two_stage_retrievers_returns_each_node_once(memory, reranker):
    parts: list[BaseRetriever] = [
        Qwen3TwoStageRetriever(memory, reranker=reranker, top_k=k) for k in (4, 6)
    ]
    fused = QueryFusionRetriever(parts, llm=MockLLM(), num_queries=1, use_async=False)
    found = ids(fused.retrieve(QUERY))
    assert len(found) == len(set(found)) > 0


def test_a_query_engine_of_llama_index_takes_it(memory, reranker, llm, server):
    retriever = Qwen3TwoStageRetriever(memory, reranker=reranker, top_n=2)
    response: Any = RetrieverQueryEngine.from_args(retriever, llm=llm).query(QUERY)
    assert response.source_nodes == retriever.retrieve(QUERY)
    assert TEXTS[0] in server.prompt


@pytest.mark.parametrize("asynchronous", [False, True])
async def test_a_chat_rewrites_the_question_and_reads_the_history(
    memory, reranker, llm, server, asynchronous
):
    retriever = Qwen3TwoStageRetriever(memory, reranker=reranker, top_n=2)
    chat = CondensePlusContextChatEngine.from_defaults(retriever, llm=llm)
    for question in (QUERY, "And how are vectors linked?"):
        answer = await chat.achat(question) if asynchronous else chat.chat(question)
    assert len(server.requests) == 3  # an answer, a question rewritten, an answer
    assert QUERY in server.prompt
    assert len(answer.source_nodes) == 2


def test_a_chat_over_the_engine_cites(memory, reranker, llm, server):
    engine = two_stage_query_engine(memory, llm, reranker=reranker)
    chat = CondenseQuestionChatEngine.from_defaults(engine, llm=llm)
    for question in (QUERY, "And how are vectors linked?"):
        answer = chat.chat(question)
    response = answer.sources[0].raw_output
    assert response.metadata["citations"] == [1]


def test_callbacks_see_both_stages(embed_model, reranker):
    debug = LlamaDebugHandler(print_trace_on_end=False)
    index = VectorStoreIndex(
        text_nodes(),
        embed_model=embed_model.model_copy(),  # LlamaIndex gives it the callback manager
        callback_manager=CallbackManager([debug]),
    )
    before = reranker.callback_manager
    Qwen3TwoStageRetriever(index, reranker=reranker).retrieve(QUERY)
    assert len(debug.get_event_pairs(CBEventType.RETRIEVE)) == 2  # the whole, and its first stage
    assert len(debug.get_event_pairs(CBEventType.RERANKING)) == 1
    assert reranker.callback_manager is before
