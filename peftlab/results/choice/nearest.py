"""The records nearest to a reader's needs: of scores, and of costs beside full fine-tuning.

Nothing is interpolated: a method has the numbers of a record, or none.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import NamedTuple

from peftlab.errors import RecordError
from peftlab.results.choice.needs import AXES, Axis, Needs
from peftlab.results.comparison.cost_table import comparison
from peftlab.results.comparison.selection import cell_of, cells, part, selected
from peftlab.results.comparison.statistics import Interval, difference, geometric_mean
from peftlab.results.comparison.step_price import label_in, step_ratio
from peftlab.results.records.costs import CostRecord
from peftlab.results.records.run import Parameters, Record
from peftlab.results.transfer import retention
from peftlab.results.transfer.zero_shot import JOINT, Transfer, transfers
from peftlab.timing.intervals import Ratio

BASELINE = "full"


@dataclass(frozen=True)
class Scored:
    """A method on a task.

    Attributes:
        method: Its label.
        runs: One record a seed, at the selected rate.
        transfer: Its scores in other languages, if those are what counts.
    """

    method: str
    runs: Sequence[Record]
    transfer: Transfer | None = None

    @property
    def mean(self) -> float:
        """The score, or the mean over the other languages; over seeds."""
        if self.transfer is None:
            return fmean(run.score() for run in self.runs)
        return fmean(fmean(self.transfer.scores(s)) for s in self.transfer.targets.values())

    def minus(self, other: Scored) -> Interval:
        """Return the paired difference to another method on the task."""
        if self.transfer is not None and other.transfer is not None:
            return retention.difference(self.transfer, other.transfer).target
        return difference(self.runs, other.runs)


class Where(NamedTuple):
    """Where methods were compared: an experiment, an encoder and a number of train rows."""

    experiment: str
    encoder: str
    rows: int


#: Task → the methods that were scored on it.
Tasks = dict[str, list[Scored]]
#: Task → a method's runs on it, one a seed.
Runs = Mapping[str, Sequence[Record]]


def scores(records: Iterable[Record], needs: Needs) -> tuple[Where, Tasks] | None:
    """Return the experiment whose train rows are nearest, and who was scored there.

    Nearest as a ratio; of several, the one that compared most methods.

    Args:
        records: Of experiments, all rates and seeds; controls and random encoders are left out.
            Labels of one experiment with the same settings are one method at several rates.
        needs: For several languages only scores in other ones than the trained one count; for one
            task no model that learnt several is asked for.
    """

    def distance(item: tuple[Where, Tasks]) -> tuple[float, int]:
        where, tasks = item
        methods = {each.method for there in tasks.values() for each in there}
        return round(abs(math.log(where.rows / needs.rows)), 9), -len(methods)

    return min(_places(records, needs).items(), key=distance, default=None)


def learned(records: Iterable[Record], where: Where, tasks: Tasks) -> dict[str, Interval]:
    """Return, by task, the best score less that of the most frequent class, where it is recorded.

    Args:
        records: As for :func:`scores`, with the controls.
        where: What it returned.
        tasks: The same.
    """
    controls = [
        r
        for r in records
        if r.sizes
        and Where(r.experiment, r.settings.encoder, r.sizes.train) == where
        and r.settings.trains_nothing
        and not r.settings.random_weights
    ]
    best = {task: max(there, key=lambda each: each.mean) for task, there in tasks.items()}
    across = any(each.transfer for each in best.values())
    frequent = dict(_scored(controls, across))
    return {task: each.minus(frequent[task]) for task, each in best.items() if task in frequent}


def _places(records: Iterable[Record], needs: Needs) -> dict[Where, Tasks]:
    by_experiment: dict[str, list[Record]] = defaultdict(list)
    for record in records:
        if not (record.settings.random_weights or record.settings.trains_nothing):
            by_experiment[record.experiment].append(record)
    found: dict[Where, Tasks] = defaultdict(lambda: defaultdict(list))
    for name, group in by_experiment.items():
        joint = []
        for task, each in _scored(_one_label_a_method(group), needs.languages > 1):
            settings, sizes = each.runs[0].settings, each.runs[0].sizes
            assert sizes is not None  # the run is ok
            if settings.members:
                joint.append((task, each))
            else:
                found[Where(name, settings.encoder, sizes.train)][task].append(each)
        for task, each in joint if needs.tasks > 1 else ():
            for where, tasks in found.items():
                if where[:2] == (name, each.runs[0].settings.encoder) and task in tasks:
                    tasks[task].append(each)
    return found


def _scored(records: Sequence[Record], across: bool) -> list[tuple[str, Scored]]:
    """Return task and method of what was scored, in other languages or in its own."""
    if across:
        return [(t.task, Scored(t.method, t.runs, t)) for t in transfers(records)]
    found = []
    for cell, runs in cells(selected(records)).items():
        members = runs[0].settings.members
        if not members:
            found.append((cell.task, Scored(cell.label, runs)))
        for name in members:
            found.append((name, Scored(cell.label + JOINT, [part(run, name) for run in runs])))
    return found


def _one_label_a_method(records: Sequence[Record]) -> list[Record]:
    """Give runs of the same method one label, the shortest: its rates are then chosen among."""
    labels: dict[str, str] = {}
    keys = [f"{r.settings.method} {r.settings.model_options}" for r in records]
    for key, record in zip(keys, records, strict=True):
        label = cell_of(record).label
        labels[key] = min(labels.get(key, label), label, key=lambda name: (len(name), name))
    return [
        r.model_copy(
            update={"settings": r.settings.model_copy(update={"method_label": labels[key]})}
        )
        for key, r in zip(keys, records, strict=True)
    ]


class Costs:
    """What methods cost beside full fine-tuning, in the nearest cells that were measured.

    Args:
        records: Measured cells.
        needs: The reader's.
        baseline: Runs of full fine-tuning: their encoder's size chooses the cells.
    """

    def __init__(self, records: Iterable[CostRecord], needs: Needs, baseline: Runs) -> None:
        self.needs, self.baseline = needs, baseline
        records = list(records)
        self.train = self._nearest(records, "train", needs.batch)
        self.inference = self._nearest(records, "inference", needs.texts)

    @property
    def words(self) -> dict[Axis, str]:
        """Where each cost is from."""
        cell: dict[Axis, CostRecord | None] = {
            "time": self.train,
            "memory": self.train,
            "latency": self.inference,
        }
        return {axis: _named(cell[axis]) if axis in cell else "counted" for axis in AXES}

    def ratios(self, runs: Runs, shared: bool) -> dict[Axis, Ratio]:
        """Return what is recorded or counted of a method, over full fine-tuning.

        Time is that of a step times the number of steps, on all tasks together, the mean over
        seeds; of one seed only where no rule ended the run. One model for them has a time only
        where it was trained. Latency is 1 where inference has no more parameters, and
        that of the merged method for one task.

        Args:
            runs: Of the method.
            shared: Whether all tasks are in one model.
        """
        merged = " merged" if self.needs.tasks == 1 else ""
        stored = self.numbers(runs, shared) / self.numbers(self.baseline, False)
        found: dict[Axis, Ratio | None] = {
            "time": self._training(runs, shared),
            "memory": _memory(self.train, runs),
            "storage": Ratio(stored, stored, stored),
            "latency": _timed(self.inference, runs, merged),
        }
        if counts(runs).inference == 0:
            found["latency"] = Ratio(1.0, 1.0, 1.0)
        return {axis: ratio for axis, ratio in found.items() if ratio is not None}

    def numbers(self, runs: Runs, shared: bool) -> int:
        """Return how many numbers are stored for all tasks, with the encoder once if it is shared.

        Args:
            runs: Of the method.
            shared: Whether all tasks are in one model.
        """
        n, found, head = self.needs.tasks, counts(runs), counts(self.baseline).head
        whole = found.stored >= found.backbone  # the method is an encoder of its own
        return (1 if shared else n) * found.stored + n * head + (0 if whole else found.backbone)

    def _training(self, runs: Runs, shared: bool) -> Ratio | None:
        together = len(_first(runs).settings.members)
        if not runs.keys() <= self.baseline.keys() or (shared and together != len(runs)):
            return None
        theirs = _steps({task: self.baseline[task] for task in runs})
        step, ours = _timed(self.train, runs), _steps(runs)
        ratios = [n / theirs[seed] for seed, n in ours.items() if seed in theirs]
        if step is None or not ratios:
            return None
        if len(ratios) > 1:
            return step.times(geometric_mean(ratios))
        ruled = any(seeds[0].settings.training.get("patience") for seeds in runs.values())
        return None if ruled else step.times(Ratio(ratios[0], ratios[0], ratios[0]))

    def _nearest(self, records: Sequence[CostRecord], mode: str, batch: int) -> CostRecord | None:
        """Return the cell of the encoder nearest in size, then nearest in tokens and length.

        Of equally near ones that counts which has timed most methods.
        """
        size, length = counts(self.baseline).backbone, self.needs.length

        def distance(record: CostRecord) -> tuple[float, float, float, int, str]:
            found = record.candidates[record.settings.baseline].parameters
            return (
                abs(math.log(found.backbone / size)) if found else math.inf,
                abs(math.log(record.settings.tokens / (batch * length))),
                abs(math.log(record.settings.length / length)),
                -sum(bool(each.seconds) for each in record.candidates.values()),
                record.id,
            )

        fitting = (
            record
            for record in records
            if (record.settings.mode, record.settings.device) == (mode, self.needs.device)
            and comparison(record) is not None
        )
        return min(fitting, key=distance, default=None)


def counts(runs: Runs) -> Parameters:
    """Return the numbers of parameters of a method.

    Raises:
        RecordError: They were not recorded.
    """
    record = _first(runs)
    if record.parameters is None:
        raise RecordError(
            f"Record {record.id} has no numbers of parameters: run its experiment again."
        )
    return record.parameters


def _first(runs: Runs) -> Record:
    return next(iter(runs.values()))[0]


def _named(record: CostRecord | None) -> str:
    if record is None:
        return "no record"
    s = record.settings
    return f"{record.experiment}: {s.encoder}, {s.batch} × {s.length} tokens, {s.device}"


def _steps(runs: Runs) -> dict[int, int]:
    """Return by seed the optimiser steps on all tasks; only seeds that are recorded on all of them.

    A run on several tasks counts once.
    """
    found: dict[int, dict[str, int]] = defaultdict(dict)
    for seeds in runs.values():
        for run in seeds:
            if run.curve:
                found[run.settings.seed][run.id] = run.curve[-1].step
    tasks = len({seeds[0].id for seeds in runs.values()})
    return {seed: sum(own.values()) for seed, own in found.items() if len(own) == tasks}


def _label(cost: CostRecord, runs: Runs) -> str | None:
    """Return what a measurement calls a method; None: it has not timed it."""
    try:
        return label_in(cost, _first(runs))
    except RecordError:
        return None


def _timed(cost: CostRecord | None, runs: Runs, merged: str = "") -> Ratio | None:
    label = None if cost is None else _label(cost, runs)
    if cost is None or label is None:
        return None
    together = cost.candidates.get(label + merged)
    label = label + merged if together and together.seconds else label
    return step_ratio(cost, label, cost.settings.baseline)


def _memory(cost: CostRecord | None, runs: Runs) -> Ratio | None:
    label = None if cost is None else _label(cost, runs)
    if cost is None or label is None:
        return None
    ours, full = (
        cost.candidates[each].memory.get("total") for each in (label, cost.settings.baseline)
    )
    return Ratio(ours / full, ours / full, ours / full) if ours and full else None
