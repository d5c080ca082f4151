"""The literal prompts of the Qwen3 embedding and reranking models, and their task instructions.

The prompts are written out here, not taken from a checkpoint's chat template: that template changed
upstream, and common copies of it lack the final newline, which shifts every score.

Sources: the README and the examples of https://github.com/QwenLM/Qwen3-Embedding; the task
sentences are those of its evaluation (task_prompts.json).

The reranker's prompt is also in `qwen3_core/remote/qwen3_reranker.jinja` and
`qwen3_core/tiny/reranker/chat_template.jinja`, for other programs: tests compare them.
"""

import re
from typing import Final

from qwen3_core.common.validation import ArgumentError

END_OF_TEXT: Final = "<|endoftext|>"
IM_START: Final = "<|im_start|>"
IM_END: Final = "<|im_end|>"
THINK: Final = "<think>"
END_THINK: Final = "</think>"

PROMPT_TOKENS: Final = (END_OF_TEXT, IM_START, IM_END, THINK, END_THINK)
"""The control tokens in the prompts."""

CONTROL_TOKENS: Final = (
    *PROMPT_TOKENS,
    *("<|object_ref_start|>", "<|object_ref_end|>", "<|box_start|>", "<|box_end|>"),
    *("<|quad_start|>", "<|quad_end|>", "<|vision_start|>", "<|vision_end|>", "<|vision_pad|>"),
    *("<|image_pad|>", "<|video_pad|>", "<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>"),
    *("<|fim_pad|>", "<|repo_name|>", "<|file_sep|>"),
    *("<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>"),
)
"""All strings that the published models' tokenizer reads as one control token each (`added_tokens`
of its tokenizer.json)."""

RERANK_SYSTEM: Final = (
    "Judge whether the Document meets the requirements based on the Query and the Instruct "
    'provided. Note that the answer can only be "yes" or "no".'
)

RERANK_HEAD: Final = f"{IM_START}system\n{RERANK_SYSTEM}{IM_END}\n{IM_START}"
"""The beginning of the reranker's prompt, before `rerank_question`."""

RERANK_SUFFIX: Final = f"{IM_END}\n{IM_START}assistant\n{THINK}\n\n{END_THINK}\n\n"
"""The end of the reranker's prompt, after the document."""

DEFAULT_TASK: Final = "web_search"

TASKS: Final[dict[str, str]] = {
    "web_search": "Given a web search query, retrieve relevant passages that answer the query",
    "question_answering": "Given a question, retrieve Wikipedia passages that answer the question",
    "multi_hop": "Given a multi-hop question, retrieve documents that can help answer the question",
    "finance": "Given a financial question, retrieve user replies that best answer the question",
    "scientific_claim": (
        "Given a scientific claim, retrieve documents that support or refute the claim"
    ),
    "fact_check": "Given a claim, retrieve documents that support or refute the claim",
    "covid": "Given a query on COVID-19, retrieve documents that answer the query",
    "medical": ("Given a question, retrieve relevant documents that best answer the question"),
    "citation": (
        "Given a scientific paper title, retrieve paper abstracts that are cited by the given paper"
    ),
    "duplicate_question": (
        "Given a question, "
        "retrieve questions that are semantically equivalent to the given question"
    ),
    "forum_duplicate": (
        "Given a question, retrieve detailed question descriptions from Stackexchange "
        "that are duplicates to the given question"
    ),
    "chinese_web_search": (
        "Given a Chinese search query, retrieve web passages that answer the question"
    ),
    "chinese_medical": (
        "Given a Chinese community medical question, retrieve replies that best answer the question"
    ),
    "e_commerce": (
        "Given a user query from an e-commerce website, "
        "retrieve description sentences of relevant products"
    ),
    "code_problem": (
        "Given a question about code problem, retrieval code that can solve user's problem"
    ),
    "code_question": (
        "Given a question about coding, retrieval code or passage that can solve user's question"
    ),
    "code_comment": (
        "Given a code comment, retrieve the code snippet corresponding to that comment."
    ),
    "text_to_sql": (
        "Given a user's question, "
        "retrieve SQL queries that are appropriate responses to the question"
    ),
    "legal": "Identifying the most relevant statutes for a given situation",
    "similarity": "Retrieve semantically similar text",
    "parallel_text": "Retrieve parallel sentences",
}
"""Task name -> instruction, word for word as in the official evaluation (spelling included)."""


_TEMPLATE_PART = re.compile(
    r"^\s*<?instruct>?\s*[:\uff1a]|^\s*<?query>?\s*[:\uff1a].*", re.IGNORECASE | re.MULTILINE
)
"""Parts of the prompt template that an instruction contains if it was copied from a model card."""


def resolve_instruction(instruction: str | None) -> str:
    """Return the instruction sentence for a task name, a sentence, or None.

    Args:
        instruction: None for the official default (`TASKS["web_search"]`), a name in `TASKS`, or a
            sentence in any language (English is what the models were mostly trained on).

    Raises:
        TypeError: If it is neither None nor a string.
        ValueError: If it is blank, is a single word that is not a task name (probably a typo), or
            contains a part of the prompt template ("Instruct:", "Query:"), which would occur twice.
    """
    if instruction is None:
        return TASKS[DEFAULT_TASK]
    if not isinstance(instruction, str):
        msg = f"instruction must be a string or None, got {type(instruction).__name__}"
        raise TypeError(msg)
    if instruction in TASKS:
        return TASKS[instruction]
    if not instruction.strip():
        msg = "instruction is blank: pass None for the default, a task name, or a sentence"
        raise ArgumentError(msg, "instruction")
    if _TEMPLATE_PART.search(instruction):
        msg = (
            'instruction contains the prompt template ("Instruct:", "Query:"), which is added to '
            f"it: pass the sentence alone, {_TEMPLATE_PART.sub('', instruction).strip()!r:.200}"
        )
        raise ArgumentError(msg, "instruction")
    if re.fullmatch(r"[A-Za-z0-9_-]+", instruction):
        msg = (
            f"unknown task name {instruction!r}: use one of {', '.join(TASKS)}, "
            "or write the instruction as a sentence"
        )
        raise ArgumentError(msg, "instruction")
    return instruction


def query_prefix(instruction: str) -> str:
    r"""The part of an embedding query's prompt that all queries with this instruction share.

    The prompt is `Instruct: {instruction}\nQuery:{query}`, without a space. The tokenizer joins
    the colon with the next word (`:What`), so the colon belongs to `query_text`.
    """
    return f"Instruct: {instruction}\nQuery"


def query_text(query: str) -> str:
    """The part of an embedding query's prompt that follows `query_prefix`."""
    return f":{query}"


def rerank_question(instruction: str, query: str) -> str:
    """The user turn of the reranker's prompt up to the document, shared by all documents."""
    return f"user\n<Instruct>: {instruction}\n<Query>: {query}\n<Document>:"


def rerank_prefix_text(instruction: str, query: str) -> str:
    """The reranker's prompt up to the document, as one string."""
    return RERANK_HEAD + rerank_question(instruction, query)


def rerank_document(document: str) -> str:
    """The document's part of the reranker's prompt.

    It begins with the space, because the tokenizer joins the space with the first word.
    """
    return f" {document}"


def rerank_prompt(instruction: str, query: str, document: str) -> str:
    """The reranker's whole prompt, as one string."""
    return rerank_prefix_text(instruction, query) + rerank_document(document) + RERANK_SUFFIX
