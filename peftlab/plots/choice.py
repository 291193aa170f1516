"""The ranking of methods for some needs: what hurts most, with intervals, in groups of ties."""

from __future__ import annotations

from typing import Any

from matplotlib.figure import Figure

from peftlab.errors import RecordError
from peftlab.plots import page
from peftlab.plots.page import Plot
from peftlab.results.choice.rule import Choice

WORDS = {
    "time": "time of training",
    "memory": "peak memory of a training step",
    "storage": "storage for all tasks",
    "latency": "time of a forward pass",
}


def ranking(choice: Choice) -> Plot:
    """Draw what hurts most of every ranked method, over full fine-tuning; a band is one rank.

    Args:
        choice: See :func:`peftlab.results.choice.rule.choose`.

    Raises:
        RecordError: Nothing hurts, or no method has a rank.
    """
    ranked = [option for option in choice.options if option.rank is not None]
    if not ranked or not choice.needs.hurts:
        raise RecordError(
            "There is no ranking to draw: name something that hurts and that was measured."
        )
    axis_name = choice.needs.hurts[0]
    ranks = list(dict.fromkeys(option.rank for option in ranked))
    table = choice.table()
    table = table[table["rank"] != ""].drop(columns="why no rank")

    def draw(figure: Figure, theme: dict[str, Any]) -> None:
        axis = figure.subplots()
        colours = page.styles([str(rank) for rank in ranks])
        for place, rank in enumerate(ranks):
            rows = [row for row, option in enumerate(ranked) if option.rank == rank]
            if place % 2 == 0:
                axis.axhspan(rows[0] - 0.5, rows[-1] + 0.5, color=theme["grid"], alpha=0.4)
        for row, option in enumerate(ranked):
            ratio = option.ratios[axis_name]
            colour, marker = colours[str(option.rank)]
            axis.plot([ratio.low, ratio.high], [row, row], color=colour, linewidth=2)
            axis.plot(ratio.ratio, row, marker, color=colour, markersize=6)
        axis.axvline(1, color=theme["ink"], linewidth=1)
        axis.set_yticks(range(len(ranked)), [f"{o.method}  {o.rank}" for o in ranked])
        axis.set_ylim(len(ranked) - 0.5, -0.5)
        axis.set_xlim(left=0)
        axis.set_xlabel(f"{WORDS[axis_name]}, over full fine-tuning (the number is the rank)")

    said = "; ".join(f"rank {o.rank}, {o.method}: {o.ratios[axis_name]}" for o in ranked)
    alt = f"The {WORDS[axis_name]} of each ranked method over full fine-tuning. {said}."
    return page.plot(draw, table, alt, 7.3, 0.9 + 0.24 * len(ranked))
