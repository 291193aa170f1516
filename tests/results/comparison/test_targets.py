"""Time to quality: steps to a target and to a rule's end, from curves that are known."""

from __future__ import annotations

import math

import pytest

from peftlab.errors import RecordError
from peftlab.results.comparison.targets import (
    clearly_above,
    losses,
    nearest_machine,
    reach_table,
    reached,
    stop_table,
    stopped,
    target,
)
from peftlab.results.records.run import EvaluationPoint
from tests.results.made import CURVES, SPEED, cost_record, curve_cost, curve_run, curve_runs, record


def test_the_target_is_the_median_of_the_lowest_losses():
    full = [r for r in curve_runs() if r.settings.method_label == "full"]
    assert target(full) == 0.4
    assert target(full, slack=0.1) == pytest.approx(0.44)
    assert target(full, 0.0, max) == max(min(loss for _, loss in losses(r)) for r in full)
    assert target(full, 0.0, max) > target(full)
    with pytest.raises(RecordError, match="no run to take a target from"):
        target([])


def test_a_run_reaches_a_target_between_two_evaluations():
    one = curve_run("full", 0, [0.6, 0.4, 0.5])
    assert reached(one, 0.4) == (11, 20)
    assert reached(one, 0.4).middle == 15.5
    assert reached(one, 0.7) == (1, 10)
    assert reached(one, 0.39) == (30, math.inf)
    bare = one.replaced(evaluations=[EvaluationPoint(step=1, epoch=1.0, metrics={"accuracy": 0.5})])
    with pytest.raises(RecordError, match="no validation loss"):
        reached(bare, 0.4)


def test_patience_counts_judgements_without_a_new_best():
    one = curve_run("full", 0, [0.5] * 6, scores=[0.6, 0.7, 0.7, 0.65, 0.7, 0.9])
    assert stopped(one, patience=3, every=10) == (50, 0.7)
    assert stopped(one, patience=4, every=10) == (math.inf, 0.9)
    # judged at 20, 40, 60 only
    assert stopped(one, patience=1, every=20) == (40, 0.7)
    assert stopped(one, patience=2, every=20) == (math.inf, 0.9)


def test_a_run_that_has_not_begun_to_learn_is_not_stopped():
    one = curve_run("full", 0, [0.5] * 6, scores=[0.5, 0.5, 0.5, 0.8, 0.7, 0.7])
    assert stopped(one, patience=2, every=10) == (30, 0.5)
    assert stopped(one, patience=2, every=10, floor=0.5) == (60, 0.8)
    assert stopped(one, patience=3, every=10, floor=0.5) == (math.inf, 0.8)
    assert stopped(one, patience=2, every=10, floor=0.9) == (math.inf, 0.8)


def test_clearly_above_the_majority():
    made = record("majority", accuracy=0.6, rate=None)
    share, rows = made.score("dev"), made.sizes.dev
    expected = share + 2 * math.sqrt(share * (1 - share) / rows)
    assert clearly_above([made]) == pytest.approx(expected)
    nothing = made.replaced(metrics=made.metrics | {"dev": {made.main_metric: 0.0}})
    assert clearly_above([nothing]) == 0
    assert clearly_above([]) == -math.inf


def test_the_table_of_the_rule_asks_the_majority():
    majority = record("majority", accuracy=0.9, rate=None)
    table = stop_table([*curve_runs(), majority], curve_cost(), patience=1, every=10)
    assert not table["stopped"].any()


def test_the_table_has_steps_seconds_and_flops_with_their_ratios():
    table = reach_table(curve_runs(), curve_cost(), slacks=(0.0, 0.1)).set_index(
        ["slack", "method"]
    )
    full, slow, lora = (table.loc[(0.0, label)] for label in CURVES)
    assert (full["reached"], slow["reached"], lora["reached"]) == (2, 1, 2)
    assert (full["steps"], lora["steps"]) == (30, 20)
    assert slow["steps"] == slow["seconds_ratio"] == math.inf
    assert (full["steps_ratio"], full["seconds_ratio"]) == (1, 1)
    assert lora["steps_ratio"] == pytest.approx(2 / 3)
    assert lora["seconds_ratio"] == pytest.approx(2 / 3 * SPEED["lora"], rel=0.05)
    assert lora["tflop_ratio"] == pytest.approx(2 / 3 * (1 + 2 * 0.7) / 3, rel=0.01)
    # of a seed to a seed: from the fastest against one that never got there, to the reverse
    assert (lora["steps_low"], lora["steps_high"]) == (0, math.inf)
    easier = table.loc[(0.1, "slow")]
    assert (easier["reached"], easier["steps"]) == (3, 30)


def test_the_table_of_the_rule():
    table = stop_table(curve_runs(), curve_cost(), patience=1, every=10).set_index("method")
    assert table.loc["full", "stopped"] == 2 and table.loc["full", "steps"] == 30
    # the rule did not end it: what is known is that it takes more than the run
    assert table.loc["slow", "bound"] and table.loc["slow", "steps"] == 30
    assert not table.loc["full", "bound"] and not table.loc["lora", "bound"]
    assert table.loc["lora", "best_score"] == pytest.approx((0.7 + 0.7 + 0.4) / 3)
    assert table.loc["lora", "steps_ratio"] == pytest.approx(20 / 30)


def test_what_cannot_be_compared_is_refused():
    with pytest.raises(RecordError, match="choose a baseline among"):
        reach_table(curve_runs(), curve_cost(), baseline="head")
    with pytest.raises(RecordError, match="no common target"):
        reach_table([*curve_runs(), record("full", task="other")], curve_cost())
    with pytest.raises(RecordError, match="no timed method with the settings of 'full'"):
        reach_table(curve_runs(), cost_record(timed=False))


def test_a_step_is_priced_on_the_machine_of_the_run():
    def timed(processor, threads):
        made = curve_cost()
        settings = made.settings.model_copy(update={"processor": processor, "threads": threads})
        return made.model_copy(update={"id": f"{processor} {threads}", "settings": settings})

    costs = [timed("other", 1), timed("ours", 2), timed("ours", 1)]
    run = curve_run("full", 0, [0.5]).replaced(machine={"cpu": "ours", "torch_threads": 1})
    assert nearest_machine(costs, run).id == "ours 1"
    assert nearest_machine(costs[:2], run).id == "ours 2"
    assert nearest_machine(costs[:1], run).id == "other 1"
