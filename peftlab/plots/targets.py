"""Figures of time to quality: validation loss over steps, seconds and FLOPs, and who needs more."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from peftlab.errors import RecordError
from peftlab.plots import page
from peftlab.plots.page import Plot
from peftlab.results.comparison.curves import losses, target
from peftlab.results.comparison.selection import selected
from peftlab.results.comparison.step_price import price
from peftlab.results.comparison.targets import UNITS
from peftlab.results.records.costs import CostRecord
from peftlab.results.records.run import Record

WORDS = {"steps": "optimiser steps", "seconds": "seconds of training", "tflop": "TFLOP"}


def validation_loss(records: Sequence[Record], cost: CostRecord, baseline: str = "full") -> Plot:
    """Draw the validation loss over steps, seconds and FLOPs, with the baseline's as the target.

    A line is the median over seeds, its band goes from the lowest to the highest seed.

    Args:
        records: Runs of one task, all rates and seeds; the selected runs are drawn.
        cost: Of a training step of these methods, on a quiet machine.
        baseline: Label; the loss that all of its runs reach is drawn as a dashed line.

    Raises:
        RecordError: There is no run of the baseline, no validation loss or no measurement.
    """
    runs = [record for record in selected(records) if record.settings.learning_rate is not None]
    goal = target([run for run in runs if page.label(run) == baseline])
    rows = []
    for record in runs:
        step = price(record, cost)
        rows += [
            {
                "method": page.label(record),
                "seed": record.settings.seed,
                "steps": at,
                "seconds": at * step.seconds,
                "tflop": at * step.flops / 1e12,
                "validation loss": loss,
            }
            for at, loss in losses(record)
        ]
    table = pd.DataFrame(rows)
    names = sorted(set(table["method"]), key=lambda name: (name != baseline, name))

    def draw(figure: Figure, theme: dict[str, Any]) -> None:
        styles = page.styles(names)
        axes = figure.subplots(1, len(UNITS), sharey=True)
        for axis, unit in zip(axes, UNITS, strict=True):
            for name in names:
                colour, marker = styles[name]
                loss = table[table["method"] == name].groupby(unit)["validation loss"]
                x = np.array(list(loss.groups))
                axis.fill_between(x, loss.min(), loss.max(), color=colour, alpha=0.15, linewidth=0)
                axis.plot(x, loss.median(), color=colour, marker=marker, markersize=4, label=name)
            axis.axhline(goal, color=theme["ink"], linestyle="--", linewidth=1)
            axis.set_xlabel(WORDS[unit])
            axis.set_xlim(left=0)
        axes[0].set_ylabel("validation loss")
        handles, labels = axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=4, fontsize="small")

    lowest = table.groupby(["method", "seed"], sort=False)["validation loss"].min()
    said = "; ".join(
        f"{m}: {v:.3f}" for m, v in lowest.groupby("method", sort=False).median().items()
    )
    alt = (
        "Validation loss by optimiser step, by seconds and by FLOPs. The dashed line is the loss "
        f"that every run of {baseline} reaches, {goal:.3f}. Lowest loss of each, median "
        f"over seeds: {said}."
    )
    return page.plot(draw, table, alt, 7.3, 3.8)


def ratios_to_target(table: pd.DataFrame, unit: str = "seconds", baseline: str = "full") -> Plot:
    """Draw what each method needs for an ever easier target, over what the baseline needs for it.

    Args:
        table: Of :func:`peftlab.results.comparison.targets.reach_table`.
        unit: ``"steps"``, ``"seconds"`` or ``"tflop"``.
        baseline: Its ratio is 1 and is drawn as a line.

    Raises:
        RecordError: There is nothing beside the baseline.
    """
    table = table[table["method"] != baseline]
    if table.empty:
        raise RecordError(f"There is no method beside {baseline!r} to draw: add its records.")
    table = table[["method", "slack", "reached", "seeds", f"{unit}_ratio"]]
    names = sorted(set(table["method"]))
    finite = table.loc[np.isfinite(table[f"{unit}_ratio"]), f"{unit}_ratio"]
    never = 1.5 * max(finite.max() if len(finite) else 1.0, 1.0)

    def draw(figure: Figure, theme: dict[str, Any]) -> None:
        styles = page.styles(names)
        axis = figure.subplots()
        slacks = list(dict.fromkeys(table["slack"]))
        for shift, name in enumerate(names):
            colour, marker = styles[name]
            part = table[table["method"] == name].set_index("slack")[f"{unit}_ratio"]
            x = [slacks.index(s) + 0.08 * (shift - len(names) / 2) for s in part.index]
            y = part.replace(math.inf, never)
            axis.plot(x, y, color=colour, marker=marker, linestyle=":", label=name)
        axis.axhline(1, color=theme["ink"], linewidth=1)
        axis.axhline(never, color=theme["grid"], linewidth=1)
        axis.set_yscale("log")
        axis.set_ylim(top=1.2 * never)
        ticks = [t for t in (0.1, 0.2, 0.5, 1, 2, 5, 10, 20) if t < never / 1.2]
        axis.set_yticks([*ticks, never], [*map("{:g}".format, ticks), "not\nreached"])
        axis.minorticks_off()
        axis.set_xticks(range(len(slacks)), [f"{s:+.0%}" if s else "the same" for s in slacks])
        axis.set_xlabel(
            f"target: the validation loss that every run of {baseline} reaches, and so much above"
        )
        axis.set_ylabel(f"{unit} to the target\nover those of {baseline}")
        axis.legend(fontsize="small", loc="center left", bbox_to_anchor=(1, 0.5))

    said = "; ".join(
        f"{name}: " + ", ".join("never" if math.isinf(v) else f"{v:.2g}" for v in part)
        for name, part in table.groupby("method", sort=False)[f"{unit}_ratio"]
    )
    alt = (
        f"Ratio of the {unit} that each method needs to those of {baseline}, from the same target "
        f"to easier ones. {said}."
    )
    return page.plot(draw, table, alt, 7.3, 3.6)
