"""Learned activations: what they are for each layer, one row of panels for each task and size."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure

from peftlab.errors import RecordError
from peftlab.methods.parts.rational import Rational
from peftlab.plots import page
from peftlab.plots.page import Plot
from peftlab.results.records.run import LearnedActivation, Record

#: Of a line; of these, every so-manieth is in the table behind the figure.
POINTS, TOLD = 101, 25


def activations(records: Sequence[Record]) -> Plot:
    """Draw every learned activation between the percentiles of the numbers that it was given.

    One row of panels for each task and number of training rows, one column for each layer, one line
    for each run. Dashed is the constant 1, where the released code lets them start.

    Args:
        records: Of one encoder and method, at one rate; those without learned activations are left
            out.

    Raises:
        RecordError: No record has a learned activation.
    """
    # from few rows to many, task by task
    runs = [r for r in records if r.activations]
    runs.sort(key=lambda r: (r.settings.task, _rows(r)))
    if not runs:
        raise RecordError("No record has a learned activation: run a method with rational ones.")
    names = list(dict.fromkeys(_name(r) for r in runs))
    layers = sorted({a.layer for r in runs for a in r.activations})
    lines = pd.DataFrame(
        {"task": _name(r), "layer": a.layer, "run": r.id, "x": x, "R(x)": y}
        for r in runs
        for a in r.activations
        for x, y in zip(*curve(a), strict=True)
    )
    table = lines[lines.index % POINTS % TOLD == 0]
    colours = page.styles(names)

    def draw(figure: Figure, theme: dict[str, Any]) -> None:
        panels = figure.subplots(len(names), len(layers), squeeze=False)
        for i, name in enumerate(names):
            for j, layer in enumerate(layers):
                axis = panels[i][j]
                axis.axhline(1, color=theme["ink"], linewidth=0.8, linestyle="--")
                here = lines[(lines["task"] == name) & (lines["layer"] == layer)]
                for _, line in here.groupby("run"):
                    axis.plot(line["x"], line["R(x)"], color=colours[name][0], linewidth=1.2)
                axis.tick_params(labelsize="x-small", pad=1)
                if i == 0:
                    axis.set_title(f"layer {layer}", fontsize="medium")
        figure.supxlabel("x, what the activation is given; upwards R(x)", fontsize="small")
        for i, name in enumerate(names):
            panels[i][0].set_ylabel(name.replace(", ", "\n"), fontsize="small")

    alt = (
        "Learned activations R(x) between the 1st and the 99th percentile of x; values at these "
        f"two ends, mean over runs. {_words(table)}."
    )
    return page.plot(draw, table, alt, 1.5 * len(layers) + 0.4, 1.3 * len(names) + 0.4)


def curve(activation: LearnedActivation) -> tuple[list[float], list[float]]:
    """Return x from the 1st to the 99th percentile of what an activation was given, and R(x)."""
    part = Rational(version=activation.version)
    with torch.no_grad():
        part.numerator.copy_(torch.tensor(activation.numerator))
        part.denominator.copy_(torch.tensor(activation.denominator))
        x = np.linspace(activation.given[0], activation.given[-1], POINTS)
        return x.tolist(), part(torch.from_numpy(x)).tolist()


def _rows(record: Record) -> int:
    """Return the number of training rows."""
    return record.sizes.train if record.sizes else 0


def _name(record: Record) -> str:
    """Return what a row of panels is called."""
    return f"{record.settings.task}, {_rows(record)} rows"


def _words(table: pd.DataFrame) -> str:
    """Say where the lines begin and end."""
    lines = table.groupby(["task", "layer", "run"])["R(x)"].agg(["first", "last"])
    ends = lines.groupby(["task", "layer"]).mean()
    return "; ".join(
        f"{task}, layer {layer}: {low:.2f} to {high:.2f}"
        for (task, layer), (low, high) in zip(ends.index, ends.to_numpy(), strict=True)
    )
