"""What a method costs: steps of real models, taken apart, measured side by side, recorded.

The instruments are in :mod:`peftlab.timing` and know no models; this package gives them models.
"""

from peftlab.costs.measure import measure
from peftlab.costs.plan import CostExperiment, Rounds
from peftlab.costs.step import Pass, build, random_batch
from peftlab.costs.sweep import Sweep

__all__ = [
    "CostExperiment",
    "Pass",
    "Rounds",
    "Sweep",
    "build",
    "measure",
    "random_batch",
]
