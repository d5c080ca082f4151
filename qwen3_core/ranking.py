"""A reranker's results, and the order of documents."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from qwen3_core.common.validation import check_threshold, check_top_n


@dataclass(frozen=True, slots=True)
class Ranked:
    """One document's result in a ranking."""

    index: int
    """Position of the document in the caller's list."""
    score: float
    """Probability of "yes, relevant", from 0 to 1. Saturates; compare log-odds near the ends."""
    log_odds: float
    """logit(yes) - logit(no); the score is its sigmoid."""


def sigmoid(log_odds: np.ndarray) -> np.ndarray:
    """Probability of log-odds, without overflow: float64 of the same shape."""
    positive = 1 / (1 + np.exp(-np.abs(log_odds.astype(np.float64))))
    result: np.ndarray = np.where(log_odds >= 0, positive, 1 - positive)
    return result


def rank(
    log_odds: Sequence[float] | np.ndarray,
    *,
    top_n: int | None = None,
    score_threshold: float | None = None,
) -> list[Ranked]:
    """Order documents by log-odds, best first; ties keep their order.

    Args:
        log_odds: One finite number per document.
        top_n: The number of documents to keep; None keeps all.
        score_threshold: Documents with a lower score are dropped after that.

    Raises:
        ValueError: If `top_n` is below 1, the threshold is not in [0, 1], or a number is not
            finite.
    """
    check_top_n(top_n)
    check_threshold(score_threshold)
    values = np.asarray(log_odds, dtype=np.float64)
    if not np.isfinite(values).all():
        bad = int(np.flatnonzero(~np.isfinite(values))[0])
        msg = f"the log-odds of document {bad} are {values[bad]}: scores must be finite"
        raise ValueError(msg)
    scores = sigmoid(values)
    best = np.argsort(-values, kind="stable")[:top_n]
    ranking = [Ranked(int(i), float(scores[i]), float(values[i])) for i in best]
    return [r for r in ranking if score_threshold is None or r.score >= score_threshold]
