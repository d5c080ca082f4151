"""Finds the setting that is worth its time: varies one setting at a time, then combines them."""

import warnings
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Final

import numpy as np

from qwen3_core.common.validation import MIN_DIMENSIONS
from qwen3_core.prompts import DEFAULT_TASK, TASKS, resolve_instruction
from qwen3_core.tokenizer import TruncationWarning
from qwen3_retrieval.evaluation import metrics
from qwen3_retrieval.evaluation.result import Point, Recommendation, Setting, Sweep, TopN
from qwen3_retrieval.evaluation.systems import Systems, spread

if TYPE_CHECKING:
    from qwen3_retrieval.evaluation.run import Bench

TIMED: Final = 5
"""Questions that are timed per setting."""

TASKS_TRIED: Final = (DEFAULT_TASK, "question_answering")

TOP_N_SHARE: Final = 0.95
"""Share of the longest list's recall that the recommended top_n keeps."""


def sweep(bench: "Bench", systems: Systems) -> Sweep:
    """Vary k, dimensions, instruction and max_length around the setting of the systems.

    It uses `sweep_questions` of the questions, spread evenly. Vectors and scores of the systems are
    reused; only new ones are computed.
    """
    asked = spread(len(bench.dataset.questions), bench.settings.sweep_questions)
    runner = _Runner(bench, systems, asked)
    base = bench.base
    reranked = replace(base, rerank=True)

    runner.add("k", "none", replace(base, first="bm25", dimensions=None, instruction=None))
    for first in ("dense", "hybrid"):
        runner.add("k", "none", replace(base, first=first))
    best = max(("dense", "hybrid"), key=lambda f: runner.score(replace(reranked, first=f)))
    for k in _within(bench.settings.sweep_k, len(bench.dataset.passages)):
        runner.add("k", str(k), replace(reranked, first=best, k=k))
    for dimensions in _widths(systems.full_dimensions):
        runner.add("dimensions", str(dimensions), replace(base, dimensions=dimensions))
    for name, sentence in _instructions(bench):
        runner.add("instruction", name, replace(base, instruction=sentence))
        runner.add("instruction", name, replace(reranked, instruction=sentence))
    for max_length in _lengths(bench, systems):
        runner.add("max_length", str(max_length), replace(reranked, max_length=max_length))
    chosen = _choose(bench, runner)
    runner.add("recommended", "recommended", chosen)
    return Sweep(len(asked), frontier(runner.points), _top_n(bench, systems, chosen, asked))


def recommend(bench: "Bench", systems: Systems, found: Sweep) -> Recommendation:
    """The last setting of the sweep, with the reason."""
    points = found.points
    chosen = points[-1]
    best = max(points, key=lambda point: point.ndcg.mean)
    top_n = _smallest_top_n(found.top_n)
    return Recommendation(
        setting=chosen.setting,
        pair=bench.pair_of(systems),
        top_n=top_n,
        score_threshold=None,
        ndcg=chosen.ndcg.mean,
        p50=chosen.latency.p50,
        reason=_reason(chosen, best, found.questions, top_n),
    )


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

    def __init__(self, bench: "Bench", systems: Systems, asked: Sequence[int]) -> None:
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

    def score(self, setting: Setting) -> float:
        """nDCG@10 of a setting."""
        return float(self.values(setting)[self.bench.main].mean())

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
                ndcg=metrics.estimate(found[self.bench.main]),
                recall=float(found["recall"].mean()),
                latency=latency,
                index_bytes=self.systems.index_bytes(setting),
            )
        )

    def _relevant(self) -> list[set[str]]:
        return [set(self.bench.dataset.questions[q].relevant) for q in self.asked]


def describe(setting: Setting) -> str:
    """A setting in a few words: "dense + rerank, k 20, 128 dimensions"."""
    words = ["BM25" if setting.first == "bm25" else setting.first]
    if setting.rerank:
        words = [f"{words[0]} + rerank", f"k {setting.k}"]
    if setting.dimensions and setting.first != "bm25":
        words.append(f"{setting.dimensions} dimensions")
    if setting.max_length:
        words.append(f"max_length {setting.max_length}")
    if setting.first == "bm25":
        return ", ".join(words)
    task = instruction_name(setting.instruction)
    return ", ".join(words if task == DEFAULT_TASK else [*words, f"instruction {task}"])


def recommended_rows(found: Recommendation) -> dict[str, str]:
    """The recommended values by name, for display; omits those that do not apply."""
    setting = found.setting
    rows: dict[str, object] = {"system": describe(setting).partition(",")[0]}
    if setting.first != "bm25":
        rows["model"] = found.pair
    rows |= {"k": setting.k, "top_n": found.top_n}
    if found.score_threshold is not None:
        rows["score_threshold"] = found.score_threshold
    if setting.first != "bm25":
        rows["dimensions"] = setting.dimensions or "all"
        rows["instruction"] = instruction_name(setting.instruction)
        rows["max_length"] = setting.max_length or "default"
    return {name: str(value) for name, value in rows.items()}


def instruction_name(instruction: str | None) -> str:
    """The name of a sentence's task, else the sentence; "none" for None."""
    if instruction is None:
        return "none"
    names = (name for name, sentence in TASKS.items() if sentence == instruction)
    return next(names, f'"{instruction}"')


def _choose(bench: "Bench", runner: _Runner) -> Setting:
    """The fastest setting within the tolerance, then with the other settings varied as well."""
    tolerance = bench.settings.tolerance
    on_k = [point for point in runner.points if point.axis == "k"]
    enough = max(point.ndcg.mean for point in on_k) - tolerance
    fast = min(
        (point for point in on_k if point.ndcg.mean >= enough), key=lambda p: p.latency.p50
    ).setting
    if fast.first == "bm25":
        return fast
    setting = fast
    for axis in ("instruction", "dimensions", "max_length"):
        setting = _turn(axis, setting, runner, tolerance)
    # Each change costs little alone; together they must not cost more than the tolerance.
    return setting if runner.score(setting) >= runner.score(fast) - tolerance else fast


def _turn(axis: str, setting: Setting, runner: _Runner, tolerance: float) -> Setting:
    """The setting with one value changed to the cheapest, or for instructions, the best."""
    tried = [
        point.setting
        for point in runner.points
        if point.axis == axis and (axis != "instruction" or point.setting.rerank == setting.rerank)
    ]
    if axis == "max_length" and not setting.rerank:
        return setting
    options = [replace(setting, **{axis: getattr(each, axis)}) for each in tried]
    now = runner.score(setting)
    if axis == "instruction":
        best = max(options, key=runner.score)
        return best if runner.score(best) > now + tolerance else setting
    for option in options:  # cheapest first
        if runner.score(option) >= now - tolerance / 2:
            return option
    return setting


def _top_n(bench: "Bench", systems: Systems, setting: Setting, asked: Sequence[int]) -> list[TopN]:
    rankings = systems.rank(setting, asked)
    found = []
    for n in _within(bench.settings.sweep_top_n, setting.k):
        success, recall, tokens = [], [], []
        for q, ranking in zip(asked, rankings, strict=True):
            relevant = set(bench.dataset.questions[q].relevant)
            passages = [bench.dataset.passages[i] for i in ranking.passages[:n]]
            hits = relevant.intersection(p.unit for p in passages)
            success.append(bool(hits))
            recall.append(len(hits) / len(relevant))
            tokens.append([systems.models.tokens(p.text) for p in passages])
        known = [sum(c for c in row if c is not None) for row in tokens if None not in row]
        found.append(
            TopN(
                n,
                float(np.mean(success)),
                float(np.mean(recall)),
                float(np.mean(known)) if len(known) == len(tokens) else None,
            )
        )
    return found


def _smallest_top_n(found: Sequence[TopN]) -> int:
    enough = TOP_N_SHARE * max(each.recall for each in found)
    return min(each.top_n for each in found if each.recall >= enough)


def _reason(chosen: Point, best: Point, questions: int, top_n: int) -> str:
    noise = (best.ndcg.high - best.ndcg.low) / 2
    what = (
        f"{chosen.name} reaches nDCG@10 {chosen.ndcg.mean:.3f} ±{noise:.3f} on {questions} "
        f"questions in {_ms(chosen.latency.p50)}"
    )
    loss = best.ndcg.mean - chosen.ndcg.mean
    if loss <= 0:
        against = "the best of all settings tried"
    else:
        against = (
            f"{loss:.3f} below the best one tried ({best.name}, {_ms(best.latency.p50)}), "
            f"which is {'within' if loss < noise else 'beyond'} the noise"
        )
    return f"{what}, {against}; the first {top_n} passages hold {TOP_N_SHARE:.0%} of what it finds."


def _ms(milliseconds: float) -> str:
    return f"{milliseconds:.1f} ms" if milliseconds < 10 else f"{milliseconds:.0f} ms"


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


def _instructions(bench: "Bench") -> list[tuple[str, str | None]]:
    own = (bench.settings.instruction, *bench.settings.more_instructions)
    tried = [resolve_instruction(each) for each in (*TASKS_TRIED, *own)]
    return [(instruction_name(each), each) for each in (None, *dict.fromkeys(tried))]


def _lengths(bench: "Bench", systems: Systems) -> list[int]:
    """Powers of two that would truncate between one in 20 and all of the passages."""
    counts = [systems.models.tokens(passage.model_text) for passage in bench.dataset.passages]
    known = [count for count in counts if count is not None]
    if not known:
        return []
    frame = 128  # about the reranker's frame; a smaller limit leaves no room for the document
    high = float(np.percentile(known, 95))
    lengths = [2**i for i in range(8, 14)]
    return [length for length in lengths if length < high + frame]
