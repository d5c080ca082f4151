"""The short form of `benchmarks/load.py`, and the frameworks' entry points on a shared engine.

Nothing here depends on how fast the machine is; times belong to the benchmark.
"""

import asyncio
import itertools
import threading
from collections.abc import Awaitable, Callable

import numpy as np
import pytest
from langchain_core.documents import Document
from langchain_core.runnables import RunnableLambda
from langchain_core.vectorstores import InMemoryVectorStore
from llama_index.core import VectorStoreIndex
from llama_index.core.ingestion import IngestionPipeline
from llama_index.core.node_parser import SentenceSplitter
from llama_index.core.schema import Document as LlamaDocument
from llama_index.core.schema import NodeWithScore, TextNode

from benchmarks.callers import Callers
from benchmarks.systems import Pair, Shared
from benchmarks.workload import MIXED, Sizes, Workload
from langchain_qwen3 import Qwen3Embeddings, Qwen3Reranker, Qwen3TwoStageRetriever
from llama_index_qwen3 import Qwen3Embedding, Qwen3Rerank

SIZES = Sizes(query=(3, 12), passage=(5, 40), passages=(1, 6), document=(10, 90), documents=(1, 12))
TEXTS = [f"Fact number {i}: segments are sealed, then flushed to storage." for i in range(10)]
QUERIES = [f"What does fact {i} say?" for i in range(6)]


def computed(shared: Shared) -> tuple[int, int]:
    """Sequences that the two engines have computed."""
    return shared.embedder.stats().sequences, shared.reranker.stats().sequences


def test_mixed_load_loses_doubles_and_mixes_up_nothing(shared: Shared):
    workload = Workload(SIZES, each=25)
    workload.answer_serially(shared)
    for kind in MIXED:  # else a mixed-up answer would pass for the right one
        assert workload.least_distance_between(kind) > 3e-5
    numbers = workload.sample(MIXED, 1_000, seed=1)
    threads_before = set(threading.enumerate())
    before = computed(shared)

    outcome = Callers(workload, threads=16, coroutines=64).run(shared, numbers)

    assert outcome.failures == []
    assert outcome.issued == len(numbers)
    assert outcome.lost == 0
    assert outcome.doubled == 0
    assert outcome.wrong(lambda _: 1e-5) == 0
    sent = [workload.requests[i] for i in numbers]
    expected = (
        sum(len(r.documents) or 1 for r in sent if r.kind != "rerank"),
        sum(len(r.documents) for r in sent if r.kind == "rerank"),
    )
    assert tuple(np.subtract(computed(shared), before)) == expected
    for component in (shared.embedder, shared.reranker):
        stats = component.stats()
        assert (stats.queued_requests, stats.queued_tokens) == (0, 0)
    assert set(threading.enumerate()) - threads_before == set()


def test_a_wrong_a_lost_and_a_doubled_answer_would_be_noticed(shared: Shared):
    workload = Workload(SIZES, each=3)
    workload.answer_serially(shared)
    numbers = workload.sample({"query": 1}, 12, seed=1)

    class Confused:
        """Gives one caller another's answer, and one an error."""

        def __init__(self) -> None:
            self.calls = itertools.count()

        def answer(self, request):
            call = next(self.calls)
            if call == 3:
                raise RuntimeError("no answer")
            return (
                shared.embedder.embed_queries(["another"]) if call == 5 else shared.answer(request)
            )

        async def aanswer(self, request):
            return await asyncio.to_thread(self.answer, request)

    outcome = Callers(workload, threads=2, coroutines=2).run(Confused(), numbers)
    assert outcome.issued == 12
    assert outcome.wrong(lambda _: 1e-5) == 1
    assert outcome.failures == ["RuntimeError('no answer')"]
    outcome.answers.append(outcome.answers[0])
    assert outcome.doubled == 1
    outcome.issued += 1
    assert outcome.lost == 1


@pytest.fixture
def retriever(pair: Pair) -> Qwen3TwoStageRetriever:
    embeddings = Qwen3Embeddings(model=pair.embedding, dtype=pair.dtype)
    store = InMemoryVectorStore.from_documents([Document(t) for t in TEXTS], embeddings)
    return Qwen3TwoStageRetriever(
        vectorstore=store, reranker=Qwen3Reranker(model=pair.reranker, dtype=pair.dtype)
    )


async def ask(entry: str, retriever: Qwen3TwoStageRetriever) -> list[list[Document]]:
    """The documents for each query, through one of the entry points that all runnables have."""
    if entry == "batch":
        return await asyncio.to_thread(retriever.batch, QUERIES)
    if entry == "abatch":
        return await retriever.abatch(QUERIES)
    if entry == "stream":
        return [part for query in QUERIES for part in retriever.stream(query)]
    return [part for query in QUERIES async for part in retriever.astream(query)]


@pytest.mark.parametrize("entry", ["batch", "abatch", "stream", "astream"])
async def test_langchain_retrieval_runs_through_the_engines(shared, retriever, entry):
    expected = [retriever.invoke(query) for query in QUERIES]
    before = computed(shared)
    found = await ask(entry, retriever)
    assert tuple(np.subtract(computed(shared), before)) == (
        len(QUERIES),
        len(QUERIES) * len(TEXTS),
    )
    assert [[d.page_content for d in documents] for documents in found] == [
        [d.page_content for d in documents] for documents in expected
    ]


@pytest.mark.parametrize("entry", ["batch", "abatch"])
async def test_langchain_embeddings_run_through_the_engine(shared, pair, entry):
    embeddings = Qwen3Embeddings(model=pair.embedding, dtype=pair.dtype)
    step = RunnableLambda(embeddings.embed_query, afunc=embeddings.aembed_query)
    before = computed(shared)
    found = step.batch(QUERIES) if entry == "batch" else await step.abatch(QUERIES)
    assert tuple(np.subtract(computed(shared), before)) == (len(QUERIES), 0)
    np.testing.assert_allclose(found, shared.embedder.embed_queries(QUERIES), atol=1e-5)


async def embed_batch(model: Qwen3Embedding) -> list[list[float]]:
    return await model.aget_text_embedding_batch(TEXTS)


async def ingest(model: Qwen3Embedding) -> list[list[float]]:
    pipeline = IngestionPipeline(transformations=[SentenceSplitter(chunk_size=512), model])
    nodes = await pipeline.arun(documents=[LlamaDocument(text=text) for text in TEXTS])
    return [node.embedding or [] for node in nodes]


@pytest.mark.parametrize("entry", [embed_batch, ingest])
async def test_llama_index_embedding_runs_through_the_engine(
    shared: Shared, pair: Pair, entry: Callable[[Qwen3Embedding], Awaitable[list[list[float]]]]
):
    model = Qwen3Embedding(model=pair.embedding, dtype=pair.dtype)
    before = computed(shared)
    found = await entry(model)
    assert tuple(np.subtract(computed(shared), before)) == (len(TEXTS), 0)
    np.testing.assert_allclose(found, shared.embedder.embed_documents(TEXTS), atol=1e-5)


async def test_llama_index_retrieval_and_reranking_run_through_the_engines(shared, pair):
    model = Qwen3Embedding(model=pair.embedding, dtype=pair.dtype)
    reranker = Qwen3Rerank(model=pair.reranker, dtype=pair.dtype)
    nodes = [TextNode(text=text) for text in TEXTS]
    retriever = VectorStoreIndex(nodes, embed_model=model).as_retriever(similarity_top_k=len(TEXTS))
    before = computed(shared)

    async def ask(query: str) -> list[NodeWithScore]:
        return await reranker.apostprocess_nodes(await retriever.aretrieve(query), query_str=query)

    found = await asyncio.gather(*map(ask, QUERIES))
    assert tuple(np.subtract(computed(shared), before)) == (
        len(QUERIES),
        len(QUERIES) * len(TEXTS),
    )
    for query, nodes_found in zip(QUERIES, found, strict=True):
        best = shared.reranker.rerank(TEXTS, query)[0]
        assert nodes_found[0].text == TEXTS[best.index]
