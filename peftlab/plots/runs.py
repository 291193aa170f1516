"""Figures of what happens in runs: learning curves, and where the time goes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from peftlab.errors import RecordError
from peftlab.plots import page
from peftlab.plots.page import Plot
from peftlab.results.records.run import Record


def learning_curves(records: Sequence[Record]) -> Plot:
    """Draw training loss (left) and main metric on the development split (right) by step.

    Args:
        records: Any runs of one task; runs of one method share colour and marker.

    Raises:
        RecordError: There is nothing to draw.
    """
    rows = []
    for record in records:
        run = {"method": page.label(record), "seed": record.settings.seed, "id": record.id}
        run["learning_rate"] = record.settings.learning_rate
        rows += [run | {"quantity": "loss", "step": p.step, "value": p.loss} for p in record.curve]
        rows += [
            run | {"quantity": "dev", "step": p.step, "value": p.metrics[record.main_metric]}
            for p in record.evaluations
        ]
    if not rows:
        raise RecordError("No curve can be drawn: none of the records is of a run that trained.")
    table = pd.DataFrame(rows)
    names = list(dict.fromkeys(table["method"]))
    metric = next(r.main_metric for r in records if r.main_metric)

    def draw(figure: Figure, theme: dict[str, Any]) -> None:
        styles = page.styles(names)
        left, right = figure.subplots(1, 2)
        for (_, method), part in table.groupby(["id", "method"], sort=False):
            colour, marker = styles[str(method)]
            loss = part[part["quantity"] == "loss"]
            dev = part[part["quantity"] == "dev"]
            left.plot(loss["step"], loss["value"], color=colour, linewidth=1)
            right.plot(dev["step"], dev["value"], color=colour, marker=marker, label=method)
        left.set(xlabel="optimiser step", ylabel="training loss (mean over rows)")
        right.set(xlabel="optimiser step", ylabel=f"{metric}, dev")
        page.legend(right)

    last = table.sort_values("step").groupby(["method", "quantity"])["value"].last()
    said = "; ".join(f"{m}, last {q}: {v:.3f}" for (m, q), v in last.items())
    return page.plot(draw, table, f"Training loss and development score by step. {said}.", 8.4, 3.4)


def phases(records: Sequence[Record]) -> Plot:
    """Draw where the time of a run goes: mean seconds by phase, stacked, one bar a method.

    Args:
        records: Of one machine; all runs of a method are averaged.

    Raises:
        RecordError: No record has times.
    """
    rows = [
        {"method": page.label(r), "phase": phase, "seconds": seconds}
        for r in records
        if r.settings.learning_rate is not None
        for phase, seconds in r.seconds.items()
        if phase != "total"
    ]
    if not rows:
        raise RecordError("No phases can be drawn: none of the records has times.")
    table = pd.DataFrame(rows).groupby(["method", "phase"], sort=False)["seconds"].mean()
    wide = table.unstack(fill_value=0.0)

    def draw(figure: Figure, theme: dict[str, Any]) -> None:
        axis = figure.subplots()
        left = np.zeros(len(wide))
        colours = sns.color_palette("colorblind", len(wide.columns))
        hatches = ("", "//", "..", "xx", "\\\\", "oo", "--", "++", "**", "||")
        for i, phase in enumerate(wide.columns):
            axis.barh(
                list(wide.index),
                wide[phase],
                left=left,
                color=colours[i],
                hatch=hatches[i % len(hatches)],
                edgecolor=theme["paper"],
                label=phase,
            )
            left += wide[phase].to_numpy()
        axis.invert_yaxis()
        axis.set_xlabel("seconds a run (mean over runs)")
        axis.legend(fontsize="small", loc="center left", bbox_to_anchor=(1, 0.5))

    said = "; ".join(f"{m}: {row.sum():.1f} s" for m, row in wide.iterrows())
    alt = f"Seconds of a run by phase. In total {said}."
    return page.plot(draw, table.reset_index(), alt, 7.0, 1.3 + 0.4 * len(wide))
