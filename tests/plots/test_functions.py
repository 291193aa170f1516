"""The figure of functions of one number."""

from __future__ import annotations

from peftlab.plots.functions import functions
from peftlab.plots.page import THEMES


def test_what_is_drawn_is_in_the_table_and_in_the_words():
    drawn = functions([-1.0, 0.0, 2.0], {"flat": [1, 1, 1], "square": [1, 0, 4]}, "f(x)")
    assert set(drawn.figures) == set(THEMES)
    assert drawn.table.to_dict("list") == {
        "x": [-1.0, 0.0, 2.0],
        "flat": [1, 1, 1],
        "square": [1, 0, 4],
    }
    assert "square: 1.00 to 4.00" in drawn.alt
    (axis,) = drawn.figure.axes
    assert [list(line.get_ydata()) for line in axis.lines] == [[1, 1, 1], [1, 0, 4]]
    assert (axis.get_xlabel(), axis.get_ylabel()) == ("x", "f(x)")
