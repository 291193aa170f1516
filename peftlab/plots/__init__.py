"""Every figure of the book, drawn from records alone, with the table behind it and words for it.

Methods are told apart by colour and by marker (the palette is safe for colour-blind readers) and
axes bear units. Nothing is drawn that is not in the table.
"""

from peftlab.plots.ablations import ablations
from peftlab.plots.activations import activations
from peftlab.plots.costs import memory, step_parts, step_time, surface
from peftlab.plots.languages import language_map, language_trade_off
from peftlab.plots.overview import overview
from peftlab.plots.page import Plot
from peftlab.plots.quality import learning_rates, scores, transfer
from peftlab.plots.runs import learning_curves, phases
from peftlab.plots.targets import ratios_to_target, validation_loss
from peftlab.plots.versus import differences

__all__ = [
    "Plot",
    "ablations",
    "activations",
    "differences",
    "language_map",
    "language_trade_off",
    "learning_curves",
    "learning_rates",
    "memory",
    "overview",
    "phases",
    "ratios_to_target",
    "scores",
    "step_parts",
    "step_time",
    "surface",
    "transfer",
    "validation_loss",
]
