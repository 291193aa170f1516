"""Checks that compare trained models: their scores, sizes, and what training them took.

How a number is made from records is in :mod:`peftlab.claims.measures`.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Iterator
from typing import Literal

from pydantic import Field, PositiveInt

from peftlab.claims import measures
from peftlab.claims.checks import Cell, OfExperiment
from peftlab.claims.evidence import POCKET, Evidence, Groups, Place
from peftlab.claims.region import Estimate
from peftlab.claims.spent import Unit
from peftlab.costs.plan import Pair
from peftlab.errors import SettingsError
from peftlab.experiments.plan import MAJORITY
from peftlab.results.comparison import curves
from peftlab.results.comparison.selection import part
from peftlab.results.comparison.step_price import label_in, nearest_machine
from peftlab.results.records.costs import CostRecord
from peftlab.results.records.run import Record


class Trained(OfExperiment):
    """A check that compares trained models.

    Attributes:
        experiment: Its name.
        tasks: Some of its tasks; empty means all that are not ours.
        rows: Train rows, where a task is there with several limits.
    """

    tasks: list[str] = Field(default=[])
    rows: PositiveInt | None = None

    def verify(self, evidence: Evidence) -> None:
        """Check the names, and that something is left to compare."""
        found = self._planned(evidence)
        self._verify(self.experiment, "task", self.tasks, [task.name for task in found.tasks])
        refuse_pocket(self.tasks)
        places = evidence.papers(self.experiment, self.tasks, self.rows)
        pairs = [{label, rival} for label, rival in self.rivals.items()]
        if not any(pair <= groups.keys() for _, groups in places for pair in pairs):
            rows = "" if self.rows is None else f" with {self.rows} train rows"
            raise SettingsError(
                f"A check on {self.experiment!r} compares nothing: no task there but made ones"
                f"{rows} has the methods {', '.join(self.labels)}."
            )

    def cells(self, evidence: Evidence) -> Iterator[Cell]:
        """Yield a cell a task and method."""
        for place, groups in evidence.papers(self.experiment, self.tasks, self.rows):
            for label in self.methods:
                if {label, self.rivals[label]} <= groups.keys():
                    yield self._compared(evidence, place, groups, label)

    def _compared(self, evidence: Evidence, place: Place, groups: Groups, label: str) -> Cell:
        ours, theirs = groups[label], groups[self.rivals[label]]
        estimate = self._estimate(evidence, groups, ours, theirs) if ours and theirs else None
        ids = {r.id for r in (*ours, *theirs)}
        if estimate is not None:
            ids |= self._besides(evidence, groups, ours, theirs)
        return self._cell(str(place), label, place.encoder, estimate, ids, weights=True)

    @abstractmethod
    def _estimate(
        self, evidence: Evidence, groups: Groups, ours: list[Record], theirs: list[Record]
    ) -> Estimate | None: ...

    def _besides(
        self, evidence: Evidence, groups: Groups, ours: list[Record], theirs: list[Record]
    ) -> set[str]:
        """Return the ids of what else an estimate rests on."""
        return set()


class ScoreDifference(Trained):
    """Difference of the scores on the test split."""

    measure: Literal["score difference"]
    metric: str | None = None

    def _estimate(
        self, evidence: Evidence, groups: Groups, ours: list[Record], theirs: list[Record]
    ) -> Estimate:
        return measures.score_difference(ours, theirs, self.metric)


class TransferDifference(Trained):
    """Difference of the mean scores in all languages that the models were only tested in."""

    measure: Literal["transfer difference"]

    def verify(self, evidence: Evidence) -> None:
        """Check the names, and that there are other languages."""
        super().verify(evidence)
        planned = self._planned(evidence)
        for task in planned.tasks:
            asked = task.name in self.tasks if self.tasks else not task.of
            tested = planned.transfer if task.transfer is None else task.transfer
            if asked and not tested:
                raise SettingsError(
                    f"A check on {self.experiment!r} compares transfer, but its task {task.name!r} "
                    "has none: give it transfer tasks, or name others in tasks."
                )

    def _estimate(
        self, evidence: Evidence, groups: Groups, ours: list[Record], theirs: list[Record]
    ) -> Estimate:
        return measures.transfer_difference(ours, theirs)


class SizeRatio(Trained):
    """Recorded number of parameters over that of another method."""

    measure: Literal["recorded size ratio"]
    of: measures.Counted = "trainable"

    def _estimate(
        self, evidence: Evidence, groups: Groups, ours: list[Record], theirs: list[Record]
    ) -> Estimate:
        return measures.size_ratio(ours, theirs, self.of)


class RunRatio(Trained):
    """What a run costs up to a point, over what a run of another method does.

    Attributes:
        until: ``"stop"``: where the first paper's rule of patience ends it; ``"target"``: where it
            comes to the validation loss that every run of ``against`` reaches.
        unit: ``"steps"``, or what a step of the cost experiment has: ``"seconds"``, ``"flops"`` or
            ``"trainer flops"``.
        cost: Name of a cost experiment; not for steps.
        cell: Its batch and length that are those of the runs, if it has several.
        patience: Of the rule.
        waits: Label of a control that a run must clearly be above before the rule counts: the most
            frequent class by default, the head alone where that has a score of 0; "" for none.
        slack: See :func:`peftlab.results.comparison.curves.target`.
    """

    measure: Literal["run ratio"]
    until: Literal["stop", "target"]
    unit: Literal["steps", "seconds", "flops", "trainer flops"]
    cost: str | None = None
    cell: Pair | None = None
    patience: PositiveInt = 3
    waits: str = MAJORITY
    slack: float = 0.0

    @property
    def needs(self) -> tuple[str, ...]:
        """Both experiments."""
        return (self.experiment,) if self.cost is None else (self.experiment, self.cost)

    def verify(self, evidence: Evidence) -> None:
        """Check the names, and that the costs are there if and only if they are needed."""
        super().verify(evidence)
        if (self.unit == "steps") != (self.cost is None):
            raise SettingsError(
                f"A check on {self.experiment!r} counts {self.unit}: name a cost experiment for "
                "seconds and FLOPs, and none for steps."
            )
        if self.cost is not None:
            planned = evidence.measured(self.cost).cells
            if len([cell for cell in planned if self.cell in (None, cell)]) != 1:
                raise SettingsError(
                    f"A check on {self.experiment!r} needs one cell of {self.cost!r}, which has "
                    f"{', '.join(map(str, planned))}: name it in cell."
                )
        if self.until == "stop" and self.waits:
            controls = self._planned(evidence).methods
            self._verify(self.experiment, "control", [self.waits], controls)

    def _estimate(
        self, evidence: Evidence, groups: Groups, ours: list[Record], theirs: list[Record]
    ) -> Estimate | None:
        control, cost = self._control(groups), self._cost(evidence, ours)
        if control == [] or (cost is None and self.cost is not None):
            return None  # without the control the rule would be another
        step = measures.ONE
        if cost is not None:
            label, against = (label_in(cost, runs[0]) for runs in (ours, theirs))
            if label != against:
                step = measures.step_ratio(cost, label, against, self.unit)
        if self.until == "stop":
            reach = curves.to_stop(self.patience, control or ())
        else:
            reach = curves.to_target(theirs, self.slack)
        return measures.run_ratio(ours, theirs, reach, step)

    def _besides(
        self, evidence: Evidence, groups: Groups, ours: list[Record], theirs: list[Record]
    ) -> set[str]:
        cost = self._cost(evidence, ours)
        return {r.id for r in self._control(groups) or ()} | ({cost.id} if cost else set())

    def _control(self, groups: Groups) -> list[Record] | None:
        """Return the runs that the rule waits for; None if it waits for none."""
        return groups.get(self.waits, []) if self.until == "stop" and self.waits else None

    def _cost(self, evidence: Evidence, ours: list[Record]) -> CostRecord | None:
        """Return the measurement that prices a step, if one is asked for and recorded."""
        if self.cost is None:
            return None
        wanted = evidence.measured(self.cost).cells[0] if self.cell is None else self.cell
        costs = [
            r
            for r in evidence.costs(self.cost)
            if r.settings.mode == "train" and (r.settings.batch, r.settings.length) == wanted
        ]
        return nearest_machine(costs, ours[0]) if costs else None


class Joint(OfExperiment):
    """One model for several tasks against one for each.

    Attributes:
        experiment: Its name.
        joint: Name of the task that is made of several.
        of: ``"score"``: the differences on each task; or what the ratio of the costs of training
            all is in, see :func:`peftlab.claims.spent.spent`.
    """

    measure: Literal["joint"]
    joint: str
    of: Literal["score"] | Unit

    def verify(self, evidence: Evidence) -> None:
        """Check the names, and that it is clear which runs are meant."""
        found = evidence.trained(self.experiment)
        there = [task.name for task in found.tasks if task.of]
        self._verify(self.experiment, "task made of tasks", [self.joint], there)
        self._verify(self.experiment, "method", self.labels, found.methods)
        members = next(task.members for task in found.tasks if task.name == self.joint)
        self._verify(self.experiment, "task", members, [task.name for task in found.tasks])
        refuse_pocket(members)
        for task in (self.joint, *members):
            self._place(evidence, task)

    def cells(self, evidence: Evidence) -> Iterator[Cell]:
        """Yield a cell a task and method, or one a method for the cost of all."""
        tasks = evidence.trained(self.experiment).tasks
        members = next(task.members for task in tasks if task.name == self.joint)
        place, together = self._place(evidence, self.joint)
        alone = {task: self._place(evidence, task)[1] for task in members}
        for label in self.methods:
            ours = together.get(label, [])
            rival = self.rivals[label]
            single = {task: groups.get(rival, []) for task, groups in alone.items()}
            if self.of == "score":
                for task, runs in single.items():
                    found = None
                    if ours and runs:
                        parts = [part(run, task) for run in ours]
                        found = measures.score_difference(parts, runs)
                    ids = {r.id for r in (*ours, *runs)}
                    yield self._cell(task, label, place.encoder, found, ids, weights=True)
                continue
            found = None
            if ours and all(single.values()):
                found = measures.joint_ratio(ours, list(single.values()), self.of)
            ids = {r.id for runs in (ours, *single.values()) for r in runs}
            yield self._cell(self.joint, label, place.encoder, found, ids, weights=True)


def refuse_pocket(tasks: Iterable[str]) -> None:
    """Raise an error if one of the tasks is generated."""
    for name in tasks:
        if name.startswith(POCKET):
            raise SettingsError(
                f"The task {name!r} is generated and cannot speak of a paper: leave it out of the "
                "claims."
            )
