"""What rational activations have become after training, and which numbers they are given."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from peftlab.results.records.run import LearnedActivation
from peftlab.tasks.base import Task

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from peftlab.models import Model

#: Development rows whose numbers are looked at.
ROWS = 64
#: Percentiles of these numbers that are kept.
PERCENTILES = (0.01, 0.5, 0.99)


def learned_activations(model: Model, task: Task, max_length: int) -> list[LearnedActivation]:
    """Read the rational activations of a trained model, from the lowest layer to the highest.

    A coefficient says little where no number ever passes; so the first :data:`ROWS` rows of the
    development split (with several tasks, they may be of one) are read one by one, without padding,
    and what each activation was given is kept as three percentiles.

    Args:
        model: In evaluation mode while it is read; its mode is restored.
        task: Whose rows are read.
        max_length: Tokens at most, as in training.

    Returns:
        One for every rational activation in a layer; none for a model without.
    """
    import torch

    from peftlab.methods.parts.rational import Rational
    from peftlab.training.evaluation import encode, predict

    layers = enumerate(layer.module for layer in model.encoder.anatomy.layers)
    found = [(i, m) for i, layer in layers for m in layer.modules() if isinstance(m, Rational)]
    if not found:
        return []
    given: list[list[Tensor]] = [[] for _ in found]
    hooks = [
        part.register_forward_pre_hook(partial(_keep, seen))
        for (_, part), seen in zip(found, given, strict=True)
    ]
    try:
        predict(model, encode(model, task, "dev", max_length)[:ROWS], batch_size=1)
    finally:
        for hook in hooks:
            hook.remove()
    return [
        LearnedActivation(
            layer=layer,
            version=part.version,
            numerator=part.numerator.tolist(),
            denominator=part.denominator.tolist(),
            given=np.quantile(torch.cat(seen), PERCENTILES, method="nearest").tolist(),
        )
        for (layer, part), seen in zip(found, given, strict=True)
    ]


def _keep(seen: list[torch.Tensor], part: nn.Module, given: tuple[Tensor, ...]) -> None:
    """Keep what an activation is given."""
    seen.append(given[0].detach().float().cpu().ravel())
