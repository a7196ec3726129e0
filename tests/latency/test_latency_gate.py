from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from pytest_trt.errors import BackendError, SpecError
from pytest_trt.latency._decision import Suite, decide
from pytest_trt.latency._intervals import against_history, paired, pairs_needed, suspect
from pytest_trt.latency.rule import Compared, Rule, State

RULE = Rule()


def blocks(ratio: float, pairs: int = 20, noise: float = 0.01, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Block medians of about 1 ms, log-normal noise of so much a block."""
    random = np.random.default_rng(seed)
    return 1e-3 * np.exp(noise * random.normal(size=pairs)), 1e-3 * ratio * np.exp(noise * random.normal(size=pairs))


def runs(noise: float = 0.01, count: int = 20, seed: int = 0) -> np.ndarray:
    return 1e-3 * np.exp(noise * np.random.default_rng(seed).normal(size=count))


def state(compared: Compared, rule: Rule = RULE) -> State:
    return decide(compared, rule, rejected=Suite(rule).add("net", compared))[0]


def sentence(compared: Compared, rule: Rule = RULE) -> str:
    return decide(compared, rule, rejected=Suite(rule).add("net", compared))[1]


@pytest.mark.parametrize(
    ("ratio", "expected"), [(1.05, State.SLOW), (1 / 1.05, State.FAST), (1.0, State.SAME), (1.015, State.SAME)]
)
def test_interleaved_blocks_tell_slower_faster_and_the_same(ratio: float, expected: State) -> None:
    assert state(paired(*blocks(ratio), RULE)) is expected


def test_the_estimate_and_interval_are_those_of_a_paired_t_test() -> None:
    from scipy import stats

    baseline, candidate = blocks(1.04)
    compared = paired(baseline, candidate, RULE)
    oracle = stats.ttest_rel(np.log(candidate), np.log(baseline)).confidence_interval(0.98)
    assert math.log(compared.ratio) == pytest.approx(np.log(candidate / baseline).mean())
    assert np.log([compared.low, compared.high]) == pytest.approx([oracle.low, oracle.high])


def test_the_p_value_is_against_the_margin_and_not_against_equality() -> None:
    from scipy import stats

    baseline, candidate = blocks(1.04)
    oracle = stats.ttest_1samp(np.log(candidate / baseline), math.log(1.01), alternative="greater")
    assert paired(baseline, candidate, RULE).p_slow == pytest.approx(oracle.pvalue)


def test_a_slower_candidate_is_a_faster_one_seen_from_the_other_side() -> None:
    baseline, candidate = blocks(1.04)
    there, back = paired(baseline, candidate, RULE), paired(candidate, baseline, RULE)
    assert (there.p_slow, there.p_fast, there.mde) == pytest.approx((back.p_fast, back.p_slow, back.mde))
    assert there.ratio == pytest.approx(1 / back.ratio)


def test_the_interval_clears_the_margin_exactly_where_the_test_rejects() -> None:
    for seed in range(200):
        compared = paired(*blocks(1.02, seed=seed), RULE)
        assert (compared.low > 1.01) == (compared.p_slow < RULE.alpha)


@pytest.mark.parametrize("factor", [1.3, 3.0, 0.5])
def test_one_disturbed_block_changes_nothing_and_is_told(factor: float) -> None:
    baseline, candidate = blocks(1.0)
    candidate[7] *= factor
    compared = paired(baseline, candidate, RULE)
    assert state(compared) is State.SAME
    assert compared.n == 19
    assert "1 of 20 pairs of blocks were disturbed" in sentence(compared)


def test_one_disturbed_block_does_not_hide_a_slower_engine() -> None:
    baseline, candidate = blocks(1.05)
    baseline[3] *= 2
    assert state(paired(baseline, candidate, RULE)) is State.SLOW


def test_disturbed_blocks_on_one_side_never_make_slow_alone() -> None:
    baseline, candidate = blocks(1.0)
    candidate[:7] *= 1.5
    assert state(paired(baseline, candidate, RULE)) is State.AMBIGUOUS


def test_noise_that_could_hide_what_matters_is_ambiguous_and_not_a_pass() -> None:
    compared = paired(*blocks(1.0, noise=0.1), RULE)
    assert state(compared) is State.AMBIGUOUS
    assert "a change of 5.0 % is not ruled out" in sentence(compared)


def test_a_difference_under_the_threshold_is_told_and_is_the_same() -> None:
    assert "slower, under the threshold of 2.5 %" in sentence(paired(*blocks(1.02, noise=0.002), RULE))


def test_what_is_not_ruled_out_is_the_one_sided_bound_at_the_power_and_the_margin() -> None:
    from scipy import stats

    baseline, candidate = blocks(1.01)
    oracle = stats.ttest_rel(np.log(candidate), np.log(baseline)).confidence_interval(0.8)
    assert math.log1p(paired(baseline, candidate, RULE).unseen) == pytest.approx(oracle.high + math.log(1.01))


def test_the_same_is_said_of_an_unchanged_case_in_a_large_suite_too() -> None:
    rule = Rule(cases=50)
    compared = against_history(1e-3, runs(0.01), rule)
    assert compared.mde > against_history(1e-3, runs(0.01), RULE).mde
    assert state(compared, rule) is State.SAME


def test_what_may_be_five_percent_slower_is_not_the_same() -> None:
    history = runs(0.025)
    compared = against_history(float(np.exp(np.log(history).mean())) * 1.02, history, RULE)
    assert compared.unseen > 0.05
    assert state(compared) is State.AMBIGUOUS


def test_a_looser_threshold_still_can_say_the_same() -> None:
    loose = Rule(threshold=0.1)
    assert state(paired(*blocks(1.0, noise=0.03), loose), loose) is State.SAME


def test_the_sentence_says_what_a_green_gate_could_have_seen() -> None:
    compared = paired(*blocks(1.0), RULE)
    assert f"a slowdown of {100 * compared.mde:.1f} % is found with power 0.9" in sentence(compared)
    assert "98 % interval" in sentence(compared)
    assert "20 block pairs" in sentence(compared)


def test_the_minimum_detectable_effect_is_found_about_nine_times_in_ten() -> None:
    effects = [paired(*blocks(1.0, seed=seed, noise=0.02), RULE).mde for seed in range(100)]
    slow = [
        state(paired(*blocks(1 + float(np.median(effects)), seed=seed, noise=0.02), RULE)) is State.SLOW
        for seed in range(1000, 1400)
    ]
    assert 0.85 < np.mean(slow) < 0.96


def test_in_a_suite_of_fifty_the_minimum_detectable_effect_is_that_of_fifty() -> None:
    alone, among = (paired(*blocks(1.0, noise=0.03), Rule(cases=cases)).mde for cases in (1, 50))
    assert among > alone


@pytest.mark.parametrize(
    ("baseline", "candidate", "said"),
    [
        ([], [], "No block was measured"),
        ([1e-3], [2e-3], "One pair of blocks shows no noise"),
        ([1e-3] * 3, [1e-3] * 4, "3 of the baseline do not fit 4"),
        ([1e-3, math.nan] * 5, [1e-3] * 10, "5 of 20 block times are no times"),
        ([1e-3] * 10, [1e-3] * 9 + [-1e-3], "1 of 20"),
        ([1e-3] * 10, [0.0] * 10, "10 of 20"),
        ([1e-3] * 10, [math.inf] * 10, "10 of 20"),
        ([1e-3, 1.1e-3, 1.2e-3], [2e-3, 2.1e-3, 2e-3], "too few: 6 are needed"),
        ([1e-3] * 10, [1.005e-3] * 10, "a clock that shows no noise"),
        ([1.024e-5] * 10, [1.024e-5] * 5 + [1.126e-5] * 5, "The clock is too coarse"),
    ],
)
def test_what_can_not_be_judged_is_ambiguous_with_a_reason(
    baseline: np.ndarray | list[float], candidate: np.ndarray | list[float], said: str
) -> None:
    compared = paired(baseline, candidate, RULE)
    assert state(compared) is State.AMBIGUOUS
    assert said in sentence(compared)


def test_many_identical_blocks_are_the_same() -> None:
    assert state(paired([1e-3] * 20, [1e-3] * 20, RULE)) is State.SAME


def test_few_identical_blocks_are_not_yet_the_same() -> None:
    assert state(paired([1e-3] * 3, [1e-3] * 3, RULE)) is State.AMBIGUOUS


def test_a_caller_may_add_why_nothing_can_be_said() -> None:
    compared = paired(*blocks(1.2), RULE).because("The GPU was throttled.")
    assert state(compared) is State.AMBIGUOUS
    assert sentence(compared).startswith("The GPU was throttled. Ratio 1.2")


def test_pairs_that_are_needed_grow_with_the_square_of_the_noise() -> None:
    quiet, noisy = (paired(*blocks(1.0, noise=noise), RULE) for noise in (0.04, 0.12))
    few, many = pairs_needed(quiet, RULE), pairs_needed(noisy, RULE)
    assert few is not None
    assert 15 < few < 30
    assert many == pytest.approx(9 * few, rel=0.1)


def test_pairs_that_are_needed_suffice() -> None:
    pairs = pairs_needed(paired(*blocks(1.0, noise=0.03), RULE), RULE)
    assert pairs is not None
    assert paired(*blocks(1.0, noise=0.03, pairs=2 * pairs, seed=1), RULE).mde < RULE.must_see


def test_with_the_pairs_that_are_needed_the_effect_is_just_seen() -> None:
    from pytest_trt.latency._spread import effect

    compared = paired(*blocks(1.0, noise=0.04), Rule(cases=50))
    pairs = pairs_needed(compared, Rule(cases=50))
    assert pairs is not None
    less, enough = (
        effect(Rule(cases=50), compared.spread / math.sqrt(count), compared.n - 1, 0.01, 0.025)
        for count in (pairs - 1, pairs)
    )
    assert enough <= 0.05 < less


def test_no_number_of_pairs_is_told_where_nothing_is_known_of_the_noise() -> None:
    assert pairs_needed(paired([1e-3], [1e-3], RULE), RULE) is None


@pytest.mark.parametrize(("ratio", "expected"), [(1.06, State.SLOW), (1 / 1.06, State.FAST), (1.0, State.SAME)])
def test_a_history_tells_slower_faster_and_the_same(ratio: float, expected: State) -> None:
    assert state(against_history(ratio * 1e-3, runs(0.005), RULE)) is expected


def test_the_interval_over_a_history_predicts_the_next_run() -> None:
    from scipy import stats

    history = np.log(runs(count=20, seed=4))
    compared = against_history(1e-3, np.exp(history), RULE)
    half = stats.t.ppf(0.99, 19) * history.std(ddof=1) * math.sqrt(1 + 1 / 20)
    assert compared.high == pytest.approx(math.exp(math.log(1e-3) - history.mean() + half))


def test_one_bad_run_of_the_history_changes_nothing_and_is_told() -> None:
    history = runs(0.005)
    history[4] *= 1.1
    compared = against_history(1.05e-3, history, RULE)
    assert state(compared) is State.SLOW
    assert "1 of the earlier runs far from all others: left out" in sentence(compared)


def test_only_the_newest_runs_count() -> None:
    history = np.concatenate([runs(0.005) * 2, runs(0.005)])
    assert state(against_history(1e-3, history, RULE)) is State.SAME


@pytest.mark.parametrize(("ratio", "expected"), [(1.04, State.AMBIGUOUS), (1.0, State.AMBIGUOUS), (1.1, State.SLOW)])
def test_one_earlier_run_tells_large_changes_only(ratio: float, expected: State) -> None:
    assert state(against_history(ratio * 1e-3, [1e-3], RULE)) is expected


def test_one_earlier_run_on_a_machine_that_drifts_tells_less() -> None:
    assert state(against_history(1.1e-3, [1e-3], RULE, tau=0.03)) is State.AMBIGUOUS


def test_two_earlier_runs_do_not_show_enough_noise() -> None:
    compared = against_history(1.1e-3, [1e-3, 1.01e-3], RULE)
    assert state(compared) is State.AMBIGUOUS
    assert "2 earlier runs show little of the noise" in sentence(compared)


@pytest.mark.parametrize(
    ("value", "history", "said"),
    [
        (math.nan, [1e-3] * 9, "A p50 of nan s is no time"),
        (-1.0, [1e-3] * 9, "A p50 of -1 s is no time"),
        (1e-3, [], "There is no earlier run"),
        (1e-3, [1e-3, 0.0, 1e-3], "1 of 3 earlier runs"),
        (1.1e-3, [1e-3] * 20, "All 20 earlier runs have the same p50"),
        (1e-3, [1e-3] * 3, "All 3 earlier runs have the same p50"),
    ],
)
def test_what_a_history_can_not_judge_is_ambiguous_with_a_reason(
    value: float, history: np.ndarray | list[float], said: str
) -> None:
    compared = against_history(value, history, RULE)
    assert state(compared) is State.AMBIGUOUS
    assert said in sentence(compared)


def test_a_value_that_equals_a_long_identical_history_is_the_same() -> None:
    assert state(against_history(1e-3, [1e-3] * 20, RULE)) is State.SAME


def test_a_second_measurement_confirms_what_one_alone_can_not() -> None:
    rule = Rule(cases=50)
    history = runs(0.01)
    first = against_history(1.029e-3, history, rule)
    both = against_history(1.029e-3, history, rule, again=1.029e-3, own_process=True)
    assert suspect(first)
    assert (state(first, rule), state(both, rule)) == (State.AMBIGUOUS, State.SLOW)


def test_a_second_measurement_of_the_same_process_adds_no_evidence() -> None:
    once, both = (against_history(1.04e-3, runs(), RULE, again=again) for again in (None, 1.04e-3))
    assert both == once


def test_a_second_measurement_that_does_not_confirm_is_told() -> None:
    both = against_history(1.3e-3, runs(0.005), RULE, again=1e-3)
    assert state(both) is State.AMBIGUOUS
    assert "did not confirm the first: 1.301 and then 1.001 times the history" in sentence(both)


def test_nobody_measures_again_what_looks_as_before() -> None:
    assert not suspect(against_history(1e-3, runs(), RULE))


def test_rejections_agree_with_scipy_where_the_whole_suite_was_seen() -> None:
    from scipy.stats import false_discovery_control

    from pytest_trt.latency._decision import rejected

    for seed in range(50):
        p_values = np.random.default_rng(seed).beta(0.3, 1, size=30)
        assert rejected(list(p_values), 0.05, 30) == np.sum(false_discovery_control(p_values) <= 0.05)


def slower(p: float) -> Compared:
    """A comparison 5 % slower with this p."""
    from dataclasses import replace

    return replace(paired(*blocks(1.05), RULE), p_slow=p, p_fast=1.0)


def test_what_was_rejected_early_is_never_taken_back() -> None:
    suite = Suite(Rule(cases=50))
    assert suite.add("first", slower(0.0005))
    for case in range(49):
        suite.add(f"case {case}", slower(0.9))
    assert suite.add("first", slower(0.0005))
    assert suite.finish() == {}


def test_what_only_the_whole_suite_rejects_is_told_at_the_end() -> None:
    suite = Suite(Rule(cases=20))
    assert [suite.add(case, slower(0.009)) for case in "abcd"] == [False, False, False, True]
    assert list(suite.finish()) == ["a", "b", "c"]


def test_a_case_that_could_not_be_judged_helps_no_other() -> None:
    suite = Suite(Rule(cases=2))
    assert not suite.add("throttled", slower(0.001).because("The GPU was throttled."))


def test_a_rerun_that_does_not_count_may_count_by_the_end() -> None:
    suite = Suite(Rule(cases=20))
    assert suite.add("a", slower(0.001))
    assert not suite.add("a", slower(0.009))
    for case in "bcd":
        suite.add(case, slower(0.009))
    assert list(suite.finish()) == ["a", "b", "c"]


def test_faster_cases_do_not_make_others_slow() -> None:
    suite = Suite(Rule(cases=10))
    for case in range(9):
        suite.add(f"fast {case}", paired(*blocks(1 / 1.05, seed=case), RULE))
    assert not suite.add("net", slower(0.008))


def test_more_cases_than_were_announced_are_all_counted() -> None:
    suite = Suite(Rule(cases=1))
    for case in range(99):
        suite.add(f"case {case}", slower(0.9))
    assert not suite.add("net", slower(0.009))


@pytest.mark.parametrize("words", [{"alpha": 0.0}, {"margin": -0.1}, {"cases": 0}, {"power": 1.0}])
def test_a_rule_that_means_nothing_is_refused(words: dict[str, Any]) -> None:
    with pytest.raises(SpecError, match="out of range"):
        Rule(**words)


def test_without_scipy_the_message_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "scipy.special", None)
    with pytest.raises(BackendError, match=r'The latency gate needs scipy.*pip install "pytest-trt\[latency\]"'):
        paired(*blocks(1.0), RULE)


@pytest.mark.parametrize("seed", range(60))
def test_no_times_whatever_end_in_an_exception_or_are_the_same_by_silence(seed: int) -> None:
    random = np.random.default_rng(seed)
    odd = np.array([0.0, -1.0, math.nan, math.inf, 1e-300, 1e300, 5e-324])
    count = int(random.integers(0, 12))
    baseline, candidate = (np.exp(random.normal(size=count)) for _ in range(2))
    candidate[random.random(count) < 0.3] = random.choice(odd)
    for compared in (paired(baseline, candidate, RULE), against_history(random.choice(odd), candidate, RULE)):
        assert state(compared) is not State.SAME
        assert sentence(compared)
