"""What a step costs: which measurement is taken, and of which method in it."""

from __future__ import annotations

import pytest

from peftlab.errors import RecordError
from peftlab.results.comparison.cost_table import comparison
from peftlab.results.comparison.step_price import label_in, nearest_machine, price, step_ratio
from peftlab.timing.intervals import Ratio
from tests.results.made import SPEED, cost_record, curve_cost, curve_run, record


def test_a_step_is_priced_on_the_machine_of_the_run():
    def timed(processor, threads, precision="fp32"):
        made = curve_cost()
        told = {"processor": processor, "threads": threads, "precision": precision}
        settings = made.settings.model_copy(update=told)
        name = " ".join(map(str, told.values()))
        return made.model_copy(update={"id": name, "settings": settings})

    costs = [timed("other", 1), timed("ours", 2), timed("ours", 1)]
    run = curve_run("full", 0, [0.5]).replaced(machine={"cpu": "ours", "torch_threads": 1})
    assert nearest_machine(costs, run).id == "ours 1 fp32"
    assert nearest_machine(costs[:2], run).id == "ours 2 fp32"
    assert nearest_machine(costs[:1], run).id == "other 1 fp32"
    gpu = run.replaced(device="cuda", machine={"cpu": "other", "gpu": {"name": "ours"}})
    assert nearest_machine(costs, gpu).id == "ours 1 fp32"
    half = [*costs, timed("other", 1, "bf16"), timed("ours", 2, "bf16")]
    assert nearest_machine(half, run).id == "ours 1 fp32"
    assert nearest_machine(half, run.replaced(precision="bf16")).id == "ours 2 bf16"


def test_a_method_is_found_by_its_settings():
    assert label_in(curve_cost(), record("lora")) == "lora"
    with pytest.raises(RecordError, match="no timed method with the settings"):
        label_in(curve_cost(), record("prefix"))


def test_a_step_has_seconds_and_flops():
    cost = curve_cost()
    found = price(record("lora"), cost)
    assert found.seconds == pytest.approx(SPEED["lora"] * 8 / 1000, rel=0.05)
    assert found.flops == 100 * 8 + 2 * int(100 * 8 * 0.7)
    candidates = {
        label: each.model_copy(update={"flops": None}) for label, each in cost.candidates.items()
    }
    with pytest.raises(RecordError, match="has no FLOPs of 'lora'"):
        price(record("lora"), cost.model_copy(update={"candidates": candidates}))


def test_any_two_methods_within_the_noise_of_the_baseline_are_a_tie():
    made = cost_record()
    # 0.5 % apart in every round, where the baseline and itself are up to 3 % apart
    again = [s * (1 + 0.03 * (-1) ** n) for n, s in enumerate(made.candidates["full"].seconds)]
    near = [1.005 * s for s in made.candidates["lora"].seconds]
    candidates = dict(made.candidates)
    for label, seconds in (("full again", again), ("slow", near)):
        candidates[label] = candidates[label].model_copy(update={"seconds": seconds})
    found = step_ratio(made.model_copy(update={"candidates": candidates}), "slow", "lora")
    assert found.ratio == pytest.approx(1.005)
    assert found.low == 1
    far = step_ratio(made.model_copy(update={"candidates": candidates}), "tie", "lora")
    assert far.low > 1.3  # a tie with the baseline is none with another


def test_what_the_baseline_is_off_from_itself_widens_every_interval():
    made = cost_record()
    plain = comparison(made).ratio("lora", "full")
    for factor in (1.04, 1 / 1.04):  # in every round: the same model in another place
        again = [factor * s for s in made.candidates["full"].seconds]
        candidate = made.candidates["full again"].model_copy(update={"seconds": again})
        candidates = made.candidates | {"full again": candidate}
        found = step_ratio(made.model_copy(update={"candidates": candidates}), "lora", "full")
        assert found.ratio == plain.ratio
        assert (found.low, found.high) == pytest.approx((plain.low / 1.04, plain.high * 1.04))
    assert step_ratio(made, "full", "full") == Ratio(1.0, 1.0, 1.0)


def test_a_step_that_cannot_be_told_from_the_baseline_holds_one():
    cost = cost_record()
    label = next(label for label in cost.candidates if label.startswith("tie"))
    found = step_ratio(cost, label, "full")
    assert found.low <= 1 <= found.high


def test_what_was_not_timed_is_one_sentence():
    with pytest.raises(RecordError, match="has not timed 'lora' and 'full'"):
        step_ratio(cost_record(timed=False), "lora", "full")
