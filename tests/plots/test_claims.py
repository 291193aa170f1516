"""A claim taken apart: every recorded cell is drawn where its estimate is; nothing is hidden."""

from __future__ import annotations

import math
from typing import Any

import pytest
from matplotlib.colors import to_rgb

from peftlab.claims import Estimate, Finding, Region
from peftlab.claims.checks import Cell
from peftlab.claims.ledger import Claim
from peftlab.claims.verdicts import Asked
from peftlab.plots.claims import cells, check_table, walk
from peftlab.plots.page import THEMES
from tests.claims.made import asked

CLAIM = {
    "id": "C1.1",
    "paper": "one",
    "whose": "summary",
    "claim": "It is <b>more.",
    "protocol": "Compare.",
}


def cell(name: str, low: float, high: float, ratio: bool = True, **region: Any) -> Cell:
    claimed = Region(**(region or {"above": 1}))
    middle = math.sqrt(low * high) if ratio and low > 0 else (low + high) / 2
    found = Estimate(middle, low, high, 0 if low == high else 3, "seeds", ratio)
    return Cell(name, "lora-8", claimed, found, "tiny", True, ("0",))


def missing(name: str) -> Cell:
    return Cell(name, "lora-8", Region(above=1), None, "tiny", True, ())


def finding(*found: Asked, verdict: Any = "partly", **more: Any) -> Finding:
    claim = Claim(**(CLAIM | {"open_parts": "Nothing."} | more))
    return Finding(claim, verdict, ("small encoder",), found, ("small",))


MIXED = finding(
    asked(
        cell("in", 1.2, 1.5),
        cell("out", 0.6, 0.8),
        cell("across", 0.9, 1.3),
        missing("none"),
        what="time",
    ),
    asked(cell("points", -0.03, 0.01, False, above=-0.02, below=0.02)),
)


def test_each_check_says_how_its_cells_are_judged_and_what_they_could_have_shown() -> None:
    time, score = check_table(MIXED).to_dict("records")
    assert time["cells"] == "1 inside, 1 outside, 1 undecided, 1 without record"
    sizes = sorted(each.estimate.detectable for each in MIXED.cells[:3])  # type: ignore[union-attr]
    assert time["could have shown"] == f"×{sizes[1]:.2f}"
    assert (time["n"], time["claimed to be"]) == ("3 seeds", "above 1")
    assert (time["narrow enough"], score["narrow enough"]) == ("", "0")
    fits = finding(asked(cell("fits", -0.03, 0.009, False, above=-0.02, below=0.02)))
    assert check_table(fits)["narrow enough"].tolist() == ["1"]
    assert score["could have shown"] == f"{MIXED.cells[-1].estimate.detectable:.3f}"  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("found", "said"),
    [
        ([missing("none")], ""),
        ([cell("exact", 2, 2)], "exact"),
        ([cell("open", 0, math.inf)], "no size: most have no bound"),
        ([cell("open", 0, math.inf), cell("in", 1, 4), cell("in", 1, 4)], "×2.99"),
    ],
)
def test_power_where_little_is_known(found: list[Cell], said: str) -> None:
    assert check_table(finding(asked(*found)))["could have shown"].tolist() == [said]


def test_cells_are_drawn_where_they_are_and_undecided_ones_are_hollow() -> None:
    plot = cells(MIXED)
    time, score = plot.figure.get_axes()
    assert [t.get_text() for t in time.get_yticklabels()] == [
        "in, lora-8",
        "out, lora-8",
        "across, lora-8",
    ]
    assert [t.get_text() for t in score.get_yticklabels()] == ["points, lora-8"]
    assert (time.get_xscale(), score.get_xscale()) == ("log", "linear")
    drawn = {tuple(map(float, line.get_xdata())): line for line in time.get_lines()}
    for each in MIXED.cells[:3]:
        assert each.estimate is not None
        assert (each.estimate.low, each.estimate.high) in drawn
        face = to_rgb(drawn[(each.estimate.value,)].get_markerfacecolor())
        assert (face == to_rgb(THEMES["light"]["paper"])) == (each.judgement == "undecided")
    assert len(plot.table) == 4
    assert "out, lora-8: 0.69" in plot.alt


def test_the_claimed_region_is_shaded() -> None:
    for axis, (start, end) in zip(
        cells(MIXED).figure.get_axes(), [(1, None), (-0.02, 0.02)], strict=True
    ):
        (shade,) = axis.patches
        found = shade.get_extents().transformed(axis.transData.inverted())
        assert found.x0 == pytest.approx(start)
        assert found.x1 == pytest.approx(axis.get_xlim()[1] if end is None else end)


@pytest.mark.parametrize(
    ("low", "high", "arrows"),
    [(0.5, 2, set()), (0, 2, {"<"}), (0.5, math.inf, {">"}), (0, math.inf, {"<", ">"})],
)
def test_what_has_no_bound_leaves_the_panel_as_an_arrow(
    low: float, high: float, arrows: set[str]
) -> None:
    (axis,) = cells(finding(asked(cell("one", low, high)))).figure.get_axes()
    assert {line.get_marker() for line in axis.get_lines()} & {"<", ">"} == arrows


def test_a_number_that_is_exact_is_drawn_at_its_place() -> None:
    exact = finding(asked(cell("one", 7680, 7680, ratio=False, equals=7680)))
    (axis,) = cells(exact).figure.get_axes()
    assert (7680.0,) in {tuple(map(float, line.get_xdata())) for line in axis.get_lines()}


def test_the_page_says_all_that_the_claim_says() -> None:
    shown = walk(MIXED, ["peftlab run small"])
    page = shown._repr_html_()
    for words in ("C1.1, partly (small encoder).", "It is &lt;b&gt;more.", "Compare.", "Nothing."):
        assert words in page
    assert "not available" in page
    assert "<pre>peftlab run small</pre>" in page
    assert page.count("<img") == 2


def test_numbers_and_what_is_unconfirmed_are_kept_apart() -> None:
    page = walk(finding(number="7", source="paper", unconfirmed="85")).words
    assert page["The paper's number:"] == "7 (paper)."
    assert page["Unconfirmed, decides nothing:"] == "85"


def test_what_is_planned_is_not_told_as_tested() -> None:
    page = walk(finding(MIXED.asked[0], planned="On more rows.")).words
    assert page["On a GPU:"] == "On more rows."
    page = walk(finding(asked(), protocol="", planned="On more rows.")).words
    assert page["Planned on a GPU, not run:"] == "On more rows."
    assert "Tested here:" not in page


def test_a_claim_without_records_has_words_and_no_figure() -> None:
    none = asked(missing("none"))
    for found in (finding(verdict="open"), finding(none, verdict="open", whose="ours")):
        shown = walk(found)
        assert shown.plot is None
        assert "<pre>" not in shown._repr_html_()
        assert "open" in shown._repr_html_()
    assert "C1.1, our control, open" in shown._repr_html_()
    assert "The paper's number" not in shown._repr_html_()
