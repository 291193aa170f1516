"""A claim taken apart: every cell with its interval against the claimed region, and its power.

How a cell is estimated and judged is in :mod:`peftlab.claims`; nothing is judged here.
"""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from peftlab.claims.ledger import WHOSE
from peftlab.claims.tables import exhausted, power
from peftlab.plots import page
from peftlab.plots.page import Plot

if TYPE_CHECKING:
    from peftlab.claims import Finding
    from peftlab.claims.checks import Cell
    from peftlab.claims.region import Estimate, Region

SHADE: dict[str, Any] = {"color": "#56b4e9", "alpha": 0.3, "linewidth": 0}
POINTS = {"reproduced": ("o", "inside it"), "not reproduced": ("X", "outside")}


@dataclass(frozen=True)
class Walk:
    """A claim as a page shows it.

    Attributes:
        words: What is claimed, tested and found: heading → text.
        checks: One row a check: how its cells are judged, and what they could have shown.
        plot: The cells; None: none is recorded.
        commands: What would say more.
    """

    words: dict[str, str]
    checks: pd.DataFrame
    plot: Plot | None
    commands: tuple[str, ...]

    def _repr_html_(self) -> str:
        parts = [
            f"<p><strong>{html.escape(name)}</strong> {html.escape(text)}</p>"
            for name, text in self.words.items()
        ]
        if len(self.checks):
            told = self.checks.loc[:, (self.checks != "").any()]
            parts.append(told.to_html(index=False, border=0, justify="left"))
        if self.plot is not None:
            parts.append(self.plot._repr_html_())
        if self.commands:
            lines = html.escape("\n".join(self.commands))
            parts.append(f"<p><strong>What would say more:</strong></p><pre>{lines}</pre>")
        return "\n".join(parts)


#: How the judgement of a cell is told in a table.
JUDGED = {
    "reproduced": "inside",
    "not reproduced": "outside",
    "undecided": "undecided",
    None: "without record",
}


def walk(found: Finding, commands: Sequence[str] = ()) -> Walk:
    """Return a claim with its verdict, its checks, a figure of its cells and what is missing.

    Args:
        found: What the records say of it.
        commands: See :func:`peftlab.claims.tables.commands`.
    """
    claim = found.claim
    scope = f" ({found.scope})" if found.scope else ""
    number = f"{claim.number} ({claim.source})" if claim.number else "not available"
    words = {
        f"{claim.id}{', our control' * claim.ours}, {found.verdict}{scope}.": claim.claim,
        "Where it is said:": "" if claim.ours else f"{claim.said}.",
        "The paper's number:": "" if claim.ours else f"{number}.",
        "Unconfirmed, decides nothing:": claim.unconfirmed,
        "Whose claim it is:": f"{WHOSE[claim.whose]}.",
        "Tested here:": claim.protocol,
        "Planned on a GPU, not run:" if found.waits else "On a GPU:": claim.planned,
        "What else could make the difference:": claim.confounds,
        "Not asked yet:": claim.open_parts or claim.out_of_reach,
        "What is left:": exhausted(found),
    }
    return Walk(
        {name: text for name, text in words.items() if text},
        check_table(found),
        cells(found) if any(asked.recorded for asked in found.asked) else None,
        tuple(commands),
    )


def check_table(found: Finding) -> pd.DataFrame:
    """Return one row a check of a claim.

    Columns ``what``; ``claimed to be``, with a mark if the check is beside the claim and does not
    count; ``cells``, how many are inside the region, outside, undecided
    or have no record; ``n``, the fewest seeds or rounds of a recorded cell; ``could have shown``,
    see :func:`peftlab.claims.tables.power`; ``narrow enough``, of a claim that a number lies
    between two bounds, the cells whose interval is narrower than they are apart: no other could
    have shown it.
    """
    rows = []
    for check, group in found.asked:
        if not group:
            continue
        judged = [cell.judgement for cell in group]
        estimates = [cell.estimate for cell in group if cell.estimate is not None]
        fewest = min(estimates, key=lambda e: e.n, default=None)
        rows.append(
            {
                "what": check.what,
                "claimed to be": check.region,
                "cells": ", ".join(
                    f"{judged.count(judgement)} {word}"
                    for judgement, word in JUDGED.items()
                    if judgement in judged
                ),
                "n": f"{fewest.n} {fewest.over}" if fewest and fewest.n else "",
                "could have shown": power(group),
                "narrow enough": narrow(group),
            }
        )
    return pd.DataFrame(rows)


def narrow(group: Sequence[Cell]) -> str:
    """Say how many recorded cells could lie inside a region with two ends; "" for others."""
    region = group[0].claimed
    if region.above is None or region.below is None:
        return ""
    estimates = [cell.estimate for cell in group if cell.estimate is not None]
    return str(sum(e.high - e.low < region.below - region.above for e in estimates))


def cells(found: Finding) -> Plot:
    """Draw the recorded cells of a claim: estimate, 95 % interval, and the claimed region.

    One panel a check. An interval without an end leaves the panel as an arrow; an undecided cell is
    hollow.
    """
    panels = [(asked.check, asked.recorded) for asked in found.asked if asked.recorded]
    rows = [
        {
            "what": check.what,
            "cell": cell.name,
            "claimed to be": check.region,
            "estimate": cell.estimate.value,
            "low": cell.estimate.low,
            "high": cell.estimate.high,
            "n": cell.estimate.n,
            "over": cell.estimate.over,
            "judgement": cell.judgement,
        }
        for check, group in panels
        for cell in group
        if cell.estimate is not None
    ]

    def draw(figure: Figure, theme: dict[str, Any]) -> None:
        heights = [len(group) + 1.5 for _, group in panels]
        axes = figure.subplots(len(panels), 1, squeeze=False, height_ratios=heights).ravel()
        for axis, (check, group) in zip(axes, panels, strict=True):
            _panel(axis, group, theme)
            axis.set_xlabel(check.what)
        grey = {"color": theme["ink"], "linestyle": "none"}
        keys: list[Artist] = [Patch(label="what is claimed", **SHADE)]
        keys += [Line2D([], [], marker=m, label=word, **grey) for m, word in POINTS.values()]
        keys.append(
            Line2D([], [], marker="o", markerfacecolor=theme["paper"], label="undecided", **grey)
        )
        figure.legend(handles=keys, loc="outside lower center", ncols=4, frameon=False)

    said = "; ".join(
        f"{row['what']}, {row['cell']}: {cell.estimate}, {row['judgement']}"
        for row, cell in zip(rows, (c for _, group in panels for c in group), strict=True)
    )
    alt = f"Cells of the claim {found.claim.id}, verdict {found.verdict}. {said}."
    height = 0.6 + sum(0.75 + 0.27 * len(group) for _, group in panels)
    return page.plot(draw, pd.DataFrame(rows), alt, 7.3, height)


def _panel(axis: Axes, group: Sequence[Cell], theme: dict[str, Any]) -> None:
    estimates = [cell.estimate for cell in group if cell.estimate is not None]
    left, right = _limits(estimates, group[0].claimed)
    if estimates[0].ratio:
        axis.set_xscale("log")
        axis.minorticks_off()
        axis.set_xticks(_ticks(left, right), labels=[f"{x:g}" for x in _ticks(left, right)])
    axis.set_xlim(left, right)
    region = group[0].claimed
    if region.equals is not None:
        axis.axvline(region.equals, **{**SHADE, "linewidth": 4})
    else:
        start = left if region.above is None else region.above
        axis.axvspan(start, right if region.below is None else region.below, **SHADE)
    axis.axvline(1 if estimates[0].ratio else 0, color=theme["ink"], linewidth=1)
    for row, (cell, found) in enumerate(zip(group, estimates, strict=True)):
        ends = [max(found.low, left), min(found.high, right)]
        axis.plot(ends, [row, row], color=theme["ink"], linewidth=1.5)
        for end, arrow, out in ((left, "<", found.low < left), (right, ">", found.high > right)):
            if out:
                axis.plot(end, row, arrow, color=theme["ink"], markersize=6, clip_on=False)
        if left <= found.value <= right:
            marker, _ = POINTS.get(cell.judgement or "", ("o", ""))
            inside = theme["paper"] if cell.judgement == "undecided" else theme["ink"]
            axis.plot(found.value, row, marker, color=theme["ink"], markerfacecolor=inside)
    axis.set_yticks(range(len(group)), [cell.name for cell in group])
    axis.set_ylim(len(group) - 0.5, -0.5)


def _limits(estimates: Sequence[Estimate], region: Region) -> tuple[float, float]:
    """Return the ends of a panel: all that is finite is inside, the region's bounds too."""
    ratio = estimates[0].ratio
    bounds = [x for x in (region.above, region.below, region.equals) if x is not None]
    ends = [x for e in estimates for x in (e.value, e.low, e.high)]
    shown = [x for x in (*ends, *bounds, 1.0 if ratio else 0.0) if math.isfinite(x)]
    if ratio:
        shown = [x for x in shown if x > 0]
        return min(shown) / 1.15, max(shown) * 1.15
    pad = 0.08 * (max(shown) - min(shown)) or 1.0
    return min(shown) - pad, max(shown) + pad


def _ticks(left: float, right: float) -> list[float]:
    """Return round numbers on a logarithmic axis, some within any panel of ratios."""
    powers = range(math.floor(math.log10(left)), math.ceil(math.log10(right)) + 1)
    coarse = [x * 10.0**p for p in powers for x in (1, 2, 5)]
    fine = [0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.1, 1.2, 1.3, 1.4, 1.5, 1.75, 2.0, 2.5, 3.0]
    chosen = fine if left > 0.4 and right < 3.5 else coarse
    return [round(x, 10) for x in chosen if left <= x <= right]
