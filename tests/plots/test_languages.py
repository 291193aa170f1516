"""Figures of transfer: what the table says is what is drawn."""

from __future__ import annotations

import pytest
from matplotlib.colors import to_rgb
from matplotlib.patches import Rectangle

from peftlab import plots
from peftlab.errors import RecordError
from peftlab.plots.page import THEMES
from tests.results.transferred import experiment, transferred


def cells(axis):
    """Return the rectangles of a panel by their place."""
    found = [patch for patch in axis.patches if isinstance(patch, Rectangle)]
    return {(round(p.get_x() + 0.5), round(p.get_y() + 0.5)): p for p in found}


def test_every_method_and_language_has_a_cell_and_better_is_brighter():
    plot = plots.language_map(experiment())
    (axis,) = plot.figure.get_axes()
    methods = [text.get_text() for text in axis.get_yticklabels()]
    targets = [text.get_text() for text in axis.get_xticklabels()]
    assert methods == ["madx", "full", "lora", "majority"]
    assert targets == ["eng", "deu", "rus"]
    drawn = cells(axis)
    assert len(drawn) == len(plot.table) == 12
    numbers = {(t.get_position()): t.get_text() for t in axis.texts}
    bright = {}
    for line in plot.table.itertuples():
        place = targets.index(line.target[:3]), methods.index(line.method)
        assert numbers[place].strip("()") == f"{line.mean:.2f}"
        if line.above_majority:
            bright[line.mean] = sum(to_rgb(drawn[place].get_facecolor()[:3]))
    assert len(bright) == 5  # of 0.8, 0.7, 0.6, 0.5 and 0.4
    assert [bright[mean] for mean in sorted(bright)] == sorted(bright.values())
    assert {t.get_text() for t in axis.texts} >= {"trained in", "Latin", "Cyrillic"}


def test_what_is_not_above_the_majority_class_has_no_colour_and_brackets():
    poor = [transferred("poor", seed, (0.6, 0.26, 0.5)) for seed in (0, 1, 2)]
    plot = plots.language_map([*experiment(), *poor])
    for theme, figure in plot.figures.items():
        (axis,) = figure.get_axes()
        methods = [text.get_text() for text in axis.get_yticklabels()]
        row = methods.index("majority")
        expected = {(0, row), (1, row), (2, row), (1, methods.index("poor"))}
        expected.add((2, methods.index("lora")))  # 0.30 of 200 rows, against 0.25
        paper = to_rgb(THEMES[theme]["paper"])
        blank = {place for place, p in cells(axis).items() if p.get_facecolor()[:3] == paper}
        marked = {t.get_position() for t in axis.texts if t.get_text().startswith("(")}
        assert blank == marked == expected
    table = plot.table.set_index(["method", "target"])
    assert not table.loc[("poor", "deu_Latn"), "above_majority"]
    alone = plots.language_map(poor)  # without the control nothing is known
    assert alone.table["above_majority"].isna().all()
    assert not any(text.get_text().startswith("(") for text in alone.figure.get_axes()[0].texts)


def test_numbers_in_cells_can_be_read():
    plot = plots.language_map(experiment())
    for figure in plot.figures.values():
        (axis,) = figure.get_axes()
        by_place = cells(axis)
        read = [text for text in axis.texts if text.get_position() in by_place]
        assert len(read) == len(by_place) == 12
        for text in read:
            shade = by_place[text.get_position()].get_facecolor()[:3]
            assert abs(sum(to_rgb(text.get_color())) - sum(shade)) > 1.0


def test_costs_are_of_all_languages_together():
    plot = plots.language_trade_off(experiment(), methods=["full", "madx"])
    table = plot.table.set_index("method")
    assert table["total"].to_dict() == {"full": 20_040, "madx": 2440 + 2 * 2000}
    (axis,) = plot.figure.get_axes()
    (legend,) = plot.figure.legends
    assert sorted(text.get_text() for text in legend.get_texts()) == ["full", "madx"]
    assert axis.get_legend() is None
    drawn = {(c.lines[0].get_xdata()[0], c.lines[0].get_ydata()[0]) for c in axis.containers}
    assert drawn == {(line.total, line.average) for line in plot.table.itertuples()}
    seconds = plots.language_trade_off(experiment(), "seconds", ["madx"])
    assert seconds.table["total"].tolist() == [23 + 2 * 20]
    with pytest.raises(RecordError, match="do not all have flops"):
        plots.language_trade_off(experiment(), "flops")


def test_a_method_that_learnt_nothing_is_hollow():
    bad = [transferred("bad", seed, (0.26, 0.3, 0.3)) for seed in (0, 1, 2)]
    plot = plots.language_trade_off([*experiment(), *bad])
    (axis,) = plot.figure.get_axes()
    hollow = {
        c.get_label()
        for c in axis.containers
        if c.lines[0].get_markerfacecolor() == THEMES["light"]["paper"]
    }
    assert hollow == {"majority", "bad"}


@pytest.mark.parametrize("draw", [plots.language_map, plots.language_trade_off])
def test_nothing_to_draw_is_one_sentence(draw):
    with pytest.raises(RecordError, match="no record was scored in another language"):
        draw([])
