"""Preparation of texts for local and remote models: windows and truncation."""

import asyncio
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import TypeVar

from qwen3_core.tokenizer import Ids, Qwen3Tokenizer

T = TypeVar("T")

WINDOW_CHARACTERS = 2**17
"""Characters that one call tokenises and submits at a time, about 30,000 tokens of English. At most
two such windows are in flight, so memory does not grow with the number of documents."""

INLINE_CHARACTERS = 500
"""Characters that a coroutine tokenises itself, in about 0.1 ms; a thread would cost as much. An
event loop may start hundreds of calls in one iteration."""

QUERY_SHARE = 0.5
"""Share of `max_length` that a query may use before it is truncated, so that it always leaves room
for the document."""


def windows(texts: Sequence[str]) -> Iterator[slice]:
    """Consecutive slices of about `WINDOW_CHARACTERS` each, with at least one text."""
    begin, size = 0, 0
    for end, text in enumerate(texts):
        if size and size + len(text) > WINDOW_CHARACTERS:
            yield slice(begin, end)
            begin, size = end, 0
        size += len(text)
    if begin < len(texts):
        yield slice(begin, len(texts))


async def in_thread_if_long(size: int, function: Callable[[], T]) -> T:
    """Call a function that tokenises `size` characters, without blocking the event loop."""
    return function() if size <= INLINE_CHARACTERS else await asyncio.to_thread(function)


def by_query(pairs: Sequence[tuple[str, str]], window: slice) -> dict[str, list[int]]:
    """The positions of a window's (query, document) pairs, by query."""
    found: dict[str, list[int]] = {}
    for i in range(window.start, window.stop):
        found.setdefault(pairs[i][0], []).append(i)
    return found


def check_instruction(tokens: int, max_length: int) -> None:
    """Raise ValueError if an instruction of `tokens` tokens leaves too little for the query."""
    if tokens > max_length // 2:
        msg = (
            f"the instruction takes {tokens} of max_length={max_length} tokens, more than half: "
            "shorten it or raise max_length"
        )
        raise ValueError(msg)


def texts_cut(cut: Sequence[int], what: str, max_length: int) -> str:
    """The warning for truncated texts at these positions.

    It is issued before later texts are examined, so more of them may be truncated.
    """
    return (
        f"at least {len(cut)} of the {what} (first: {what}[{cut[0]}]) are longer than "
        f"max_length={max_length} tokens; the rest of them is not read. "
        "Split them, or raise max_length."
    )


def fit_query(
    tokenizer: Qwen3Tokenizer,
    instruction: str,
    query: str,
    max_length: int,
    warn: Callable[[str], object],
) -> tuple[str, Ids]:
    """Truncate the query to its share of `max_length`; returns it and all ids before a document.

    Args:
        tokenizer: The model's tokenizer.
        instruction: The instruction as a sentence.
        query: The query.
        max_length: Tokens of the whole prompt.
        warn: Called with a warning if the query is truncated.

    Raises:
        ValueError: If template, instruction and query leave no room for a document.
    """
    prefix = tokenizer.rerank_prefix(instruction, query)
    limit = int(max_length * QUERY_SHARE)
    template = tokenizer.rerank_template_length(instruction)
    if max_length - limit - template < 1:
        msg = (
            f"max_length={max_length} leaves no room for a document: the prompt template and "
            f"the instruction take {template} tokens and the query may take {limit}; "
            "raise max_length or shorten the instruction"
        )
        raise ValueError(msg)
    length = len(prefix) + len(tokenizer.rerank_suffix) - template
    if length <= limit:
        return query, prefix
    warn(
        f"the query takes {length} tokens; only the first {limit}, half of "
        f"max_length={max_length}, are read, so that the document keeps its room."
    )
    query = tokenizer.cut_text(query, limit)
    return query, tokenizer.rerank_prefix(instruction, query)


def documents_cut(cut: Collection[int], max_length: int) -> str:
    """The warning for truncated documents at these positions.

    It is issued before all documents are examined. More may be truncated, at earlier positions too
    if pairs of several queries go to a server.
    """
    return (
        f"at least {len(cut)} of the documents (such as documents[{min(cut)}]) do not fit into "
        f"max_length={max_length} tokens beside query and instruction; the rest of them is not "
        "read. Split them, or raise max_length."
    )
