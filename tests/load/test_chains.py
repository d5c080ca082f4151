"""Whole chains and chat engines, many at once on shared engines: answers as if one at a time.

The LLM's answer is a digest of all that it was sent. So answers are equal only if the same passages
were found, in the same order, for the same question.
"""

import asyncio
import hashlib
import operator
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import reduce
from typing import Any

import numpy as np
import pytest
from langchain_core.documents import Document
from langchain_core.runnables import Runnable
from langchain_core.vectorstores import InMemoryVectorStore
from langchain_openai import ChatOpenAI
from llama_index.core import VectorStoreIndex
from llama_index.core.chat_engine.types import BaseChatEngine, ChatMode
from llama_index.core.schema import NodeWithScore, TextNode
from llama_index.llms.openai_like import OpenAILike
from pydantic import SecretStr

from benchmarks.systems import Pair, Shared
from langchain_qwen3 import (
    Qwen3Embeddings,
    Qwen3Reranker,
    Qwen3TwoStageRetriever,
    create_rag_chain,
)
from llama_index_qwen3 import Qwen3Embedding, Qwen3Rerank
from tests.load.test_load import computed
from tests.openai_server import OpenAIServer, prompt_text

TOPICS = ["segments", "replicas", "indexes", "snapshots", "brokers", "caches", "shards", "roles"]
TEXTS = [f"Fact number {i}: {topic} are kept in storage." for i, topic in enumerate(TOPICS)]
QUESTIONS = [f"What is said of {topic}?" for topic in TOPICS]
TOP_N = 3


RETRIES = 3
"""Of the LLM's client: a busy machine once reset a connection to the stand-in. What is tested is
everything around the LLM."""


@pytest.fixture
def server() -> Iterator[OpenAIServer]:
    def reply(request: dict[str, Any]) -> str:
        digest = hashlib.sha256(prompt_text(request).encode()).hexdigest()
        return f"The second passage [2] and the first one [1] say {digest} ."

    with OpenAIServer(reply) as server:
        yield server


# LangChain

Chain = Runnable[Any, Any]
Result = dict[str, Any]


@pytest.fixture
def chain(pair: Pair, server: OpenAIServer) -> Chain:
    embeddings = Qwen3Embeddings(model=pair.embedding, dtype=pair.dtype)
    store = InMemoryVectorStore.from_documents([Document(t) for t in TEXTS], embeddings)
    reranker = Qwen3Reranker(model=pair.reranker, dtype=pair.dtype)
    retriever = Qwen3TwoStageRetriever(
        vectorstore=store, reranker=reranker, k=len(TEXTS), top_n=TOP_N
    )
    llm = ChatOpenAI(
        model="any", base_url=server.url, api_key=SecretStr("any"), max_retries=RETRIES
    )
    return create_rag_chain(retriever, llm)


async def batch(chain: Chain) -> list[Result]:
    return await asyncio.to_thread(chain.batch, QUESTIONS)


async def abatch(chain: Chain) -> list[Result]:
    return await chain.abatch(QUESTIONS)


async def stream(chain: Chain) -> list[Result]:
    def ask(question: str) -> Result:
        result: Result = reduce(operator.add, chain.stream(question))
        return result

    def ask_all() -> list[Result]:
        with ThreadPoolExecutor(len(QUESTIONS)) as pool:
            return list(pool.map(ask, QUESTIONS))

    return await asyncio.to_thread(ask_all)


async def astream(chain: Chain) -> list[Result]:
    async def ask(question: str) -> Result:
        result: Result = reduce(operator.add, [part async for part in chain.astream(question)])
        return result

    return list(await asyncio.gather(*map(ask, QUESTIONS)))


async def all_ways(chain: Chain) -> list[Result]:
    ways = await asyncio.gather(batch(chain), abatch(chain), stream(chain), astream(chain))
    return [result for results in ways for result in results]


def seen(result: Result) -> tuple[str, str, list[str], list[int]]:
    """What the caller of a chain gets, but for scores."""
    texts = [document.page_content for document in result["context"]]
    for citation in result["citations"]:
        assert citation["document"] is result["context"][citation["number"] - 1]
    numbers = [citation["number"] for citation in result["citations"]]
    return result["question"], result["answer"], texts, numbers


@pytest.mark.parametrize("way", [batch, abatch, stream, astream, all_ways])
async def test_a_rag_chain_answers_many_as_it_answers_one(
    shared: Shared, chain: Chain, way: Callable[[Chain], Awaitable[list[Result]]]
):
    serial = [seen(chain.invoke(question)) for question in QUESTIONS]
    assert len({answer for _, answer, _, _ in serial}) == len(QUESTIONS)
    assert [numbers for _, _, _, numbers in serial] == [[2, 1]] * len(QUESTIONS)
    before = computed(shared)
    results = await way(chain)
    assert [seen(result) for result in results] == serial * (len(results) // len(serial))
    expected = (len(results), len(results) * len(TEXTS))
    assert tuple(np.subtract(computed(shared), before)) == expected


# LlamaIndex

Turn = tuple[str, list[NodeWithScore]]
"""An answer and its source nodes."""

FOLLOW_UP = "And what else?"
"""The second question of each conversation: the LLM rewrites it before anything is retrieved."""


@pytest.fixture
def chat_engine(pair: Pair, server: OpenAIServer) -> Callable[[], BaseChatEngine]:
    """Makes a chat engine with a memory of its own; index and models are shared."""
    model = Qwen3Embedding(model=pair.embedding, dtype=pair.dtype)
    reranker = Qwen3Rerank(model=pair.reranker, dtype=pair.dtype, top_n=TOP_N)
    nodes = [TextNode(id_=f"node-{i}", text=text) for i, text in enumerate(TEXTS)]
    index = VectorStoreIndex(nodes, embed_model=model)
    llm = OpenAILike(
        model="any",
        api_base=server.url,
        api_key="any",
        is_chat_model=True,
        context_window=32_768,
        max_retries=RETRIES,
        reuse_client=False,
    )
    return lambda: index.as_chat_engine(
        ChatMode.CONDENSE_PLUS_CONTEXT,
        llm=llm,
        similarity_top_k=len(TEXTS),
        node_postprocessors=[reranker],
    )


async def chat(engine: BaseChatEngine, question: str) -> Turn:
    response = await asyncio.to_thread(engine.chat, question)
    return str(response), response.source_nodes


async def achat(engine: BaseChatEngine, question: str) -> Turn:
    response = await engine.achat(question)
    return str(response), response.source_nodes


async def stream_chat(engine: BaseChatEngine, question: str) -> Turn:
    def ask() -> Turn:
        response = engine.stream_chat(question)
        return "".join(response.response_gen), response.source_nodes

    return await asyncio.to_thread(ask)


async def astream_chat(engine: BaseChatEngine, question: str) -> Turn:
    response = await engine.astream_chat(question)
    answer = "".join([token async for token in response.async_response_gen()])
    return answer, response.source_nodes


WAYS = [chat, achat, stream_chat, astream_chat]
TOGETHER = {way.__name__: [way] for way in WAYS} | {"all_ways": WAYS}


@pytest.mark.parametrize("ways", TOGETHER.values(), ids=TOGETHER)
async def test_chat_engines_answer_many_as_they_answer_one(
    shared: Shared, chat_engine: Callable[[], BaseChatEngine], ways: list[Any]
):
    async def converse(way: Callable[[BaseChatEngine, str], Awaitable[Turn]], question: str):
        engine = chat_engine()
        return [await way(engine, question), await way(engine, FOLLOW_UP)]

    serial = [await converse(chat, question) for question in QUESTIONS]
    assert len({answer for turns in serial for answer, _ in turns}) == 2 * len(QUESTIONS)
    before = computed(shared)
    calls = [(way, number) for way in ways for number in range(len(QUESTIONS))]
    found = await asyncio.gather(*(converse(way, QUESTIONS[number]) for way, number in calls))
    for (_, number), turns in zip(calls, found, strict=True):
        for (answer, nodes), (expected, sources) in zip(turns, serial[number], strict=True):
            assert answer == expected
            assert [node.node_id for node in nodes] == [node.node_id for node in sources]
            scores, serial_scores = [n.score for n in nodes], [n.score for n in sources]
            np.testing.assert_allclose(scores, serial_scores, atol=1e-5)
    retrievals = 2 * len(calls)
    expected_counts = (retrievals, retrievals * len(TEXTS))
    assert tuple(np.subtract(computed(shared), before)) == expected_counts
