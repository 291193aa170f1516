"""An experiment file becomes runs, and runs become records."""

from peftlab.experiments.grid import Grid
from peftlab.experiments.plan import Experiment, open_task, read

__all__ = ["Experiment", "Grid", "open_task", "read"]
