"""The figure of a ranking: methods in their order, at their ratios, ties in one band."""

from __future__ import annotations

import pytest

from peftlab.errors import RecordError
from peftlab.plots.choice import ranking
from peftlab.results.choice.needs import AXES, Needs
from peftlab.results.choice.rule import Choice, Option
from peftlab.timing.intervals import Ratio

OPTIONS = (
    Option("first", 1, ratios={"time": Ratio(0.5, 0.4, 0.6), "memory": Ratio(0.9, 0.9, 0.9)}),
    Option("tied", 1, ratios={"time": Ratio(0.55, 0.5, 0.7)}),
    Option("full", 3, ratios={"time": Ratio(1.0, 1.0, 1.0)}),
    Option("unknown", None, "no record of time"),
)


def choice(*options: Option, hurts: tuple[str, ...] = ("time", "memory")) -> Choice:
    needs = Needs(hurts=list(hurts))  # type: ignore[arg-type]
    return Choice(needs, "made", 100, dict.fromkeys(AXES, "made"), options)


def test_ranked_methods_stand_in_their_order_at_their_ratios() -> None:
    plot = ranking(choice(*OPTIONS))
    (axis,) = plot.figure.get_axes()
    names = [text.get_text() for text in axis.get_yticklabels()]
    assert names == ["first  1", "tied  1", "full  3"]
    drawn = {tuple(map(float, line.get_xdata())): line for line in axis.get_lines()}
    for row, option in enumerate(OPTIONS[:3]):
        ratio = option.ratios["time"]
        assert (ratio.low, ratio.high) in drawn
        assert list(drawn[(ratio.ratio,)].get_ydata()) == [row]
    assert list(plot.table["method"]) == ["first", "tied", "full"]
    assert "rank 1, tied: 0.55 [0.50, 0.70]" in plot.alt
    assert "time of training" in axis.get_xlabel()


def test_a_rank_has_one_colour_and_a_band() -> None:
    (axis,) = ranking(choice(*OPTIONS)).figure.get_axes()
    colours = [line.get_color() for line in axis.get_lines() if line.get_marker() != "None"]
    assert colours[0] == colours[1] != colours[2]
    (band,) = axis.patches
    found = band.get_extents().transformed(axis.transData.inverted())
    assert sorted((found.y0, found.y1)) == pytest.approx([-0.5, 1.5])


@pytest.mark.parametrize("made", [choice(OPTIONS[3]), choice(), choice(*OPTIONS, hurts=())])
def test_without_a_ranking_there_is_a_sentence(made: Choice) -> None:
    with pytest.raises(RecordError, match="name something that hurts"):
        ranking(made)
