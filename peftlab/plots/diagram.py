"""Schematics of architectures: boxes and arrows, for light and dark pages. They draw no numbers.

A chapter says what the boxes are and where they stand; how they look is decided here, once: a thick
coloured edge trains, a thin grey one is frozen.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.patches import Circle, FancyBboxPatch, Patch
from matplotlib.transforms import Bbox

from peftlab.plots import page
from peftlab.plots.page import Plot

Kind = Literal["frozen", "trained", "value", "sum"]
RADIUS = 0.17  # of a sum
HALF = 0.25  # half the height of a box


@dataclass(frozen=True)
class Box:
    """One box.

    Attributes:
        text: What stands in it (mathtext between dollar signs).
        x, y: Its centre, in inches.
        kind: ``"trained"`` or ``"frozen"`` for modules, ``"value"`` for a tensor, ``"sum"`` for an
            addition, which is drawn as a circled plus.
        meaning: What it is or computes, with its shape: the table below the figure says it.
        width: In inches.
    """

    text: str
    x: float
    y: float
    kind: Kind
    meaning: str
    width: float = 1.9


@dataclass(frozen=True)
class Arrow:
    """An arrow from one box to another, by their names, along straight lines through ``via``."""

    start: str
    end: str
    via: tuple[tuple[float, float], ...] = ()


def diagram(boxes: dict[str, Box], arrows: Sequence[Arrow], alt: str) -> Plot:
    """Draw a schematic.

    Args:
        boxes: By name.
        arrows: Between them.
        alt: What the schematic shows, in words.

    Returns:
        The figure; its table explains the boxes.
    """
    kinds = {"frozen": "frozen", "trained": "trained", "value": "tensor", "sum": "sum"}
    rows = [{"box": b.text, "what it is": b.meaning, "kind": kinds[b.kind]} for b in boxes.values()]
    table = pd.DataFrame(rows)
    table["box"] = table["box"].str.replace(r"[$\\{}]|mathrm", "", regex=True).replace("", "+")
    xs = [b.x + side * b.width / 2 for b in boxes.values() for side in (-1, 1)]
    ys = [b.y + side * 1.2 * HALF for b in boxes.values() for side in (-1, 1)]
    for arrow in arrows:
        xs += [x for x, _ in arrow.via]
        ys += [y for _, y in arrow.via]
    frame = Bbox([[min(xs) - 0.1, min(ys)], [max(xs) + 0.1, max(ys)]])

    def draw(figure: Figure, theme: dict[str, Any]) -> None:
        axis = figure.subplots()
        axis.set(xlim=frame.intervalx, ylim=frame.intervaly, aspect="equal")
        axis.set_axis_off()
        colour = sns.color_palette("colorblind")[0]
        edges = {
            "trained": {"edgecolor": colour, "linewidth": 3},
            "frozen": {"edgecolor": theme["ink"], "linewidth": 0.8, "linestyle": "--"},
            "sum": {"edgecolor": theme["ink"], "linewidth": 1},
        }
        for arrow in arrows:
            ends = [boxes[arrow.start], boxes[arrow.end]]
            path = [(ends[0].x, ends[0].y), *arrow.via]
            *line, last = [*path, _edge(ends[1], path[-1])]
            style = {"color": theme["ink"], "linewidth": 1.2, "zorder": 1}
            axis.plot(*zip(*line, last, strict=True), **style)
            axis.annotate(
                "",
                last,
                line[-1],
                arrowprops={"arrowstyle": "-|>", "color": theme["ink"], "shrinkA": 0, "shrinkB": 0},
                zorder=1,
            )
        for box in boxes.values():
            look = edges.get(box.kind, {"edgecolor": "none"})
            look = look | {"facecolor": theme["paper"], "zorder": 2}
            shape: Patch
            if box.kind == "sum":
                shape = Circle((box.x, box.y), RADIUS, **look)
            else:
                corner = (box.x - box.width / 2 + 0.08, box.y - HALF + 0.08)
                size = (box.width - 0.16, 2 * HALF - 0.16)
                shape = FancyBboxPatch(corner, *size, boxstyle="round,pad=0.08", **look)
            axis.add_patch(shape)
            text = "+" if box.kind == "sum" else box.text
            axis.text(box.x, box.y, text, ha="center", va="center", fontsize=10, zorder=3)
        keys = [Patch(facecolor="none", label=k, **edges[k]) for k in ("trained", "frozen")]
        figure.legend(handles=keys, loc="outside lower center", ncols=2, frameon=False)

    return page.plot(draw, table, alt, frame.width, frame.height + 0.5)


def _edge(box: Box, origin: tuple[float, float]) -> tuple[float, float]:
    """Return where a line from a point to a box's centre meets the box."""
    across, up = origin[0] - box.x, origin[1] - box.y
    if box.kind == "sum":
        share = RADIUS / (across**2 + up**2) ** 0.5
    else:
        half_width = box.width / 2
        share = min(
            half_width / abs(across) if across else float("inf"),
            HALF / abs(up) if up else float("inf"),
        )
    return box.x + share * across, box.y + share * up
