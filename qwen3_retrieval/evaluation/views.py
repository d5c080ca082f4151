"""The effect of reranking per question, and the score distributions of relevant passages."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final

import numpy as np

from qwen3_core.ranking import sigmoid
from qwen3_retrieval.evaluation.result import Distribution, Move, Threshold, View
from qwen3_retrieval.evaluation.settings import CUT

if TYPE_CHECKING:
    from qwen3_retrieval.evaluation.dataset import Passage
    from qwen3_retrieval.evaluation.result import Setting
    from qwen3_retrieval.evaluation.run import Bench
    from qwen3_retrieval.evaluation.systems import Ranking, Systems

KEPT: Final = 0.95
"""Share of relevant candidates that the suggested threshold keeps."""

THRESHOLDS: Final = (0.01, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 0.9)

BINS: Final = 30

TEXT: Final = 600
"""The most characters of a passage in the report."""


def views(bench: "Bench", systems: "Systems") -> tuple[tuple[str, str] | None, list[View]]:
    """Every question before and after reranking, the worst regressions first."""
    names = _compared(bench)
    if names is None:
        return None, []
    before_name, after_name = names
    by_name = {system.name: system for system in bench.systems}
    before_setting, after_setting = (_setting(by_name[name].setting) for name in names)
    before = systems.rank(before_setting, bench.all)
    after = systems.rank(after_setting, bench.all)
    scores = [by_name[name].per_question[bench.main] for name in (before_name, after_name)]
    found = [
        View(
            id=question.id,
            question=question.text,
            before=scores[0][i],
            after=scores[1][i],
            moves=moves(
                bench.dataset.passages,
                before[i],
                after[i],
                {unit: bench.members[unit] for unit in question.relevant},
            ),
        )
        for i, question in enumerate(bench.dataset.questions)
    ]
    return names, sorted(found, key=change)


def change(view: View) -> float:
    """The change of nDCG@10 by reranking."""
    return (view.after or 0.0) - (view.before or 0.0)


def distributions(bench: "Bench", systems: "Systems") -> list[Distribution]:
    """Distributions of all questions' candidate scores: the reranker's, and the cosine."""
    by_name = {system.name: system for system in bench.systems}
    names = _compared(bench)
    if names is None:
        return []
    found = []
    setting = _setting(by_name[names[1]].setting)
    rankings = systems.rank(setting, bench.all)
    log_odds = [r.scores for r in rankings if r.scores is not None]
    relevant = [_relevant(bench, q, r.passages) for q, r in enumerate(rankings)]
    found.append(_distribution(names[1], "log-odds", log_odds, relevant))
    dense = _setting(by_name[names[0]].setting)
    cosines = [row[: dense.k] for row in systems.cosines(dense, bench.all)]
    rankings = systems.rank(dense, bench.all)
    relevant = [_relevant(bench, q, r.passages) for q, r in enumerate(rankings)]
    found.append(_distribution(names[0], "cosine", cosines, relevant))
    return found


def _compared(bench: "Bench") -> tuple[str, str] | None:
    """Dense search and its reranked form, of the first pair."""
    dense = next((s for s in bench.systems if s.setting == bench.base), None)
    if dense is None:
        return None
    reranked = next(
        s
        for s in bench.systems
        if s.pair == dense.pair
        and s.setting
        and s.setting.rerank
        and s.setting.first == "dense"
        and s.setting.instruction == bench.base.instruction
    )
    return dense.name, reranked.name


def _setting(setting: "Setting | None") -> "Setting":
    if setting is None:
        msg = "only built-in systems have a setting"
        raise TypeError(msg)
    return setting


def _relevant(bench: "Bench", question: int, passages: np.ndarray) -> np.ndarray:
    units = bench.dataset.questions[question].relevant
    return np.array([bench.dataset.passages[i].unit in units for i in passages], dtype=bool)


def _distribution(
    system: str, score: str, scores: list[np.ndarray], relevant: list[np.ndarray]
) -> Distribution:
    values, marks = np.concatenate(scores), np.concatenate(relevant)
    edges = np.linspace(values.min(), max(values.max(), values.min() + 1e-6), BINS + 1)
    thresholds, suggested = [], None
    hits, others = values[marks], values[~marks]
    if score == "log-odds":
        hits, others = sigmoid(hits), sigmoid(others)
        thresholds = [Threshold(t, _share(hits, t), _share(others, t)) for t in THRESHOLDS]
        if len(hits):
            # Rounded down, so that it keeps at least the stated share.
            exact = float(np.quantile(hits, 1 - KEPT, method="lower"))
            digits = 3 if exact >= 0.01 else 6
            suggested = float(np.floor(exact * 10**digits) / 10**digits)
            thresholds.append(
                Threshold(suggested, _share(hits, suggested), _share(others, suggested))
            )
            thresholds.sort(key=lambda each: each.score)
    return Distribution(
        system=system,
        score=score,
        edges=edges.round(4).tolist(),
        relevant=np.histogram(values[marks], edges)[0].tolist(),
        other=np.histogram(values[~marks], edges)[0].tolist(),
        thresholds=thresholds,
        suggested=suggested,
    )


def _share(scores: np.ndarray, threshold: float) -> float:
    return float((scores >= threshold).mean()) if len(scores) else 0.0


def moves(
    passages: "Sequence[Passage]",
    before: "Ranking",
    after: "Ranking",
    relevant: Mapping[str, Sequence[int]],
) -> list[Move]:
    """The first ten after and before reranking, and relevant units that are not among them.

    Args:
        passages: All passages.
        before: The first stage's ranking.
        after: The reranker's ranking.
        relevant: Unit -> positions of its passages, for the units that answer the question.
    """
    old = {int(i): rank for rank, i in enumerate(before.passages, 1)}
    new = {int(i): rank for rank, i in enumerate(after.passages, 1)}
    scores = sigmoid(after.scores) if after.scores is not None else np.zeros(len(new))
    firsts = [int(i) for i in (*after.passages[:CUT], *before.passages[:CUT])]
    shown = list(dict.fromkeys(firsts))
    seen = {passages[i].unit for i in shown}
    shown += [
        min(own, key=lambda i: new.get(i, len(passages)))
        for unit, own in relevant.items()
        if unit not in seen
    ]
    return [
        Move(
            before=old.get(i),
            after=new.get(i),
            passage=passages[i].id,
            source=passages[i].source or passages[i].title,
            text=passages[i].text[:TEXT],
            relevant=passages[i].unit in relevant,
            score=round(float(scores[new[i] - 1]), 4) if i in new else None,
        )
        for i in shown
    ]
