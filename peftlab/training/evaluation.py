"""Logits and scores of a model on a split. No gradients, no selection."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from peftlab.errors import DataError
from peftlab.tasks.base import Evaluation, Feature, Task
from peftlab.training import batches
from peftlab.training.precision import Resolved, autocast, resolve
from peftlab.training.settings import Precision

if TYPE_CHECKING:
    from peftlab.models import Model


@torch.inference_mode()
def predict(
    model: Model, features: Sequence[Feature], *, precision: Resolved = "fp32", batch_size: int = 64
) -> list[np.ndarray]:
    """Return the logits of every row, in the order of the rows.

    Args:
        model: Runs in evaluation mode; its mode is restored afterwards.
        features: Encoded rows.
        precision: Number format of the arithmetic.
        batch_size: Rows a batch; rows are batched by length, which changes no logit beyond
            rounding.

    Returns:
        One fp32 array a row: [classes], [choices], or [tokens, classes] without padding.
    """
    lengths = [batches.length(f) for f in features]
    pad_id = pad_token(model)
    logits: list[np.ndarray] = [np.empty(0)] * len(features)
    was_training = model.training
    model.eval()
    try:
        for rows in batches.by_length(lengths, batch_size):
            batch = batches.collate([features[i] for i in rows], pad_id)
            batch.pop("labels", None)
            with autocast(precision, model.device):
                out = model(batches.to_device(batch, model.device)).logits
            # anything with a row a token is cut back to the row's own tokens
            per_token = out.dim() == 3
            for i, row in zip(rows, out.float().cpu().numpy(), strict=True):
                logits[i] = row[: lengths[i]] if per_token else row
    finally:
        model.train(was_training)
    return logits


def evaluate(
    model: Model,
    task: Task,
    split: str = "test",
    *,
    max_length: int = 128,
    precision: Precision = "auto",
    batch_size: int = 64,
) -> Evaluation:
    """Score a model on a split of a task.

    Args:
        model: A model whose head was made for this task or for one with the same labels, such as
            the same task in another language.
        task: Where the rows come from.
        split: ``"train"``, ``"dev"`` or ``"test"``.
        max_length: Longest input in tokens.
        precision: As in :class:`TrainSettings`.
        batch_size: Rows a batch.

    Returns:
        The metrics (fractions) and the scores of the single rows.

    Raises:
        DataError: The task's kind or labels are not those of the model's head.
    """
    if (task.kind, task.labels) != (model.task.kind, model.task.labels):
        raise DataError(
            f"The model was made for {model.task.name!r} and cannot be scored on {task.name!r}: "
            "their kinds or label sets differ."
        )
    rows = task.rows(split)
    assert model.encoder.tokenizer is not None
    features = task.encode(rows, model.encoder.tokenizer, max_length)
    logits = predict(
        model, features, precision=resolve(precision, model.device), batch_size=batch_size
    )
    return task.evaluate(rows, features, logits)


def pad_token(model: Model) -> int:
    """Return the id that fills the end of short rows."""
    tokenizer = model.encoder.tokenizer
    return int(getattr(tokenizer, "pad_token_id", None) or 0)
