"""The report's plots: SVG to embed in a page, in the page's own colours, light or dark."""

import io
import re
from collections.abc import Callable, Sequence
from importlib.resources import files
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from qwen3_retrieval.evaluation.result import (
    Distribution,
    Point,
    Recommendation,
    Report,
    System,
    TopN,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLOURS: Final = {
    "--ink": "#010203",
    "--muted": "#010204",
    "--line": "#010205",
    "--blue": "#010206",
    "--orange": "#010207",
    "--green": "#010208",
    "--purple": "#010209",
    "--page": "#01020a",
}
"""CSS variable -> its placeholder while the plot is drawn."""

LOOKS: Final = {
    "BM25": ("--muted", "s"),
    "dense": ("--blue", "o"),
    "hybrid": ("--purple", "D"),
    "dense + rerank": ("--orange", "o"),
    "hybrid + rerank": ("--green", "D"),
}
"""System -> colour and marker."""

INKS: Final = {
    "text.color": "--ink",
    "axes.labelcolor": "--ink",
    "axes.edgecolor": "--line",
    "xtick.color": "--line",
    "ytick.color": "--line",
    "xtick.labelcolor": "--muted",
    "ytick.labelcolor": "--muted",
    "grid.color": "--line",
}


def systems_plot(systems: Sequence[System], metric: str) -> str:
    """The main metric of each system with its interval."""

    def draw(axes: "Axes") -> None:
        rows = list(reversed(systems))
        for y, system in enumerate(rows):
            value = system.metrics[metric]
            colour = COLOURS[_look(system)[0]]
            axes.plot([value.low, value.high], [y, y], color=colour, linewidth=2.5)
            axes.plot(value.mean, y, "o", color=colour, markersize=7)
            axes.annotate(
                f"{value.mean:.3f}",
                (value.mean, y),
                (0, 6),
                textcoords="offset points",
                ha="center",
                fontsize=9,
            )
        axes.set_yticks(range(len(rows)), [system.name for system in rows])
        axes.tick_params(axis="y", labelcolor=COLOURS["--ink"])
        axes.set_ylim(-0.6, len(rows) - 0.3)
        axes.set_xlabel(f"{metric}, mean and 95 % interval")
        axes.grid(axis="x")

    return _figure("systems", draw, 0.9 + 0.42 * len(systems))


def frontier_plot(points: Sequence[Point], recommended: Recommendation | None) -> str:
    """Quality against latency, with the frontier and the recommended setting."""

    def draw(axes: "Axes") -> None:
        points_of: dict[str, list[Point]] = {}
        for point in points:
            points_of.setdefault(_kind(point), []).append(point)
        for kind, own in points_of.items():
            colour, marker = LOOKS[kind]
            x, y = [p.latency.p50 for p in own], [p.ndcg.mean for p in own]
            axes.plot(x, y, marker, color=COLOURS[colour], label=kind, markersize=6, alpha=0.85)
        best = sorted((p for p in points if p.frontier), key=lambda p: p.latency.p50)
        axes.plot(
            [p.latency.p50 for p in best],
            [p.ndcg.mean for p in best],
            drawstyle="steps-post",
            color=COLOURS["--muted"],
            linestyle="--",
            label="frontier",
            zorder=1,
        )
        if recommended is not None:
            axes.plot(
                recommended.p50,
                recommended.ndcg,
                "o",
                markersize=15,
                markerfacecolor="none",
                markeredgecolor=COLOURS["--ink"],
                label="recommended",
            )
        for point in points:
            if point.axis == "k" and point.setting.rerank:
                axes.annotate(
                    f"k {point.setting.k}",
                    (point.latency.p50, point.ndcg.mean),
                    (0, -14),
                    textcoords="offset points",
                    ha="center",
                    fontsize=9,
                    color=COLOURS["--muted"],
                )
        axes.set_xscale("log")
        axes.margins(0.08, 0.15)
        axes.set_xlabel("milliseconds per question, median (logarithmic)")
        axes.set_ylabel("nDCG@10")
        axes.xaxis.set_major_formatter(lambda x, _: f"{x:g}")
        axes.grid()

    return _figure("frontier", draw, 3.6)


def frontier_svg(report: Report) -> str:
    """The plot of quality against latency as SVG on white, for a notebook or a file.

    Raises:
        ValueError: If the sweep was left out.
    """
    if report.sweep is None:
        msg = "without a sweep there is no plot: evaluate with EvaluationSettings(sweep=True)"
        raise ValueError(msg)
    return _on_white(frontier_plot(report.sweep.points, report.recommendation))


def dimensions_plot(points: Sequence[Point], k: int) -> str:
    """Recall and nDCG against the length of the vectors."""
    own = [p for p in points if p.axis == "dimensions"]

    def draw(axes: "Axes") -> None:
        x = [int(point.value) for point in own]
        axes.plot(
            x, [p.recall for p in own], "o-", color=COLOURS["--blue"], label=f"recall@{k}, dense"
        )
        axes.plot(
            x, [p.ndcg.mean for p in own], "s-", color=COLOURS["--orange"], label="nDCG@10, dense"
        )
        axes.fill_between(
            x,
            [p.ndcg.low for p in own],
            [p.ndcg.high for p in own],
            color=COLOURS["--orange"],
            alpha=0.15,
            linewidth=0,
        )
        axes.set_xscale("log", base=2)
        axes.set_xticks(x, [str(width) for width in x])
        axes.minorticks_off()
        axes.set_ylim(0, 1.03)
        axes.set_xlabel("dimensions")
        axes.grid()

    return _figure("dimensions", draw, 3.0)


def top_n_plot(found: Sequence[TopN], recommended: Recommendation | None) -> str:
    """How often the right passage is among the first n."""

    def draw(axes: "Axes") -> None:
        x = range(len(found))
        success, recall = [f.success for f in found], [f.recall for f in found]
        axes.plot(x, success, "o-", color=COLOURS["--green"], label="questions with a hit")
        if success != recall:
            axes.plot(x, recall, "s-", color=COLOURS["--blue"], label="recall")
        if recommended is not None:
            places = [i for i, f in enumerate(found) if f.top_n == recommended.top_n]
            axes.plot(
                places,
                [found[i].success for i in places],
                "o",
                markersize=15,
                markerfacecolor="none",
                markeredgecolor=COLOURS["--ink"],
                label="recommended",
            )
        labels = [
            f"{f.top_n}" + ("" if f.tokens is None else f"\n{f.tokens:,.0f} tokens") for f in found
        ]
        axes.set_xticks(list(x), labels)
        axes.set_ylim(0, 1.05)
        axes.set_xlabel("top_n: passages in the prompt")
        axes.grid()

    return _figure("top-n", draw, 3.0)


def scores_plot(found: Distribution) -> str:
    """Scores of relevant candidates and of the rest, each as a share of its own kind."""

    def draw(axes: "Axes") -> None:
        edges = np.array(found.edges)
        for counts, colour, label in (
            (found.other, "--muted", "other candidates"),
            (found.relevant, "--green", "relevant"),
        ):
            total = max(sum(counts), 1)
            axes.stairs(
                np.array(counts) / total,
                edges,
                fill=True,
                alpha=0.45,
                color=COLOURS[colour],
                label=f"{label} ({sum(counts):,})",
            )
        axes.set_ylabel("share of its kind")
        axes.set_xlabel(found.score)
        if found.score == "log-odds":
            axes.set_xlabel("the reranker's score, 0 to 1 (on a scale of log-odds)")
            scores = [
                s for s in (0.0001, 0.001, 0.01, 0.1, 0.5, 0.9, 0.99, 0.999, 0.9999)
                if edges[0] <= np.log(s / (1 - s)) <= edges[-1]
            ]  # fmt: skip
            axes.set_xticks([np.log(s / (1 - s)) for s in scores], [f"{s:g}" for s in scores])
            if found.suggested is not None and 0 < found.suggested < 1:
                at = np.log(found.suggested / (1 - found.suggested))
                axes.axvline(at, color=COLOURS["--ink"], linestyle="--", linewidth=1.2,
                             label=f"recommended: {found.suggested:g}")  # fmt: skip
        axes.grid(axis="y")

    return _figure(found.score, draw, 2.8)


def _on_white(plot: str) -> str:
    """A plot for use outside the page: in the page's light colours, on white."""
    css = files("qwen3_retrieval.evaluation").joinpath("page.css").read_text("utf-8")
    light = css[: css.index("@media")]
    for variable, colour in re.findall(r"(--\w+): (#\w+);", light):
        plot = plot.replace(f"var({variable})", colour)
    return plot.replace("<svg ", '<svg style="background: white" ', 1)


def _look(system: System) -> tuple[str, str]:
    if system.setting is None:
        return "--ink", "*"
    name = "BM25" if system.setting.first == "bm25" else system.setting.first
    return LOOKS[f"{name} + rerank" if system.setting.rerank else name]


def _kind(point: Point) -> str:
    name = "BM25" if point.setting.first == "bm25" else point.setting.first
    return f"{name} + rerank" if point.setting.rerank else name


def _figure(name: str, draw: Callable[["Axes"], None], height: float) -> str:
    """Draw one plot, with this name in its page and height in inches; returns `<svg>...</svg>`."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    settings: Any = {name: COLOURS[variable] for name, variable in INKS.items()}
    settings |= {
        "svg.fonttype": "none",  # text stays text, for screen readers and search
        "text.parse_math": False,  # a name with two dollar signs is no formula
        "svg.hashsalt": "qwen3",  # so that equal reports are equal files
        "font.family": "sans-serif",
        "font.size": 10.5,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.axisbelow": True,
        "legend.frameon": False,
        "legend.fontsize": 9.5,
        "grid.linewidth": 0.7,
    }
    out = io.StringIO()
    with rc_context(settings):
        figure = Figure(figsize=(7.2, height), layout="constrained")
        axes = figure.subplots()
        draw(axes)
        if axes.get_legend_handles_labels()[1]:
            figure.legend(loc="outside upper left", ncols=3)
        figure.savefig(out, format="svg", transparent=True, metadata={"Date": None})
    text = out.getvalue()
    text = re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.DOTALL)
    for variable, colour in COLOURS.items():
        text = text.replace(colour, f"var({variable})")
    # Several plots share one page, and ids must be unique there.
    text = re.sub(r'\bid="', f'id="{name}-', text)
    text = re.sub(r'href="#', f'href="#{name}-', text)
    return re.sub(r"url\(#", f"url(#{name}-", text)
