"""Results as HTML, by the macros of results.html."""

import re
from collections.abc import Sequence

from qwen3_core.citations import find_citations
from qwen3_retrieval.comparison import Move, by_first_stage, by_reranker
from qwen3_retrieval.demo.passages import Excerpt
from qwen3_retrieval.pages import render

TEMPLATE = "demo/results.html"


def head(models: str) -> str:
    """The top of the page, with a description of the models."""
    return render(TEMPLATE, "head", models=models)


def comparison(moves: Sequence[Move[Excerpt]], top_n: int) -> str:
    """Both columns side by side, with lines from each passage's place to its new one.

    Args:
        moves: The moves of a question's candidates.
        top_n: Number of passages for the LLM; the others are dimmed in the second column.
    """
    left, right = by_first_stage(moves), by_reranker(moves)
    return render(TEMPLATE, "comparison", left=left, right=right, top_n=top_n)


def timings(seconds: dict[str, float]) -> str:
    """One line with the duration of each stage."""
    return render(TEMPLATE, "timings", seconds=seconds)


def answered(text: str, passages: Sequence[Excerpt]) -> str:
    """An answer with citations as links to the passages below; cited ones are marked and open."""
    parts: list[tuple[str, int | None]] = []
    cited: list[int] = []
    behind = 0
    for citation in find_citations(text, len(passages)):
        cited += citation.numbers
        parts.append((text[behind : citation.begin], None))
        for part in re.split(r"(\d+)", text[citation.begin : citation.end]):
            known = part.isdecimal() and int(part) in citation.numbers
            parts.append((part, int(part) if known else None))
        behind = citation.end
    parts.append((text[behind:], None))
    return render(TEMPLATE, "answered", parts=parts, shown=passages, cited=cited)


def unanswered(passages: Sequence[Excerpt], reason: str) -> str:
    """The passages in the LLM's prompt, and the reason why there is no answer."""
    return render(TEMPLATE, "unanswered", shown=passages, reason=reason)


def notice(text: str, *, error: bool = False) -> str:
    """One sentence for the user."""
    return render(TEMPLATE, "notice", text=text, error=error)
