"""What can be said of differences between settings: intervals, tests, and what they can show.

A score here is a metric of one question, from 0 to 1. All tests are paired: they compare the scores
of two settings on the same questions.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

RESAMPLES: Final = 2000
PERMUTATIONS: Final = 9999
CONFIDENCE: Final = 0.95
LEVEL: Final = 0.05
"""Level of the tests: the share of errors that is accepted."""

DRAWS: Final = 10_000
"""Random weights behind a bound; it is then known to about 1.5 % of its distance from the mean."""

BLOCK: Final = 2**21
"""Random numbers in memory at a time."""


@dataclass(frozen=True)
class Estimate:
    """A mean over questions and its 95 % bootstrap interval."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class Comparison:
    """Two systems on the same questions; the difference is the second minus the first."""

    first: str
    second: str
    metric: str
    difference: Estimate
    p: float
    """p value of a paired two-sided randomisation test, Holm-corrected for all compared pairs."""
    spread: float
    """Standard deviation of the differences per question."""
    better: int
    """Number of questions on which the second one is better."""
    worse: int


def estimate(values: np.ndarray) -> Estimate:
    """Mean and percentile bootstrap interval of values per question, with a fixed seed."""
    mean = float(values.mean())
    if len(values) < 2 or np.ptp(values) == 0:
        return Estimate(mean, mean, mean)
    from scipy.stats import bootstrap  # type: ignore[import-untyped]

    found = bootstrap(
        (values,),
        np.mean,
        n_resamples=RESAMPLES,
        batch=max(1, 5_000_000 // len(values)),
        confidence_level=CONFIDENCE,
        method="percentile",
        rng=np.random.default_rng(0),
    ).confidence_interval
    return Estimate(mean, float(found.low), float(found.high))


def p_value(first: np.ndarray, second: np.ndarray) -> float:
    """Paired two-sided randomisation test of equal means.

    It assumes no distribution: Smucker, Allan and Carterette, CIKM 2007.
    """
    if np.array_equal(first, second):
        return 1.0
    from scipy.stats import permutation_test

    found = permutation_test(
        (second - first,),
        lambda difference, axis: difference.mean(axis=axis),
        permutation_type="samples",
        n_resamples=PERMUTATIONS,
        batch=max(1, 5_000_000 // len(first)),
        rng=np.random.default_rng(0),
    )
    return float(found.pvalue)


def compare(results: Mapping[str, np.ndarray], metric: str) -> list[Comparison]:
    """Compare every pair of systems, with Holm-corrected p.

    Args:
        results: System -> metric of each question, all in the same order.
        metric: The metric's name.
    """
    systems = list(results)
    pairs = [(a, b) for i, a in enumerate(systems) for b in systems[i + 1 :]]
    raw = [p_value(results[a], results[b]) for a, b in pairs]
    return [
        Comparison(
            a,
            b,
            metric,
            estimate(results[b] - results[a]),
            p,
            float((results[b] - results[a]).std()),
            int((results[b] > results[a]).sum()),
            int((results[b] < results[a]).sum()),
        )
        for (a, b), p in zip(pairs, holm(raw), strict=True)
    ]


def holm(p: Sequence[float]) -> list[float]:
    """Holm's correction for several tests: the values in the given order."""
    corrected = [0.0] * len(p)
    highest = 0.0
    for rank, i in enumerate(sorted(range(len(p)), key=lambda i: p[i])):
        highest = max(highest, min(1.0, p[i] * (len(p) - rank)))
        corrected[i] = highest
    return corrected


def lower_bound(differences: np.ndarray, draws: int = DRAWS) -> float:
    """A bound that the mean difference exceeds with 95 % confidence.

    The questions get random weights (Rubin's Bayesian bootstrap, Annals of Statistics 9, 1981), and
    one more question is added with the worst possible difference, -1. Without it, 30 questions
    whose results do not change would have an interval of width 0, as in the usual bootstrap, and so
    would seem to show that no other question changes. Without any change the bound is about -3/n.

    This is Gaffke's bound (Mathematical Methods of Statistics 14, 2005). It assumes no
    distribution. Its confidence is proven for losses of one size, where it equals the bound of
    Clopper and Pearson; for others no counterexample is known.

    Args:
        differences: A setting's scores minus another's, each from -1 to 1: (n,) float64.
        draws: The number of random weights, with a fixed seed.
    """
    values = np.append(differences, -1.0)
    random = np.random.default_rng(0)
    step = max(1, BLOCK // len(values))
    means = []
    for start in range(0, draws, step):
        weights = random.standard_exponential((min(step, draws - start), len(values)))
        means.append(weights @ values / weights.sum(axis=1))
    return float(np.quantile(np.concatenate(means), LEVEL))


def step_down(best: np.ndarray, cheaper: Iterable[np.ndarray], margin: float) -> int:
    """How far one can go from the best setting to cheaper ones: tests of non-inferiority.

    Each is compared with the best, in the given order, until the first that is not shown to lose
    less than the margin. Because the order is fixed, the level holds for all of them together.

    Args:
        best: Scores of the best setting: (n,) float64.
        cheaper: Scores of the others, the cheapest last; taken only as far as needed.
        margin: The mean loss that is accepted, above 0 and below 1.

    Returns:
        The number of settings that passed.
    """
    passed = 0
    for scores in cheaper:
        if lower_bound(scores - best) <= -margin:
            break
        passed += 1
    return passed


def is_worse(best: np.ndarray, other: np.ndarray) -> bool:
    """Whether the randomisation test shows that a setting is worse than the best."""
    return bool(other.mean() < best.mean()) and p_value(best, other) < LEVEL


def least_questions(margin: float) -> int:
    """The fewest questions that can show a loss below the margin, if no question changes."""
    return math.ceil(math.log(LEVEL) / math.log(1 - margin))


def questions_for_margin(differences: np.ndarray, margin: float) -> int | None:
    """About how many questions would show a loss below the margin, if further ones were like these.

    None if these lose the margin or more on average. It takes the bound of `lower_bound` as that of
    a normal distribution with the same mean and variance.
    """
    mean, square = float(differences.mean()), float((differences**2).mean())
    if mean <= -margin:
        return None

    def enough(n: int) -> bool:
        centre = (n * mean - 1) / (n + 1)
        variance = ((n * square + 1) / (n + 1) - centre**2) / (n + 2)
        return centre - 1.645 * math.sqrt(variance) > -margin

    n = least_questions(margin)
    while not enough(n):
        n = math.ceil(n * 1.05)
    return n


def questions_for_difference(difference: float, spread: float) -> int:
    """Questions with which the randomisation test finds a true difference in four of five samples.

    Source: the sample size of a paired comparison, n = ((1.96 + 0.84) spread / difference)².

    Args:
        difference: The mean difference.
        spread: Standard deviation of the differences per question.
    """
    return max(2, math.ceil(((1.96 + 0.84) * spread / difference) ** 2))
