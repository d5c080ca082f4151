"""An agent with the retriever or the engine as its tool goes on where its LLM asks nonsense."""

import json
from typing import Any

import pytest
from llama_index.core import VectorStoreIndex
from llama_index.core.agent.workflow import FunctionAgent
from llama_index.core.tools import QueryEngineTool

from llama_index_qwen3 import Qwen3TwoStageRetriever, two_stage_query_engine
from tests.llama_index.conftest import TEXTS, text_nodes

QUERY = "How is data stored in Milvus?"
ASKED = [
    '{"input": ""}',
    r'{"input": "caf\ud83d"}',
    '{"q": "x"}',
    json.dumps({"input": QUERY}),
]


@pytest.fixture
def agent_llm(llm, server):
    """An LLM that calls its tool with each of `ASKED` in turn, and then answers."""

    def reply(request: dict[str, Any]) -> Any:
        if not request.get("tools"):
            return "Of the engine."
        turn = sum(message["role"] == "tool" for message in request["messages"])
        if turn == len(ASKED):
            return "Done."
        function = {"name": "search_docs", "arguments": ASKED[turn]}
        called = {"index": 0, "id": f"call-{turn}", "type": "function", "function": function}
        return {"role": "assistant", "content": "", "tool_calls": [called]}

    server.reply = reply
    llm.is_function_calling_model = True
    return llm


async def outputs(tool, llm) -> list[Any]:
    result: Any = await FunctionAgent(tools=[tool], llm=llm).run("How is data stored?")
    assert str(result) == "Done."
    return [call.tool_output for call in result.tool_calls]


@pytest.fixture
def index(embed_model):
    return VectorStoreIndex(text_nodes(), embed_model=embed_model)


async def test_the_retriever_as_a_tool(index, reranker, agent_llm, server):
    retriever = Qwen3TwoStageRetriever(index, reranker=reranker, top_n=2)
    tool = retriever.as_tool("search_docs", "Searches the documentation.")
    blank, broken, misnamed, found = await outputs(tool, agent_llm)
    assert [output.is_error for output in (blank, broken, misnamed, found)] == [True] * 3 + [False]
    assert "query is blank ('')" in blank.content
    assert "query holds a lone surrogate" in broken.content
    assert "'input'" in misnamed.content
    expected = retriever.retrieve(QUERY)  # scores are those of the question alone
    assert found.raw_output == expected
    assert found.content.startswith(f"number: 0\n\n{TEXTS[0]}\n\n")
    told = [m["content"] for m in server.requests[-1]["messages"] if m["role"] == "tool"]
    assert told == [output.content for output in (blank, broken, misnamed, found)]


async def test_the_engine_as_a_tool(index, reranker, agent_llm):
    engine = two_stage_query_engine(index, agent_llm, reranker=reranker, citations=False)
    tool = QueryEngineTool.from_defaults(
        engine, name="search_docs", description="d", resolve_input_errors=False
    )
    blank, broken, misnamed, found = await outputs(tool, agent_llm)
    assert [output.is_error for output in (blank, broken, misnamed, found)] == [True] * 3 + [False]
    assert "query is blank ('')" in blank.content
    assert "query holds a lone surrogate" in broken.content
    assert "`input`" in misnamed.content
    assert found.content == "Of the engine."
    assert len(found.raw_output.source_nodes) == 3


async def test_a_tool_that_finds_nothing_says_so(embed_model, reranker):
    empty = VectorStoreIndex([], embed_model=embed_model)
    tool = Qwen3TwoStageRetriever(empty, reranker=reranker).as_tool("search_docs", "d")
    assert tool.call(input="x").content == "Nothing was found."
    assert (await tool.acall(input="x")).content == "Nothing was found."
