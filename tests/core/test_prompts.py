"""Instructions are resolved as documented, and prompts are the published ones to the letter."""

import pytest

from qwen3_core.prompts import (
    RERANK_HEAD,
    RERANK_SUFFIX,
    TASKS,
    query_prefix,
    query_text,
    rerank_document,
    rerank_prompt,
    rerank_question,
    resolve_instruction,
)
from tests.conftest import naming
from tests.reference import HEAD, TAIL, TASK, query_prompt


def test_default_instruction_is_the_published_one():
    assert resolve_instruction(None) == TASKS["web_search"] == TASK


def test_task_name_gives_its_sentence():
    assert resolve_instruction("finance").startswith("Given a financial question")


@pytest.mark.parametrize("sentence", ["Find the clause that applies", "检索回答该查询的相关段落"])
def test_sentence_is_kept(sentence):
    assert resolve_instruction(sentence) == sentence


def test_unknown_task_name_lists_the_known_ones():
    with pytest.raises(
        ValueError, match=naming("'websearch'", "web_search", "parallel_text", "sentence")
    ):
        resolve_instruction("websearch")


@pytest.mark.parametrize("blank", ["", "  \n"])
def test_blank_instruction_is_refused(blank):
    with pytest.raises(ValueError, match=naming("instruction", "blank", "None", "sentence")):
        resolve_instruction(blank)


@pytest.mark.parametrize(
    "copied",
    [
        "Instruct: {}\nQuery:",
        "Instruct: {}\nQuery: ",
        "Instruct: {}\nQuery:{{query}}",
        "Instruct: {}",
        " instruct : {}",
        "{}\nQuery:",
        "<Instruct>: {}",
        "<Instruct>: {}\n<Query>: {{query}}",
        "Instruct\uff1a{}\nQuery\uff1a",
    ],
)
def test_an_instruction_with_its_template_is_refused_with_the_sentence(copied):
    with pytest.raises(ValueError, match=r'the prompt template .*"Query:"') as refused:
        resolve_instruction(copied.format(TASK))
    assert str(refused.value).endswith(f"pass the sentence alone, {TASK!r}")


@pytest.mark.parametrize(
    "sentence",
    [
        "Given a query: find the page that answers it",
        "Instruct the reader: find what applies",
        "Given a search query, find instructions",
    ],
)
def test_a_sentence_with_the_frames_words_is_kept(sentence):
    assert resolve_instruction(sentence) == sentence


def test_instruction_of_another_type_is_refused():
    with pytest.raises(TypeError, match=naming("instruction", "string", "None", "int")):
        resolve_instruction(3)  # type: ignore[arg-type]


def test_embedding_query_has_no_space_after_the_colon():
    assert query_prefix(TASK) + query_text("What is Milvus?") == query_prompt("What is Milvus?")


def test_rerank_prompt_is_the_published_one():
    body = "<Instruct>: {i}\n<Query>: {q}\n<Document>: {d}"
    assert rerank_prompt("{i}", "{q}", "{d}") == HEAD + body + TAIL
    parts = rerank_question("{i}", "{q}") + rerank_document("{d}")
    assert RERANK_HEAD + parts + RERANK_SUFFIX == HEAD + body + TAIL
    assert parts == f"user\n{body}"
