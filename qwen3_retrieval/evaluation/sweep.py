"""Finds the setting that is worth its time: varies one setting at a time, then combines them."""

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final

import numpy as np

from qwen3_core.common.validation import MIN_DIMENSIONS
from qwen3_core.prompts import DEFAULT_TASK, resolve_instruction
from qwen3_core.tokenizer import TruncationWarning
from qwen3_retrieval.evaluation.bench import Bench
from qwen3_retrieval.evaluation.result import Point, Recommendation, Setting, Sweep, TopN
from qwen3_retrieval.evaluation.significance import (
    LEVEL,
    estimate,
    holm,
    is_worse,
    least_questions,
    lower_bound,
    p_value,
    questions_for_margin,
    step_down,
)
from qwen3_retrieval.evaluation.systems import Systems, spread
from qwen3_retrieval.evaluation.wording import describe, instruction_name, milliseconds

TIMED: Final = 5
"""Questions that are timed per setting."""

TASKS_TRIED: Final = (DEFAULT_TASK, "question_answering")


def sweep(bench: Bench, systems: Systems) -> tuple[Sweep, Recommendation | None]:
    """Vary k, dimensions, instruction and max_length around the setting of the systems.

    It uses `sweep_questions` of the questions, spread evenly. Vectors and scores of the systems are
    reused; only new ones are computed.

    Returns:
        What was tried, and the recommended setting, still without a score_threshold; None if the
        questions are too few to recommend one.
    """
    asked = spread(len(bench.dataset.questions), bench.settings.sweep_questions)
    runner = _Runner(bench, systems, asked)
    base = bench.base
    reranked = replace(base, rerank=True)

    runner.add("k", "none", replace(base, first="bm25", dimensions=None, instruction=None))
    for first in ("dense", "hybrid"):
        runner.add("k", "none", replace(base, first=first))
    best = max(("dense", "hybrid"), key=lambda f: runner.scores(replace(reranked, first=f)).mean())
    for k in _within(bench.settings.sweep_k, len(bench.dataset.passages)):
        runner.add("k", str(k), replace(reranked, first=best, k=k))
    for dimensions in _widths(systems.full_dimensions):
        runner.add("dimensions", str(dimensions), replace(base, dimensions=dimensions))
    for name, sentence in _instructions(bench):
        runner.add("instruction", name, replace(base, instruction=sentence))
        runner.add("instruction", name, replace(reranked, instruction=sentence))
    for max_length in _lengths(bench, systems):
        runner.add("max_length", str(max_length), replace(reranked, max_length=max_length))
    chosen, reason = choose(runner.points, runner.scores, bench.settings.margin)
    if chosen is not None:
        runner.add("recommended", "recommended", chosen)
    shown = chosen or max(runner.points, key=lambda point: point.ndcg.mean).setting
    top_n, enough = _top_n(bench, systems, shown, asked)
    points = frontier(runner.points)
    if chosen is None:
        return Sweep(len(asked), points, top_n, reason), None
    recommended = Recommendation(
        setting=chosen,
        pair=bench.pair_of(systems),
        top_n=enough,
        score_threshold=None,
        ndcg=points[-1].ndcg.mean,
        p50=points[-1].latency.p50,
    )
    return Sweep(len(asked), points, top_n, reason), recommended


def frontier(points: Sequence[Point]) -> list[Point]:
    """The points, with those on the frontier marked: no other is faster and at least as good."""

    def beaten(point: Point) -> bool:
        return any(
            (other.latency.p50 <= point.latency.p50 and other.ndcg.mean >= point.ndcg.mean)
            and (other.latency.p50 < point.latency.p50 or other.ndcg.mean > point.ndcg.mean)
            for other in points
        )

    return [replace(point, frontier=not beaten(point)) for point in points]


class _Runner:
    """Measures settings on the questions of the sweep."""

    def __init__(self, bench: Bench, systems: Systems, asked: Sequence[int]) -> None:
        self.bench, self.systems, self.asked = bench, systems, asked
        self.points: list[Point] = []
        self._timed = [asked[i] for i in spread(len(asked), TIMED)]
        self._known: dict[Setting, dict[str, np.ndarray]] = {}

    def values(self, setting: Setting) -> dict[str, np.ndarray]:
        """Metrics of each question; cached."""
        if setting not in self._known:
            found, rankings = self.bench.measure(self.systems, setting, self.asked)
            found["recall"] = np.array(
                [
                    len(relevant.intersection(self.bench.units(ranking))) / len(relevant)
                    for ranking, relevant in zip(rankings, self._relevant(), strict=True)
                ]
            )
            self._known[setting] = found
        return self._known[setting]

    def scores(self, setting: Setting) -> np.ndarray:
        """nDCG@10 of each question: (n,) float64."""
        return self.values(setting)[self.bench.main]

    def add(self, axis: str, value: str, setting: Setting) -> None:
        """Measure quality and time of a setting."""
        with warnings.catch_warnings():
            if setting.max_length != self.bench.settings.max_length:  # deliberate truncation
                warnings.simplefilter("ignore", TruncationWarning)
            found = self.values(setting)
            latency = self.systems.latency(setting, self._timed)["total"]
        self.points.append(
            Point(
                axis=axis,
                value=value,
                name=describe(setting),
                setting=setting,
                ndcg=estimate(found[self.bench.main]),
                recall=float(found["recall"].mean()),
                latency=latency,
                index_bytes=self.systems.index_bytes(setting),
            )
        )

    def _relevant(self) -> list[set[str]]:
        return [set(self.bench.dataset.questions[q].relevant) for q in self.asked]


def choose(
    points: Sequence[Point], scores: Callable[[Setting], np.ndarray], margin: float
) -> tuple[Setting | None, str]:
    """The cheapest setting that is shown to lose less than a margin against the best.

    From the best of the systems and values of k it goes to faster ones, then to fewer dimensions,
    then to a lower max_length: each time as far as `step_down` goes. Another instruction is taken
    only if it is shown to be better.

    Args:
        points: The settings tried.
        scores: Scores of each question for a setting, whether tried or not: (n,) float64.
        margin: The mean score that may be lost.

    Returns:
        The setting, or None if the questions cannot tell, and the reason in one or two sentences.
    """
    on_k = [point for point in points if point.axis == "k"]
    best = max(on_k, key=lambda point: (point.ndcg.mean, -point.latency.p50))
    top = scores(best.setting)
    least = least_questions(margin)
    if len(top) < least:
        return None, (
            f"{len(top)} questions are too few to recommend a setting: even if a faster one "
            f"changed no result, {least} would be needed to show that it loses less than "
            f"{margin:g} nDCG@10."
        )
    faster = sorted(
        (point for point in on_k if point.latency.p50 < best.latency.p50),
        key=lambda point: -point.latency.p50,
    )
    passed = step_down(top, (scores(point.setting) for point in faster), margin)
    following = "no faster one was tried"
    if passed < len(faster):
        refused = faster[passed]
        name = f"the next faster one ({_named(refused)})"
        if is_worse(top, scores(refused.setting)):
            following = f"{name} is worse"
        else:
            unknown = _unknown(scores(refused.setting) - top, margin)
            if not passed:
                return None, (
                    f"The best setting tried is {_named(best)}. Whether {name} loses less than "
                    f"{margin:g} nDCG@10 {unknown}."
                )
            following = f"whether {name} loses less than {margin:g} {unknown}"
    setting = faster[passed - 1].setting if passed else best.setting
    if setting.first != "bm25":
        setting = _better_instruction(setting, points, scores)
        top = max(top, scores(setting), key=np.mean)
        for axis in ("dimensions", "max_length"):
            lower = _lower(axis, setting, points)
            setting = [setting, *lower][step_down(top, map(scores, lower), margin)]
    return setting, _reason(setting, best, scores(setting), top, following)


def _better_instruction(
    setting: Setting, points: Sequence[Point], scores: Callable[[Setting], np.ndarray]
) -> Setting:
    """The setting with the best instruction that is shown to be better, else as it is."""
    others = [
        replace(setting, instruction=point.setting.instruction)
        for point in points
        if point.axis == "instruction"
        and point.setting.rerank == setting.rerank
        and point.setting.instruction != setting.instruction
    ]
    now = scores(setting)
    p = holm([p_value(now, scores(other)) for other in others])
    better = [
        other
        for other, each in zip(others, p, strict=True)
        if each < LEVEL and scores(other).mean() > now.mean()
    ]
    return max(better, key=lambda other: float(scores(other).mean()), default=setting)


def _lower(axis: str, setting: Setting, points: Sequence[Point]) -> list[Setting]:
    """The setting with the lower values that were tried on an axis, the lowest last."""
    if axis == "max_length" and not setting.rerank:
        return []
    tried = {getattr(point.setting, axis) for point in points if point.axis == axis}
    now = getattr(setting, axis)
    if axis == "dimensions" and now is None:
        now = max(tried, default=None)  # the model's own
    lower = sorted((value for value in tried if now is None or value < now), reverse=True)
    return [replace(setting, **{axis: value}) for value in lower]


def _unknown(differences: np.ndarray, margin: float) -> str:
    """That the questions cannot tell, and about how many could."""
    needed = questions_for_margin(differences, margin)
    about = f" (about {needed:,} might)" if needed else ""
    return f"cannot be told from {len(differences)} questions{about}"


def _reason(
    setting: Setting, best: Point, scores: np.ndarray, top: np.ndarray, following: str
) -> str:
    what = f"{describe(setting)} reaches nDCG@10 {scores.mean():.3f} on {len(scores)} questions"
    if setting == best.setting:
        return f"{what}, the best of the systems and values of k; {following}."
    if np.array_equal(scores, top):
        return f"{what}, and no setting compared with it is better; {following}."
    loss = math.ceil(max(0.0, -lower_bound(scores - top)) * 1000) / 1000
    return (
        f"{what}. With 95 % confidence it loses less than {loss:.3f} against the best "
        f"({_named(best)}); {following}."
    )


def _named(point: Point) -> str:
    return f"{point.name}, {milliseconds(point.latency.p50)} ms"


def _top_n(
    bench: Bench, systems: Systems, setting: Setting, asked: Sequence[int]
) -> tuple[list[TopN], int]:
    """What the first n passages hold, and the fewest that are shown to lose little recall."""
    rankings = systems.rank(setting, asked)
    found: list[TopN] = []
    recalls: list[np.ndarray] = []
    for n in _within(bench.settings.sweep_top_n, setting.k):
        hits, tokens = [], []
        for q, ranking in zip(asked, rankings, strict=True):
            relevant = set(bench.dataset.questions[q].relevant)
            passages = [bench.dataset.passages[i] for i in ranking.passages[:n]]
            hits.append(len(relevant.intersection(p.unit for p in passages)) / len(relevant))
            tokens.append([systems.models.tokens(p.text) for p in passages])
        recall = np.array(hits)
        known = [sum(c for c in row if c is not None) for row in tokens if None not in row]
        mean = float(np.mean(known)) if len(known) == len(tokens) else None
        found.append(TopN(n, float((recall > 0).mean()), float(recall.mean()), mean))
        recalls.append(recall)
    longest, *fewer = reversed(recalls)
    return found, found[-1 - step_down(longest, fewer, bench.settings.margin)].top_n


def _within(values: Sequence[int], limit: int) -> list[int]:
    """The values up to the limit, and the limit instead of larger ones."""
    return sorted({min(value, limit) for value in values})


def _widths(full: int) -> list[int]:
    """32, 64, ... and the model's own length."""
    widths, width = [], MIN_DIMENSIONS
    while width < full:
        widths.append(width)
        width *= 2
    return [*widths, full]


def _instructions(bench: Bench) -> list[tuple[str, str | None]]:
    own = (bench.settings.instruction, *bench.settings.more_instructions)
    tried = [resolve_instruction(each) for each in (*TASKS_TRIED, *own)]
    return [(instruction_name(each), each) for each in (None, *dict.fromkeys(tried))]


def _lengths(bench: Bench, systems: Systems) -> list[int]:
    """Powers of two that would truncate between one in 20 and all of the passages."""
    counts = [systems.models.tokens(passage.model_text) for passage in bench.dataset.passages]
    known = [count for count in counts if count is not None]
    if not known:
        return []
    frame = 128  # about the reranker's frame; a smaller limit leaves no room for the document
    high = float(np.percentile(known, 95))
    lengths = [2**i for i in range(8, 14)]
    return [length for length in lengths if length < high + frame]
