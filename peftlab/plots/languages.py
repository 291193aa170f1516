"""Figures of transfer: scores by method and language, and against what they have cost."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import Any, Literal

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import EngFormatter, LogLocator, NullFormatter

from peftlab.errors import RecordError
from peftlab.plots import page
from peftlab.plots.page import Plot
from peftlab.results.records.run import Record
from peftlab.results.transfer import languages
from peftlab.results.transfer.costs import trade_off
from peftlab.results.transfer.zero_shot import by_language

#: Even steps look even, also to colour-blind readers and in print.
COLOURS = colormaps["cividis"]
COSTS = {
    "seconds": "seconds of training, one more language each included",
    "flops": "FLOPs of training, one more language each included",
    "bytes": "bytes stored (fp32), one more language each included",
}


def language_map(records: Sequence[Record], without: Sequence[str] = ()) -> Plot:
    """Draw the score of each method in each language; the source first, the others by script.

    Cells whose score is not clearly above that of the majority class have no colour, and their
    number is in brackets.

    Args:
        records: Of experiments with transfer tasks.
        without: Labels of methods that are left out.

    Returns:
        One panel an encoder and task; methods in order of their mean over the target languages.

    Raises:
        RecordError: No record was scored in another language.
    """
    table = by_language(records)
    table = table[~table["method"].isin(without)].reset_index(drop=True)
    if table.empty:
        raise RecordError("No map can be drawn: no record was scored in another language.")
    least = table["low"].fillna(table["mean"])
    table["above_majority"] = (least > table["majority"]).where(table["majority"].notna())
    panels = page.panels(table)

    def draw(figure: Figure, theme: dict[str, Any]) -> None:
        axes = page.panel_axes(figure, len(panels), most=1)
        for axis, (where, part) in zip(axes, panels, strict=True):
            _map(axis, part, theme)
            axis.set_title(page.title(*where), pad=22)

    said = "; ".join(f"{page.title(*where)}: {_in_words(part)}" for where, part in panels)
    rows = [part["method"].nunique() for _, part in panels]
    width = 3.0 + 0.55 * max(part["target"].nunique() for _, part in panels)
    height = sum(1.6 + 0.26 * count for count in rows)
    return page.plot(draw, table, f"Score by method and language. {said}.", width, height)


def _map(axis: Axes, part: pd.DataFrame, theme: dict[str, Any]) -> None:
    """Draw one panel."""
    methods, targets = _order(part), list(dict.fromkeys(part["target"]))
    scale = Normalize(part["mean"].min(), part["mean"].max())
    for line in part.itertuples():
        x, y = targets.index(line.target), methods.index(line.method)
        colour = COLOURS(scale(line.mean))
        bright = 0.2126 * colour[0] + 0.7152 * colour[1] + 0.0722 * colour[2] > 0.45
        ink, number = "#000000" if bright else "#ffffff", f"{line.mean:.2f}"
        if line.above_majority is not None and not line.above_majority:
            colour, ink, number = theme["paper"], theme["ink"], f"({number})"
        place = (x - 0.5, y - 0.5)
        axis.add_patch(
            Rectangle(place, 1, 1, facecolor=colour, edgecolor=theme["paper"], linewidth=0.5)
        )
        axis.text(x, y, number, ha="center", va="center", fontsize=6.5, color=ink)
    axis.set_xlim(-0.5, len(targets) - 0.5)
    axis.set_ylim(len(methods) - 0.5, -0.5)
    axis.grid(visible=False)
    axis.set_xticks(range(len(targets)), [code.partition("_")[0] for code in targets])
    axis.set_yticks(range(len(methods)), methods, fontsize=7.5)
    axis.set_xlabel(f"language of the test ({page.metric(part)}; trained in the first one)")
    _headings(axis, part, targets, theme)


def _headings(axis: Axes, part: pd.DataFrame, targets: list[str], theme: dict[str, Any]) -> None:
    """Write the scripts above their languages."""
    scripts = part.drop_duplicates("target").set_index("target")["script"]
    groups = [(targets[0], "trained in", 1)]
    groups += [
        (codes[0], languages.NAMES.get(script, script), len(codes))
        for script, found in groupby(targets[1:], key=lambda code: scripts[code])
        for codes in [list(found)]
    ]
    for first, name, size in groups:
        x = targets.index(first)
        axis.axvline(x - 0.5, color=theme["ink"], linewidth=1.5)
        axis.text(
            x + size / 2 - 0.5,
            -0.65,
            name,
            ha="center",
            va="bottom",
            fontsize=7.5,
            color=theme["ink"],
        )


def _order(part: pd.DataFrame) -> list[str]:
    """Return the methods of a panel, the best mean over the target languages first."""
    away = part[part["target"] != part["source"]]
    means = away.groupby("method", sort=False)["mean"].mean()
    return [str(name) for name in means.sort_values(ascending=False, kind="stable").index]


def _in_words(part: pd.DataFrame) -> str:
    away = part["target"] != part["source"]
    told = []
    for method in _order(part):
        own = part["method"] == method
        home, there = part[own & ~away], part[own & away].sort_values("mean", kind="stable")
        worst, best = there.iloc[0], there.iloc[-1]
        told.append(
            f"{method} {home['mean'].mean():.2f} where trained, {there['mean'].mean():.2f} on "
            f"average elsewhere, from {worst['mean']:.2f} ({worst['target']}) to "
            f"{best['mean']:.2f} ({best['target']})"
        )
    return ", ".join(told)


def language_trade_off(
    records: Sequence[Record],
    cost: Literal["seconds", "flops", "bytes"] = "bytes",
    methods: Sequence[str] = (),
) -> Plot:
    """Draw the mean score in the target languages against what all of them have cost together.

    Hollow are methods whose source score is not clearly above the majority class.

    Args:
        records: Of experiments with transfer tasks, language adapters' runs included.
        cost: Of the training in the source language, plus that of one more language for each
            target language; of several tasks learnt together an equal share.
        methods: Labels of those that are drawn; all if there are none.

    Raises:
        RecordError: No record was scored in another language, or what it cost was not counted.
    """
    table = trade_off(records)
    table = table[table["method"].isin(methods or table["method"])].reset_index(drop=True)
    if table.empty:
        raise RecordError("No trade-off can be drawn: no record was scored in another language.")
    table["total"] = table[cost] / table["tasks"] + table["languages"] * table[f"language_{cost}"]
    if table["total"].isna().any():
        raise RecordError(f"No trade-off can be drawn: the records do not all have {cost}.")
    panels = page.panels(table)

    def draw(figure: Figure, theme: dict[str, Any]) -> None:
        axes = page.panel_axes(figure, len(panels))
        styles = page.styles(list(dict.fromkeys(table["method"])))
        for axis, (where, part) in zip(axes, panels, strict=True):
            for line in part.itertuples():
                colour, marker = styles[line.method]
                bars = [[line.average - line.low], [line.high - line.average]]
                axis.errorbar(
                    line.total,
                    line.average,
                    yerr=bars if np.isfinite(line.low) else None,
                    fmt=marker,
                    color=colour,
                    markerfacecolor=theme["paper"] if line.inflated else colour,
                    capsize=3,
                    label=line.method,
                )
            if (part["total"] > 0).all():
                axis.set_xscale("log")
                axis.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
                axis.xaxis.set_minor_formatter(NullFormatter())
            axis.xaxis.set_major_formatter(EngFormatter(sep=""))
            axis.margins(x=0.1)
            axis.set_xlabel(COSTS[cost])
            axis.set_ylabel(f"{page.metric(part)}, mean of the other languages")
            axis.set_title(page.title(*where))
        page.shared_legend(figure, axes)

    said = "; ".join(
        f"{page.title(*where)}, {line.method}: {line.total:,.4g} {cost}, {line.average:.3f}"
        for where, part in panels
        for line in part.itertuples()
    )
    alt = f"Mean score in other languages against {COSTS[cost]}. {said}."
    return page.plot(draw, table, alt, *page.panel_size(len(panels), 4.6, 3.8))
