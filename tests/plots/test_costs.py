"""Figures of cost: what is drawn is what the records say."""

from __future__ import annotations

import pytest

from peftlab.errors import RecordError
from peftlab.plots import costs
from peftlab.results.comparison.cost_table import cost_table, parts, text
from tests.results.made import METHODS, cost_record

RECORDS = [cost_record(8), cost_record(32)]


def test_the_ratio_and_its_tie_are_drawn():
    plot = costs.step_time(RECORDS)
    axes = plot.figure.get_axes()
    assert len(axes) == 2
    names = [label.get_text() for label in axes[0].get_yticklabels()]
    assert names[0] == "lora"
    assert names[-1] == "slow"
    assert "full again" not in names  # it is the grey band
    hollow = [
        names[int(line.get_ydata()[0])]
        for line in axes[0].lines
        if line.get_marker() == "o" and line.get_markerfacecolor() == "#ffffff"
    ]
    assert set(hollow) == {"full", "tie"}
    predicted = [line.get_xdata()[0] for line in axes[0].lines if line.get_marker() == "|"]
    assert min(predicted) == pytest.approx((1 + 2 * 0.7) / 3, abs=0.01)


def test_ratios_have_one_axis_and_are_to_the_baseline_of_the_records():
    axes = costs.step_time(RECORDS).figure.get_axes()
    assert axes[0].get_xlim() == axes[1].get_xlim()
    assert {axis.get_xlabel() for axis in axes} == {"ratio to full"}
    other = cost_record(8, baseline="slow")
    assert costs.step_time([other]).alt.startswith("Time as a ratio to slow,")
    with pytest.raises(RecordError, match="to full and to slow: draw those of one baseline"):
        costs.step_time([*RECORDS, other])


def test_letters_of_many_panels_are_not_shrunk():
    plot = costs.step_time([cost_record(batch) for batch in (1, 2, 4, 8)])
    axes = plot.figure.get_axes()
    assert len(axes) == 4
    assert plot.figure.get_figwidth() <= 7.3  # a column of 700 px at 96 px an inch
    assert len({axis.get_position().y0 for axis in axes}) == 2  # three panels, and one below


def test_a_step_is_drawn_in_its_parts():
    assert parts(RECORDS[0].candidates["lora"]) == pytest.approx(
        {
            "forward": 0.3 * 5.6,
            "activation_gradient": 0.2 * 5.6,
            "weight_gradient": 0.4 * 5.6,
            "optimiser": 0.1 * 5.6,
        }
    )
    plot = costs.step_parts(RECORDS)
    bars = plot.figure.get_axes()[0].patches
    assert len(bars) == 4 * 4
    assert sum(bar.get_width() for bar in bars) == pytest.approx(1000 * 8 * (1 + 1.3 + 0.7 + 1))
    assert "activation gradient" in plot.alt


def test_noise_makes_no_part_negative():
    odd = RECORDS[0].candidates["lora"].model_copy(update={"activation": [0.0]})
    assert min(parts(odd).values()) == 0
    odd = odd.model_copy(update={"activation": [100.0]})
    assert parts(odd)["weight_gradient"] == 0


def test_memory_is_drawn_in_its_parts():
    bars = costs.memory(RECORDS).figure.get_axes()[0].patches
    assert sorted({bar.get_width() for bar in bars}) == [1, 2]


def test_the_surface_has_a_field_a_cell():
    plot = costs.surface([*RECORDS, cost_record(8, encoder="bert-large")], "slow")
    assert len(plot.table) == 3
    words = [text.get_text() for axis in plot.figure.get_axes()[:2] for text in axis.texts]
    assert len(words) == 3
    assert all(word.startswith("1.3") for word in words)
    ties = costs.surface(RECORDS, "tie").figure.get_axes()[0].texts
    assert all(text.get_text().startswith("= ") for text in ties)


def test_the_surface_keeps_two_measurements_of_a_cell_apart():
    twice = [*RECORDS, cost_record(8, mode="inference")]
    panels = costs.surface(twice, "slow").figure.get_axes()[:2]
    assert [axis.get_title() for axis in panels] == ["bert-base, train", "bert-base, inference"]
    assert [len(axis.texts) for axis in panels] == [len(RECORDS), 1]


def test_what_was_not_timed_is_not_drawn():
    counted = [cost_record(timed=False)]
    with pytest.raises(RecordError, match="nothing to draw"):
        costs.step_time(counted)
    assert costs.surface(counted, "lora", "flop_ratio").table["flop_ratio"].notna().all()
    with pytest.raises(RecordError, match="nothing to draw"):
        costs.surface(RECORDS, "nonsense")


def test_the_table_for_a_terminal_marks_ties_and_what_is_slower():
    lines = {line.split()[0]: line for line in text(RECORDS[0]).splitlines()[1:]}
    assert "slower" in lines["slow"]
    assert "=" in lines["tie"]
    assert "slower" not in lines["lora"]
    assert cost_table(RECORDS)["method"].nunique() == len(METHODS)


@pytest.mark.parametrize("draw", [costs.step_time, costs.step_parts, costs.memory])
def test_figures_are_for_both_themes_and_in_words(draw):
    plot = draw(RECORDS)
    assert set(plot.figures) == {"light", "dark"}
    for label in METHODS[:-1]:
        assert label in plot.alt
    assert plot.svg("dark") == draw(RECORDS).svg("dark")
