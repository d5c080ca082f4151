"""The report as one HTML page that loads nothing."""

import json
from collections.abc import Iterable, Sequence
from html import escape
from importlib.resources import files

from qwen3_retrieval.evaluation import plots
from qwen3_retrieval.evaluation.metrics import Comparison, Estimate
from qwen3_retrieval.evaluation.result import (
    Data,
    Distribution,
    Move,
    Recommendation,
    Report,
    System,
    View,
    candidates_of,
)
from qwen3_retrieval.evaluation.settings import CUT
from qwen3_retrieval.evaluation.sweep import recommended_rows
from qwen3_retrieval.evaluation.terminal import STAGES, milliseconds, moved
from qwen3_retrieval.evaluation.views import change

POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'"
"""Content security policy: a browser loads nothing, whatever a passage's text contains."""


def render(report: Report) -> str:
    """The page."""
    data = report.data
    parts = [
        f"<h1>Retrieval on {escape(data.name)}</h1>",
        f'<p class="muted">{_facts(report)}</p>',
        _synthetic(data),
        _recommendation(report.recommendation),
        _systems(report),
        _comparisons(report.comparisons),
        _sweep(report),
        "".join(_distribution(each) for each in report.distributions),
        _questions(report),
        _notes(data),
    ]
    texts = {move.passage: move.text for view in report.views for move in view.moves}
    # In a script element only "</" and "<!--" have a meaning.
    described = json.dumps(texts, ensure_ascii=False).replace("<", "\\u003c")
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{POLICY}">
<title>Retrieval on {escape(data.name)}</title>
<style>
{_part("page.css")}</style>
</head>
<body>
{"".join(parts)}
<script type="application/json" id="texts">{described}</script>
<script>
{_part("page.js")}</script>
</body>
</html>
"""


def _part(name: str) -> str:
    return files("qwen3_retrieval.evaluation").joinpath(name).read_text("utf-8")


def _facts(report: Report) -> str:
    data = report.data
    tokens = "" if data.tokens is None else f" ({data.tokens:,} tokens, longest {data.longest:,})"
    judged = "" if data.units == data.passages else f" of {data.units:,} sections or files"
    return escape(
        f"{data.passages:,} passages{tokens}{judged}, {len(data.questions):,} questions. "
        f"{report.created}, {report.machine}, {report.seconds:,.0f} s, "
        f"qwen3-retrieval {report.version}."
    )


def _synthetic(data: Data) -> str:
    if not data.synthetic:
        return ""
    how = (
        "made from headings; each heading was taken out of the text that it stands over"
        if data.synthetic == "headings"
        else f"written by {escape(data.synthetic)}, each from the passage that counts as its answer"
    )
    return (
        f'<div class="card notice"><b>These questions are synthetic</b>: {how}. Nobody asked them. '
        "They tell settings apart better than they tell how well your users are served: bring "
        "real questions before you decide.</div>"
    )


def _recommendation(found: Recommendation | None) -> str:
    if found is None:
        return ""
    cells = "".join(
        f"<div><dt>{name}</dt><dd>{escape(value)}</dd></div>"
        for name, value in recommended_rows(found).items()
    )
    return (
        f'<div class="card"><h2 style="margin-top:0">Recommended</h2>'
        f'<dl class="setting">{cells}</dl><p>{escape(found.reason)}</p></div>'
    )


def _systems(report: Report) -> str:
    metrics = list(report.systems[0].metrics)
    best = {m: max(system.metrics[m].mean for system in report.systems) for m in metrics}
    quality = [
        [
            escape(system.name) + _unmatched(system),
            *(_estimate(system.metrics[m], best[m], detailed=m == metrics[0]) for m in metrics),
        ]
        for system in report.systems
    ]
    cost = []
    for system in report.systems:
        total = system.latency["total"]
        cost.append(
            [
                escape(system.name),
                *(
                    milliseconds(system.latency[s].p50) if s in system.latency else ""
                    for s in STAGES
                ),
                milliseconds(total.p50),
                milliseconds(total.p95),
                "" if system.tokens is None else f"{system.tokens:,.0f}",
                "" if system.index_bytes is None else _bytes(system.index_bytes),
            ]
        )
    timed = max(system.latency["total"].questions for system in report.systems)
    return "".join(
        [
            "<h2>Systems side by side</h2>",
            _text(
                "Where two lines overlap widely, the two systems may well be equal; whether they "
                f"differ is said below. {candidates_of(report.systems)}"
            ),
            _scroll(plots.systems_plot(report.systems, metrics[0]), "systems"),
            _table(["system", *metrics], quality),
            _text(
                f"Time of one question alone, in milliseconds, over {timed} questions; stages are "
                "medians. Tokens are those of query and passages that the models read."
            ),
            _table(["system", *STAGES, "all, p50", "all, p95", "tokens", "index"], cost),
        ]
    )


def _unmatched(system: System) -> str:
    if not system.unmatched:
        return ""
    return f"<br><small>{system.unmatched:.0%} of its results are in no passage</small>"


def _estimate(value: Estimate, best: float, *, detailed: bool) -> str:
    text = f"{value.mean:.3f}"
    if value.mean == best:
        text = f'<strong class="best">{text}</strong>'
    return text + (f" <small>{value.low:.3f}–{value.high:.3f}</small>" if detailed else "")


def _comparisons(found: Sequence[Comparison]) -> str:
    if not found:
        return ""
    rows = []
    for each in sorted(found, key=lambda each: each.p):
        value, differ = each.difference, each.p < 0.05
        rows.append(
            [
                escape(f"{each.first} → {each.second}"),
                f"{value.mean:+.3f} <small>{value.low:+.3f} to {value.high:+.3f}</small>",
                str(each.better),
                str(each.worse),
                f"{each.p:.4f}",
                "<b>differ</b>" if differ else "may be equal",
            ]
        )
    head = ["pair", f"change in {found[0].metric}", "better on", "worse on", "p", ""]
    return (
        "<h2>Do they differ?</h2><p>The change from the first to the second, question by question. "
        "p is of a paired randomisation test, corrected by Holm for all pairs: below 0.05 the two "
        f"differ.</p><details><summary>{sum(each.p < 0.05 for each in found)} of {len(rows)} pairs "
        f"differ</summary>{_table(head, rows)}</details>"
    )


def _sweep(report: Report) -> str:
    if report.sweep is None:
        return ""
    found, recommended = report.sweep, report.recommendation
    k = next(p.setting.k for p in found.points if p.axis == "dimensions")
    rows = [
        [
            escape(point.axis),
            escape(point.name),
            _estimate(point.ndcg, max(p.ndcg.mean for p in found.points), detailed=True),
            f"{point.recall:.3f}",
            milliseconds(point.latency.p50),
            _bytes(point.index_bytes),
            "●" if point.frontier else "",
        ]
        for point in found.points
    ]
    head = ["turned", "setting", "nDCG@10", "recall of its k", "p50 ms", "index", "frontier"]
    chosen = {i for i, point in enumerate(found.points) if point.axis == "recommended"}
    return "".join(
        [
            "<h2>Quality against latency</h2>",
            _text(
                f"Each point is a setting, asked {found.questions} questions. Nothing that was "
                "tried is both faster and better than what is on the dashed frontier; what lies "
                "below it is not worth its time here."
            ),
            _scroll(plots.frontier_plot(found.points, recommended), "quality against latency"),
            "<h2>Dimensions</h2>",
            _text(
                f"Vectors cut to fewer dimensions, dense search alone. As long as recall@{k} "
                "holds, a reranker gets the same candidates from a smaller index."
            ),
            _scroll(plots.dimensions_plot(found.points, k), "recall against dimensions"),
            "<h2>Passages for the prompt</h2>",
            _text(
                "How many of the results the LLM should see: each one costs tokens, and where the "
                "curve is flat it brings nothing."
            ),
            _scroll(plots.top_n_plot(found.top_n, recommended), "hits against top_n"),
            "<h2>All settings tried</h2>",
            _table(head, rows, chosen, text=(1,)),
        ]
    )


def _distribution(found: Distribution) -> str:
    rows = [[f"{t.score:g}", f"{t.relevant:.0%}", f"{t.other:.0%}"] for t in found.thresholds]
    chosen = {i for i, t in enumerate(found.thresholds) if t.score == found.suggested}
    if found.score == "cosine":
        title = "Cosines"
        text = "The first stage's score. Where the two overlap, no threshold on it parts them."
    else:
        title = "Scores, for choosing score_threshold"
        text = (
            "A threshold drops what scores below it. Few relevant passages should be left of it. "
            "Passages that nobody judged count as others, so some of those may be right."
        )
    table = (
        _table(["score_threshold", "relevant kept", "others kept"], rows, chosen) if rows else ""
    )
    plot = _scroll(plots.scores_plot(found), f"{found.score} of relevant and other candidates")
    return f"<h2>{title}</h2><p>{escape(found.system)}. {text}</p>{plot}{table}"


def _questions(report: Report) -> str:
    if report.compared is None:
        return ""
    before, after = report.compared
    kinds = [_kind(view) for view in report.views]
    buttons = "".join(
        f'<button type="button" data-kind="{kind}" aria-pressed="{str(kind == "all").lower()}">'
        f"{label} {len(kinds) if kind == 'all' else kinds.count(kind)}</button>"
        for kind, label in (
            ("all", "all"),
            ("worse", "worse"),
            ("better", "better"),
            ("same", "the same"),
        )
    )
    views = "".join(
        _view(view, kind, before, after) for view, kind in zip(report.views, kinds, strict=True)
    )
    return (
        f"<h2>Question by question</h2><p>{escape(before)} against {escape(after)}, by what "
        f"reranking did to nDCG@{CUT}: the worst regressions first. What answers the question is "
        "marked; open one to see what moved.</p>"
        f'<nav>{buttons}<input id="search" type="search" placeholder="Find a question" '
        f'aria-label="Find a question"><span class="muted" id="count"></span></nav>{views}'
    )


def _kind(view: View) -> str:
    return "worse" if change(view) < 0 else "better" if change(view) > 0 else "same"


def _view(view: View, kind: str, before: str, after: str) -> str:
    colour = {"worse": "down", "better": "up", "same": ""}[kind]
    # The first ten, and the relevant passages that are not among them.
    old = {m.before: m for m in view.moves if m.before and (m.before <= CUT or m.relevant)}
    new = {m.after: m for m in view.moves if m.after and (m.after <= CUT or m.relevant)}
    missing = [m for m in view.moves if m.before is None and m.after is None]
    lost = (
        f"<div><h3>Relevant, but not among the candidates</h3>"
        f"<ol>{''.join(_move(m, 0) for m in missing)}</ol></div>"
        if missing
        else ""
    )
    return (
        f'<details class="question" data-kind="{kind}"><summary>'
        f'<span class="asked">{escape(view.question)}</span>'
        f'<span class="change {colour}">{view.before or 0:.2f} → {view.after or 0:.2f}</span>'
        f'</summary><div class="orders"><div><h3>{escape(before)}</h3>{_list(old, moves=False)}'
        f"</div><div><h3>{escape(after)}</h3>{_list(new, moves=True)}</div>{lost}</div></details>"
    )


def _list(ranked: dict[int, Move], *, moves: bool) -> str:
    items = (_move(move, rank, shown=moves) for rank, move in sorted(ranked.items()))
    return f"<ol>{''.join(items)}</ol>"


def _move(move: Move, rank: int, *, shown: bool = False) -> str:
    text = moved(move)
    colour = {"▲": "up", "▼": "down"}.get(text[0], "")
    place = f"<b>{rank}</b>" if rank else ""
    how = f'<span class="{colour}">{text}</span>' if shown else ""
    score = f"<span>{move.score:.3f}</span>" if shown and move.score is not None else ""
    return (
        f"<li{_class('relevant', move.relevant)}><header>{place}"
        f"<span>{escape(move.source)}</span>{how}{score}</header>"
        f'<p data-text="{escape(move.passage)}"></p></li>'
    )


def _notes(data: Data) -> str:
    if not data.notes:
        return ""
    items = "".join(f"<li>{escape(note)}</li>" for note in data.notes)
    return f"<h2>Notes on the data</h2><ol>{items}</ol>"


def _bytes(size: int) -> str:
    return f"{size / 1e6:,.1f} MB" if size >= 1e6 else f"{size / 1e3:,.0f} kB"


def _text(words: str) -> str:
    return f"<p>{escape(words)}</p>"


def _class(name: str, given: bool) -> str:
    return f' class="{name}"' if given else ""


def _scroll(content: str, label: str = "") -> str:
    named = f' role="img" aria-label="{escape(label)}"' if label else ""
    return f'<div class="scroll"{named}>{content}</div>'


def _table(
    head: Sequence[str],
    rows: Iterable[Sequence[str]],
    chosen: Iterable[int] = (),
    text: Sequence[int] = (),
) -> str:
    """A table; cells are HTML already, the header is escaped here."""
    marked = set(chosen)

    titles = "".join(
        f"<th{_class('text', i in text)}>{escape(name)}</th>" for i, name in enumerate(head)
    )
    body = "".join(
        f"<tr{_class('chosen', n in marked)}>"
        + "".join(f"<td{_class('text', i in text)}>{cell}</td>" for i, cell in enumerate(row))
        + "</tr>"
        for n, row in enumerate(rows)
    )
    return _scroll(f"<table><thead><tr>{titles}</tr></thead><tbody>{body}</tbody></table>")
