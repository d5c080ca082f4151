"""The chat template for servers renders the published prompt, to the last newline."""

import pytest
from transformers import PreTrainedTokenizerFast

from qwen3_core.prompts import TASKS, rerank_prompt
from qwen3_core.remote import TEMPLATE_FILE
from qwen3_core.tokenizer import PUBLISHED_SUFFIX, Qwen3Tokenizer
from tests.conftest import TINY
from tests.reference import HEAD, TAIL, TASK

QUERY, DOCUMENT = "How is data stored?", " \n{{ odd }} {% text %}\n"
MESSAGES = [{"role": "query", "content": QUERY}, {"role": "document", "content": DOCUMENT}]


@pytest.fixture
def render(tokenizer_file):
    """Renders as transformers and vLLM do, text or ids."""
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(tokenizer_file))
    template = TEMPLATE_FILE.read_text(encoding="utf-8")

    def render(messages=MESSAGES, tokenize=False, **names):
        return tokenizer.apply_chat_template(
            messages, chat_template=template, tokenize=tokenize, return_dict=False, **names
        )

    return render


def test_default_instruction(render):
    expected = f"{HEAD}<Instruct>: {TASK}\n<Query>: {QUERY}\n<Document>: {DOCUMENT}{TAIL}"
    assert render() == expected


@pytest.mark.parametrize("name", ["instruction", "instruct", "system"])
def test_instruction_from_wherever_a_server_puts_it(render, name):
    task = TASKS["fact_check"]
    expected = rerank_prompt(task, QUERY, DOCUMENT)
    if name == "system":
        assert render([{"role": "system", "content": task}, *MESSAGES]) == expected
    else:
        assert render(**{name: task}) == expected


def test_ids_are_those_of_the_encoder(render, tokenizer_file):
    tokenizer = Qwen3Tokenizer(tokenizer_file.read_text(encoding="utf-8"))
    (row,), _ = tokenizer.rerank_documents([DOCUMENT], 500)
    ids = tuple(render(tokenize=True))
    assert ids == tokenizer.rerank_prefix(TASK, QUERY) + row
    assert ids[-len(tokenizer.rerank_suffix) :] == tokenizer.rerank_suffix
    if TINY not in tokenizer_file.parents:
        assert ids[-len(PUBLISHED_SUFFIX) :] == PUBLISHED_SUFFIX
