"""Time to quality: when runs reach a validation loss, and where a rule of patience would stop them.

A run is looked at where it was evaluated: it reaches a target after the last evaluation above it
and at the latest at the first one that is not. A run that never gets there has only a lower bound.
Tables give the evaluation at which it was seen, infinite where it was not, which a median can bear.
This file reads curves of records and measured costs of a step; it knows no training.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from statistics import median
from typing import TYPE_CHECKING, NamedTuple

from peftlab.errors import RecordError
from peftlab.results.comparison.selection import cells, selected
from peftlab.results.records.costs import CostRecord
from peftlab.results.records.run import Record

if TYPE_CHECKING:
    from pandas import DataFrame

LOSS = "loss"
#: How far above the best validation loss of the baseline a target may lie, as a share of it.
SLACKS = (0.0, 0.02, 0.05, 0.1, 0.2)
UNITS = ("steps", "seconds", "tflop")
RUN = ("method", "learning_rate", "seeds")
REACHED = (
    *RUN,
    *("slack", "target", "reached", *UNITS),
    *(f"{unit}_{what}" for unit in UNITS for what in ("ratio", "low", "high")),
)
STOPPED = (*RUN, "stopped", "bound", "best_score", *UNITS, *(f"{unit}_ratio" for unit in UNITS))


class Price(NamedTuple):
    """What one optimiser step costs: median seconds, and FLOPs by the closed form."""

    seconds: float
    flops: int


class Span(NamedTuple):
    """Steps between which a run reached something, both included; ``most`` is infinite if never."""

    least: float
    most: float

    @property
    def middle(self) -> float:
        """Between the two."""
        return (self.least + self.most) / 2


class Stop(NamedTuple):
    """Where a rule of patience ends a run: the step, and the best score up to there."""

    step: float
    score: float


def target(
    baseline: Iterable[Record],
    slack: float = 0.0,
    over: Callable[[list[float]], float] = median,
) -> float:
    """Return (1 + slack) · median over seeds of the lowest validation loss.

    Args:
        baseline: Runs of one method that differ in the seed.
        slack: Share of the loss by which the target is easier.
        over: Of the seeds; ``max`` is a target that every run of the baseline reaches.

    Raises:
        RecordError: There is no run, or one without a validation loss.
    """
    lowest = [min(value for _, value in losses(record)) for record in baseline]
    if not lowest:
        raise RecordError("There is no run to take a target from: name a baseline that was run.")
    return (1 + slack) * over(lowest)


def losses(record: Record) -> list[tuple[int, float]]:
    """Return step and validation loss of every evaluation.

    Raises:
        RecordError: The run has none; records from before they were noted have only scores.
    """
    found = [(p.step, p.metrics[LOSS]) for p in record.evaluations if LOSS in p.metrics]
    if not found:
        raise RecordError(
            f"Record {record.id} has no validation loss: run its experiment again to have one."
        )
    return found


def reached(record: Record, goal: float) -> Span:
    """Say when a run comes to a loss of at most ``goal``: it is seen at its evaluations alone.

    Returns:
        From the step after the last evaluation above the goal to the first that is not; from the
        end of the run on if none is.
    """
    before = 0
    for step, loss in losses(record):
        if loss <= goal:
            return Span(before + 1.0, float(step))
        before = step
    return Span(float(before), math.inf)


def clearly_above(majority: Iterable[Record]) -> float:
    r"""Return what a development score must be above to show that something was learned.

    :math:`q + 2 \sqrt{q (1 - q) / n}` with the score q of the most frequent class on n rows: what
    it has itself, and two standard errors of a share; 0 for a metric that gives it nothing, such as
    the F1 of entities.

    Args:
        majority: Runs of the control ``majority`` on one task; minus infinity without any.
    """
    floor = -math.inf
    for record in majority:
        share = record.score("dev")
        assert record.sizes is not None  # the run is ok
        spread = max(share * (1 - share), 0.0) / record.sizes.dev
        floor = max(floor, share + 2 * math.sqrt(spread))
    return floor


def stopped(record: Record, patience: int, every: int, floor: float = -math.inf) -> Stop:
    """Say where a run would have ended that stops once its score has not risen for a while.

    The first paper's rule: judged once an epoch by the main metric on the development split, it
    ends after three epochs without a new best (Mundra et al., 2023, released code).

    Args:
        record: A run that went on at a constant rate, so that its beginning does not depend on
            where it ends.
        patience: Judgements without a new best that end it.
        every: Steps between two judgements; a multiple of the steps between evaluations.
        floor: See :func:`clearly_above`. Below it nothing is counted: the rule would else end a run
            that has not begun to learn, and call that quick.

    Returns:
        The step, infinite if the run was over before the rule ended it, and the best score so far.
    """
    best, stale = -math.inf, 0
    for point in record.evaluations:
        if point.step % every:
            continue
        score = point.metrics[record.main_metric]
        best, stale = (score, 0) if score > best else (best, stale + 1)
        if best <= floor:
            stale = 0
        if stale == patience:
            return Stop(float(point.step), best)
    return Stop(math.inf, best)


def nearest_machine(costs: Sequence[CostRecord], record: Record) -> CostRecord:
    """Return the measurement on a run's processor, with as many threads; else on it; else any.

    Args:
        costs: At least one, all of one cell.
        record: The run whose steps are to be priced.
    """

    def far(cost: CostRecord) -> tuple[bool, bool, str]:
        there, machine = cost.settings, record.machine
        threads = there.threads != machine.get("torch_threads")
        return there.processor != machine.get("cpu"), threads, cost.id

    return min(costs, key=far)


def label_in(cost: CostRecord, record: Record) -> str:
    """Return what a measurement calls the method of a run.

    Raises:
        RecordError: It has none with these settings, or did not time it.
    """
    for label, settings in cost.settings.methods.items():
        if settings == record.settings.method and cost.candidates[label].seconds:
            return label
    raise RecordError(
        f"The measurement {cost.id} has no timed method with the settings of "
        f"{record.settings.method_label!r}: add it to the cost experiment {cost.experiment!r}."
    )


def price(record: Record, cost: CostRecord) -> Price:
    """Find what a step of a run's method costs.

    Raises:
        RecordError: As :func:`label_in`, or its FLOPs were not counted.
    """
    candidate = cost.candidates[label_in(cost, record)]
    if candidate.flops is None:
        raise RecordError(
            f"The measurement {cost.id} has no FLOPs of {record.settings.method_label!r}: measure "
            f"the cost experiment {cost.experiment!r} again."
        )
    return Price(median(candidate.seconds), candidate.flops.expected)


def reach_table(
    records: Iterable[Record],
    cost: CostRecord,
    baseline: str = "full",
    slacks: Sequence[float] = SLACKS,
) -> DataFrame:
    """Return what each method needs to come to the baseline's validation loss.

    Args:
        records: Of one task: all methods, rates and seeds; the selected runs are kept.
        cost: Of a training step of these methods, at the batch and mean length of the runs, on a
            machine that did nothing else: seconds of the runs themselves may have shared it.
        baseline: Label whose loss is the target.
        slacks: See :func:`target`.

    Returns:
        One row a method and slack: ``method, learning_rate, seeds``; ``slack``, ``target``;
        ``reached``, the seeds that got there; the medians ``steps``, ``seconds``, ``tflop``;
        each with ``_ratio``, its ratio to the baseline's median, and ``_low``, ``_high``, the
        smallest and largest ratio of a seed to a seed of the baseline. What is infinite was not
        reached within the run (by most seeds, for a median).

    Raises:
        RecordError: There is no baseline, no validation loss or no measurement.
    """
    import pandas as pd

    groups = _groups(records, baseline)
    rows = []
    for slack in slacks:
        goal = target(groups[baseline], slack)
        base = [reached(run, goal).most for run in groups[baseline]]
        base_price = price(groups[baseline][0], cost)
        for label, runs in groups.items():
            steps = [reached(run, goal).most for run in runs]
            row: dict[str, object] = {
                **_run(label, runs),
                "slack": slack,
                "target": goal,
                "reached": sum(map(math.isfinite, steps)),
            }
            for unit, ours, theirs in _units(price(runs[0], cost), base_price):
                row |= {
                    unit: ours * median(steps),
                    f"{unit}_ratio": _ratio(ours * median(steps), theirs * median(base)),
                    f"{unit}_low": _ratio(ours * min(steps), theirs * max(base)),
                    f"{unit}_high": _ratio(ours * max(steps), theirs * min(base)),
                }
            rows.append(row)
    return pd.DataFrame(rows, columns=list(REACHED))


def stop_table(
    records: Iterable[Record],
    cost: CostRecord,
    *,
    patience: int = 3,
    every: int,
    baseline: str = "full",
) -> DataFrame:
    """Return what each method costs up to where a rule of patience stops it.

    Args:
        records: As for :func:`reach_table`; of the control ``majority`` comes the floor.
        cost: As for :func:`reach_table`.
        patience: See :func:`stopped`.
        every: See :func:`stopped`.
        baseline: Label of the method to compare with.

    Returns:
        One row a method: ``method, learning_rate, seeds``; ``stopped``, the seeds that the rule
        ended; ``best_score``, the mean of the best scores until then; the medians ``steps``,
        ``seconds``, ``tflop`` and their ratios to the baseline's. ``bound``: the rule did not
        end most of the runs, so these numbers are of whole runs, and more would have been needed.
    """
    import pandas as pd

    records = list(records)
    floor = clearly_above(r for r in records if r.settings.learning_rate is None)
    groups = _groups(records, baseline)
    base, _ = _bounded(groups[baseline], patience, every, floor)
    base_price = price(groups[baseline][0], cost)
    rows = []
    for label, runs in groups.items():
        stops = [stopped(run, patience, every, floor) for run in runs]
        steps, bound = _bounded(runs, patience, every, floor)
        row: dict[str, object] = {
            **_run(label, runs),
            "stopped": sum(math.isfinite(stop.step) for stop in stops),
            "bound": bound,
            "best_score": sum(stop.score for stop in stops) / len(stops),
        }
        for unit, ours, theirs in _units(price(runs[0], cost), base_price):
            row |= {unit: ours * steps, f"{unit}_ratio": _ratio(ours * steps, theirs * base)}
        rows.append(row)
    return pd.DataFrame(rows, columns=list(STOPPED))


def _bounded(runs: Sequence[Record], patience: int, every: int, floor: float) -> tuple[float, bool]:
    """Return the median step at which the rule ends runs, or their length, and whether it is that.

    Length counts where the rule did not end most of them.
    """
    steps = median(stopped(run, patience, every, floor).step for run in runs)
    if math.isfinite(steps):
        return steps, False
    return float(min(run.evaluations[-1].step for run in runs)), True


def _groups(records: Iterable[Record], baseline: str) -> dict[str, list[Record]]:
    """Return the selected runs that trained, by method, the baseline first."""
    trained = [r for r in selected(records) if r.settings.learning_rate is not None]
    groups = cells(trained)
    tasks = {(cell.encoder, cell.task) for cell in groups}
    if len(tasks) > 1:
        raise RecordError(f"Curves of {len(tasks)} tasks have no common target: give those of one.")
    found = {cell.label: runs for cell, runs in groups.items()}
    if baseline not in found:
        raise RecordError(f"No run is of {baseline!r}: choose a baseline among {sorted(found)}.")
    return dict(sorted(found.items(), key=lambda each: (each[0] != baseline, each[0])))


def _run(label: str, runs: Sequence[Record]) -> dict[str, object]:
    return {
        "method": label,
        "learning_rate": runs[0].settings.learning_rate,
        "seeds": len(runs),
    }


def _units(ours: Price, theirs: Price) -> list[tuple[str, float, float]]:
    """Return every unit with what a step of each side costs in it."""
    prices = ((1.0, 1.0), (ours.seconds, theirs.seconds), (ours.flops / 1e12, theirs.flops / 1e12))
    return [(unit, *pair) for unit, pair in zip(UNITS, prices, strict=True)]


def _ratio(ours: float, theirs: float) -> float:
    """Divide; what was not reached is infinitely more, and nothing is known against such."""
    if math.isinf(theirs):
        return math.nan if math.isinf(ours) else 0.0
    return ours / theirs
