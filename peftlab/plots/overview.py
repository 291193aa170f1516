"""The figure that sums methods up: score against what is trained, stored and served.

Time and memory are not in it: parameters are.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from peftlab.errors import RecordError
from peftlab.plots import page
from peftlab.plots.page import Plot
from peftlab.results.comparison.statistics import Place, summarise
from peftlab.results.records.run import Record

COUNTS = {
    "trainable": "parameters trained",
    "stored": "parameters stored",
    "inference": "added at inference,\nunmerged",
}
ROW = 0.23  # inches of a method
AROUND = 1.5  # inches that titles, axes and legend take


def overview(
    records: Sequence[Record],
    baseline: str = "full",
    split: str = "test",
    without: Collection[str] = (),
    floors: Mapping[Place, float] | None = None,
) -> Plot:
    """Draw the score of each method beside its three numbers of parameters, one row a method.

    Args:
        records: Of an experiment with one encoder, all rates and seeds.
        baseline: Label of the method that ties are told against.
        split: Split or transfer task.
        without: Labels of methods that are left out, such as ``majority``, whose distance would
            hide all differences.
        floors: Noise floors, see :func:`peftlab.results.comparison.noise.floors`.

    Returns:
        Rows in the order of what is trained. One panel of scores for each task: the mean over seeds
        with its 95 % interval, hollow where the method ties with the baseline, whose mean is the
        line. Then a panel for each count, on a log scale with a place for 0.

    Raises:
        RecordError: There is nothing to draw.
    """
    table = summarise(records, baseline, split, floors)
    table = table[table["trainable"].notna() & ~table["method"].isin(list(without))]
    if table.empty:
        raise RecordError(
            f"There is nothing to draw: none of the {len(records)} records is of a good run of a "
            f"method that was scored on {split!r}."
        )
    counts = table.groupby("method")[list(COUNTS)].max().reset_index()
    counts = counts.sort_values([*COUNTS, "method"], ignore_index=True)
    rows = {method: row for row, method in enumerate(counts["method"])}
    panels = page.panels(table)

    def draw(figure: Figure, theme: dict[str, Any]) -> None:
        colours = page.styles([*(page.title(*where) for where, _ in panels), *COUNTS])
        axes = figure.subplots(1, len(panels) + len(COUNTS), sharey=True, squeeze=False)[0]
        for axis, (where, part) in zip(axes, panels, strict=False):
            colour, marker = colours[page.title(*where)]
            _scores(axis, part, rows, baseline, colour, marker, theme)
            axis.set_xlabel(f"{page.metric(part)}, {split}")
            axis.set_title(page.title(*where).replace(", ", "\n"), fontsize="medium")
        for axis, (count, words) in zip(axes[len(panels) :], COUNTS.items(), strict=True):
            colour, marker = colours[count]
            places = [rows[method] for method in counts["method"]]
            axis.plot(counts[count], places, marker, color=colour, markersize=5)
            _scale(axis, counts[count])
            axis.set_xlabel(f"{words}\n(log scale)")
        axes[0].set_yticks(range(len(rows)), list(rows))
        axes[0].set_ylim(len(rows) - 0.5, -0.5)
        grey = {"color": theme["ink"], "linestyle": "none", "marker": "o"}
        keys = [
            Line2D([], [], label=f"differs from {baseline}", **grey),
            Line2D(
                [], [], markerfacecolor=theme["paper"], label=f"not told from {baseline}", **grey
            ),
            Line2D([], [], color=theme["ink"], label=f"mean of {baseline}"),
        ]
        figure.legend(handles=keys, loc="outside lower center", ncols=3, frameon=False)

    said = "; ".join(
        f"{page.title(line.encoder, line.random_weights, line.task)}, {line.method}: "
        f"{line.mean:.3f} with {line.trainable:,.0f} trained, {line.stored:,.0f} stored, "
        f"{line.inference:,.0f} added at inference"
        for line in table.itertuples()
    )
    alt = f"Score beside parameters trained, stored and added at inference. {said}."
    width = 1.6 + 2.1 * (len(panels) + len(COUNTS))
    return page.plot(draw, table, alt, width, AROUND + ROW * len(rows))


def _scores(
    axis: Axes,
    part: pd.DataFrame,
    rows: dict[str, int],
    baseline: str,
    colour: Any,
    marker: str,
    theme: dict[str, Any],
) -> None:
    """Draw the scores of one task."""
    for line in part.itertuples():
        row = rows[line.method]
        if line.method == baseline:
            axis.axvline(line.mean, color=theme["ink"], linewidth=1)
        if line.low == line.low:  # not NaN
            axis.plot([line.low, line.high], [row, row], color=colour, linewidth=1.2)
        filled = colour if line.verdict in ("better", "worse") else theme["paper"]
        axis.plot(line.mean, row, marker, color=colour, markerfacecolor=filled, markersize=6)


def _scale(axis: Axes, counts: pd.Series) -> None:
    """Make the axis logarithmic, with a place for 0 if it is among the counts."""
    positive = counts[counts > 0]
    if positive.empty or len(positive) == len(counts):
        axis.set_xscale("log" if len(positive) else "linear")
        return
    lowest, highest = np.floor(np.log10([positive.min(), positive.max()]))
    axis.set_xscale("symlog", linthresh=10.0**lowest, linscale=1)
    axis.set_xlim(left=-0.25 * 10.0**lowest)
    step = max(1, round((highest - lowest) / 3))
    axis.set_xticks([0, *10.0 ** np.arange(lowest, highest + 1, step)])
