"""An agent with the retriever as its tool goes on where its LLM asks what cannot be asked."""

import json
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain.agents.middleware import after_model
from langchain_core.tools import create_retriever_tool
from langchain_openai import ChatOpenAI
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode, tools_condition
from pydantic import SecretStr, ValidationError

from tests.langchain.conftest import QUESTION, call

ASKED = ['{"query": ""}', '{"query": " "}', '{"q": "x"}', json.dumps({"query": QUESTION})]
SURROGATE = r'{"query": "caf\ud83d"}'


@after_model
def mend_text(state: Any, runtime: Any) -> dict[str, Any] | None:
    """As in docs/howto/agents.md."""
    message = state["messages"][-1]
    text = json.dumps(message.tool_calls, ensure_ascii=False)
    calls = json.loads(text.encode("utf-8", "replace"))
    if calls == message.tool_calls:
        return None
    return {"messages": [message.model_copy(update={"tool_calls": calls})]}


def script(server: Any, arguments: list[str]) -> None:
    """Let the LLM call the tool with each of these arguments in turn, and then answer."""

    def reply(request: dict[str, Any]) -> Any:
        turn = sum(message["role"] == "tool" for message in request["messages"])
        if turn == len(arguments):
            return "Done."
        function = {"name": "search_docs", "arguments": arguments[turn]}
        called = {"index": 0, "id": f"call-{turn}", "type": "function", "function": function}
        return {"role": "assistant", "content": "", "tool_calls": [called]}

    server.reply = reply


def agent_of_langchain(llm: ChatOpenAI, tool: Any) -> Any:
    return create_agent(llm, [tool], middleware=[mend_text])


def agent_of_langgraph(llm: ChatOpenAI, tool: Any) -> Any:
    bound = llm.bind_tools([tool])

    async def ask(state: MessagesState) -> dict[str, Any]:
        return {"messages": [await bound.ainvoke(state["messages"])]}

    graph = StateGraph(MessagesState)
    graph.add_node("agent", ask)
    graph.add_node("tools", ToolNode([tool]))
    graph.add_edge(START, "agent")
    graph.add_conditional_edges("agent", tools_condition)
    graph.add_edge("tools", "agent")
    return graph.compile()


@pytest.fixture
def llm(openai_server):
    return ChatOpenAI(
        model="any", base_url=openai_server.url, api_key=SecretStr("any"), max_retries=0
    )


@pytest.fixture
def tool(retriever):
    return create_retriever_tool(retriever, "search_docs", "Searches the documentation.")


@pytest.mark.parametrize("make", [agent_of_langchain, agent_of_langgraph])
async def test_the_llm_reads_what_was_wrong_with_its_question(make, llm, tool, openai_server):
    script(openai_server, ASKED)
    state = await make(llm, tool).ainvoke({"messages": [("user", QUESTION)]})
    replies = [m for m in state["messages"] if m.type == "tool"]
    assert [m.status for m in replies] == ["error", "error", "error", "success"]
    assert "query is blank ('')" in replies[0].content
    assert "query is blank (' ')" in replies[1].content
    assert "query: Field required" in replies[2].content
    assert "object storage" in replies[3].content
    assert state["messages"][-1].content == "Done."


@pytest.mark.parametrize("func", ["invoke", "ainvoke"])
async def test_half_a_character_in_a_question_does_not_end_the_run(func, llm, tool, openai_server):
    script(openai_server, [SURROGATE, ASKED[-1]])
    agent = agent_of_langchain(llm, tool)
    state = await call(agent, func, {"messages": [("user", QUESTION)]})
    assert [m.status for m in state["messages"] if m.type == "tool"] == ["success"] * 2
    assert state["messages"][-1].content == "Done."


@pytest.mark.parametrize("query", ["", "caf\ud83d"])
@pytest.mark.parametrize("func", ["invoke", "ainvoke"])
async def test_a_broken_question_is_a_validation_error_and_so_a_value_error(
    func, query, retriever, embeddings
):
    with pytest.raises(ValidationError, match="query") as raised:
        await call(retriever, func, query)
    assert isinstance(raised.value, ValueError)
    assert "input_value" not in str(raised.value)
    with pytest.raises(ValidationError, match="query"):
        await call(embeddings, {"invoke": "embed_query", "ainvoke": "aembed_query"}[func], query)
