"""The figure that sums methods up: score against what is trained, stored and served.

Time and memory are not in it: parameters are.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.transforms import blended_transform_factory

from peftlab.errors import RecordError
from peftlab.plots import page
from peftlab.plots.page import Plot
from peftlab.results.record import Record
from peftlab.results.selection import cells, selected

COUNTS = {
    "trainable": "parameters trained",
    "stored": "parameters stored",
    "inference": "parameters added at inference,\nunmerged",
}
LINE = 0.17  # inches from one label to the next
AROUND = 1.3  # inches of a row that its title and axis take


def overview(records: Sequence[Record], split: str = "test", without: Collection[str] = ()) -> Plot:
    """Draw the score of each method against its three numbers of parameters.

    Args:
        records: Of an experiment, all rates and seeds.
        split: Split or transfer task.
        without: Labels of methods that are left out, such as ``majority``, whose distance would
            hide all differences.

    Returns:
        One row of three panels for each encoder and task, with one axis of scores. A point is the
        mean over seeds, its bar goes from the lowest to the highest seed, and the name stands at
        the right at about the height of the point. A count of 0 stands at the left end.

    Raises:
        RecordError: There is nothing to draw.
    """
    table = _table(records, split, without)
    panels = page.panels(table)
    labels = max(len(part) for _, part in panels)
    height = AROUND + max(2.4, LINE * labels)

    def draw(figure: Figure, theme: dict[str, Any]) -> None:
        styles = page.styles(list(dict.fromkeys(table["method"])))
        grid = figure.subplots(len(panels), len(COUNTS), sharey="row", squeeze=False)
        for axes, (where, part) in zip(grid, panels, strict=True):
            for axis, (count, words) in zip(axes, COUNTS.items(), strict=True):
                for line in part.itertuples():
                    colour, marker = styles[line.method]
                    axis.errorbar(
                        getattr(line, count),
                        line.mean,
                        yerr=[[line.mean - line.lowest], [line.highest - line.mean]],
                        fmt=marker,
                        color=colour,
                        capsize=2,
                        elinewidth=1,
                    )
                _scale(axis, part[count])
                axis.set_xlabel(f"{words} (log scale)")
            axes[0].set_ylabel(f"{page.metric(part)}, {split}\n(bars: lowest to highest seed)")
            axes[0].set_title(page.title(*where), loc="left")
            _name(axes[-1], part, styles, gap=LINE / (height - AROUND))

    said = "; ".join(
        f"{page.title(line.encoder, line.random_weights, line.task)}, {line.method}: "
        f"{line.mean:.3f} with {line.trainable:,.0f} trained, {line.stored:,.0f} stored, "
        f"{line.inference:,.0f} added at inference"
        for line in table.itertuples()
    )
    alt = f"Score against parameters trained, stored and added at inference. {said}."
    return page.plot(draw, table, alt, 10.5, height * len(panels))


def _table(records: Sequence[Record], split: str, without: Collection[str]) -> pd.DataFrame:
    rows = []
    for cell, group in cells(r for r in selected(records) if split in r.metrics).items():
        counts, seeds = group[0].parameters, [r.score(split) for r in group]
        if counts is None or cell.label in without:
            continue
        rows.append(
            {
                "encoder": cell.encoder,
                "random_weights": cell.random_weights,
                "task": cell.task,
                "method": cell.label,
                **{count: getattr(counts, count) for count in COUNTS},
                "metric": group[0].main_metric,
                "seeds": len(seeds),
                "mean": float(np.mean(seeds)),
                "lowest": min(seeds),
                "highest": max(seeds),
            }
        )
    if not rows:
        raise RecordError(
            f"There is nothing to draw: none of the {len(records)} records is of a good run of a "
            f"method that was scored on {split!r}."
        )
    order = ["encoder", "random_weights", "task", "trainable", "method"]
    return pd.DataFrame(rows).sort_values(order, ignore_index=True)


def _scale(axis: Axes, counts: pd.Series) -> None:
    """Make the axis logarithmic, with a place for 0 if it is among the counts."""
    positive = counts[counts > 0]
    if positive.empty or len(positive) == len(counts):
        axis.set_xscale("log" if len(positive) else "linear")
        return
    lowest, highest = np.floor(np.log10([positive.min(), positive.max()]))
    axis.set_xscale("symlog", linthresh=10.0**lowest, linscale=1)
    axis.set_xlim(left=-0.25 * 10.0**lowest)
    axis.set_xticks([0, *10.0 ** np.arange(lowest, highest + 1)])


def _name(axis: Axes, part: pd.DataFrame, styles: dict[str, tuple[Any, str]], gap: float) -> None:
    """Write the methods' names to the right of an axis, each as near to its height as it can.

    Names at their points would lie over each other where scores are close. Here they keep a gap,
    and the sum of squared distances to the points' heights is the least that the gap allows.
    """
    from sklearn.isotonic import isotonic_regression

    low, high = axis.get_ylim()
    axis.set_ylim(low, high)  # from here on fixed
    part = part.sort_values(["mean", "inference", "method"])
    steps = gap * np.arange(len(part))
    wanted = (part["mean"].to_numpy() - low) / (high - low) - steps
    heights = isotonic_regression(wanted, y_min=0, y_max=max(0.0, 1 - steps[-1])) + steps
    beside = blended_transform_factory(axis.transAxes, axis.transAxes)
    right = axis.get_xlim()[1]
    axis.set_xlim(right=right)
    for line, height in zip(part.itertuples(), heights, strict=True):
        colour, marker = styles[line.method]
        thin = {"color": colour, "linewidth": 0.7, "alpha": 0.6, "clip_on": False}
        at = (line.mean - low) / (high - low)
        axis.plot([line.inference, right], [line.mean, line.mean], **thin, zorder=1)
        axis.plot([1, 1.05], [at, height], transform=beside, **thin)
        axis.plot(1.08, height, marker, color=colour, transform=beside, clip_on=False, markersize=5)
        axis.text(1.12, height, line.method, transform=beside, va="center", fontsize="small")
