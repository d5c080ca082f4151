"""Metrics: by hand, and by a second library."""

import math
import random

import pytest

from qwen3_retrieval.evaluation.metrics import evaluate_run, names

QRELS = {"both": {"a": 2, "b": 1}, "first": {"c": 1}, "nothing": {"d": 1}}
RUN = {"both": ["x", "a", "y", "b"], "first": ["c", "x"], "nothing": ["x"]}


def test_metrics_are_those_computed_by_hand():
    found = evaluate_run(QRELS, RUN, 50)
    # Grades are gains, discounted by log2(rank + 1): Järvelin and Kekäläinen as trec_eval has it.
    gain = 2 / math.log2(3) + 1 / math.log2(5)
    ideal = 2 / math.log2(2) + 1 / math.log2(3)
    expected = {
        "nDCG@10": [gain / ideal, 1, 0],
        "MRR@10": [1 / 2, 1, 0],
        "success@1": [0, 1, 0],
        "recall@10": [1, 1, 0],
        "recall@50": [1, 1, 0],
        "MAP@50": [(1 / 2 + 2 / 4) / 2, 1, 0],
    }
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        assert found[name].tolist() == pytest.approx(values, abs=1e-6), name


def test_results_beyond_the_cut_do_not_count():
    units = [f"x{i}" for i in range(10)] + ["d"]
    found = evaluate_run({"q": {"d": 1}}, {"q": units}, 50)
    assert {name: values[0] for name, values in found.items()} == {
        "nDCG@10": 0,
        "MRR@10": 0,
        "success@1": 0,
        "recall@10": 0,
        "recall@50": 1,
        "MAP@50": pytest.approx(1 / 11),
    }


def test_a_question_without_results_scores_zero():
    assert evaluate_run({"q": {"d": 1}}, {"q": []}, 10)["nDCG@10"].tolist() == [0]
    assert evaluate_run({"q": {"d": 1}}, {}, 10)["MRR@10"].tolist() == [0]


def test_order_is_that_of_the_run_and_not_of_the_names():
    # trec_eval itself would put equal scores in the order of their names.
    assert evaluate_run({"q": {"z": 1}}, {"q": ["z", "a"]}, 10)["success@1"].tolist() == [1]
    assert evaluate_run({"q": {"a": 1}}, {"q": ["z", "a"]}, 10)["success@1"].tolist() == [0]


def test_ranx_computes_the_same(monkeypatch):
    numba = pytest.importorskip("numba")
    monkeypatch.setattr(numba.config, "DISABLE_JIT", True)  # compiling takes a minute
    ranx = pytest.importorskip("ranx")
    dice = random.Random(0)
    units = [f"u{i}" for i in range(60)]
    qrels, run = {}, {}
    for q in range(40):
        judged = dice.sample(units, dice.randint(1, 8))
        qrels[f"q{q:02}"] = {unit: dice.randint(1, 3) for unit in judged}
        run[f"q{q:02}"] = dice.sample(units, dice.randint(1, 60))
    ours = evaluate_run(qrels, run, 50)
    theirs = {
        "nDCG@10": "ndcg@10",
        "MRR@10": "mrr@10",
        "success@1": "hit_rate@1",
        "recall@10": "recall@10",
        "recall@50": "recall@50",
        "MAP@50": "map@50",
    }
    assert theirs.keys() == names(50).keys()
    scored = {q: {u: 1 / (i + 1) for i, u in enumerate(found)} for q, found in run.items()}
    expected = ranx.evaluate(
        ranx.Qrels(qrels), ranx.Run(scored), list(theirs.values()), return_mean=False
    )
    for name, other in theirs.items():
        assert ours[name] == pytest.approx(expected[other], abs=1e-6), name
