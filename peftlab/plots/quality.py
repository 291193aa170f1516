"""Figures of how good methods are: scores, scores against cost, tuning, zero-shot transfer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from peftlab.errors import RecordError
from peftlab.plots import page
from peftlab.plots.page import Plot
from peftlab.results.comparison.selection import cell_of, selected
from peftlab.results.comparison.statistics import summarise
from peftlab.results.records.run import Record


def scores(records: Sequence[Record], baseline: str = "full", split: str = "test") -> Plot:
    """Draw how good each method is: mean with 95 % interval, and every seed as a small dot.

    Args:
        records: Of an experiment, all rates and seeds.
        baseline: Label of the method that the table takes differences to.
        split: Split or transfer task.

    Returns:
        One panel a task, one row a method, ordered by number of trainable parameters.

    Raises:
        RecordError: There is nothing to draw.
    """
    table = _summary(records, baseline, split)
    chosen = [r for r in selected(records) if split in r.metrics]

    def draw(figure: Figure, theme: dict[str, Any]) -> None:
        panels = page.panels(table)
        axes = page.panel_axes(figure, len(panels))
        for axis, ((encoder, random, task), part) in zip(axes, panels, strict=True):
            names = list(part["method"])
            styles = page.styles(names)
            for row, line in enumerate(part.itertuples()):
                colour, marker = styles[line.method]
                seeds = [
                    r.score(split)
                    for r in chosen
                    if cell_of(r)[:3] == (encoder, random, task) and cell_of(r).label == line.method
                ]
                axis.plot(seeds, [row + 0.22] * len(seeds), ".", color=colour, alpha=0.7)
                if np.isfinite(line.low):
                    axis.plot([line.low, line.high], [row, row], color=colour, linewidth=2)
                axis.plot(line.mean, row, marker, color=colour, markersize=7)
            axis.set_yticks(range(len(names)), names)
            axis.set_ylim(len(names) - 0.5, -0.5)
            axis.set_xlabel(f"{page.metric(part)}, {split} (95 % interval; dots: seeds)")
            axis.set_title(page.title(encoder, random, task))

    said = "; ".join(
        f"{page.title(line.encoder, line.random_weights, line.task)}, {line.method}: "
        f"{line.mean:.3f} (95 % interval {line.low:.3f} to {line.high:.3f})"
        for line in table.itertuples()
    )
    height = 1.2 + 0.45 * int(table.groupby(["encoder", "random_weights", "task"]).size().max())
    size = page.panel_size(len(page.panels(table)), 4.4, height)
    return page.plot(draw, table, f"Mean score by method, with interval. {said}.", *size)


def learning_rates(records: Sequence[Record]) -> Plot:
    """Draw what tuning saw: the development score at each learning rate.

    Args:
        records: Of an experiment; the seed with most rates is drawn.
    """
    rows = [
        {
            "encoder": r.settings.encoder,
            "random_weights": r.settings.random_weights,
            "task": r.settings.task,
            "method": page.label(r),
            "seed": r.settings.seed,
            "learning_rate": r.settings.learning_rate,
            "metric": r.main_metric,
            "dev": r.score("dev"),
        }
        for r in records
        if r.status == "ok" and r.settings.learning_rate is not None
    ]
    if not rows:
        raise RecordError("No learning rates can be drawn: none of the records is of a good run.")
    table = pd.DataFrame(rows)
    most = table.groupby("seed")["learning_rate"].size()
    table = table[table["seed"] == most.idxmax()].sort_values(["method", "learning_rate"])

    def draw(figure: Figure, theme: dict[str, Any]) -> None:
        panels = page.panels(table)
        axes = page.panel_axes(figure, len(panels))
        styles = page.styles(list(dict.fromkeys(table["method"])))
        for axis, (where, part) in zip(axes, panels, strict=True):
            for method, line in part.groupby("method", sort=False):
                colour, marker = styles[str(method)]
                axis.plot(
                    line["learning_rate"], line["dev"], color=colour, marker=marker, label=method
                )
            axis.set_xscale("log")
            axis.set(xlabel="learning rate (log scale)", ylabel=f"{page.metric(part)}, dev")
            axis.set_title(page.title(*where))
        page.shared_legend(figure, axes, columns)

    best = table.loc[table.groupby(["task", "method"])["dev"].idxmax()]
    said = "; ".join(
        f"{line.task}, {line.method}: best at {line.learning_rate:g} with {line.dev:.3f}"
        for line in best.itertuples()
    )
    alt = f"Development score by learning rate. {said}."
    count = len(page.panels(table))
    width, height = page.panel_size(count, 4.4, 3.2)
    columns = 2 * min(count, page.COLUMNS)
    names = -(-table["method"].nunique() // columns)
    return page.plot(draw, table.reset_index(drop=True), alt, width, height + 0.25 * names)


def transfer(records: Sequence[Record], method: str | None = None) -> Plot:
    """Draw zero-shot transfer: the score in the training language and in each other one.

    Args:
        records: Of an experiment with transfer tasks; pretrained and random encoders are series.
        method: Label of one method; None takes all.

    Raises:
        RecordError: No record was scored on a transfer task.
    """
    rows = []
    for record in selected(records):
        label = page.label(record)
        if method not in (None, label):
            continue
        series = f"{label}, random weights" if record.settings.random_weights else label
        for name, metrics in record.metrics.items():
            if name != "dev":
                rows.append(
                    {
                        "task": record.settings.task,
                        "series": series,
                        "seed": record.settings.seed,
                        "scored_on": "trained on" if name == "test" else name.rpartition("/")[2],
                        "metric": record.main_metric,
                        "score": metrics[record.main_metric],
                    }
                )
    if not any(row["scored_on"] != "trained on" for row in rows):
        raise RecordError("No transfer can be drawn: no record was scored on a transfer task.")
    every = pd.DataFrame(rows)
    keys = ["task", "metric", "series", "scored_on"]
    grouped = every.groupby(keys, sort=False)["score"]
    table = grouped.agg(mean="mean", low="min", high="max", seeds="size").reset_index()
    names = list(dict.fromkeys(table["series"]))
    tasks = list(dict.fromkeys(table["task"]))
    places = list(dict.fromkeys(table["scored_on"]))

    def draw(figure: Figure, theme: dict[str, Any]) -> None:
        styles = page.styles(names)
        axes = page.panel_axes(figure, len(tasks))
        for axis, task in zip(axes, tasks, strict=True):
            part = table[table["task"] == task]
            for shift, series in enumerate(names):
                line = part[part["series"] == series]
                colour, marker = styles[series]
                x = [places.index(p) + 0.12 * (shift - len(names) / 2) for p in line["scored_on"]]
                spread = [line["mean"] - line["low"], line["high"] - line["mean"]]
                axis.errorbar(
                    x, line["mean"], yerr=spread, fmt=marker, color=colour, label=series, capsize=2
                )
            axis.set_xticks(range(len(places)), places)
            axis.set(ylabel=f"{part['metric'].iloc[0]} (bars: lowest to highest seed)", title=task)
        axes[0].legend(fontsize="small")

    said = "; ".join(
        f"{task}, {series}: {home:.3f} where trained, {other:.3f} elsewhere on average"
        for (task, series), part in table.groupby(["task", "series"], sort=False)
        for home, other in [part.groupby(part["scored_on"] != "trained on")["mean"].mean()]
    )
    size = page.panel_size(len(tasks), 4.4, 3.4)
    return page.plot(draw, table, f"Score by language of the test. {said}.", *size)


def _summary(records: Sequence[Record], baseline: str, split: str) -> pd.DataFrame:
    table = summarise(records, baseline, split)
    if table.empty:
        raise RecordError(
            f"There is nothing to draw: none of the {len(records)} records is of a good run that "
            f"was scored on {split!r}."
        )
    return table
