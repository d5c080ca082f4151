"""Metrics by pytrec_eval."""

from collections.abc import Mapping, Sequence

import numpy as np

from qwen3_retrieval.evaluation.settings import CUT

Qrels = Mapping[str, Mapping[str, int]]
"""Question -> unit -> grade."""

Run = Mapping[str, Sequence[str]]
"""Question -> units, best first, without duplicates."""


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


def _scored(run: Run, k: int) -> dict[str, dict[str, float]]:
    """Ranks as scores, because trec_eval breaks ties by name and would not keep the order."""
    return {q: {unit: float(-i) for i, unit in enumerate(units[:k])} for q, units in run.items()}
