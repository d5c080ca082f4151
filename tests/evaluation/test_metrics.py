"""Metrics: by hand, by a second library, and what is said of their uncertainty."""

import math
import random

import numpy as np
import pytest

from qwen3_retrieval.evaluation.metrics import compare, estimate, evaluate_run, holm, names, p_value

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


def test_interval_covers_the_mean_and_narrows_with_more_questions():
    dice = np.random.default_rng(0)
    few, many = (estimate(dice.random(n)) for n in (20, 500))
    for each in (few, many):
        assert each.low < each.mean < each.high
    assert many.high - many.low < (few.high - few.low) / 3
    # The textbook's interval of a mean: 1.96 standard errors to either side.
    assert many.high - many.low == pytest.approx(2 * 1.96 * math.sqrt(1 / 12 / 500), rel=0.1)


def test_no_spread_no_interval():
    found = estimate(np.ones(5))
    assert (found.low, found.mean, found.high) == (1, 1, 1)


def test_p_value_is_that_of_counting_all_signs():
    # Six questions, all better by as much: two of the 64 ways to flip signs are as extreme.
    first = np.array([0.1, 0.2, 0.3, 0.4, 0.5, 0.6])
    assert p_value(first, first + 0.25) == pytest.approx(2 / 64)
    assert p_value(first, first) == 1


def test_equal_systems_do_not_differ_and_unequal_ones_do():
    dice = np.random.default_rng(1)
    base = dice.random(200)
    noise = base + dice.normal(0, 0.1, 200)
    found = compare({"a": base, "noise": noise, "better": base + 0.1}, "nDCG@10")
    p = {(each.first, each.second): each.p for each in found}
    assert p["a", "better"] < 0.01
    assert p["a", "noise"] > 0.05
    better = found[1]
    assert (better.better, better.worse) == (200, 0)
    assert better.difference.mean == pytest.approx(0.1)


def test_holm_multiplies_by_what_is_left():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.9, 0.8]) == [1, 1]
