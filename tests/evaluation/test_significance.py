"""What is said of differences, on scores for which the right answer is known."""

import math
from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import beta  # type: ignore[import-untyped]

from qwen3_retrieval.evaluation.result import Latency, Point, Setting
from qwen3_retrieval.evaluation.significance import (
    compare,
    estimate,
    holm,
    is_worse,
    least_questions,
    lower_bound,
    p_value,
    questions_for_difference,
    questions_for_margin,
    step_down,
)
from qwen3_retrieval.evaluation.sweep import choose
from qwen3_retrieval.evaluation.views import highest_threshold

SLIP = 1 - 1 / math.log2(3)
"""What nDCG loses if the only right passage slips from rank 1 to 2: 0.369."""


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


def slipped(n: int, slips: int, loss: float = SLIP) -> np.ndarray:
    """The differences of n questions, of which some lose and the others do not change."""
    return np.array([-loss] * slips + [0.0] * (n - slips))


@pytest.mark.parametrize(("n", "losses"), [(30, 0), (30, 1), (59, 0), (100, 5), (300, 20)])
def test_the_bound_on_losses_of_a_whole_question_is_that_of_clopper_and_pearson(n, losses):
    expected = -beta.ppf(0.95, losses + 1, n - losses)
    assert lower_bound(slipped(n, losses, 1.0)) == pytest.approx(expected, rel=0.03)


def test_the_bound_of_many_small_differences_is_that_of_a_normal_distribution():
    differences = np.random.default_rng(1).normal(0, 0.05, 500)
    expected = differences.mean() - 1.645 * 0.05 / math.sqrt(500)
    assert expected - 2 / 500 < lower_bound(differences) < expected  # the question that is added


def test_the_bound_errs_in_one_sample_of_twenty_where_a_bootstrap_errs_in_many():
    """One question in ten loses 0.5, so the mean loss is 0.05; 40 questions see few or none."""
    random = np.random.default_rng(2)
    samples = -0.5 * (random.random((120, 40)) < 0.1)
    wrong = np.mean([lower_bound(sample, 500) > -0.05 for sample in samples])
    assert wrong <= 0.1
    means = samples[:, random.integers(0, 40, (500, 40))].mean(axis=2)
    usual = np.mean(np.quantile(means, 0.05, axis=1) > -0.05)
    assert usual > 0.1


def test_thirty_equal_questions_do_not_show_a_loss_below_five_points_and_a_hundred_do():
    assert step_down(np.ones(30), [np.ones(30)], 0.05) == 0
    assert step_down(np.ones(100), [np.ones(100)], 0.05) == 1
    assert (least_questions(0.05), least_questions(0.1)) == (59, 29)


def test_one_question_that_slips_from_rank_1_to_2_is_not_worse_and_not_shown_to_be_as_good():
    best = np.ones(30)
    other = best + slipped(30, 1)
    assert other.mean() == pytest.approx(1 - 0.0123, abs=1e-4)
    assert not is_worse(best, other)
    assert step_down(best, [other], 0.05) == 0
    # The same among 300 questions is no reason to take the slower setting.
    assert step_down(np.ones(300), [1 + slipped(300, 1)], 0.05) == 1
    assert step_down(np.ones(300), [1 + slipped(300, 10)], 0.05) == 1


def test_a_setting_that_loses_more_than_the_margin_does_not_pass_however_many_questions():
    for n in (30, 300):
        other = 1 + slipped(n, n // 5)  # 0.074 on average
        assert step_down(np.ones(n), [other], 0.05) == 0
    assert is_worse(np.ones(50), 1 + slipped(50, 10))


def test_a_setting_that_is_better_passes():
    assert step_down(np.full(100, 0.5), [np.full(100, 0.7)], 0.05) == 1


def test_going_down_ends_at_the_first_that_does_not_pass():
    best, bad = np.ones(300), 1 + slipped(300, 60)
    later = iter([best, bad, best])
    assert step_down(best, later, 0.05) == 1
    assert len(list(later)) == 1


@pytest.mark.parametrize(("share", "spread"), [(0, 0.0), (0.02, SLIP), (0.1, 0.2)])
def test_so_many_questions_as_are_said_to_be_needed_suffice(share, spread):
    some = slipped(100, round(share * 100), spread)
    needed = questions_for_margin(some, 0.05)
    assert needed
    assert lower_bound(slipped(round(needed * 1.25), round(share * needed * 1.25), spread)) > -0.05
    assert lower_bound(slipped(round(needed * 0.8), round(share * needed * 0.8), spread)) < -0.05


def test_no_number_of_questions_helps_if_the_loss_is_larger_than_the_margin():
    assert questions_for_margin(slipped(100, 20), 0.05) is None


def test_the_test_finds_a_difference_in_four_of_five_samples_of_the_stated_number():
    n = questions_for_difference(0.1, 0.2)
    assert n == 32
    random = np.random.default_rng(3)
    samples = random.normal(0.1, 0.2, (2000, n))
    t = samples.mean(axis=1) / (samples.std(axis=1, ddof=1) / math.sqrt(n))
    assert np.mean(t > 2.04) == pytest.approx(0.8, abs=0.05)


# The recommendation, on points whose scores are given.

DENSE = Setting("dense", rerank=False, k=10, instruction="first")
K10, K50, K200 = (replace(DENSE, rerank=True, k=k) for k in (10, 50, 200))
MILLISECONDS = {DENSE: 1.0, K10: 10.0, K50: 50.0, K200: 200.0}


def recommend(
    known: dict[Setting, np.ndarray], **tried: list[Setting]
) -> tuple[Setting | None, str]:
    """The choice among values of k, and what else was `tried`, by axis, from given scores."""

    def point(axis: str, setting: Setting) -> Point:
        time = Latency(MILLISECONDS.get(setting, 99.0), 99.0, 5)
        return Point(axis, "", f"k {setting.k}", setting, estimate(known[setting]), 1.0, time, 0)

    points = [point("k", setting) for setting in MILLISECONDS]
    points += [point(axis, setting) for axis, settings in tried.items() for setting in settings]
    return choose(points, known.__getitem__, 0.05)


def test_thirty_questions_recommend_nothing_even_if_all_settings_are_equal():
    for other in (np.ones(30), 1 + slipped(30, 1)):
        found, reason = recommend({DENSE: other, K10: other, K50: np.ones(30), K200: np.ones(30)})
        assert found is None
        assert reason.startswith("30 questions are too few")
        assert " 59 would be needed" in reason


def test_of_equal_settings_the_fastest_is_recommended():
    found, reason = recommend(dict.fromkeys(MILLISECONDS, np.ones(100)))
    assert found == DENSE
    assert "no faster one was tried" in reason


def test_the_fastest_setting_that_is_shown_to_lose_little_is_recommended():
    n = 100
    known = {DENSE: 1 + slipped(n, 60), K10: 1 + slipped(n, 30), K50: 1 + slipped(n, 1)}
    found, reason = recommend(known | {K200: np.ones(n)})
    assert found == K50
    assert "0.996 on 100 questions" in reason
    loss = -lower_bound(slipped(n, 1))
    assert f"loses less than {math.ceil(loss * 1000) / 1000:.3f}" in reason
    assert "the next faster one (k 10, 10 ms) is worse" in reason


def test_a_setting_on_which_the_questions_disagree_needs_more_questions():
    gained, lost = np.ones(100), np.ones(100)
    gained[:23] -= SLIP
    lost[40:65] -= SLIP
    found, reason = recommend({DENSE: 1 + slipped(100, 90), K10: lost, K50: lost, K200: gained})
    assert found is None
    assert "(k 50, 50 ms) loses less than 0.05 nDCG@10 cannot be told from 100 questions" in reason
    assert f"about {questions_for_margin(lost - gained, 0.05)} might" in reason
    # The same shares among more questions are enough.
    assert step_down(np.tile(gained, 4), [np.tile(lost, 4)], 0.05) == 1


def test_the_best_is_recommended_if_every_faster_one_is_worse():
    known = dict.fromkeys((DENSE, K10, K50), 1 + slipped(100, 60))
    found, reason = recommend(known | {K200: np.ones(100)})
    assert found == K200
    assert "(k 50, 50 ms) is worse" in reason


@pytest.mark.parametrize(("gains", "chosen"), [(20, "second"), (3, "first")])
def test_another_instruction_is_taken_only_if_it_is_shown_to_be_better(gains, chosen):
    second = replace(K10, instruction="second")
    known = {DENSE: np.full(100, 0.1), **dict.fromkeys((K10, K50, K200), np.full(100, 0.6))}
    known[second] = np.array([1.0] * gains + [0.6] * (100 - gains))
    found, _ = recommend(known, instruction=[second])
    assert found == replace(K10, instruction=chosen)


def test_dimensions_and_max_length_go_down_as_far_as_little_is_lost():
    whole, half, quarter = (replace(DENSE, dimensions=d) for d in (256, 128, 64))
    known = dict.fromkeys((K10, K50, K200), np.ones(100)) | {DENSE: 1 + slipped(100, 60)}
    known |= dict.fromkeys((whole, half, quarter), np.ones(100))
    known[replace(K10, dimensions=128)] = np.ones(100)
    known[replace(K10, dimensions=64)] = 1 + slipped(100, 40)
    short = replace(K10, max_length=256)
    known[short] = known[replace(short, dimensions=128)] = 1 + slipped(100, 1)
    found, _ = recommend(known, dimensions=[quarter, half, whole], max_length=[short])
    assert found == replace(K10, dimensions=128, max_length=256)


@pytest.mark.parametrize(
    ("low", "high", "threshold"),
    [(0, 30, None), (0, 100, 0.9), (1, 99, 0.9), (2, 98, 0.2), (20, 80, 0.2)],
)
def test_a_threshold_is_the_highest_that_is_shown_to_lose_little(low, high, threshold):
    # Of 100, one lost is shown to be less than 5 %: Clopper and Pearson say 4.7 %, of two 6.2 %.
    found = [(np.array([score]), 1) for score in [0.2] * low + [0.9] * high]
    assert highest_threshold(found, 0.05) == threshold


def test_a_threshold_counts_each_question_once():
    """A question with many answers weighs as much as one with a single one."""
    found = [(np.array([0.2] * 20), 20)] + [(np.array([0.9]), 1)] * 99
    assert highest_threshold(found, 0.05) == 0.9
