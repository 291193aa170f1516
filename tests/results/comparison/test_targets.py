"""Tables of time to quality: steps, seconds and FLOPs with their ratios, from known curves."""

from __future__ import annotations

import math

import pytest

from peftlab.errors import RecordError
from peftlab.results.comparison.targets import UNITS, reach_table, stop_table
from tests.results.made import CURVES, SPEED, cost_record, curve_cost, curve_runs, record


def test_the_table_has_steps_seconds_and_flops_with_their_ratios():
    table = reach_table(curve_runs(), curve_cost(), slacks=(0.0, 0.1)).set_index(
        ["slack", "method"]
    )
    full, slow, lora = (table.loc[(0.0, label)] for label in CURVES)
    assert full["target"] == 0.45
    assert (full["reached"], slow["reached"], lora["reached"]) == (3, 1, 2)
    assert (full["steps"], lora["steps"]) == (20, 20)
    assert slow["steps"] == slow["seconds_ratio"] == math.inf
    assert [full[f"{unit}_{of}"] for unit in UNITS for of in ("ratio", "low", "high")] == [1] * 9
    # of steps 1 to 10, 11 to 20 and more than 30 over 11 to 20, 21 to 30 and 11 to 20: the median
    assert lora["steps_ratio"] == pytest.approx(15.5 / 25.5)
    assert lora["steps_low"] < 15.5 / 25.5 and lora["steps_high"] == math.inf
    assert lora["seconds_ratio"] == pytest.approx(15.5 / 25.5 * SPEED["lora"], rel=0.05)
    assert lora["tflop_ratio"] == pytest.approx(15.5 / 25.5 * (1 + 2 * 0.7) / 3, rel=0.01)
    easier = table.loc[(0.1, "slow")]
    assert (easier["reached"], easier["steps"]) == (3, 30)
    assert easier["steps_ratio"] == pytest.approx((25.5 / 15.5) ** (2 / 3))
    assert easier["steps_low"] < easier["steps_ratio"] < easier["steps_high"] < math.inf


def test_the_table_of_the_rule():
    table = stop_table(curve_runs(), curve_cost(), patience=1).set_index("method")
    full, slow, lora = (table.loc[label] for label in CURVES)
    assert (full["stopped"], slow["stopped"], lora["stopped"]) == (2, 0, 3)
    assert (full["steps"], slow["steps"], lora["steps"]) == (30, math.inf, 20)
    assert lora["best_score"] == pytest.approx((0.7 + 0.7 + 0.4) / 3)
    # 20 over 30, 30 over more than 30, 20 over 30; the last of slow is not over
    assert lora["steps_ratio"] == pytest.approx(2 / 3)
    assert lora["steps_low"] == 0 and lora["steps_high"] >= 2 / 3
    assert slow["steps_ratio"] == math.inf


def test_the_table_of_the_rule_asks_the_majority():
    majority = record("majority", accuracy=0.9, rate=None)
    table = stop_table([*curve_runs(), majority], curve_cost(), patience=1)
    assert not table["stopped"].any()
    assert table.set_index("method").loc["lora", ["steps_low", "steps_high"]].tolist() == [
        0,
        math.inf,
    ]


def test_what_cannot_be_compared_is_refused():
    with pytest.raises(RecordError, match="choose a baseline among"):
        reach_table(curve_runs(), curve_cost(), baseline="head")
    with pytest.raises(RecordError, match="no common target"):
        reach_table([*curve_runs(), record("full", task="other")], curve_cost())
    with pytest.raises(RecordError, match="no timed method with the settings of 'full'"):
        reach_table(curve_runs(), cost_record(timed=False))
