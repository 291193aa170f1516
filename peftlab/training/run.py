"""One run from a built model to a record: train, score the test split and the transfer tasks."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from peftlab.tasks.base import Task
from peftlab.tasks.multi import joined, members
from peftlab.timing import machine
from peftlab.timing.phases import Phases
from peftlab.training import state
from peftlab.training.evaluation import check_fit, evaluate, scored_tasks
from peftlab.training.loop import Trained, added, fit
from peftlab.training.settings import TrainSettings

if TYPE_CHECKING:
    from peftlab.models import Model
    from peftlab.results.records.run import CurvePoint, Record, RunSettings, TrainingFlops

#: A record keeps at most this many points of a curve; longer ones are averaged in blocks.
CURVE_POINTS = 250


def train(
    model: Model,
    task: Task | Sequence[Task] | None = None,
    settings: TrainSettings | None = None,
    *,
    transfer: Sequence[Task] = (),
    before_transfer: Callable[[Task], object] | None = None,
    folder: str | Path | None = None,
    experiment: str = "",
    label: str = "",
    clock: Phases | None = None,
    show_progress: bool | None = None,
    keep_checkpoint: bool = False,
    **changes: Any,
) -> Record:
    """Train a model on a task, score it, and return the record of the run.

    The test split is scored once, after training; the development split selects. Taught in the
    chapter on full fine-tuning.

    Args:
        model: Is trained in place.
        task: Where the rows come from; by default the task or tasks that the model was made for.
            Several tasks are learnt together, see :class:`peftlab.tasks.multi.MultiTask`; of a
            model with several heads, any of the tasks may train.
        settings: Every knob of the loop.
        transfer: Tasks with the same labels, such as other languages, to score afterwards.
        before_transfer: Is given each of them before it is scored, to prepare the model for it, and
            the task itself at the end.
        folder: Where checkpoints go. A run that was killed continues from there; the folder is
            emptied of them when the run is done.
        experiment: Name of the experiment that the run belongs to.
        label: What tables call the method; by default its name.
        clock: Has timed the loading already, if it is given.
        show_progress: Whether to draw a progress bar.
        keep_checkpoint: Leave the last checkpoint in the folder, for a caller who removes it when
            the record is written.
        **changes: Single settings that differ from ``settings``, for example
            ``learning_rate=3e-4``.

    Returns:
        Settings, metrics, curve, times by phase, machine and versions. With several tasks
        ``metrics["dev"]`` and ``metrics["test"]`` hold the ``mean`` and ``<task> <metric>``;
        ``metrics[<task>]`` and ``example_scores[<task>]`` are those of a task's test split.

    Raises:
        SettingsError: A setting is unknown or cannot work, or transfer tasks share a name.
        DataError: A split is empty or a transfer task has other labels.
        NonFiniteLossError: The loss became infinite or not a number.
        OutOfMemoryError: The device has too little memory for the batch.
        CheckpointError: The folder holds the checkpoint of another run.
    """
    from peftlab.models import summary
    from peftlab.results.records.run import EvaluationPoint, Git, Parameters, Record, Sizes, Tokens

    task = joined(task or model.task)
    settings = settings_with(settings or TrainSettings(), changes)
    clock = clock or Phases()
    commit = machine.git()  # of the code that runs: it may be edited while this trains
    scored_on = scored_tasks(task, transfer)
    for each in (task, *transfer):
        check_fit(model, each)
    with clock("read"):  # a split that is missing shall not show after the training
        sizes = {split: len(task.rows(split)) for split in ("train", "dev", "test")}
        for other in transfer:
            other.rows("test")
    asked = run_settings(model, task, settings, transfer, label)
    counts = summary(model)
    place = Path(folder) if folder is not None else None
    key = f"{asked.id} {asked.encoder_fingerprint}"
    if place is not None:  # settings do not say what the rows of a file are
        key += "".join(f" {task.digest(split)}" for split in ("train", "dev"))
    trained = fit(
        model, task, settings, clock=clock, folder=place, key=key, show_progress=show_progress
    )
    model.runs.append(asked.id)
    model.max_length = settings.max_length
    metrics: dict[str, dict[str, float]] = {}
    scores: dict[str, list[float]] = {}
    if trained.evaluations:
        kept = [e for e in trained.evaluations if e["step"] == trained.best_step]
        metrics["dev"] = (kept or trained.evaluations)[-1]["metrics"]
    for name, each in scored_on.items():
        with clock("test" if name == "test" else "transfer"):
            if before_transfer is not None and name != "test":
                before_transfer(each)
            scored = evaluate(model, each, precision=settings.precision)
        metrics[name] = scored.metrics
        for part, found in (scored.parts or {name: scored}).items():
            metrics[part], scores[part] = found.metrics, found.example_scores
    if before_transfer is not None:  # the model is to be saved as it was trained
        before_transfer(task)
    record = Record(
        id=asked.id,
        experiment=experiment,
        settings=asked,
        sizes=Sizes(**sizes),
        parameters=Parameters(
            trainable=counts.trainable,
            stored=counts.stored,
            inference=counts.inference,
            head=counts.head,
            backbone=counts.backbone,
        ),
        metrics=metrics,
        main_metric=task.main_metric,
        example_scores=scores,
        curve=_curve(trained),
        evaluations=[EvaluationPoint(**e) for e in trained.evaluations],
        best_step=trained.best_step,
        seconds=added(trained.earlier, clock.seconds()),
        tokens=Tokens(**trained.tokens),
        flops=_flops(model, trained),
        device=cast(Any, model.device.type),
        precision=trained.precision,
        machine=machine.describe(),
        versions=machine.versions(),
        git=Git(**commit),
    )
    if place is not None and not keep_checkpoint:
        (place / state.FILE).unlink(missing_ok=True)
    return record


def settings_with(settings: TrainSettings, changes: dict[str, Any]) -> TrainSettings:
    """Return settings with some of them changed.

    Raises:
        UnknownNameError: There is no such setting.
    """
    from peftlab.errors import unknown

    names = [field.name for field in fields(TrainSettings)]
    for name in changes:
        if name not in names:
            raise unknown("training setting", name, names)
    return replace(settings, **changes)


def run_settings(
    model: Model, task: Task, settings: TrainSettings, transfer: Sequence[Task], label: str
) -> RunSettings:
    """Return what decides a run, as its record says it."""
    from peftlab.results.records.run import RunSettings

    options = dict(model.options)
    if model.seed != settings.seed:
        options["seed"] = model.seed
    if model.runs:
        options["after"] = list(model.runs)
    heads, trained = ([each.name for each in members(t)] for t in (model.task, task))
    if len(heads) > 1 and heads != trained:
        options["heads"] = heads
    return RunSettings(
        encoder=model.encoder.name,
        encoder_fingerprint=model.encoder.fingerprint,
        random_weights=model.encoder.random_weights,
        task=task.name,
        task_options=task.options,
        limits=cast(Any, task.limits),
        model_options=options,
        method=model.method.settings(),
        method_label=label or model.method.name,
        training=settings.as_dict(),
        transfer=[other.name for other in transfer],
    )


def _flops(model: Model, trained: Trained) -> TrainingFlops:
    from peftlab.results.records.run import TrainingFlops
    from peftlab.timing.flops import hf_total_flos

    tokens = trained.tokens["padded"]
    return TrainingFlops(closed_form=trained.flops, hugging_face=hf_total_flos(model, tokens))


def _curve(trained: Trained) -> list[CurvePoint]:
    from peftlab.results.records.run import CurvePoint

    block = max(1, math.ceil(len(trained.losses) / CURVE_POINTS))
    points = []
    for start in range(0, len(trained.losses), block):
        losses = trained.losses[start : start + block]
        last = start + len(losses)
        points.append(
            CurvePoint(
                step=last,
                loss=math.fsum(losses) / len(losses),
                learning_rate=trained.rates[last - 1],
            )
        )
    return points
