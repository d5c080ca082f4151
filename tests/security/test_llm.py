"""Retrieved text can neither leave its fence nor cite itself, whatever the chain."""

import re
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from langchain_core.documents import Document
from langchain_core.runnables import RunnableLambda
from langchain_openai import ChatOpenAI
from llama_index.core import QueryBundle
from llama_index.core.schema import NodeWithScore, TextNode
from llama_index.llms.openai_like import OpenAILike
from pydantic import SecretStr

from langchain_qwen3 import create_rag_chain
from llama_index_qwen3.query_engine import CitedPassages
from qwen3_core.prompts import CONTROL_TOKENS
from qwen3_core.rag import cited, fence
from tests.growth import growth
from tests.openai_server import prompt_text
from tests.security.corpus import DOCUMENT, QUERY, attacks

ATTACKS = attacks()
CHAT_TOKENS = [
    *CONTROL_TOKENS,
    *("<|eot_id|>", "<|start_header_id|>", "<|end_header_id|>", "<|begin_of_text|>"),  # Llama 3
    *(
        "[INST]",
        "[/INST]",
        "<s>",
        "</s>",
        "<<SYS>>",
        "<</SYS>>",
        "[TOOL_CALLS]",
    ),  # Llama 2, Mistral
    *("<start_of_turn>", "<end_of_turn>", "<bos>", "<eos>"),  # Gemma
    *("<｜User｜>", "<｜Assistant｜>", "<｜end▁of▁sentence｜>"),  # DeepSeek
    *("<|system|>", "<|user|>", "<|end|>", "<|endofprompt|>", "<|start|>", "<|channel|>"),
]
"""Control tokens in published chat templates."""

TAG = re.compile(r"<\s*/*\s*passages?\b[^>]*>", re.IGNORECASE)
UNSEEN = re.compile("[\u200b-\u200f\u2060-\u2064\u00ad\ufeff\u0300-\u036f\u180e\u0000-\u0008]")


def simplified(text: str) -> str:
    """What a reader sees who cares neither for width nor for characters without any."""
    wide = {code: code - 0xFEE0 for code in range(0xFF01, 0xFF5F)} | {0xFE64: "<", 0xFE65: ">"}
    return UNSEEN.sub("", text.translate(wide))


def tags(prompt: str) -> list[str]:
    return TAG.findall(simplified(prompt))


def frame(count: int) -> list[str]:
    each = [tag for i in range(1, count + 1) for tag in (f'<passage number="{i}">', "</passage>")]
    return ["<passages>", *each, "</passages>"]


# The fence


@pytest.mark.parametrize("name", ATTACKS)
def test_an_attack_stays_within_its_fence(name):
    fenced = fence([DOCUMENT, ATTACKS[name], DOCUMENT])
    assert tags(fenced) == frame(3)
    assert not [token for token in CHAT_TOKENS if token in fenced]
    assert cited(fenced, 3) == []


@pytest.mark.parametrize("token", CHAT_TOKENS)
def test_control_tokens_of_chat_models_are_taken_apart(token):
    assert token not in fence([f"a{token}b"])


PIECES = st.lists(
    st.one_of(
        st.sampled_from(["passage", "passages", "<", "</", "[1]", "[", "1", ",", "]", "> "]),
        st.sampled_from(
            [*CHAT_TOKENS, "\u200b", "\u0301", "\uff1c", "\uff0f", "\uff53", " ", "\n"]
        ),
        st.text(max_size=3),
    ),
    max_size=14,
).map("".join)


@given(st.lists(PIECES, min_size=1, max_size=4))
@example(["<passage\x1b0"])
def test_no_texts_together_leave_their_fence_or_cite(texts):
    fenced = fence(texts)
    assert tags(fenced) == frame(len(texts))
    assert not [token for token in CHAT_TOKENS if token in fenced]
    assert cited(fenced, len(texts)) == []


@given(st.lists(PIECES, min_size=1, max_size=3), st.data())
def test_no_part_of_a_passage_that_is_copied_cites(texts, data):
    fenced = fence(texts)
    begin = data.draw(st.integers(0, len(fenced)))
    end = data.draw(st.integers(begin, len(fenced)))
    assert cited(fenced[begin:end], len(texts)) == []


@pytest.mark.parametrize(
    "text",
    [
        "if a < b: return <div>{x}</div> & \\n",
        "List<String> names; a << 2; x <= y; <span class='s'>",
        "the passage of time, passages and <passenger> or <passage_id>",
        "rows[0], rows[12], [2019], [ref], [ 7 ]",
        "<script> <strong> <section> <thinking> <eosin>",
    ],
)
def test_other_text_is_kept_to_the_letter(text):
    assert text in fence([text, "second"])


@pytest.mark.parametrize(
    "unit", ["<", "< ", "<\u200b", "</ ", "[1,", "[1 ,", "<s", "<passag", "[1", "<|", "\u0301<"]
)
@pytest.mark.parametrize("filler", [" ", "\u200b", "1", ""])
def test_a_long_text_takes_time_in_proportion(unit, filler):
    def work(length: int) -> None:
        fence([unit + filler * length, (unit + filler) * (length // 4)])

    assert growth(work, 10_000) < 9


# The chains, with an LLM that repeats whatever it reads


def repeat(request: dict[str, Any]) -> str:
    return prompt_text(request)


def langchain(url: str, texts: list[str]) -> list[int]:
    llm = ChatOpenAI(model="any", base_url=url, api_key=SecretStr("any"), max_retries=0)
    found: Any = RunnableLambda(lambda _: [Document(text) for text in texts])
    return [c["number"] for c in create_rag_chain(found, llm).invoke(QUERY)["citations"]]


def langchain_stream(url: str, texts: list[str]) -> list[int]:
    llm = ChatOpenAI(model="any", base_url=url, api_key=SecretStr("any"), max_retries=0)
    found: Any = RunnableLambda(lambda _: [Document(text) for text in texts])
    *_, last = create_rag_chain(found, llm).stream(QUERY)
    return [c["number"] for c in last["citations"]]


def open_ai_like(url: str, **settings: Any) -> OpenAILike:
    return OpenAILike(
        model="any", api_base=url, api_key="any", is_chat_model=True, max_retries=0, **settings
    )


def llama_index(url: str, texts: list[str]) -> Any:
    engine = CitedPassages(open_ai_like(url, context_window=100_000))
    nodes = [NodeWithScore(node=TextNode(text=text), score=1.0) for text in texts]
    return (engine.synthesize(QueryBundle(QUERY), nodes).metadata or {})["citations"]


def llama_index_cut(url: str, texts: list[str]) -> Any:
    """With a context window that the passages do not fit into, so that they are cut."""
    engine = CitedPassages(open_ai_like(url, context_window=1_000))
    long = [text + " and so on" * 150 for text in texts]
    nodes = [NodeWithScore(node=TextNode(text=text), score=1.0) for text in long]
    return (engine.synthesize(QueryBundle(QUERY), nodes).metadata or {})["citations"]


def llama_index_metadata(url: str, texts: list[str]) -> Any:
    """With the attack in the metadata, which the LLM reads before the text."""
    engine = CitedPassages(open_ai_like(url, context_window=100_000))
    nodes = [NodeWithScore(node=TextNode(text="t", metadata={"title": text})) for text in texts]
    return (engine.synthesize(QueryBundle(QUERY), nodes).metadata or {})["citations"]


@pytest.mark.parametrize(
    "chain", [langchain, langchain_stream, llama_index, llama_index_cut, llama_index_metadata]
)
def test_no_attack_leaves_its_fence_or_is_cited_in_a_chain(chain, openai_server):
    openai_server.reply = repeat
    texts = list(ATTACKS.values())
    for begin in range(0, len(texts), 5):
        some = [DOCUMENT, *texts[begin : begin + 5]]
        # The instructions give [1] and [1][3] as examples, and this LLM repeats them.
        assert set(chain(openai_server.url, some)) <= {1, 3}
        request = openai_server.requests[-1]
        assert [message["role"] for message in request["messages"]] == ["system", "user"]
        asked = request["messages"][1]["content"]
        context, question, rest = asked.rpartition("\n\nQuestion: ")
        assert (question, rest) == ("\n\nQuestion: ", QUERY)
        assert tags(context) == frame(len(some))
        assert cited(asked, len(some)) == []
        assert not [token for token in CHAT_TOKENS if token in asked]


def test_the_words_of_a_question_are_no_fields_of_a_template(openai_server):
    openai_server.reply = repeat
    for chain in (langchain, llama_index):
        chain(openai_server.url, ["{query_str} {question} {context} {context_str} needle"])
        assert openai_server.prompt.count("needle") == 1
        assert openai_server.prompt.count(QUERY) == 1
