"""Figures of what methods cost: time, its parts, memory, and how both change with the size."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from peftlab.errors import RecordError
from peftlab.plots import page
from peftlab.plots.page import Plot
from peftlab.results.comparison.cost_table import MEMORY, PARTS, cost_table
from peftlab.results.records.costs import AGAIN, CostRecord

ROW = 0.23  # inches of a method
AROUND = 1.5  # inches that title, axis and legend take
WIDTH = 7.3  # inches of a column of the book: letters are not shrunk there
PANELS = 3  # at most, beside each other
ABREAST = 2  # surfaces, which have a scale of their own
HATCHES = ("", "///", "...", "xxx")  # parts of a bar are told apart without colour too


def step_time(records: Sequence[CostRecord], without: Collection[str] = ()) -> Plot:
    """Draw the time of each method as a ratio to the baseline, beside the ratio of FLOPs.

    Args:
        records: Of one baseline, a panel each.
        without: Labels of methods that are left out.

    Returns:
        One row a method: the measured ratio with its 95 % interval, filled where the interval does
        not hold 1; a vertical tick where the ratio of FLOPs lies, by the closed form. The grey band
        is the interval of the baseline against itself.

    Raises:
        RecordError: Nothing was timed, or the records have several baselines.
    """
    table, baseline = _timed(records, without), _baseline(records)
    order = table.groupby("method")["ratio"].mean().sort_values().index
    rows = {method: row for row, method in enumerate(m for m in order if not m.endswith(AGAIN))}

    def draw(figure: Figure, theme: dict[str, Any]) -> None:
        colours = sns.color_palette("colorblind")

        def panel(axis: Axes, part: pd.DataFrame) -> None:
            again = part[part["method"].str.endswith(AGAIN)]
            for line in again.itertuples():
                axis.axvspan(line.low, line.high, color=theme["ink"], alpha=0.15, linewidth=0)
            axis.axvline(1, color=theme["ink"], linewidth=1)
            for line in part[part["method"].isin(list(rows))].itertuples():
                row = rows[line.method]
                axis.plot([line.low, line.high], [row, row], color=colours[0], linewidth=1.5)
                inside = theme["paper"] if line.tie else colours[0]
                axis.plot(
                    line.ratio, row, "o", color=colours[0], markerfacecolor=inside, markersize=6
                )
                axis.plot(line.flop_ratio, row, "|", color=colours[1], markersize=11, mew=2)

        _panels(figure, table, rows, f"ratio to {baseline}", panel, sharex=True)
        keys = [
            Line2D([], [], color=colours[0], marker="o", label="measured, 95 % interval"),
            Line2D(
                [], [], color=colours[1], marker="|", linestyle="none", mew=2, label="by its FLOPs"
            ),
            Line2D([], [], color=theme["ink"], alpha=0.3, linewidth=6, label=f"{baseline}{AGAIN}"),
        ]
        figure.legend(handles=keys, loc="outside lower center", ncols=3, frameon=False)

    said = "; ".join(
        f"{line.method}, {line.batch} × {line.length}: {line.ratio:.2f} ({line.low:.2f} to "
        f"{line.high:.2f}), by FLOPs {line.flop_ratio:.2f}"
        for line in table.itertuples()
    )
    alt = f"Time as a ratio to {baseline}, and the ratio of FLOPs. {said}."
    return page.plot(draw, table, alt, *_size(table, rows))


def step_parts(records: Sequence[CostRecord], without: Collection[str] = ()) -> Plot:
    """Draw a training step of each method in its parts, in milliseconds.

    Args:
        records: Of training steps of one encoder, a panel each.
        without: Labels of methods that are left out.

    Raises:
        RecordError: No step was taken apart.
    """
    columns = [f"{part}_ms" for part in PARTS]
    table = _timed(records, without)
    if table[columns].isna().all(axis=None):
        raise RecordError("There is nothing to draw: no record holds a step taken apart.")
    names = dict(zip(columns, (part.replace("_", " ") for part in PARTS), strict=True))
    return _bars(table.dropna(subset=columns), names, "ms a step (medians)", "Parts of a step")


def memory(records: Sequence[CostRecord], without: Collection[str] = ()) -> Plot:
    """Draw the memory of a training step of each method in its parts, in MB.

    Args:
        records: Of training steps of one encoder, a panel each.
        without: Labels of methods that are left out.

    Raises:
        RecordError: No memory was measured.
    """
    columns = [f"{part}_mb" for part in MEMORY]
    table = cost_table(records)
    if table[columns].isna().all(axis=None):
        raise RecordError("There is nothing to draw: no record holds memory.")
    table = table[~table["method"].isin(list(without)) & ~table["method"].str.endswith(AGAIN)]
    names = dict(zip(columns, MEMORY, strict=True))
    return _bars(table.dropna(subset=columns), names, "MB", "Memory of a step")


def surface(records: Sequence[CostRecord], method: str, column: str = "ratio") -> Plot:
    """Draw a ratio of one method over batch and length.

    A panel an encoder; where they are of several modes, precisions or processors, one of each.

    Args:
        records: A grid of cells.
        method: Its label.
        column: ``"ratio"`` of times, ``"flop_ratio"`` or ``"memory_ratio"``.

    Returns:
        A field a cell, with its number; a tie has an equals sign before it.

    Raises:
        RecordError: No record has that method.
    """
    table = cost_table(records)
    table = table[(table["method"] == method) & table[column].notna()]
    if table.empty:
        raise RecordError(f"There is nothing to draw: no record has the {column} of {method!r}.")
    apart = ["encoder", *(c for c in ("mode", "precision", "processor") if table[c].nunique() > 1)]
    parts = list(table.groupby(apart, sort=False))

    def draw(figure: Figure, theme: dict[str, Any]) -> None:
        axes = page.panel_axes(figure, len(parts), ABREAST)
        for axis, (where, part) in zip(axes, parts, strict=True):
            field = part.pivot(index="batch", columns="length", values=column)
            tie = (part["tie"] == True) & (column == "ratio")  # noqa: E712  # NaN is no tie
            words = part.assign(
                words=[
                    f"{'= ' if t else ''}{v:.2f}" for t, v in zip(tie, part[column], strict=True)
                ]
            ).pivot(index="batch", columns="length", values="words")
            sns.heatmap(
                field.astype(float),
                ax=axis,
                annot=words.fillna("").to_numpy(),
                fmt="",
                cmap="vlag",
                center=1,
                vmin=0.3,
                vmax=1.7,
            )
            axis.set_title(", ".join(where), fontsize="medium")
            axis.set_xlabel("tokens of a text")
            axis.set_ylabel("texts in the batch")

    said = "; ".join(
        f"{', '.join(where)}, {line.batch} × {line.length}: {getattr(line, column):.2f}"
        for where, part in parts
        for line in part.itertuples()
    )
    alt = f"{method}: {column.replace('_', ' ')} to the baseline by batch and length. {said}."
    return page.plot(draw, table, alt, *page.panel_size(len(parts), WIDTH / ABREAST, 3.0, ABREAST))


CELL = ["encoder", "mode", "batch", "length", "precision", "processor"]


def _timed(records: Sequence[CostRecord], without: Collection[str]) -> pd.DataFrame:
    table = cost_table(records)
    if table["ratio"].isna().all():
        raise RecordError(f"There is nothing to draw: none of the {len(records)} records is timed.")
    return table[table["ratio"].notna() & ~table["method"].isin(list(without))]


def _baseline(records: Sequence[CostRecord]) -> str:
    baselines = {record.settings.baseline for record in records}
    if len(baselines) > 1:
        raise RecordError(
            f"The records have ratios to {' and to '.join(sorted(baselines))}: draw those of one "
            "baseline."
        )
    return baselines.pop()


def _size(table: pd.DataFrame, rows: Collection[str]) -> tuple[float, float]:
    """Return the inches of a figure with a panel a cell and a row a method."""
    lines = -(-table.groupby(CELL).ngroups // PANELS)
    return WIDTH, AROUND + lines * (0.6 + ROW * len(rows)) - 0.6


def _panels(
    figure: Figure,
    table: pd.DataFrame,
    rows: Collection[str],
    unit: str,
    panel: Callable[[Axes, pd.DataFrame], None],
    *,
    sharex: bool,
) -> list[Axes]:
    """Draw a panel a cell, with a row a method; return the panels."""
    cells = list(table.groupby(CELL, sort=False))
    columns = min(PANELS, len(cells))
    grid = figure.subplots(
        -(-len(cells) // columns), columns, sharex=sharex, sharey=True, squeeze=False
    )
    for axis in grid.flat[len(cells) :]:
        axis.remove()
    axes = list(grid.flat[: len(cells)])
    for axis, (where, part) in zip(axes, cells, strict=True):
        panel(axis, part)
        axis.set_title(_cell(where), fontsize="medium")
    for axis in axes[-columns:]:
        axis.set_xlabel(unit)
        axis.tick_params(labelbottom=True)
    axes[0].set_yticks(range(len(rows)), list(rows))
    axes[0].set_ylim(len(rows) - 0.5, -0.5)
    return axes


def _cell(where: tuple[Any, ...]) -> str:
    encoder, _, batch, length, precision, _ = where
    return f"{encoder}, {precision}\n{batch} × {length} tokens"


def _bars(table: pd.DataFrame, names: dict[str, str], unit: str, what: str) -> Plot:
    """Draw bars in parts, one row a method and a panel a cell."""
    table = table[~table["method"].str.endswith(AGAIN)]
    totals = table.assign(total=table[list(names)].sum(axis=1))
    order = list(totals.groupby("method")["total"].mean().sort_values().index)
    rows = {method: row for row, method in enumerate(order)}

    def draw(figure: Figure, theme: dict[str, Any]) -> None:
        colours = sns.color_palette("colorblind")

        def panel(axis: Axes, part: pd.DataFrame) -> None:
            _stack(axis, part, rows, names, colours, theme)

        axes = _panels(figure, table, rows, unit, panel, sharex=False)
        handles, labels = axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False)

    said = "; ".join(
        f"{line.method}, {line.batch} × {line.length}: "
        + ", ".join(f"{name} {getattr(line, column):.0f}" for column, name in names.items())
        for line in table.itertuples()
    )
    alt = f"{what}, {unit}. {said}."
    return page.plot(draw, table, alt, *_size(table, rows))


def _stack(
    axis: Axes,
    part: pd.DataFrame,
    rows: dict[str, int],
    names: dict[str, str],
    colours: Sequence[Any],
    theme: dict[str, Any],
) -> None:
    places = [rows[method] for method in part["method"]]
    left = np.zeros(len(part))
    for (column, name), colour, hatch in zip(names.items(), colours, HATCHES, strict=False):
        axis.barh(
            places,
            part[column],
            left=left,
            color=colour,
            hatch=hatch,
            edgecolor=theme["paper"],
            linewidth=0.5,
            label=name,
        )
        left += part[column].to_numpy()
