"""What there is to judge claims by: the experiment files, and the records of each, read once.

A cell counts as recorded when every run is that its experiment file plans for it, and no seed
failed at the rate that was chosen: what a method scores where it does not fail is not what it
scores. This file knows no claims.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import NamedTuple

from peftlab import experiments
from peftlab.costs import CostExperiment
from peftlab.errors import UnknownNameError, unknown
from peftlab.experiments import Experiment
from peftlab.experiments.plan import CellPlan
from peftlab.files import read_toml
from peftlab.results.comparison.selection import selected
from peftlab.results.records.costs import CostRecord
from peftlab.results.records.run import Record
from peftlab.results.records.store import Store, cost_store

#: Tasks that we generate: what they show never stands beside what a paper says.
POCKET = "pocket/"


class Place(NamedTuple):
    """What methods are compared on: a task with its limits, and an encoder."""

    encoder: str
    task: str
    rows: int | None

    def __str__(self) -> str:
        """Name the task, and its train rows where they are limited."""
        return self.task if self.rows is None else f"{self.task} ({self.rows:,} rows)"


#: Label → the runs at the selected rate, one a seed; empty: not all are recorded, or one failed.
Groups = dict[str, list[Record]]


class Evidence:
    """Experiment files and records.

    Args:
        files: Folder of the experiment files.
        results: Folder of the records.
    """

    def __init__(self, files: str | Path, results: str | Path) -> None:
        self.files, self.results = Path(files), Path(results)
        self._read: dict[str, Experiment | CostExperiment] = {}
        self._records: dict[str, dict[str, Record]] = {}
        self._groups: dict[str, dict[Place, Groups]] = {}
        self._costs: dict[str, list[CostRecord]] = {}

    @cached_property
    def names(self) -> list[str]:
        """Names of all experiment files."""
        return sorted(path.stem for path in self.files.glob("*.toml"))

    def experiment(self, name: str) -> Experiment | CostExperiment:
        """Return what an experiment file says.

        Raises:
            UnknownNameError: There is no such file.
            SettingsError: It says something that cannot be run.
        """
        if name not in self._read:
            if name not in self.names:
                raise unknown("experiment file", name, self.names)
            path = self.files / f"{name}.toml"
            cost = read_toml(path).get("kind") == "cost"
            self._read[name] = CostExperiment.from_toml(path) if cost else experiments.read(path)
        return self._read[name]

    def trained(self, name: str) -> Experiment:
        """Return an experiment that trains.

        Raises:
            UnknownNameError: There is none of that name.
        """
        found = self.experiment(name)
        if isinstance(found, CostExperiment):
            raise UnknownNameError(
                f"The experiment {name!r} measures cost and trains nothing: name it where a cost "
                "is asked for."
            )
        return found

    def measured(self, name: str) -> CostExperiment:
        """Return an experiment that measures cost.

        Raises:
            UnknownNameError: There is none of that name.
        """
        found = self.experiment(name)
        if not isinstance(found, CostExperiment):
            raise UnknownNameError(
                f"The experiment {name!r} trains and measures no cost: name one whose file says "
                'kind = "cost".'
            )
        return found

    def records(self, name: str) -> dict[str, Record]:
        """Return by id all records of an experiment, with those of the runs that others build on.

        Raises:
            UnknownNameError: There is no experiment of that name that trains.
        """
        if name not in self._records:
            store: Store[Record] = Store(self.results)
            found = store.load_all(self.trained(name).name)
            self._records[name] = {record.id: record for record in found}
        return self._records[name]

    def groups(self, name: str) -> dict[Place, Groups]:
        """Return what an experiment plans, with the selected runs of each cell that is complete."""
        if name not in self._groups:
            experiment = self.trained(name)
            records = self.records(name)
            self._groups[name] = {}
            for cell in experiment.cells():
                if cell.encoder.random_weights:
                    continue
                place = Place(cell.encoder.name, cell.task.name, cell.task.train)
                runs = selected(_recorded(cell, records))
                whole = len(runs) == 1 + len(cell.other_seeds())
                self._groups[name].setdefault(place, {})[cell.label] = runs if whole else []
        return self._groups[name]

    def papers(
        self, name: str, tasks: list[str], rows: int | None
    ) -> Iterator[tuple[Place, Groups]]:
        """Yield the cells of an experiment that may stand beside a paper's: none is on our tasks.

        Args:
            name: Of the experiment.
            tasks: Names of tasks; empty means all but those of several tasks at once.
            rows: Train rows; None means any.
        """
        joint = {task.name for task in self.trained(name).tasks if task.of}
        for place, groups in self.groups(name).items():
            wanted = place.task in tasks if tasks else place.task not in joint
            if wanted and not place.task.startswith(POCKET) and rows in (None, place.rows):
                yield place, groups

    def complete(self, name: str) -> bool:
        """Say whether an experiment is recorded to the end."""
        planned = self.experiment(name)
        if isinstance(planned, CostExperiment):
            axes = (planned.encoders, planned.modes, planned.precisions, planned.cells)
            there = [record.settings for record in self.costs(name)]
            return {(s.encoder, s.mode, s.precision, (s.batch, s.length)) for s in there} >= {
                *product(*axes)
            }
        groups = self.groups(name).values()
        return all(runs for group in groups for runs in group.values())

    def costs(self, name: str) -> list[CostRecord]:
        """Return the records of a cost experiment, smallest cell first."""
        if name not in self._costs:
            found = cost_store(self.results).load_all(self.measured(name).name)
            self._costs[name] = sorted(
                found, key=lambda r: (r.settings.encoder, r.settings.tokens, r.settings.batch)
            )
        return self._costs[name]


def _recorded(cell: CellPlan, records: dict[str, Record]) -> list[Record]:
    """Return all runs of a cell, or none if one of them is not recorded."""
    if not records:  # nothing was run yet: there is no need to plan
        return []
    planned = {run.id for run in cell.runs(records)}
    complete = len(planned) == cell.size() and planned <= records.keys()
    return [records[each] for each in planned] if complete else []
