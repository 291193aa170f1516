"""The ledger at a glance: every claim's cells are counted once, and its verdict stands beside."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from matplotlib.container import BarContainer

from peftlab.claims import Estimate, Finding, Region
from peftlab.claims.checks import Cell
from peftlab.claims.ledger import Claim
from peftlab.claims.summary import WORDS
from peftlab.claims.verdicts import Asked
from peftlab.errors import RecordError
from peftlab.plots.ledger import verdicts
from tests.claims.made import asked


def cell(name: str, value: float | None, width: float = 0.1) -> Cell:
    found = None if value is None else Estimate(value, value - width, value + width, 3, "seeds")
    return Cell(name, "lora-8", Region(above=0), found, "tiny", True, ())


def finding(name: str, verdict: Any, *cells: Cell) -> Finding:
    claim = Claim(
        id=name,
        paper="one",
        claim="It is more.",
        protocol="Compare.",
        whose="summary",
        open_parts="No.",
    )
    return Finding(claim, verdict, ("small encoder",), (asked(*cells),) if cells else (), ())


def beside_gpu(found: Finding) -> Finding:
    """Ask more, of which all needs a GPU and nothing is recorded."""
    return replace(found, asked=(*found.asked, Asked(found.asked[0].check, ())))


MADE = (
    finding("C1.1", "partly", cell("a", 1), cell("b", 2), cell("c", -1), cell("d", 0.05)),
    finding("C1.2", "open", cell("a", None), cell("b", None)),
    finding("C1.3", "out of reach"),
)


def test_every_cell_is_counted_once() -> None:
    table = verdicts(MADE).table.set_index("id")
    assert list(table.loc["C1.1", list(WORDS.values())]) == [2, 1, 1, 0]
    assert list(table.loc["C1.2", list(WORDS.values())]) == [0, 0, 0, 2]
    assert list(table["cells"]) == [4, 2, 0]


def test_bars_are_shares_one_after_the_other_and_the_verdict_stands_beside() -> None:
    plot = verdicts(MADE)
    (axis,) = plot.figure.get_axes()
    first = [bars.patches[0] for bars in axis.containers if isinstance(bars, BarContainer)]
    assert [bar.get_x() for bar in first] == pytest.approx([0, 0.5, 0.75, 1])
    assert [bar.get_width() for bar in first] == pytest.approx([0.5, 0.25, 0.25, 0])
    (beside,) = axis.child_axes
    told = [text.get_text() for text in beside.get_yticklabels()]
    assert told == ["partly, 4 cells", "open, 2 cells", "out of reach, 0 cells"]
    assert "C1.1, partly: 2 yes, 1 no, 1 undecided" in plot.alt
    assert "C1.3, out of reach: no cell" in plot.alt


def test_what_waits_for_a_gpu_is_marked() -> None:
    nothing = replace(MADE[0], asked=beside_gpu(MADE[0]).asked[-1:])
    plot = verdicts([MADE[0], beside_gpu(MADE[0]), nothing])
    (beside,) = plot.figure.get_axes()[0].child_axes
    told = [text.get_text() for text in beside.get_yticklabels()]
    assert told == ["partly, 4 cells", "partly, 4 cells + GPU", "partly, 0 cells"]
    assert list(plot.table["waits for a GPU"]) == [False, True, False]
    assert plot.alt.count("waits for a GPU") == 1


def test_without_claims_there_is_a_sentence() -> None:
    with pytest.raises(RecordError, match="no claim to draw"):
        verdicts([])
