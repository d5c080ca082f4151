"""Results as HTML. Every text goes through `html.escape`: documents and answers are untrusted."""

import re
from collections.abc import Sequence
from html import escape

from qwen3_core.citations import find_citations
from qwen3_retrieval.demo.passages import Passage
from qwen3_retrieval.demo.search import Result


def comparison(result: Result, top_n: int) -> str:
    """Both columns side by side, with lines from each passage's place to its new one.

    Args:
        result: The result of a search.
        top_n: Number of passages for the LLM; the others are dimmed in the second column.
    """
    n = len(result.candidates)
    dense = "".join(
        _row(place, passage, f"{score:.3f}", score)
        for place, (passage, score) in enumerate(
            zip(result.candidates, result.similarities, strict=True), start=1
        )
    )
    reranked, lines = "", ""
    for place, ranked in enumerate(result.ranking, start=1):
        gain = ranked.index + 1 - place
        way = "up" if gain > 0 else "down" if gain < 0 else "same"
        classes = way if place <= top_n else f"{way} rest"
        lines += (
            f'<path class="{classes}" vector-effect="non-scaling-stroke" d="M0 {ranked.index + 0.5}'
            f' C50 {ranked.index + 0.5} 50 {place - 0.5} 100 {place - 0.5}"/>'
        )
        mark = {"up": f"▲ {gain}", "down": f"▼ {-gain}", "same": "="}[way]
        words = {"up": f"up {gain}", "down": f"down {-gain}", "same": "same place"}[way]
        move = f'<span class="move {way}" role="img" aria-label="{words}">{mark}</span>'
        score = f'<span title="log-odds {ranked.log_odds:+.2f}">{ranked.score:.3f}</span>'
        passage = result.candidates[ranked.index]
        kept = "" if place <= top_n else "rest"
        reranked += _row(place, passage, f"{move} {score}", ranked.score, kept)
    return (
        f'<div class="q3-columns" style="--n:{n}">'
        f'<section><h2>Dense search <small>cosine</small></h2><ol class="dense">{dense}</ol>'
        '</section><svg class="q3-moves" aria-hidden="true" preserveAspectRatio="none" '
        f'viewBox="0 0 100 {n}">{lines}</svg>'
        "<section><h2>Reranked <small>probability</small></h2>"
        f'<ol class="reranked">{reranked}</ol></section></div>'
    )


def timings(seconds: dict[str, float]) -> str:
    """One line with the duration of each stage."""
    parts = (f"<span>{escape(stage)} <b>{_time(s)}</b></span>" for stage, s in seconds.items())
    return f'<p class="q3-timings">{"".join(parts)}</p>'


def answered(text: str, passages: Sequence[Passage]) -> str:
    """An answer with citations as links to the passages below; cited ones are marked and open."""
    body, behind = "", 0
    numbers: list[int] = []
    for citation in find_citations(text, len(passages)):
        numbers += citation.numbers
        body += escape(text[behind : citation.begin])
        body += _linked(text[citation.begin : citation.end], citation.numbers)
        behind = citation.end
    body += escape(text[behind:])
    return (
        f'<section class="q3-answer"><h2>Answer</h2><p class="text">{body}</p>'
        f"<h3>Passages it was given</h3>{_passages(passages, numbers)}</section>"
    )


def unanswered(passages: Sequence[Passage], reason: str) -> str:
    """The passages in the LLM's prompt, and the reason why there is no answer."""
    return (
        f'<section class="q3-answer"><h2>For the LLM</h2><p class="note">{escape(reason)}</p>'
        f"{_passages(passages, [1])}</section>"
    )


def notice(text: str, *, error: bool = False) -> str:
    """One sentence for the user."""
    kind, role = ("q3-error", "alert") if error else ("q3-notice", "status")
    return f'<p class="{kind}" role="{role}">{escape(text)}</p>'


def _row(place: int, passage: Passage, score: str, share: float, kind: str = "") -> str:
    body = " ".join(passage.text.split())
    title = passage.title
    rest = body.partition(title)[2].strip() or passage.source
    return (
        f'<li class="{kind}" title="{escape(passage.source)}"><span class="place">{place}</span>'
        f'<div class="what"><b>{escape(title[:200])}</b><span>{escape(rest[:200])}</span></div>'
        f'<div class="score">{score}<i style="--share:{min(1.0, max(0.0, share)):.3f}"></i></div>'
        "</li>"
    )


def _linked(bracket: str, numbers: Sequence[int]) -> str:
    """A citation with its numbers as links to their passages."""
    return "".join(
        f'<a href="#q3-passage-{int(part)}">{part}</a>'
        if part.isdecimal() and int(part) in numbers
        else escape(part)
        for part in re.split(r"(\d+)", bracket)
    )


def _passages(passages: Sequence[Passage], opened: Sequence[int]) -> str:
    return "".join(
        f'<details id="q3-passage-{n}"{" open" if n in opened else ""}><summary>'
        f"<b>[{n}]</b> {escape(p.title[:200])} <small>{escape(p.source)}</small></summary>"
        f"<pre>{escape(p.text)}</pre></details>"
        for n, p in enumerate(passages, start=1)
    )


def _time(seconds: float) -> str:
    if seconds >= 1:
        return f"{seconds:.1f} s"
    return f"{seconds * 1000:.{0 if seconds >= 0.01 else 1}f} ms"
