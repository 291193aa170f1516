"""Logits and scores of a model on a split. No gradients, no selection."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch

from peftlab.errors import NonFiniteLossError, OutOfMemoryError, SettingsError
from peftlab.tasks.base import SPLITS, Evaluation, Feature, Row, Task
from peftlab.tasks.coverage import warn_of_unknown
from peftlab.tasks.multi import Heads, joined, like, members
from peftlab.timing.capacity import out_of_memory, release
from peftlab.training import batches
from peftlab.training.precision import Resolved, autocast, resolve
from peftlab.training.settings import Precision, TrainSettings

if TYPE_CHECKING:
    from peftlab.models import Model


class Predictions(NamedTuple):
    """What a model says of rows.

    Attributes:
        logits: One fp32 array a row, in their order: [classes], [choices], or [tokens, classes]
            without padding.
        loss: The head's mean loss over the labels, without dropout and without a method's penalty;
            None where the rows have no labels, or the head computes another loss when it is scored.
    """

    logits: list[np.ndarray]
    loss: float | None


@torch.inference_mode()
def predict(
    model: Model, features: Sequence[Feature], *, precision: Resolved = "fp32", batch_size: int = 64
) -> Predictions:
    """Return the logits of every row, and their loss.

    Args:
        model: Runs in evaluation mode; its mode is restored afterwards.
        features: Encoded rows; for a model of several heads as :func:`encode` makes them.
        precision: Number format of the arithmetic.
        batch_size: Rows a batch; rows are batched by length, which changes no logit beyond
            rounding.

    Raises:
        NonFiniteLossError: A logit is infinite or not a number.
        OutOfMemoryError: The device has too little memory for one row.
    """
    lengths = [batches.length(f) for f in features]
    pad_id = pad_token(model)
    logits: list[np.ndarray] = [np.empty(0)] * len(features)
    total, labels = 0.0, 0
    todo = batches.by_length(features, batch_size)[::-1]
    was_training = model.training
    model.eval()
    try:
        while todo:
            rows = todo.pop()
            batch = batches.collate([features[i] for i in rows], pad_id)
            if "targets" in batch:  # the head then scores these, not what a training step hides
                batch.pop("labels", None)
            try:
                with autocast(precision, model.device):
                    found = model(batches.to_device(batch, model.device))
                out = found.logits.float().cpu()
            except RuntimeError as error:
                if not out_of_memory(error):
                    raise
                if len(rows) == 1:
                    raise OutOfMemoryError(
                        f"A single row of {lengths[rows[0]]} tokens cannot be scored in the memory "
                        f"of {model.device}: choose a shorter max_length or a smaller encoder."
                    ) from error
                release(error)
                half = len(rows) // 2
                todo += [rows[half:], rows[:half]]
                continue
            if not out.isfinite().all():
                raise NonFiniteLossError(
                    f"The model's logits on {model.task.name!r} are not finite; choose a lower "
                    "learning rate" + (" or precision='fp32'." if precision == "bf16" else ".")
                )
            if found.loss is not None:
                count = sum(batches.label_count(features[i]) for i in rows)
                total, labels = total + float(found.loss) * count, labels + count
            # anything with a row a token is cut back to the row's own tokens
            per_token = out.dim() == 3
            for i, row in zip(rows, out.numpy(), strict=True):
                logits[i] = row[: lengths[i]] if per_token else row
    finally:
        model.train(was_training)
    complete = labels == sum(map(batches.label_count, features)) and labels > 0
    return Predictions(logits, total / labels if complete else None)


def scored_tasks(task: Task, transfer: Sequence[Task]) -> dict[str, Task]:
    """Return what a run is scored on: ``test``, and every transfer task by its name.

    Of several tasks that are learnt together one may be a transfer task too: then its score is that
    on the transfer task's rows.

    Raises:
        SettingsError: A name is there twice, or is that of a split: one score would stand in the
            other's place.
    """
    taken = set(SPLITS)
    for other in transfer:
        if other.name in taken:
            raise SettingsError(
                f"The name {other.name!r} of a transfer task is taken: give it another with "
                "name=…, so that no score is lost."
            )
        taken.add(other.name)
    return {"test": task, **{other.name: other for other in transfer}}


def evaluate(
    model: Model,
    task: Task | Sequence[Task],
    split: str = "test",
    *,
    max_length: int | None = None,
    precision: Precision = "auto",
    batch_size: int = 64,
) -> Evaluation:
    """Score a model on a split of a task.

    Args:
        model: A model whose head was made for this task or for one with the same labels, such as
            the same task in another language.
        task: Where the rows come from; several tasks are scored as one, see
            :class:`peftlab.tasks.multi.MultiTask`.
        split: ``"train"``, ``"dev"`` or ``"test"``.
        max_length: Longest input in tokens; by default that of the model's training, and for a
            model that was not trained that of :class:`TrainSettings`.
        precision: As in :class:`TrainSettings`.
        batch_size: Rows a batch.

    Returns:
        The metrics (fractions, and the mean ``loss`` where the head has one) and the scores of the
        single rows.

    Raises:
        DataError: The task's kind or labels are not those of the model's head.
    """
    task = joined(task)
    if max_length is None:
        max_length = model.max_length or TrainSettings.max_length
    features = encode(model, task, split, max_length)
    return scored(
        model,
        task,
        task.rows(split),
        features,
        precision=resolve(precision, model.device),
        batch_size=batch_size,
    )


def scored(
    model: Model,
    task: Task,
    rows: Sequence[Row],
    features: Sequence[Feature],
    *,
    precision: Resolved = "fp32",
    batch_size: int = 64,
) -> Evaluation:
    """Score rows that are already encoded; arguments and errors as of :func:`predict`."""
    found = predict(model, features, precision=precision, batch_size=batch_size)
    evaluation = task.evaluate(rows, features, found.logits)
    if found.loss is None:
        return evaluation
    return replace(evaluation, metrics={**evaluation.metrics, "loss": found.loss})


def encode(model: Model, task: Task, split: str, max_length: int) -> list[Feature]:
    """Tokenise a split for a model; with several heads, the features' ``task`` names their head.

    Two tasks may share a head; their rows still are of two tasks, which ``group`` names. Warns of a
    task of which the tokenizer does not know many pieces.

    Raises:
        DataError: As :func:`check_fit`; or the split is missing.
    """
    heads = check_fit(model, task)
    tokenizer = model.encoder.tokenizer
    assert tokenizer is not None
    features = task.encode(task.rows(split), tokenizer, max_length)
    for each in members(task):
        own = (f for f in features if f.get("task", each.name) == each.name)
        warn_of_unknown(each, own, tokenizer, model.encoder.name)
    if isinstance(model.head, Heads):
        for feature in features:
            own = feature.get("task", task.name)
            feature.update(task=heads[own], group=own)
    return features


def check_fit(model: Model, task: Task) -> dict[str, str]:
    """Find the head for a task, or for each of the tasks that it is made of.

    Returns:
        Name of a task → name of the task whose head it uses.

    Raises:
        DataError: As :func:`peftlab.tasks.multi.like`.
    """
    made_for = members(model.task)
    return {each.name: like(each, made_for).name for each in members(task)}


def pad_token(model: Model) -> int:
    """Return the id that fills the end of short rows."""
    tokenizer = model.encoder.tokenizer
    return int(getattr(tokenizer, "pad_token_id", None) or 0)
