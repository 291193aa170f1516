"""Figures of functions of one number, such as learned nonlinearities."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from peftlab.plots import page
from peftlab.plots.page import Plot


def functions(
    x: Sequence[float], values: Mapping[str, Sequence[float]], label: str, variable: str = "x"
) -> Plot:
    """Draw functions of one number.

    Args:
        x: Where they are known.
        values: Name of a function → its values there.
        label: What the vertical axis shows.
        variable: What the horizontal axis shows.
    """
    table = pd.DataFrame({variable: x} | {name: list(y) for name, y in values.items()})

    def draw(figure: Figure, theme: dict[str, Any]) -> None:
        axis = figure.subplots()
        styles = page.styles(list(values))
        for name, y in values.items():
            colour, marker = styles[name]
            axis.plot(x, y, color=colour, marker=marker, markevery=0.12, markersize=4, label=name)
        axis.set(xlabel=variable, ylabel=label)
        page.legend(axis)

    ends = "; ".join(f"{n}: {y[0]:.2f} to {y[-1]:.2f}" for n, y in values.items())
    alt = f"{label} over {variable} from {x[0]:g} to {x[-1]:g}. Values at the two ends: {ends}."
    return page.plot(draw, table, alt, 6.0, 3.6)
