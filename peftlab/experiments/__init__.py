"""An experiment file becomes runs, and runs become records."""

from peftlab.experiments.entries import open_task
from peftlab.experiments.grid import Grid
from peftlab.experiments.plan import Experiment, read

__all__ = ["Experiment", "Grid", "open_task", "read"]
