"""Measuring: the machine, the phases of a run, and callables against each other."""

from peftlab.timing.clock import Clock
from peftlab.timing.compare import Comparison, NoisyTiming, cost
from peftlab.timing.intervals import Ratio, significant
from peftlab.timing.phases import Phases

__all__ = ["Clock", "Comparison", "NoisyTiming", "Phases", "Ratio", "cost", "significant"]
