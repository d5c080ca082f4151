"""What is done with texts before a model reads them, here or on a server: windows and cuts."""

import asyncio
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import TypeVar

from qwen3_core.tokenizer import Ids, Qwen3Tokenizer

T = TypeVar("T")

WINDOW_CHARACTERS = 2**17
"""Text that one call tokenises and submits at a time, about 30,000 tokens of English. Two such
windows are under way, so that memory does not grow with the number of documents."""

INLINE_CHARACTERS = 500
"""Text that a coroutine tokenises by itself, in about 0.1 ms; handing it to a thread costs as much.
An event loop may begin hundreds of calls in one round."""

QUERY_SHARE = 0.5
"""Share of `max_length` that a query may take before it is cut, so that it never pushes the
document out."""


def windows(texts: Sequence[str]) -> Iterator[slice]:
    """Consecutive slices of about `WINDOW_CHARACTERS` each, of one text at least."""
    begin, size = 0, 0
    for end, text in enumerate(texts):
        if size and size + len(text) > WINDOW_CHARACTERS:
            yield slice(begin, end)
            begin, size = end, 0
        size += len(text)
    if begin < len(texts):
        yield slice(begin, len(texts))


async def in_thread_if_long(size: int, function: Callable[[], T]) -> T:
    """Call a function that tokenises `size` characters without holding up the event loop."""
    return function() if size <= INLINE_CHARACTERS else await asyncio.to_thread(function)


def by_query(pairs: Sequence[tuple[str, str]], window: slice) -> dict[str, list[int]]:
    """The positions of a window's (query, document) pairs, by query."""
    found: dict[str, list[int]] = {}
    for i in range(window.start, window.stop):
        found.setdefault(pairs[i][0], []).append(i)
    return found


def check_instruction(tokens: int, max_length: int) -> None:
    """Raise ValueError if an instruction of so many tokens leaves too little for the query."""
    if tokens > max_length // 2:
        msg = (
            f"the instruction takes {tokens} of max_length={max_length} tokens, more than half: "
            "shorten it or raise max_length"
        )
        raise ValueError(msg)


def texts_cut(cut: Sequence[int], what: str, max_length: int) -> str:
    """What to say when the texts at these positions are not read to their end.

    It is said before the texts behind them are looked at, which may be longer too.
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
    """The query, cut to its share of `max_length` if it is longer, and all ids before a document.

    Args:
        tokenizer: The model's.
        instruction: The sentence in force.
        query: What is asked.
        max_length: Tokens of the whole prompt.
        warn: Called with what to say if it is cut.

    Raises:
        ValueError: If frame, instruction and query leave no room for a document.
    """
    prefix = tokenizer.rerank_prefix(instruction, query)
    limit = int(max_length * QUERY_SHARE)
    frame = tokenizer.rerank_frame_length(instruction)
    if max_length - limit - frame < 1:
        msg = (
            f"max_length={max_length} leaves no room for a document: the frame and the "
            f"instruction take {frame} tokens and the query may take {limit}; "
            "raise max_length or shorten the instruction"
        )
        raise ValueError(msg)
    length = len(prefix) + len(tokenizer.rerank_suffix) - frame
    if length <= limit:
        return query, prefix
    warn(
        f"the query takes {length} tokens; only the first {limit}, half of "
        f"max_length={max_length}, are read, so that the document keeps its room."
    )
    query = tokenizer.cut_text(query, limit)
    return query, tokenizer.rerank_prefix(instruction, query)


def documents_cut(cut: Collection[int], max_length: int) -> str:
    """What to say when the documents at these positions are not read to their end.

    It is said before all documents are looked at: more may be cut, before these positions too where
    pairs of several queries go to a server.
    """
    return (
        f"at least {len(cut)} of the documents (such as documents[{min(cut)}]) do not fit into "
        f"max_length={max_length} tokens beside query and instruction; the rest of them is not "
        "read. Split them, or raise max_length."
    )
