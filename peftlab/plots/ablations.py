"""What is left when one part is taken out: a score for each variant, beside that of the whole."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from peftlab.errors import RecordError
from peftlab.plots import page
from peftlab.plots.page import Plot
from peftlab.results.comparison.statistics import Interval


def ablations(scores: Mapping[str, Mapping[str, Interval]], whole: str, unit: str) -> Plot:
    """Draw a score with its interval for each variant, one panel a task.

    Args:
        scores: Task → variant → its score; every task has the same variants.
        whole: The variant from which nothing is taken out; a line goes through its score.
        unit: What a score is.

    Raises:
        RecordError: There is no score, or the whole is not among the variants.
    """
    variants = list(dict.fromkeys(name for each in scores.values() for name in each))
    if not variants or any(list(each) != variants for each in scores.values()):
        raise RecordError("Ablations are drawn for tasks with the same variants: run all of them.")
    if whole not in variants:
        raise RecordError(f"The whole {whole!r} is missing among {', '.join(variants)}: run it.")
    rows = [
        {"task": task, "variant": name, "score": x.estimate, "low": x.low, "high": x.high}
        for task, each in scores.items()
        for name, x in each.items()
    ]
    colours = page.styles(["whole", "without"])

    def draw(figure: Figure, theme: dict[str, Any]) -> None:
        axes = page.panel_axes(figure, len(scores), 2)
        for place, (axis, (task, each)) in enumerate(zip(axes, scores.items(), strict=True)):
            axis.axvline(each[whole].estimate, color=theme["ink"], linewidth=1)
            for row, (name, x) in enumerate(each.items()):
                colour, marker = colours["whole" if name == whole else "without"]
                axis.plot([x.low, x.high], [row, row], color=colour, linewidth=2)
                axis.plot(x.estimate, row, marker, color=colour, markersize=6)
            axis.set_yticks(range(len(variants)), [] if place % 2 else variants)
            axis.set_ylim(len(variants) - 0.5, -0.5)
            axis.set_title(task, fontsize="medium")
            axis.set_xlabel(unit)

    said = "; ".join(
        f"{task}, {name}: {x.estimate:.3f} ({x.low:.3f} to {x.high:.3f})"
        for task, each in scores.items()
        for name, x in each.items()
    )
    alt = f"The {unit} of each variant with its 95 % interval. {said}."
    size = page.panel_size(len(scores), 4.2, 0.9 + 0.3 * len(variants), 2)
    return page.plot(draw, pd.DataFrame(rows), alt, *size)
