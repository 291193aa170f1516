"""The figure of ablations: every variant at its score, a line through that of the whole."""

from __future__ import annotations

import pytest

from peftlab.errors import RecordError
from peftlab.plots.ablations import ablations
from peftlab.results.comparison.statistics import Interval, seed_interval


def near(value: float) -> Interval:
    return seed_interval([value - 0.02, value, value + 0.02])


SCORES = {
    "topics": {"all": near(0.6), "no words": near(0.5)},
    "tags": {"all": near(0.7), "no words": near(0.3)},
}


def test_every_variant_stands_at_its_score() -> None:
    plot = ablations(SCORES, "all", "score in the others")
    panels = plot.figure.get_axes()
    assert [axis.get_title() for axis in panels] == list(SCORES)
    assert [text.get_text() for text in panels[0].get_yticklabels()] == ["all", "no words"]
    for axis, scores in zip(panels, SCORES.values(), strict=True):
        lines = {tuple(map(float, line.get_xdata())): line for line in axis.get_lines()}
        for row, interval in enumerate(scores.values()):
            assert list(lines[(interval.estimate,)].get_ydata()) == [row]
            assert list(lines[interval.low, interval.high].get_ydata()) == [row, row]
        assert axis.get_lines()[0].get_xdata() == [scores["all"].estimate] * 2
    assert list(plot.table["score"]) == pytest.approx([0.6, 0.5, 0.7, 0.3])
    assert "tags, no words: 0.300" in plot.alt


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        ({}, "same variants"),
        (SCORES | {"tags": {"all": near(0.7)}}, "same variants"),
        ({"topics": {"no words": near(0.5)}}, "whole 'all' is missing among no words"),
    ],
)
def test_what_cannot_be_drawn_is_said(scores: dict[str, dict[str, Interval]], message: str) -> None:
    with pytest.raises(RecordError, match=message):
        ablations(scores, "all", "score")
