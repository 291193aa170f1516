"""Figures of time to quality: lines end where the records do, and what was not reached says so."""

from __future__ import annotations

import pytest

from peftlab.errors import RecordError
from peftlab.plots import ratios_to_target, validation_loss
from peftlab.results.comparison.targets import reach_table
from peftlab.results.records.run import EvaluationPoint
from tests.results.made import CURVES, curve_cost, curve_runs, record


def test_the_loss_is_drawn_over_steps_seconds_and_flops():
    plot = validation_loss(curve_runs(), curve_cost())
    steps, seconds, flops = plot.figure.get_axes()
    lines = {line.get_label(): line for line in steps.lines}
    assert list(lines["slow"].get_xdata()) == [10, 20, 30]
    assert list(lines["slow"].get_ydata()) == pytest.approx([0.6, 0.5, 0.46])
    for axis in (seconds, flops):
        ends = {line.get_label(): line.get_xdata()[-1] for line in axis.lines}
        assert ends["lora"] < ends["full"]
    dashed = [line for line in steps.lines if line.get_linestyle() == "--"]
    assert [line.get_ydata()[0] for line in dashed] == [0.45]
    assert len(plot.table) == 3 * 3 * 3
    assert "reaches, 0.450" in plot.alt


def test_only_the_selected_rate_is_drawn():
    worse = record("full", seed=0, rate=1e-4, dev=0.1).replaced(
        evaluations=[EvaluationPoint(step=10, epoch=1.0, metrics={"loss": 0.01, "accuracy": 0.1})]
    )
    plot = validation_loss([*curve_runs(), worse], curve_cost())
    assert len(plot.table) == 3 * 3 * 3
    assert "reaches, 0.450" in plot.alt


def test_what_was_never_reached_stands_at_the_top():
    table = reach_table(curve_runs(), curve_cost(), slacks=(0.0, 0.1))
    plot = ratios_to_target(table, "steps")
    (axis,) = plot.figure.get_axes()
    lines = {line.get_label(): list(line.get_ydata()) for line in axis.lines}
    names = [label.get_text() for label in axis.get_yticklabels()]
    never = axis.get_yticks()[names.index("not\nreached")]
    assert lines["slow"] == [never, pytest.approx((25.5 / 15.5) ** (2 / 3))]
    assert lines["lora"] == pytest.approx([15.5 / 25.5, 15.5 / 25.5])
    assert set(plot.table["method"]) == set(CURVES) - {"full"}
    assert "slow: never, 1.4" in plot.alt


def test_the_baseline_alone_is_nothing_to_draw():
    table = reach_table(curve_runs(), curve_cost())
    with pytest.raises(RecordError, match="no method beside 'full'"):
        ratios_to_target(table[table["method"] == "full"])
