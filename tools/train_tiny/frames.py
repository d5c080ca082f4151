"""The literal prompts of Qwen3-Embedding and Qwen3-Reranker, and the task sentences trained with.

Source of the frames: the README files of the Qwen/Qwen3-Embedding-0.6B and Qwen/Qwen3-Reranker-0.6B
model cards ("Transformers" usage).
"""

DEFAULT_TASK = "Given a web search query, retrieve relevant passages that answer the query"

#: Other instructions seen in training, so that a caller's own sentence does no harm.
OTHER_TASKS = (
    "Given a question, retrieve passages that answer the question",
    "Given a query about software documentation, retrieve the section that answers it",
    "Retrieve relevant documents for the query",
    "Find the passage that best matches the query",
    "Given a technical question, retrieve relevant documentation",
    "Given a claim, retrieve documents that support or refute the claim",
)

RERANK_PREFIX = (
    "<|im_start|>system\nJudge whether the Document meets the requirements based on the Query and "
    'the Instruct provided. Note that the answer can only be "yes" or "no".<|im_end|>\n'
    "<|im_start|>user\n"
)
RERANK_SUFFIX = "<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"

#: Added tokens of the vocabulary, with their ``special`` flag as in the Qwen3 tokenizer.
CONTROL_TOKENS = {
    "<|endoftext|>": True,
    "<|im_start|>": True,
    "<|im_end|>": True,
    "<think>": False,
    "</think>": False,
}


def query_prefix(task: str) -> str:
    """What precedes a query that is embedded; empty without an instruction."""
    return f"Instruct: {task}\nQuery:" if task else ""


def rerank_head(task: str) -> str:
    """What precedes the query in the reranker's frame; the query's side starts with a space."""
    return f"{RERANK_PREFIX}<Instruct>: {task}\n<Query>:"


def rerank_chat_template() -> str:
    """Jinja template with the roles ``system`` (the task), ``query`` and ``document``.

    Renders the published frame exactly; sentence-transformers' ``CrossEncoder`` calls it. The
    frame's end is an expression, because Jinja drops a newline that ends a template's own text.
    """
    head, suffix = RERANK_PREFIX.replace("\n", "\\n"), RERANK_SUFFIX.replace("\n", "\\n")
    return (
        f"{{%- set ns = namespace(task='{DEFAULT_TASK}', query='', document='') -%}}\n"
        "{%- for message in messages -%}\n"
        "  {%- if message.role == 'system' -%}{%- set ns.task = message.content -%}\n"
        "  {%- elif message.role == 'query' -%}{%- set ns.query = message.content -%}\n"
        "  {%- elif message.role == 'document' -%}{%- set ns.document = message.content -%}\n"
        "  {%- endif -%}\n"
        "{%- endfor -%}\n"
        f"{{{{- '{head}<Instruct>: ' + ns.task + '\\n<Query>: ' + ns.query + '\\n<Document>: ' + "
        f"ns.document + '{suffix}' -}}}}"
    )
