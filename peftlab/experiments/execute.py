"""Doing one run of an experiment: load, build, train, score, record."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peftlab import methods
from peftlab.errors import OutOfMemoryError, RecordError, TrainingError
from peftlab.experiments.activations import learned_activations
from peftlab.experiments.earlier import USES
from peftlab.experiments.entries import open_task
from peftlab.experiments.plan import MAJORITY
from peftlab.methods.adaptable import Adaptable
from peftlab.methods.focused import AdaptableFocused, Selection
from peftlab.results.records.run import Git, Layers, Parameters, Record, RunSettings, Sizes
from peftlab.tasks.base import Task
from peftlab.tasks.multi import members
from peftlab.timing import Phases, machine

if TYPE_CHECKING:
    from peftlab.models import Model

#: Where the model of an earlier run is kept, by the run's id.
Kept = Callable[[str], Path]
#: In the folder where a model is or would be kept: the layers that its switches selected.
LAYERS = "layers.json"
#: Shares are read as logits no further than so from 0 and 1.
LEAST = 1e-12


class Executor:
    """Does runs for real: loads, builds, trains, scores. Tasks are read once a process."""

    def __init__(self) -> None:
        self._tasks: dict[str, Task] = {}

    def __call__(self, run: RunSettings, folder: Path, kept: Kept, keep: bool = False) -> Record:
        """Do one run; see :func:`peftlab.train` for what is raised.

        Args:
            run: What to do.
            folder: For its checkpoints.
            kept: Where the models of runs lie that others build on.
            keep: Whether others build on this one.
        """
        clock = Phases()
        limits: dict[str, int] = dict(run.limits)  # type: ignore[arg-type]  # literal keys
        old: Any = run.model_options.get("old_test_rows", {})
        with clock("load"):
            task = self.task(run.task, run.task_options).limit(**limits)
            heads = self._heads(run, task)
            how = {} if "of" in run.task_options else run.task_options
            transfer = [
                (heads[name] if name in heads else self.task(name, how)).limit(
                    test=old.get(name, limits.get("test"))
                )
                for name in run.transfer
            ]
        if run.method["name"] == MAJORITY:
            return majority(run, task, transfer, clock)
        return _train(run, task, list(heads.values()), transfer, folder, clock, kept, keep)

    def _heads(self, run: RunSettings, task: Task) -> dict[str, Task]:
        """Return by name the tasks that a run's model has heads for, if not only for its own."""
        names: Any = run.model_options.get("heads", [])
        own = {each.name: each for each in members(task)}
        return {name: own[name] if name in own else self.task(name, {}) for name in names}

    def task(self, name: str, options: Mapping[str, Any]) -> Task:
        """Return a task, opened with its options and read at most once."""
        key = json.dumps([name, options], sort_keys=True)
        if key not in self._tasks:
            self._tasks[key] = open_task(name, options)
        return self._tasks[key]


def _train(
    run: RunSettings,
    task: Task,
    heads: list[Task],
    transfer: list[Task],
    folder: Path,
    clock: Phases,
    kept: Kept,
    keep: bool,
) -> Record:
    """Build and train the model of a run, on the GPU where there is one."""
    import torch

    from peftlab.checkpoints import swap_language
    from peftlab.training import TrainSettings, train

    uses: Any = run.model_options.get(USES, {})
    selection = Selection.load(kept(uses["layers"]) / LAYERS) if "layers" in uses else None
    with clock("load"):
        model = _built(run, heads or task, selection, kept)
        if torch.cuda.is_available():
            try:
                model.to("cuda")
            except torch.OutOfMemoryError as error:
                raise OutOfMemoryError(
                    f"The weights of {run.encoder!r} do not fit into what is free of the GPU's "
                    "memory: end other programs on it, or take a smaller encoder."
                ) from error

    def speak(other: Task) -> None:
        """Put in the adapter of the language that is scored next."""
        swap_language(model, kept(uses["languages"].get(other.language, uses["language"])))

    record = train(
        model,
        task,
        TrainSettings(**run.training),  # type: ignore[arg-type]
        transfer=transfer,
        before_transfer=speak if "languages" in uses else None,
        folder=folder,
        keep_checkpoint=True,  # until the record is written: a kill in between must not lose it
        label=run.method_label,
        clock=clock,
    )
    if isinstance(model.method, Adaptable):
        selection = Selection.of(model)
    if keep:
        model.save(kept(run.id))
    return record.replaced(
        activations=learned_activations(model, task, int(str(run.training["max_length"]))),
        layers=None if selection is None else _layers(model, selection),
    )


def _built(
    run: RunSettings, task: Task | list[Task], selection: Selection | None, kept: Kept
) -> Model:
    """Build the model of a run, from earlier runs where it uses some."""
    from peftlab.checkpoints import fuse, start, swap_language
    from peftlab.encoders import load_encoder
    from peftlab.models import model as build

    uses: Any = run.model_options.get(USES, {})
    drawn: Any = {"seed": run.seed, "random_weights": run.random_weights}
    if "fuse" in uses:
        assert not isinstance(task, list)  # heads are kept only where a run starts from another
        encoder = load_encoder(run.encoder, random_weights=run.random_weights)
        folders = [kept(earlier) for earlier in uses["fuse"]]
        how: Any = {k: run.method[k] for k in ("dropout", "regularization")}
        return fuse(encoder, task, folders, seed=run.seed, **how)
    if "start" in uses:
        return start(run.encoder, task, run.method, kept(uses["start"]), **drawn)
    method: dict[str, Any] = run.method  # type: ignore[assignment]  # JSON
    if selection is not None:
        method = method | {"layers": _chosen(selection, uses.get("control"), run)}
    model = build(run.encoder, task, method, **drawn)
    if "language" in uses:
        swap_language(model, kept(uses["language"]))
    return model


def _chosen(selection: Selection, control: str | None, run: RunSettings) -> tuple[int, ...]:
    """Return the layers that a run has adapters in.

    Raises:
        TrainingError: None was selected; a failed run, for another seed may select some.
    """
    if not selection.layers:
        raise TrainingError(
            f"The switches that were trained on {selection.task!r} at seed {selection.seed} have "
            "selected no layer: there is nothing to train in."
        )
    if control is None:
        return selection.layers
    drawn = selection.random(run.seed) if control == "random" else selection.top()
    assert drawn.layers is not None
    return drawn.layers


def _layers(model: Model, selection: Selection) -> Layers:
    """Return what a record says about the layers of a model."""
    own = model.method.layers if isinstance(model.method, AdaptableFocused) else None
    return Layers(
        chosen=list(selection.layers if own is None else own),
        shares=[
            None if pair is None else 1 / (1 + math.exp(pair[0] - pair[1]))
            for pair in selection.logits
        ],
    )


def recorded_selection(record: Record) -> Selection:
    """Return the layers that a recorded run has selected.

    Raises:
        RecordError: It says nothing of layers, or its shares select others than it names.
    """
    method, layers = methods.get(record.settings.method), record.layers
    if layers is None or not isinstance(method, Adaptable):
        raise RecordError(
            f"The record {record.id} ({record.settings.method_label}) says nothing of selected "
            "layers: run it again with a method that has switches."
        )
    settings = record.settings
    logits = tuple(None if share is None else (0.0, _logit(share)) for share in layers.shares)
    found = Selection(logits, settings.task, settings.encoder, settings.seed, method)
    if list(found.layers) != layers.chosen:
        raise RecordError(
            f"The record {record.id} names the layers {layers.chosen}, but its shares select "
            f"{list(found.layers)}: restore the record."
        )
    return found


def _logit(share: float) -> float:
    share = min(max(share, LEAST), 1 - LEAST)
    return math.log(share / (1 - share))


def majority(run: RunSettings, task: Task, transfer: list[Task], clock: Phases) -> Record:
    """Score the control that always predicts what is most frequent in the training split.

    Args:
        run: Whose record it is.
        task: Decides what is most frequent.
        transfer: Scored with the same predictions.
        clock: Of the run.

    Returns:
        A record like any other, with no parameters and no curve.

    Raises:
        SettingsError: The kind of task has no majority class.
    """
    from peftlab import tasks
    from peftlab.training.evaluation import scored_tasks

    metrics, scores = {}, {}
    with clock("test"):
        metrics["dev"] = tasks.majority(task, "dev").metrics
        for name, each in scored_tasks(task, transfer).items():
            found = tasks.majority(each, "test", train=task)
            metrics[name] = found.metrics
            for part, its in (found.parts or {name: found}).items():
                metrics[part], scores[part] = its.metrics, its.example_scores
    return Record(
        id=run.id,
        settings=run,
        sizes=Sizes(**{split: len(task.rows(split)) for split in ("train", "dev", "test")}),
        parameters=Parameters(trainable=0, stored=0, inference=0, head=0, backbone=0),
        metrics=metrics,
        main_metric=task.main_metric,
        example_scores=scores,
        seconds=clock.seconds(),
        device="cpu",
        machine=machine.describe(),
        versions=machine.versions(),
        git=Git(**machine.git()),
    )
