"""Training: batches, the loop, evaluation, and what makes a run resumable."""

from peftlab.training.evaluation import evaluate, predict
from peftlab.training.loop import fit
from peftlab.training.run import train
from peftlab.training.settings import TrainSettings

__all__ = ["TrainSettings", "evaluate", "fit", "predict", "train"]
