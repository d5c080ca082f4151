"""The report as one HTML page that loads nothing: what page.html shows of a report."""

import hashlib
from base64 import b64encode
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from qwen3_retrieval.comparison import Move, by_first_stage, by_reranker
from qwen3_retrieval.evaluation import plots
from qwen3_retrieval.evaluation.dataset import Passage
from qwen3_retrieval.evaluation.result import Report, View, candidates_of
from qwen3_retrieval.evaluation.settings import CUT
from qwen3_retrieval.evaluation.significance import LEVEL
from qwen3_retrieval.evaluation.wording import STAGES, milliseconds, power, recommended_rows, size
from qwen3_retrieval.pages import render as render_template

if TYPE_CHECKING:
    from markupsafe import Markup

POLICY: Final = (
    "default-src 'none'; base-uri 'none'; form-action 'none'; style-src 'unsafe-inline'; "
    "script-src 'sha256-{}'"
)
"""Content security policy: a browser loads nothing and runs only the page's own script, by its
digest, whatever a passage's text contains."""


def write_html(report: Report, path: str | Path) -> None:
    """Write a report as a self-contained HTML page, which needs no network."""
    Path(path).write_text(render(report), encoding="utf-8")


def render(report: Report) -> str:
    """The page."""
    script = files("qwen3_retrieval.evaluation").joinpath("page.js").read_text("utf-8")
    digest = b64encode(hashlib.sha256(script.encode()).digest()).decode()
    metrics = list(report.systems[0].metrics)
    return render_template(
        "evaluation/page.html",
        report=report,
        policy=POLICY.format(digest),
        script=_own(script),
        candidates=candidates_of(report.systems),
        best={m: max(system.metrics[m].mean for system in report.systems) for m in metrics},
        timed=max(system.latency["total"].questions for system in report.systems),
        recommended={}
        if report.recommendation is None
        else recommended_rows(report.recommendation),
        plots={name: _own(svg) for name, svg in _plots(report, metrics[0]).items()},
        score_plots=[_own(plots.scores_plot(each)) for each in report.distributions],
        k=_k(report),
        cut=CUT,
        level=LEVEL,
        power=power(report),
        stages=list(STAGES),
        views=[_columns(view) for view in report.views],
        texts={move.passage.id: move.passage.text for view in report.views for move in view.moves},
        milliseconds=milliseconds,
        size=size,
    )


def _own(markup: str) -> "Markup":
    """Markup of our own, not to be escaped: the script, and plots; matplotlib escapes texts."""
    from markupsafe import Markup

    return Markup(markup)  # noqa: S704


def _plots(report: Report, metric: str) -> dict[str, str]:
    found = {"systems": plots.systems_plot(report.systems, metric)}
    if report.sweep is not None:
        points, recommended = report.sweep.points, report.recommendation
        found["frontier"] = plots.frontier_plot(points, recommended)
        found["dimensions"] = plots.dimensions_plot(points, _k(report))
        found["top_n"] = plots.top_n_plot(report.sweep.top_n, recommended)
    return found


def _k(report: Report) -> int:
    """Candidates of the points that vary the dimensions; 0 without a sweep."""
    points = [] if report.sweep is None else report.sweep.points
    return next((point.setting.k for point in points if point.axis == "dimensions"), 0)


def _columns(view: View) -> dict[str, Any]:
    """Of each column the first ten, and the relevant passages that are not among them."""
    left = [m for m in by_first_stage(view.moves) if (m.before or 0) <= CUT or m.relevant]
    right = [m for m in by_reranker(view.moves) if (m.after or 0) <= CUT or m.relevant]
    return {
        "view": view,
        "kind": "worse" if view.change < 0 else "better" if view.change > 0 else "same",
        "left": left,
        "right": right,
        "shown": _passages(right + left),
        "missing": _passages([move for move in view.moves if move.before is None]),
    }


def _passages(moves: Sequence[Move[Passage]]) -> list[Passage]:
    return list({move.passage.id: move.passage for move in moves}.values())
