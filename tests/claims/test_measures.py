"""What is measured for claims, on made records whose answer is known."""

from __future__ import annotations

import math

import pytest

from peftlab.claims import Estimate, Evidence
from peftlab.claims import measures as m
from peftlab.claims.trained import RunRatio
from peftlab.errors import RecordError
from peftlab.results.comparison.selection import part
from peftlab.results.comparison.targets import label_in
from tests.results.made import SPEED, cost_record, curve_cost, curve_run, record
from tests.results.transferred import transferred


def runs(label: str, steps: list[float], rate: float = 1e-3) -> list:
    """Runs of 30 steps whose loss first comes below 0.5 at the given step; infinite: never."""
    return [
        curve_run(label, seed, [0.4 if 10 * n >= step else 0.6 for n in (1, 2, 3)])
        for seed, step in enumerate(steps)
    ]


def below(run) -> m.targets.Span:
    """The first evaluation below 0.5, as if it were known that it was reached then."""
    span = m.targets.reached(run, 0.5)
    return m.targets.Span(min(span.most, run.evaluations[-1].step), span.most)


def test_a_ratio_of_runs_is_the_geometric_mean_over_seeds():
    found = m.run_ratio(runs("lora", [20, 20, 20]), runs("full", [10, 10, 10]), below)
    assert (found.value, found.low, found.high) == pytest.approx((2, 2, 2))
    found = m.run_ratio(runs("lora", [10, 20]), runs("full", [10, 10]), below)
    assert found.value == pytest.approx(math.sqrt(2))
    assert found.low < 1 < 2 < found.high
    assert (found.n, found.over) == (2, "seeds")


def test_seeds_are_paired():
    ours, theirs = runs("lora", [10, 20, 30]), runs("full", [10, 20, 30])
    found = m.run_ratio(ours, list(reversed(theirs)), below)
    assert (found.value, found.low, found.high) == pytest.approx((1, 1, 1))


def test_what_was_not_reached_is_a_lower_bound():
    found = m.run_ratio(runs("lora", [math.inf] * 3), runs("full", [10, 10, 10]), below)
    assert found.value == found.high == math.inf
    assert found.low == pytest.approx(3)  # 30 steps at least, over 10
    found = m.run_ratio(runs("lora", [10, 10, 10]), runs("full", [math.inf] * 3), below)
    assert (found.value, found.low) == (0, 0)
    assert found.high == pytest.approx(1 / 3)


def test_a_step_between_two_evaluations_widens_the_ratio():
    # seen after 20 of steps 11 to 20, over 10 of 1 to 10, in every seed
    ours, theirs = runs("lora", [20] * 3), runs("full", [10] * 3)
    found = m.run_ratio(ours, theirs, m.reaching(theirs, 0.0))
    assert found.value == pytest.approx(5.5**-1 * 15.5)
    assert (found.low, found.high) == pytest.approx((11 / 10, 20 / 1))
    found = m.run_ratio(runs("lora", [math.inf] * 3), theirs, m.reaching(theirs, 0.0))
    assert (found.value, found.high) == (math.inf, math.inf)
    assert found.low == pytest.approx(30 / 10)


def test_nothing_is_known_where_neither_got_there():
    found = m.run_ratio(runs("lora", [math.inf, 10]), runs("full", [math.inf, 10]), below)
    assert math.isnan(found.value)
    assert (found.low, found.high) == (0, math.inf)


def test_one_seed_has_no_interval():
    found = m.run_ratio(runs("lora", [20]), runs("full", [10]), below)
    assert found.value == pytest.approx(2)
    assert math.isnan(found.low)


def test_the_price_of_a_step_multiplies_and_widens():
    ours, theirs = runs("lora", [20, 20, 20]), runs("full", [10, 10, 10])
    step = Estimate(0.5, 0.4, 0.6, 10, "rounds", ratio=True)
    found = m.run_ratio(ours, theirs, below, step)
    assert (found.value, found.low, found.high) == pytest.approx((1, 0.8, 1.2))


def test_runs_without_a_common_seed_are_refused():
    with pytest.raises(RecordError, match="share no seed"):
        m.run_ratio(runs("lora", [10]), runs("full", [10, 10])[1:], below)


def test_the_rule_of_stopping_judges_once_an_epoch():
    run = curve_run("full", 0, [0.5, 0.4, 0.6])
    settings = run.settings.model_copy(
        update={"training": {**run.settings.training, "batch_size": 10}}
    )
    run = run.replaced(settings=settings)  # 100 rows: an epoch has 10 steps, as between evaluations
    assert m.stopping(1)(run) == (30, 30)
    assert m.stopping(2)(run) == (30, math.inf)
    majority = record("majority", accuracy=0.9, rate=None)
    assert m.stopping(1, [majority])(run) == (30, math.inf)  # it has not begun to learn
    low = record("majority", accuracy=0.1, rate=None)
    assert m.stopping(1, [low])(run) == (30, 30)
    told = run.settings.model_copy(
        update={"training": {**run.settings.training, "patience_above": 0.7}}
    )
    assert m.stopping(1, [low])(run.replaced(settings=told)) == (30, math.inf)
    assert m.stopping(1)(run.replaced(settings=told)) == (30, 30)
    for waits, known in ((True, False), (False, True)):
        check = RunRatio.model_validate(
            {"measure": "run ratio", "what": "steps", "experiment": "made", "methods": ["full"]}
            | {"until": "stop", "unit": "steps", "patience": 1, "waits": waits}
            | {"claimed": {"above": 1}}
        )
        groups = {"majority": [majority], "full": [run]}
        found = check._estimate(Evidence("", ""), groups, [run], [run])
        assert found is not None
        assert math.isfinite(found.value) == known


def test_a_target_is_the_baselines():
    # that all of its runs reach
    theirs = [curve_run("full", n, c) for n, c in enumerate([[0.6, 0.4, 0.5], [0.6, 0.5, 0.3]])]
    assert m.reaching(theirs, 0.0)(curve_run("lora", 0, [0.5, 0.41, 0.39])) == (21, 30)
    assert m.reaching(theirs, 0.1)(curve_run("lora", 0, [0.5, 0.41, 0.39])) == (11, 20)


def test_a_step_is_timed_within_rounds():
    found = m.step_ratio(cost_record(), "lora", "full")
    assert found.low < found.value < found.high < 1
    assert found.value == pytest.approx(SPEED["lora"], rel=0.05)
    assert (found.n, found.over) == (12, "rounds")
    assert m.step_ratio(cost_record(), "lora", "slow").value == pytest.approx(0.7 / 1.3, rel=0.05)


def test_any_two_methods_within_the_noise_of_the_baseline_are_a_tie():
    made = cost_record()
    # 0.5 % apart in every round, where the baseline and itself are up to 3 % apart
    again = [s * (1 + 0.03 * (-1) ** n) for n, s in enumerate(made.candidates["full"].seconds)]
    near = [1.005 * s for s in made.candidates["lora"].seconds]
    candidates = dict(made.candidates)
    for label, seconds in (("full again", again), ("slow", near)):
        candidates[label] = candidates[label].model_copy(update={"seconds": seconds})
    found = m.step_ratio(made.model_copy(update={"candidates": candidates}), "slow", "lora")
    assert found.value == pytest.approx(1.005)
    assert found.low == 1
    far = m.step_ratio(made.model_copy(update={"candidates": candidates}), "tie", "lora")
    assert far.low > 1.3  # a tie with the baseline is none with another


def test_a_step_that_cannot_be_told_from_the_baseline_holds_one():
    cost = cost_record()
    label = next(label for label in cost.candidates if label.startswith("tie"))
    found = m.step_ratio(cost, label, "full")
    assert found.low <= 1 <= found.high


def test_flops_are_exact_by_both_conventions():
    found = m.step_ratio(cost_record(), "lora", "full", "flops")
    expected = (100 * 8 + 2 * int(100 * 8 * 0.7)) / (3 * 100 * 8)
    assert (found.low, found.high) == (found.value, found.value)
    assert found.value == pytest.approx(expected)
    assert m.step_ratio(cost_record(), "lora", "full", "trainer flops").value == 1


def test_what_was_not_timed_is_one_sentence():
    with pytest.raises(RecordError, match="has not timed"):
        m.step_ratio(cost_record(timed=False), "lora", "full")


def test_a_method_is_found_by_its_settings():
    assert label_in(curve_cost(), record("lora")) == "lora"
    with pytest.raises(RecordError, match="no timed method with the settings"):
        label_in(curve_cost(), record("prefix"))


def test_one_run_on_several_tasks_is_compared_task_by_task():
    joint = [
        record("full", "both", seed).replaced(
            metrics={"test": {"mean": 0.8}, "a": {"accuracy": 0.9, "f1": 0.1}},
            main_metric="mean",
            example_scores={"a": [1.0] * 180 + [0.0] * 20},
        )
        for seed in (0, 1)
    ]
    single = [record("lora", "a", seed, accuracy=0.7) for seed in (0, 1)]
    found = m.score_difference([part(run, "a") for run in joint], single)
    assert found.value == pytest.approx(0.2)
    assert found.over == "seeds and examples"


def test_the_time_of_one_run_is_set_against_the_sum():
    def timed(label: str, seconds: float, seed: int):
        return record(label, seed=seed).replaced(seconds={"train": seconds, "total": seconds})

    joint = [timed("full", 6, seed) for seed in (0, 1)]
    single = [[timed("lora", 4, seed) for seed in (1, 0)], [timed("lora", 8, s) for s in (0, 1)]]
    found = m.joint_ratio(joint, single)
    assert (found.value, found.low, found.high) == pytest.approx((0.5, 0.5, 0.5))
    with pytest.raises(RecordError, match="how many FLOPs"):
        m.joint_ratio(joint, single, "flops")


def test_transfer_is_the_mean_of_the_other_languages():
    ours = [transferred("lora", seed, (0.8, 0.6, 0.3)) for seed in (0, 1, 2)]
    theirs = [transferred("full", seed, (0.9, 0.7, 0.4)) for seed in (0, 1, 2)]
    found = m.transfer_difference(ours, theirs)
    assert found.value == pytest.approx(-0.1)
    assert found.low < -0.1 < found.high < 0
    assert (found.n, found.over) == (3, "seeds and examples")
    elsewhere = [
        transferred("full", seed, (0.9, 0.7, 0.4), others=("sib200/deu_Latn", "sib200/swh_Latn"))
        for seed in (0, 1, 2)
    ]
    with pytest.raises(RecordError, match="not scored in the same languages"):
        m.transfer_difference(ours, elsewhere)
    with pytest.raises(RecordError, match="have 1 transfers together"):
        m.transfer_difference(ours, [record("full")])


def test_another_metric_is_over_seeds():
    def with_f1(label: str, seed: int, f1: float):
        run = record(label, seed=seed, accuracy=0.8)
        return run.replaced(metrics={"test": {**run.metrics["test"], "macro_f1": f1}})

    ours = [with_f1("lora", seed, 0.6 + seed / 100) for seed in (0, 1, 2)]
    theirs = [with_f1("full", seed, 0.5 + seed / 100) for seed in (0, 1, 2)]
    found = m.score_difference(ours, theirs, "macro_f1")
    assert found.value == pytest.approx(0.1)
    assert found.over == "seeds"


def test_recorded_sizes_may_differ_by_seed():
    theirs = [record("full", seed=seed, trainable=1000) for seed in (0, 1, 2)]
    same = m.size_ratio(
        [record("x", seed=s, trainable=500) for s in (0, 1, 2)], theirs, "trainable"
    )
    assert (same.low, same.value, same.high) == (0.5, 0.5, 0.5)
    counts = (400, 500, 600)
    ours = [record("x", seed=s, trainable=n) for s, n in enumerate(counts)]
    found = m.size_ratio(ours, theirs, "trainable")
    assert found.value == pytest.approx(0.5)
    assert found.low < 0.4 < 0.6 < found.high


def test_counts_are_those_of_the_third_paper():
    def trained(method: str, against: str | None = None) -> float:
        return m.count("roberta-base", method, against, "trainable", ratio=False).value

    assert trained("unipelt") == 11_083_376
    assert trained("pt-unipelt", "unipelt") == 7_680
    ratio = m.count("roberta-base", "pt-unipelt", "unipelt", "trainable", ratio=True)
    assert ratio.value == pytest.approx(11_091_056 / 11_083_376)
