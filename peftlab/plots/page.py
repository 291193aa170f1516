"""What a figure is: drawn for light and dark pages, with its table and its words.

Styles, panels and legends that all figures share are here; what is drawn is in the files beside it.
"""

from __future__ import annotations

import base64
import html
import io
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pandas as pd
import seaborn as sns
from matplotlib import rc_context
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from peftlab.results.comparison.selection import cell_of
from peftlab.results.records.run import Record

Theme = Literal["light", "dark"]
THEMES: dict[Theme, dict[str, Any]] = {
    "light": {"ink": "#1f2328", "grid": "#d8dee4", "paper": "#ffffff"},
    "dark": {"ink": "#e6edf3", "grid": "#3d444d", "paper": "#121212"},
}
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "*")
# A page without themes (Colab) has no data-theme: the light figure is then the one to see.
HIDE = "<style>html:not([data-theme='dark']) img.only-dark {display: none}</style>"
COLUMNS = 3


@dataclass(frozen=True)
class Plot:
    """A figure, ready for a page.

    Attributes:
        figures: The same drawing for ``"light"`` and ``"dark"`` pages.
        table: The numbers that are drawn, all of them.
        alt: What the figure shows, in words.
    """

    figures: dict[Theme, Figure]
    table: pd.DataFrame
    alt: str

    @property
    def figure(self) -> Figure:
        """The drawing for a light page."""
        return self.figures["light"]

    def svg(self, theme: Theme = "light") -> str:
        """Return the drawing as SVG; the same records give the same text."""
        buffer = io.StringIO()
        with rc_context({"svg.hashsalt": "peftlab"}):
            self.figures[theme].savefig(
                buffer, format="svg", metadata={"Date": None}, bbox_inches="tight", pad_inches=0.1
            )
        # matplotlib names clip paths after memory addresses: number them instead.
        numbers: dict[str, str] = {}
        return re.sub(
            r"\bp[0-9a-f]{10}\b",
            lambda found: numbers.setdefault(found[0], f"clip{len(numbers)}"),
            buffer.getvalue(),
        )

    def save(self, folder: str | Path, name: str) -> list[Path]:
        """Write ``name-light.svg``, ``name-dark.svg`` and ``name.csv`` into a folder."""
        place = Path(folder)
        place.mkdir(parents=True, exist_ok=True)
        written = []
        for theme in self.figures:
            written.append(place / f"{name}-{theme}.svg")
            written[-1].write_text(self.svg(theme), encoding="utf-8")
        written.append(place / f"{name}.csv")
        self.table.to_csv(written[-1], index=False)
        return written

    def _repr_html_(self) -> str:
        """Show the figure that suits the page, and the table folded below it."""
        alt = html.escape(self.alt, quote=True)
        inches = self.figure.get_size_inches()[0]
        # A narrow page scrolls a wide figure rather than shrink its letters beyond reading.
        style = f"max-width: 100%; min-width: min({0.75 * inches:.3g}in, 34rem)"
        images = "".join(
            f'<img class="only-{theme}" alt="{alt}" style="{style}" '
            f'src="data:image/svg+xml;base64,{base64.b64encode(self.svg(theme).encode()).decode()}">'
            for theme in self.figures
        )
        table = self.table.to_html(
            index=False, border=0, justify="left", float_format="{:.4g}".format, na_rep="–"
        )
        return (
            f'{HIDE}<figure style="overflow-x: auto">{images}</figure>'
            f"<details><summary>The table behind this figure</summary>{table}</details>"
        )


def plot(
    draw: Callable[[Figure, dict[str, Any]], None],
    table: pd.DataFrame,
    alt: str,
    width: float,
    height: float,
) -> Plot:
    """Draw once for each theme.

    Args:
        draw: Is given an empty figure and the theme's colours.
        table: What is drawn.
        alt: Words for it.
        width: In inches.
        height: In inches.
    """
    figures: dict[Theme, Figure] = {}
    for name, theme in THEMES.items():
        ink = dict.fromkeys(
            ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"),
            theme["ink"],
        )
        style = sns.axes_style("whitegrid") | sns.plotting_context("notebook", font_scale=0.8)
        style |= ink | {
            "axes.facecolor": theme["paper"],
            "figure.facecolor": theme["paper"],
            "savefig.facecolor": theme["paper"],
            "legend.facecolor": theme["paper"],
            "legend.edgecolor": theme["grid"],
            "grid.color": theme["grid"],
        }
        with rc_context(style):
            figure = Figure(figsize=(max(width, 5.0), height), layout="constrained")
            draw(figure, theme)
            figure.draw_without_rendering()
            figure.set_layout_engine("none")  # a second layout would move things by a hair
        figures[name] = figure
    return Plot(figures, table, alt)


def panel_axes(figure: Figure, count: int, most: int = COLUMNS) -> list[Axes]:
    """Return axes for so many panels, three to a row or as many as are asked for."""
    columns = min(most, count)
    axes = figure.subplots(-(-count // columns), columns, squeeze=False).ravel().tolist()
    for axis in axes[count:]:
        axis.remove()
    return list(axes[:count])


def panel_size(count: int, width: float, height: float, most: int = COLUMNS) -> tuple[float, float]:
    """Return the inches of a figure with so many panels of a size."""
    columns = min(most, count)
    return width * columns, height * -(-count // columns)


def panels(table: pd.DataFrame) -> list[tuple[tuple[str, bool, str], pd.DataFrame]]:
    """Split a table into one part for each encoder and task."""
    keys = ["encoder", "random_weights", "task"]
    return [((str(k[0]), bool(k[1]), str(k[2])), p) for k, p in table.groupby(keys, sort=False)]


def styles(names: Sequence[str]) -> dict[str, tuple[Any, str]]:
    """Give each name a colour and a marker; a hundred names have a pair each of their own."""
    colours = sns.color_palette("colorblind", len(names))
    kinds = len(MARKERS)  # as many as the palette has colours: each round starts one further
    return {n: (colours[i], MARKERS[(i + i // kinds) % kinds]) for i, n in enumerate(names)}


def legend(axis: Axes) -> None:
    """Name each series once, however many runs it has."""
    handles: dict[str, Artist] = {}
    for handle, name in zip(*axis.get_legend_handles_labels(), strict=True):
        handles.setdefault(name, handle)
    axis.legend(handles.values(), handles.keys(), fontsize="small")


def shared_legend(figure: Figure, axes: Sequence[Axes], columns: int = 6) -> None:
    """Name each series of several panels once, below them, in so many columns at most."""
    handles: dict[str, Artist] = {}
    for axis in axes:
        for handle, name in zip(*axis.get_legend_handles_labels(), strict=True):
            handles.setdefault(name, handle)
    names = list(handles)
    figure.legend(
        list(handles.values()), names, loc="outside lower center", ncols=min(len(names), columns)
    )


def label(record: Record) -> str:
    """Return what tables call a record's method."""
    return cell_of(record).label


def metric(part: pd.DataFrame) -> str:
    """Return the name of a panel's metric."""
    return str(part["metric"].iloc[0])


def title(encoder: str, random: bool, task: str) -> str:
    """Return the heading of a panel."""
    name = encoder.rpartition("/")[2]
    return f"{task}, {name}{', random weights' if random else ''}"
