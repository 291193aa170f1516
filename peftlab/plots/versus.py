"""The figure that answers "as good as the baseline?": differences, with intervals and ties."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from matplotlib.artist import Artist
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from peftlab.errors import RecordError
from peftlab.plots import page
from peftlab.plots.page import Plot
from peftlab.results.comparison.statistics import Place, summarise
from peftlab.results.records.run import Record


def differences(
    records: Sequence[Record],
    baseline: str = "full",
    split: str = "test",
    without: Collection[str] = (),
    floors: Mapping[Place, float] | None = None,
) -> Plot:
    """Draw each method's difference to a baseline: mean with 95 % interval; a tie is hollow.

    Args:
        records: Of an experiment, all rates and seeds.
        baseline: Label of the method at zero.
        split: Split or transfer task.
        without: Labels of rows that are left out of the drawing, such as ``majority``, whose
            distance would hide all others; the table has them.
        floors: Noise floors, see :func:`peftlab.results.comparison.noise.floors`; drawn as a band.

    Returns:
        One panel a task, one row a method, ordered by number of trainable parameters.

    Raises:
        RecordError: No method can be compared with the baseline yet.
    """
    table = summarise(records, baseline, split, floors)
    compared = table[table["verdict"].notna() & ~table["method"].isin(list(without))]
    if compared.empty:
        raise RecordError(
            f"There is nothing to draw: no method of the {len(records)} records has a run of the "
            f"same task and seed as {baseline!r}."
        )

    tie = f"tie with {baseline}: the 95 % interval contains 0"
    floor = compared["floor"].notna().any()

    def draw(figure: Figure, theme: dict[str, Any]) -> None:
        styles = page.styles(list(dict.fromkeys(compared["method"])))
        panels = page.panels(compared)
        axes = page.panel_axes(figure, len(panels))
        for axis, (where, part) in zip(axes, panels, strict=True):
            axis.axvline(0, color=theme["ink"], linewidth=1)
            if part["floor"].notna().all():
                width = part["floor"].iloc[0]
                axis.axvspan(-width, width, color=theme["ink"], alpha=0.12, linewidth=0)
            for row, line in enumerate(part.itertuples()):
                colour, marker = styles[line.method]
                ends = [line.difference_low, line.difference_high]
                axis.plot(ends, [row, row], color=colour, linewidth=2)
                inside = theme["paper"] if line.verdict == "tie" else colour
                axis.plot(
                    line.difference, row, marker, color=colour, markerfacecolor=inside, markersize=8
                )
            names = [f"{p.method}\n{p.trainable:,.0f} trained" for p in part.itertuples()]
            axis.set_yticks(range(len(names)), names)
            axis.set_ylim(len(names) - 0.5, -0.5)
            axis.set_xlabel(f"{page.metric(part)}, {split}: difference to {baseline}")
            axis.set_title(page.title(*where))
        grey = {"color": theme["ink"], "linestyle": "none"}
        keys: list[Artist] = [
            Line2D([], [], marker="o", label=f"differs from {baseline}", **grey),
            Line2D([], [], marker="o", markerfacecolor=theme["paper"], label=tie, **grey),
        ]
        if floor:
            keys[1].set_label(f"{tie}, or the noise of seeds is as large")
            keys.append(Patch(color=theme["ink"], alpha=0.12, label="the noise of seeds"))
        figure.legend(handles=keys, loc="outside lower center", ncols=2, frameon=False)

    said = "; ".join(
        f"{page.title(line.encoder, line.random_weights, line.task)}, {line.method}: "
        f"{line.difference:+.3f} (95 % interval {line.difference_low:+.3f} to "
        f"{line.difference_high:+.3f}), {line.verdict}"
        for line in compared.itertuples()
    )
    most = int(compared.groupby(["encoder", "random_weights", "task"]).size().max())
    width, height = page.panel_size(len(page.panels(compared)), 3.9, 1.1 + 0.6 * most)
    return page.plot(draw, table, f"Difference to {baseline}. {said}.", width, height + 0.4)
