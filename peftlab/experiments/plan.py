"""An experiment file: what is asked, and the grid of runs that answers it.

A ``.toml`` names encoders, tasks, methods, rates and seeds. Each *cell* (encoder, task, method) is
run in two stages: every learning rate at the tuning seed, then the rate that was best on the
development split at the other seeds. This file reads and plans; :mod:`peftlab.experiments.grid`
does the runs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, JsonValue, NonNegativeInt, model_validator

from peftlab import methods
from peftlab.errors import unknown
from peftlab.experiments.earlier import Earlier, Uses, built_from, check, refuse_circle
from peftlab.experiments.entries import (
    EncoderEntry,
    TaskEntry,
    Tuning,
    train_settings,
)
from peftlab.results.comparison.selection import best_rate
from peftlab.results.records.run import Entry, Record, RunSettings, Strict, named

MAJORITY = "majority"
DEFAULT = "default"


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
            check(label, self.methods[label], uses, self.earlier)
        for label, entry in self.earlier.items():
            if entry.uses is not None:
                check(label, entry.method, entry.uses, self.earlier)
        refuse_circle(self.earlier)
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

    def earlier_runs(
        self, uses: Uses, encoder: EncoderEntry, task: TaskEntry, seed: int
    ) -> dict[str, RunSettings]:
        """Return by label the earlier runs that a run builds on, but not what these build on.

        Args:
            uses: What the run names.
            encoder: Of the run.
            task: Of the run.
            seed: Of the run.
        """
        return {label: self._earlier(label, encoder, task, seed) for label in uses.labels()}

    def every_earlier_run(self) -> dict[str, RunSettings]:
        """Return by id every earlier run that the grid may need, in an order of doing them."""
        found: dict[str, RunSettings] = {}
        for cell in self.cells():
            uses = self.uses.get(cell.label)
            for seed in {*self.seeds, self.tuning.seed} if uses else ():
                for run in self._behind(uses, cell.encoder, cell.task, seed):
                    found.setdefault(run.id, run)
        return found

    def every_run_id(self) -> set[str]:
        """Return the ids of all runs of the grid that any choice of learning rates may lead to."""
        return {
            cell.run(rate, seed).id
            for cell in self.cells()
            for rate in self.rates(cell.label)
            for seed in {*self.seeds, self.tuning.seed}
        }

    def _behind(
        self, uses: Uses | None, encoder: EncoderEntry, task: TaskEntry, seed: int
    ) -> Iterator[RunSettings]:
        """Yield all runs that must be there before a run, in an order in which they can be done."""
        for label in uses.labels() if uses else ():
            entry = self.earlier[label]
            own = seed if entry.seed is None else entry.seed
            yield from self._behind(entry.uses, encoder, task, own)
            yield self._earlier(label, encoder, task, seed)

    def _earlier(
        self, label: str, encoder: EncoderEntry, task: TaskEntry, seed: int
    ) -> RunSettings:
        """Return an earlier run; encoder, task and seed are those of the run that builds on it."""
        entry = self.earlier[label]
        own = task
        if entry.task is not None:
            name = entry.task.name.replace("{task}", task.name)
            own = entry.task.model_copy(update={"name": name})
        seed = seed if entry.seed is None else entry.seed
        chosen = self.settings | own.settings | entry.settings
        options: dict[str, JsonValue] = {}
        transfer: list[str] = []
        if entry.uses is not None:
            there = self.earlier_runs(entry.uses, encoder, task, seed)
            options, transfer = built_from(entry.uses, there, own.members)
        return RunSettings(
            encoder=encoder.name,
            random_weights=encoder.random_weights,
            task=own.name,
            task_options=own.how,
            limits=own.limits,  # type: ignore[arg-type]  # pydantic checks the keys
            model_options=options,
            method=methods.get(entry.method).settings(),
            # two that differ in what they are built from must be two rows of a table
            method_label=label if entry.uses else str(entry.method["name"]),
            training=train_settings(chosen, entry.learning_rate, seed).as_dict(),
            transfer=transfer,
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
        options: dict[str, JsonValue] = {}
        uses = self.experiment.uses.get(self.label)
        if uses is not None:
            there = self.experiment.earlier_runs(uses, self.encoder, self.task, seed)
            options, old = built_from(uses, there, self.task.members)
            transfer = list(dict.fromkeys([*transfer, *old]))
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
