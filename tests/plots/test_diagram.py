"""Schematics: arrows end at edges, the table explains every box, colours can be read."""

from __future__ import annotations

import pytest

from peftlab.plots.diagram import HALF, RADIUS, Arrow, Box, _edge, diagram
from peftlab.plots.page import THEMES

BOXES = {
    "x": Box("$x$", 0, 0, "value", "input [batch, length, d]"),
    "w": Box(r"$W_{up}$", 0, 1, "trained", "linear"),
    "sum": Box("", 0, 2, "sum", "adds x"),
}
ARROWS = [Arrow("x", "w"), Arrow("w", "sum"), Arrow("x", "sum", via=((2, 0), (2, 2)))]


def test_both_themes_show_every_box_and_arrow():
    plot = diagram(BOXES, ARROWS, "x goes through W and is added.")
    assert set(plot.figures) == set(THEMES)
    for figure in plot.figures.values():
        (axis,) = figure.get_axes()
        assert len(axis.patches) == len(BOXES)
        assert len(axis.lines) == len(ARROWS)
        assert axis.get_xlim()[1] >= 2
        assert {t.get_text() for t in axis.texts} >= {"$x$", r"$W_{up}$", "+"}
    assert "x goes through W" in plot._repr_html_()


def test_the_table_explains_every_box():
    table = diagram(BOXES, ARROWS, "words").table
    assert list(table["box"]) == ["x", "W_up", "+"]
    assert list(table["kind"]) == ["tensor", "trained", "sum"]


@pytest.mark.parametrize(
    ("name", "origin", "edge"),
    [
        ("w", (0, 0), (0, 1 - HALF)),
        ("w", (5, 1), (1.9 / 2, 1)),
        ("sum", (-3, 2), (-RADIUS, 2)),
    ],
)
def test_arrows_end_at_the_edge(name, origin, edge):
    assert _edge(BOXES[name], origin) == pytest.approx(edge)
