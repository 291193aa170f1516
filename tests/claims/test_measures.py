"""What is measured for claims, on made records whose answer is known."""

from __future__ import annotations

import math

import pytest

from peftlab.claims import Evidence, Region
from peftlab.claims import measures as m
from peftlab.claims.trained import RunRatio
from peftlab.errors import RecordError, SettingsError
from peftlab.results.comparison.selection import part
from tests.results.made import SPEED, cost_record, curve_run, record
from tests.results.transferred import transferred


def test_a_check_of_runs_counts_seeds_and_waits_if_told():
    groups = {
        "majority": [record("majority", accuracy=0.1, rate=None)],
        "head": [record("head", accuracy=0.9)],
        "full": [run := curve_run("full", 0, [0.5, 0.4, 0.6])],
    }
    for waits, known in ((None, 1), ("majority", 1), ("head", 0), ("", 1), ("missing", None)):
        check = RunRatio.model_validate(
            {"measure": "run ratio", "what": "steps", "experiment": "made", "methods": ["full"]}
            | {"until": "stop", "unit": "steps", "patience": 1, "claimed": {"above": 1}}
            | ({} if waits is None else {"waits": waits})
        )
        found = check._estimate(Evidence("", ""), groups, [run], [run])
        if known is None:  # its control is not recorded: another rule is no answer
            assert found is None
            continue
        assert found is not None
        assert math.isfinite(found.value) == known
        assert (found.n, found.over) == (1, "seeds")


def test_a_step_is_timed_within_rounds():
    found = m.step_ratio(cost_record(), "lora", "full")
    assert found.low < found.value < found.high < 1
    assert found.value == pytest.approx(SPEED["lora"], rel=0.05)
    assert (found.n, found.over) == (12, "rounds")
    assert m.step_ratio(cost_record(), "lora", "slow").value == pytest.approx(0.7 / 1.3, rel=0.05)


def test_flops_are_exact_by_both_conventions():
    found = m.step_ratio(cost_record(), "lora", "full", "flops")
    expected = (100 * 8 + 2 * int(100 * 8 * 0.7)) / (3 * 100 * 8)
    assert (found.low, found.high) == (found.value, found.value)
    assert found.value == pytest.approx(expected)
    assert m.step_ratio(cost_record(), "lora", "full", "trainer flops").value == 1


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


def test_a_run_that_was_cut_off_gives_a_bound():
    def run(label: str, seed: int, seconds: float, scores: list[float]):
        made = curve_run(label, seed, [0.5] * 3, scores=scores)
        training = {**made.settings.training, "schedule": "constant", "patience": 2}
        settings = made.settings.model_copy(update={"training": training})
        return made.replaced(settings=settings, seconds={"train": seconds, "total": seconds})

    ended, on = [0.7, 0.6, 0.6], [0.5, 0.6, 0.7]
    seeds = (0, 1, 2)
    joint = [run("full", seed, 6, ended) for seed in seeds]
    short, cut = ([run("lora", seed, 4, scores) for seed in seeds] for scores in (ended, on))
    assert m.joint_ratio(joint, [short, short]).value == pytest.approx(6 / 8)
    below = m.joint_ratio(joint, [short, cut])
    assert str(below) == "below 0.75"
    assert Region(below=1).judge(below) == "reproduced"
    above = m.joint_ratio(cut, [joint])
    assert (above.low, above.high) == (pytest.approx(4 / 6), math.inf)
    assert Region(below=1).judge(above) == "undecided"
    assert str(m.joint_ratio(cut, [cut])) == "not known"


def test_seconds_of_two_processors_or_precisions_are_not_compared():
    def run(label: str, seconds: float, seed: int, cpu: str):
        spent = {"train": seconds, "total": seconds}
        flops = {"closed_form": 2 * seconds, "hugging_face": 1}
        return record(label, seed=seed).replaced(seconds=spent, machine={"cpu": cpu}, flops=flops)

    one = [run("full", 6, seed, "one") for seed in (0, 1, 2)]
    other = [run("lora", 3, seed, "two" if seed == 1 else "one") for seed in (0, 1, 2)]
    found = m.joint_ratio(one, [other])
    assert (found.value, found.n) == (pytest.approx(2), 2)
    none = m.joint_ratio(one, [other[1:2]])
    assert math.isnan(none.value)
    assert (str(none), Region(above=1).judge(none)) == ("not known", "undecided")
    assert m.joint_ratio(one, [other], "flops").n == 3
    narrow = [each.replaced(precision="bf16") for each in one]
    assert math.isnan(m.joint_ratio(narrow, [other]).value)
    assert m.joint_ratio(narrow, [other], "flops").n == 3
    elsewhere = [run("lora", 3, seed, "two") for seed in (0, 1, 2)]
    assert math.isnan(m.joint_ratio(one, [other, elsewhere]).value)


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
    with pytest.raises(RecordError, match="has no 'makro_f1': choose among accuracy, macro_f1"):
        m.score_difference(ours, theirs, "makro_f1")


def test_recorded_sizes_may_differ_by_seed():
    theirs = [record("full", seed=seed, trainable=1000) for seed in (0, 1, 2)]
    same = m.size_ratio(
        [record("x", seed=s, trainable=500) for s in (0, 1, 2)], theirs, "trainable"
    )
    assert (same.low, same.value, same.high) == (0.5, 0.5, 0.5)
    counts = (400, 500, 600)
    ours = [record("x", seed=s, trainable=n) for s, n in enumerate(counts)]
    found = m.size_ratio(ours, theirs, "trainable")
    assert found.value == pytest.approx((0.4 * 0.5 * 0.6) ** (1 / 3))
    assert 0 < found.low < 0.4 < 0.6 < found.high
    assert found.among(20).low > 0


def test_a_ratio_over_nothing_is_refused():
    idle = [record("majority", seed=s, trainable=0) for s in (0, 1)]
    ours = [record("x", seed=s) for s in (0, 1)]
    with pytest.raises(RecordError, match=r"\(majority\) has no trainable parameters"):
        m.size_ratio(ours, idle, "trainable")
    with pytest.raises(SettingsError, match="'full' has no inference parameters on 'roberta-base'"):
        m.count("roberta-base", "pfeiffer-16", "full", "inference", ratio=True)
    untrained = [r.replaced(seconds={"other": 1.0, "total": 1.0}) for r in idle]
    with pytest.raises(RecordError, match=r"\(majority\) trained nothing and has no cost"):
        m.joint_ratio(ours, [untrained])


def test_counts_are_those_of_the_third_paper():
    def trained(method: str, against: str | None = None) -> float:
        return m.count("roberta-base", method, against, "trainable", ratio=False).value

    assert trained("unipelt") == 11_083_376
    assert trained("pt-unipelt", "unipelt") == 7_680
    ratio = m.count("roberta-base", "pt-unipelt", "unipelt", "trainable", ratio=True)
    assert ratio.value == pytest.approx(11_091_056 / 11_083_376)
