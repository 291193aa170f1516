"""An experiment file: what is asked, and the grid of runs that answers it.

A ``.toml`` names encoders, tasks, methods, rates and seeds. Each *cell* (encoder, task, method) is
run in two stages: every learning rate at the tuning seed, then the rate that was best on the
development split at the other seeds. This file reads and plans; :mod:`peftlab.experiments.grid`
does the runs.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import (
    BeforeValidator,
    Field,
    JsonValue,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    TypeAdapter,
    ValidationError,
    model_validator,
)

from peftlab import methods
from peftlab.errors import SettingsError, unknown
from peftlab.experiments.earlier import USES, Earlier, Uses
from peftlab.results.record import Entry, Record, RunSettings, Strict, named, sentence
from peftlab.results.selection import best_rate
from peftlab.training.settings import TrainSettings

if TYPE_CHECKING:
    from peftlab.tasks import Task

MAJORITY = "majority"
DEFAULT = "default"
CHOSEN_BY_GRID = ("learning_rate", "seed")
SETTINGS = TypeAdapter(TrainSettings)  # slow to make, quick to use


class EncoderEntry(Strict):
    """One encoder of the grid; ``random_weights`` draws its weights instead of loading them."""

    name: str
    random_weights: bool = False


class TaskEntry(Strict):
    """One task of the grid.

    Attributes:
        name: Short name, or a folder with the user's own data.
        kind: Needed for a folder only, as are ``options``; see :func:`peftlab.task`.
        of: Names of tasks that are learnt together; ``name`` is then any name. The limits are those
            of all their rows, in proportion.
        temperature: Of the sampling of these tasks; see :class:`peftlab.tasks.multi.MultiTask`.
        without: Labels of methods that are left out, such as ``majority`` for questions.
        train, dev, test: Most rows of each split; None means all.
        transfer: Tasks to score the trained model on; None takes the experiment's.
        settings: Training settings that differ for this task.
    """

    name: str
    kind: str | None = None
    options: dict[str, Any] = Field(default={})
    of: list[str] = Field(default=[])
    temperature: float = Field(default=1.0, ge=1)
    without: list[str] = Field(default=[])
    train: PositiveInt | None = None
    dev: PositiveInt | None = None
    test: PositiveInt | None = None
    transfer: list[str] | None = None
    settings: dict[str, Any] = Field(default={})

    @property
    def how(self) -> dict[str, Any]:
        """The options with which :func:`peftlab.task` opens it."""
        how = self.options | ({} if self.kind is None else {"kind": self.kind})
        how |= {"of": self.of} if self.of else {}
        return how | ({} if self.temperature == 1 else {"temperature": self.temperature})

    @property
    def limits(self) -> dict[str, int]:
        """The limits that are set, by split."""
        sizes = {"train": self.train, "dev": self.dev, "test": self.test}
        return {split: size for split, size in sizes.items() if size is not None}


class Tuning(Strict):
    """The equal, declared budget of every method.

    Attributes:
        learning_rates: A list for all methods, or lists by method label, with ``default``.
        seed: At which all rates are run.
    """

    learning_rates: list[PositiveFloat] | dict[str, list[PositiveFloat]]
    seed: NonNegativeInt = 0


class Experiment(Strict):
    """What an experiment file says.

    Attributes:
        name: Of the folder of its records.
        question: What the experiment is to answer, in a sentence.
        encoder: The one encoder, or ``encoders``: several.
        tasks: Names, or tables with limits.
        methods: Label in the table → preset name or settings; ``majority`` is the control that
            predicts the most frequent label and trains nothing.
        earlier: Label → a run that others build on; see :mod:`peftlab.experiments.earlier`.
        uses: Label of a method → the earlier runs that its models are built from.
        settings: Of the training loop, but for rate and seed.
        tuning: Learning rates and the seed at which they are compared.
        seeds: Of the reported runs.
        transfer: Tasks to score every trained model on; ``{task}`` stands for the task's name.
    """

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]*$")
    question: str = Field(min_length=1)
    encoders: list[Annotated[EncoderEntry, BeforeValidator(named)]] = Field(min_length=1)
    tasks: list[Annotated[TaskEntry, BeforeValidator(named)]] = Field(min_length=1)
    methods: dict[str, Entry] = Field(min_length=1)
    earlier: dict[str, Earlier] = Field(default={})
    uses: dict[str, Uses] = Field(default={})
    settings: dict[str, Any] = Field(default={})
    tuning: Tuning
    seeds: list[NonNegativeInt] = Field(min_length=1)
    transfer: list[str] = Field(default=[])

    @model_validator(mode="before")
    @classmethod
    def _one_encoder(cls, data: Any) -> Any:
        """Let ``encoder`` stand for a list of one."""
        if not isinstance(data, dict) or "encoder" not in data:
            return data
        if "encoders" in data:
            raise ValueError("name the encoders in encoder or in encoders, not in both")
        data = dict(data)
        return data | {"encoders": [data.pop("encoder")]}

    @model_validator(mode="after")
    def _can_run(self) -> Experiment:
        """Build every run once, so that a mistake shows before the first hour of training."""
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError("seeds: a seed stands there twice")
        if self.tuning.seed not in self.seeds:
            raise ValueError("tuning.seed is not one of the seeds, but its runs are reported")
        rates = self.tuning.learning_rates
        named = set(rates) - {DEFAULT} if isinstance(rates, dict) else set()
        for label in named.union(*(task.without for task in self.tasks)):
            if label not in self.methods:
                raise unknown("method in this experiment", label, self.methods)
        for label, uses in self.uses.items():
            if label not in self.methods:
                raise unknown("method in this experiment", label, self.methods)
            for name in uses.labels():
                if name not in self.earlier:
                    raise unknown("earlier run in this experiment", name, self.earlier)
        ids = [run.id for cell in self.cells() for run in cell.tuning_runs()]
        if len(set(ids)) < len(ids):
            raise ValueError("two runs are the same: a rate, task, encoder or method is repeated")
        return self

    def rates(self, label: str) -> list[float | None]:
        """Return the learning rates of a method; ``[None]`` for one that trains nothing."""
        if self.methods[label].get("name") == MAJORITY:
            return [None]
        rates = self.tuning.learning_rates
        chosen = rates if isinstance(rates, list) else rates.get(label, rates.get(DEFAULT, []))
        if not chosen:
            raise ValueError(f"tuning.learning_rates has no rates for the method {label!r}")
        return list(chosen)

    def earlier_runs(self, encoder: EncoderEntry, seed: int) -> dict[str, RunSettings]:
        """Return by label the earlier runs that runs with an encoder and a seed build on."""
        return {label: self._earlier(each, encoder, seed) for label, each in self.earlier.items()}

    def every_earlier_run(self) -> dict[str, RunSettings]:
        """Return by id every earlier run that some run of the grid may build on."""
        seeds = {*self.seeds, self.tuning.seed}
        return {
            run.id: run
            for encoder in self.encoders
            for seed in seeds
            for run in self.earlier_runs(encoder, seed).values()
        }

    def _earlier(self, entry: Earlier, encoder: EncoderEntry, seed: int) -> RunSettings:
        task = TaskEntry.model_validate(entry.task)
        seed = seed if entry.seed is None else entry.seed
        chosen = self.settings | entry.settings
        return RunSettings(
            encoder=encoder.name,
            random_weights=encoder.random_weights,
            task=task.name,
            task_options=task.how,
            limits=task.limits,  # type: ignore[arg-type]  # pydantic checks the keys
            method=methods.get(entry.method).settings(),
            method_label=str(entry.method["name"]),
            training=train_settings(chosen, entry.learning_rate, seed).as_dict(),
        )

    def cells(self) -> Iterator[CellPlan]:
        """Yield every cell of the grid, task by task."""
        for encoder in self.encoders:
            for task in self.tasks:
                for label in (m for m in self.methods if m not in task.without):
                    yield CellPlan(self, encoder, task, label)


@dataclass(frozen=True)
class CellPlan:
    """One cell: encoder, task and method; knows its runs and which of them come next."""

    experiment: Experiment
    encoder: EncoderEntry
    task: TaskEntry
    label: str

    def run(self, rate: float | None, seed: int) -> RunSettings:
        """Return the run at a rate and seed."""
        entry = self.experiment.methods[self.label]
        training: dict[str, Any] = {"seed": seed}
        method = dict(entry)
        if rate is not None:
            method = methods.get(entry).settings()
            chosen = self.experiment.settings | self.task.settings
            training = train_settings(chosen, rate, seed).as_dict()
        transfer = self.task.transfer
        if transfer is None:
            names = self.experiment.transfer
            transfer = [name.replace("{task}", self.task.name) for name in names]
        options: dict[str, Any] = {}
        if self.label in self.experiment.uses:
            there = self.experiment.earlier_runs(self.encoder, seed)
            options[USES] = self.experiment.uses[self.label].ids(there)
        return RunSettings(
            encoder=self.encoder.name,
            random_weights=self.encoder.random_weights,
            task=self.task.name,
            task_options=self.task.how,
            limits=self.task.limits,  # type: ignore[arg-type]  # pydantic checks the keys
            model_options=options,
            method=method,
            method_label=self.label,
            training=training,
            transfer=transfer,
        )

    def tuning_runs(self) -> list[RunSettings]:
        """Return the first stage: every rate at the tuning seed."""
        seed = self.experiment.tuning.seed
        return [self.run(rate, seed) for rate in self.experiment.rates(self.label)]

    def other_seeds(self) -> list[int]:
        """Return the seeds of the second stage; none where nothing is trained."""
        if self.experiment.rates(self.label) == [None]:
            return []
        return [seed for seed in self.experiment.seeds if seed != self.experiment.tuning.seed]

    def size(self) -> int:
        """Return how many runs both stages have."""
        return len(self.tuning_runs()) + len(self.other_seeds())

    def runs(self, records: Mapping[str, Record]) -> list[RunSettings]:
        """Return the runs that are decided by now: all of them once the first stage is recorded.

        Args:
            records: By id; those of other cells do no harm.
        """
        first = self.tuning_runs()
        if len(first) == 1:
            rate = self.experiment.rates(self.label)[0]
        else:
            done = [records.get(run.id) for run in first]
            if None in done:
                return first
            best = best_rate(record for record in done if record is not None)
            if best is None:  # every rate failed: there is nothing to go on with
                return first
            rate = best.settings.learning_rate
        return first + [self.run(rate, seed) for seed in self.other_seeds()]


def open_task(name: str, options: Mapping[str, JsonValue]) -> Task:
    """Open a task as an experiment names it; this reads no rows.

    Args:
        name: Short name or folder.
        options: See :func:`peftlab.task`; a list stands for a tuple. Or ``of``, the names of tasks
            that are learnt together, and their ``temperature``.

    Raises:
        UnknownNameError: There is no such data set or option.
    """
    from peftlab.tasks import task
    from peftlab.tasks.multi import MultiTask

    chosen: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in options.items()}
    if "of" in chosen:
        for option in chosen.keys() - {"of", "temperature"}:
            raise unknown("option of a task made of tasks", option, ("of", "temperature"))
        of = [task(each) for each in chosen.pop("of")]
        return MultiTask(of, name=name, **chosen)
    return task(name, **chosen)


def train_settings(chosen: Mapping[str, Any], rate: float, seed: int) -> TrainSettings:
    """Return the full settings of a run, with names and types checked.

    Raises:
        UnknownNameError: There is no such setting.
        SettingsError: A setting has a wrong type or a value that cannot work.
    """
    names = {field.name for field in fields(TrainSettings)} - set(CHOSEN_BY_GRID)
    for name in chosen:
        if name in CHOSEN_BY_GRID:
            raise SettingsError(
                f"settings.{name} cannot be set here: rates stand in tuning.learning_rates, seeds "
                "in seeds."
            )
        if name not in names:
            raise unknown("training setting", name, names)
    values = dict(chosen) | {"learning_rate": rate, "seed": seed}
    try:
        return SETTINGS.validate_json(json.dumps(values), strict=True)
    except ValidationError as error:
        raise SettingsError(f"settings.{sentence(error)}.") from None


def read(file: str | Path) -> Experiment:
    """Read and check an experiment file.

    Args:
        file: A ``.toml``.

    Returns:
        The experiment.

    Raises:
        SettingsError: The file is missing, no TOML, or says something that cannot be run; the
            sentence names file and key.
    """
    return Experiment.from_toml(file)
