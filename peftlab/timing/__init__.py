"""Measuring: the machine, the phases of a run, and callables against each other."""

from peftlab.timing.compare import Comparison, NoisyTiming, Ratio, compare, significant
from peftlab.timing.phases import Phases

__all__ = ["Comparison", "NoisyTiming", "Phases", "Ratio", "compare", "significant"]
