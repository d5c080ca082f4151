"""Metrics by pytrec_eval, their confidence intervals, and tests of differences."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from qwen3_retrieval.evaluation.settings import CUT

RESAMPLES: Final = 2000
PERMUTATIONS: Final = 9999
CONFIDENCE: Final = 0.95

Qrels = Mapping[str, Mapping[str, int]]
"""Question -> unit -> grade."""

Run = Mapping[str, Sequence[str]]
"""Question -> units, best first, without duplicates."""


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
    better: int
    """Number of questions on which the second one is better."""
    worse: int


def names(k: int) -> dict[str, str]:
    """The reported metrics, with pytrec_eval's names.

    MRR considers the first ten results, so its run is truncated; MAP and the longer recall consider
    all `k` results.
    """
    return {
        f"nDCG@{CUT}": f"ndcg_cut_{CUT}",
        f"MRR@{CUT}": "recip_rank",
        "success@1": "success_1",
        **{f"recall@{n}": f"recall_{n}" for n in sorted({CUT, k}) if n <= k},
        f"MAP@{k}": f"map_cut_{k}",
    }


def evaluate_run(qrels: Qrels, run: Run, k: int) -> dict[str, np.ndarray]:
    """Metrics of each question: name -> (n,) float64, in the order of `qrels`.

    Args:
        qrels: The units that answer each question.
        run: The results; a question without results scores 0.
        k: Number of results to consider; further ones are ignored.
    """
    from pytrec_eval import RelevanceEvaluator

    wanted = names(k)
    plain = {q: dict(units) for q, units in qrels.items()}
    cut = RelevanceEvaluator(plain, {"recip_rank"}).evaluate(_scored(run, min(CUT, k)))
    rest = {measure for measure in wanted.values() if measure != "recip_rank"}
    full = RelevanceEvaluator(plain, rest).evaluate(_scored(run, k))
    return {
        name: np.array(
            [(cut if measure == "recip_rank" else full).get(q, {}).get(measure, 0.0) for q in qrels]
        )
        for name, measure in wanted.items()
    }


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


def _scored(run: Run, k: int) -> dict[str, dict[str, float]]:
    """Ranks as scores, because trec_eval breaks ties by name and would not keep the order."""
    return {q: {unit: float(-i) for i, unit in enumerate(units[:k])} for q, units in run.items()}
