"""The effect of reranking per question, and the score distributions of relevant passages."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

import numpy as np

from qwen3_core.ranking import Ranked, sigmoid
from qwen3_retrieval.comparison import Move, moves
from qwen3_retrieval.evaluation.bench import Bench
from qwen3_retrieval.evaluation.dataset import Passage
from qwen3_retrieval.evaluation.result import Distribution, Threshold, View
from qwen3_retrieval.evaluation.settings import CUT
from qwen3_retrieval.evaluation.significance import lower_bound
from qwen3_retrieval.evaluation.systems import Ranking, Systems

THRESHOLDS: Final = (0.01, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 0.9)

BINS: Final = 30

TEXT: Final = 600
"""The most characters of a passage in the report."""


def views(bench: Bench, systems: Systems) -> tuple[tuple[str, str], list[View]]:
    """Every question before and after reranking, the worst regressions first."""
    dense, reranked = bench.base, replace(bench.base, rerank=True)
    first, second = (bench.system_of(systems, setting) for setting in (dense, reranked))
    before, after = (systems.rank(setting, bench.all) for setting in (dense, reranked))
    cosines = systems.cosines(dense, bench.all)
    found = [
        View(
            id=question.id,
            question=question.text,
            before=first.per_question[bench.main][i],
            after=second.per_question[bench.main][i],
            moves=_moves(bench, i, before[i], after[i], cosines[i]),
        )
        for i, question in enumerate(bench.dataset.questions)
    ]
    return (first.name, second.name), sorted(found, key=lambda view: view.change)


def distributions(bench: Bench, systems: Systems) -> list[Distribution]:
    """Distributions of all questions' candidate scores: the reranker's, and the cosine."""
    dense, reranked = bench.base, replace(bench.base, rerank=True)
    rankings = systems.rank(reranked, bench.all)
    relevant = [_relevant(bench, q, r.passages) for q, r in enumerate(rankings)]
    log_odds = [np.empty(0) if r.scores is None else r.scores for r in rankings]
    name = bench.system_of(systems, reranked).name
    scores = _distribution(name, "log-odds", log_odds, relevant)
    shares = [
        _found(bench, q, ranking.passages, sigmoid(own))
        for q, (ranking, own) in enumerate(zip(rankings, log_odds, strict=True))
    ]
    suggested = highest_threshold(shares, bench.settings.margin)
    values, marks = sigmoid(np.concatenate(log_odds)), np.concatenate(relevant)
    tried = THRESHOLDS if suggested is None else (*THRESHOLDS, suggested)
    thresholds = [
        Threshold(t, _share(values[marks], t), _share(values[~marks], t))
        for t in sorted(set(tried))
    ]
    scores = replace(scores, thresholds=thresholds, suggested=suggested)

    cosines = [row[: dense.k] for row in systems.cosines(dense, bench.all)]
    rankings = systems.rank(dense, bench.all)
    relevant = [_relevant(bench, q, r.passages) for q, r in enumerate(rankings)]
    name = bench.system_of(systems, dense).name
    return [scores, _distribution(name, "cosine", cosines, relevant)]


def highest_threshold(found: Sequence[tuple[np.ndarray, int]], margin: float) -> float | None:
    """The highest score_threshold that is shown to lose less recall than the margin.

    Args:
        found: For each question the scores of the relevant units that were found, from 0 to 1, and
            the number of all relevant units.
        margin: The mean recall that may be lost.

    Returns:
        The threshold, rounded down; None if no threshold is shown to lose so little.
    """
    scores = np.unique(np.concatenate([own for own, _ in found]))

    def holds(threshold: float) -> bool:
        kept = [-float((own < threshold).sum()) / total for own, total in found]
        return lower_bound(np.array(kept)) > -margin

    # With a higher threshold no question loses less, so the bound only falls.
    low, high = 0, len(scores)
    while low < high:
        middle = (low + high) // 2
        if holds(scores[middle]):
            low = middle + 1
        else:
            high = middle
    if low == 0:
        return None
    exact = float(scores[low - 1])
    digits = 3 if exact >= 0.01 else 6
    return float(np.floor(exact * 10**digits) / 10**digits)


def _found(
    bench: Bench, question: int, passages: np.ndarray, scores: np.ndarray
) -> tuple[np.ndarray, int]:
    """The best score of each relevant unit among the passages, and the number of relevant units."""
    relevant = bench.dataset.questions[question].relevant
    best: dict[str, float] = {}
    for i, score in zip(passages, scores, strict=True):
        unit = bench.dataset.passages[i].unit
        if unit in relevant:
            best[unit] = max(float(score), best.get(unit, 0.0))
    return np.array(list(best.values())), len(relevant)


def _relevant(bench: Bench, question: int, passages: np.ndarray) -> np.ndarray:
    units = bench.dataset.questions[question].relevant
    return np.array([bench.dataset.passages[i].unit in units for i in passages], dtype=bool)


def _distribution(
    system: str, score: str, scores: list[np.ndarray], relevant: list[np.ndarray]
) -> Distribution:
    values, marks = np.concatenate(scores), np.concatenate(relevant)
    edges = np.linspace(values.min(), max(values.max(), values.min() + 1e-6), BINS + 1)
    return Distribution(
        system=system,
        score=score,
        edges=edges.round(4).tolist(),
        relevant=np.histogram(values[marks], edges)[0].tolist(),
        other=np.histogram(values[~marks], edges)[0].tolist(),
    )


def _share(scores: np.ndarray, threshold: float) -> float:
    return float((scores >= threshold).mean()) if len(scores) else 0.0


def _moves(
    bench: Bench, question: int, before: Ranking, after: Ranking, cosines: np.ndarray
) -> list[Move[Passage]]:
    """The first ten after and before reranking, and relevant units that are not among them."""
    passages = bench.dataset.passages
    relevant = bench.dataset.questions[question].relevant
    place = {int(i): rank for rank, i in enumerate(before.passages)}
    log_odds = np.empty(0) if after.scores is None else after.scores
    ranking = [
        Ranked(place[int(i)], round(score, 4), round(odds, 4))
        for i, score, odds in zip(
            after.passages, sigmoid(log_odds).tolist(), log_odds.tolist(), strict=True
        )
    ]
    candidates = [_shown(passages[i]) for i in before.passages]
    rounded = cosines[: len(candidates)].round(4).tolist()
    found = moves(candidates, rounded, ranking, lambda passage: passage.unit in relevant)
    by_position = {int(i): move for i, move in zip(after.passages, found, strict=True)}
    shown = dict.fromkeys(int(i) for i in (*after.passages[:CUT], *before.passages[:CUT]))
    seen = {passages[i].unit for i in shown}
    for unit in relevant:
        if unit not in seen:
            members = bench.members[unit]
            best = next((i for i in by_position if i in members), members[0])
            shown[best] = None
    return [by_position.get(i) or Move(_shown(passages[i]), relevant=True) for i in shown]


def _shown(passage: Passage) -> Passage:
    return replace(passage, text=passage.text[:TEXT])
