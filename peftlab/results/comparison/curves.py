"""When a run comes to a validation loss, or to where a rule of patience stops it.

A run is looked at where it was evaluated: it reaches a target at the latest at the first evaluation
that is not above it, and after the one before. A run that never gets there has only a lower bound.
This file reads curves of records; what their steps cost is in
:mod:`peftlab.results.comparison.step_price`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from statistics import median
from typing import NamedTuple

from peftlab.errors import RecordError
from peftlab.results.comparison.pairing import by_seed
from peftlab.results.comparison.statistics import seed_interval
from peftlab.results.records.run import Record
from peftlab.timing.intervals import Ratio

Runs = Sequence[Record]
LOSS = "loss"
SAME = Ratio(1.0, 1.0, 1.0)


class Span(NamedTuple):
    """Bounds of what it took to get somewhere, both included; ``most`` is infinite if never there.

    In steps of a run, or in whatever else it costs.
    """

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


#: Says between which steps a run gets somewhere.
Reach = Callable[[Record], Span]


def to_target(baseline: Runs, slack: float = 0.0) -> Reach:
    """Return what says when a run comes to the :func:`target` of a baseline."""
    goal = target(baseline, slack)
    return lambda run: reached(run, goal)


def to_stop(patience: int, control: Runs = ()) -> Reach:
    """Return what says where a rule of patience, judged once an epoch, ends a run.

    Args:
        patience: Epochs.
        control: See :func:`ends`.

    What is returned raises a RecordError for a run without evaluations, which trained nothing.
    """

    def span(run: Record) -> Span:
        if not run.evaluations:
            raise RecordError(
                f"The run {run.id} of {run.experiment!r} ({run.settings.method_label}) trained "
                "nothing that a rule could stop: name a method that trains."
            )
        step = ends(run, patience, control).step
        return Span(min(step, run.evaluations[-1].step), step)

    return span


def ratio(ours: Runs, theirs: Runs, reach: Reach, step: Ratio = SAME) -> Ratio:
    """Return what it takes one method to get somewhere, over what it takes another.

    See :func:`between`; pairs are of one seed.

    Args:
        ours: Runs of a cell.
        theirs: Of another cell of the same task.
        reach: Gives the steps between which a run got there.
        step: Cost of a step of ours over one of theirs; 1 counts steps.

    Raises:
        RecordError: The runs share no seed.
    """
    return between([(reach(one), reach(other)) for one, other in by_seed(ours, theirs)], step)


def between(spans: Sequence[tuple[Span, Span]], step: Ratio = SAME) -> Ratio:
    """Return what it takes to get somewhere one way, over what it takes another way.

    ``exp(mean_s log(n_s / m_s)) · c`` with the steps n and m of the two runs at seed s, and c the
    ratio of what a step costs. The interval is Student's over seeds, with that of c added in
    quadrature, for the two are independent. Where a step is only known to lie between two, such as
    two evaluations, the ratio takes their middle; the interval's lower end comes from the smallest
    ratios that the runs allow, its upper from the largest. A run that did not get there by its end
    at n so says that the ratio is at least n / m, and at most so where it is the other's. Where
    some are infinite, the median over seeds takes the place of the mean.

    Args:
        spans: Of the one way and the other, a pair a seed.
        step: Cost of a step of the one over one of the other; 1 counts steps.

    Returns:
        The ratio: infinite, or 0, if most of one side's runs did not get there; NaN if it hangs on
        pairs of which neither did. An end of the interval that is not known is 0 or infinite, or
        NaN for one seed.
    """
    least = [_log(ours.least) - _log(theirs.most) for ours, theirs in spans]
    most = [_log(ours.most) - _log(theirs.least) for ours, theirs in spans]
    low = seed_interval(least) if all(map(math.isfinite, least)) else None
    high = seed_interval(most) if all(map(math.isfinite, most)) else None
    log_step, below, above = (_log(x) for x in step)
    bottom, top = -math.inf, math.inf
    if low is not None:
        bottom = low.estimate - math.hypot(low.estimate - low.low, log_step - below) + log_step
    if high is not None:
        top = high.estimate + math.hypot(high.high - high.estimate, above - log_step) + log_step
    return Ratio(*(math.exp(x) for x in (_middle(spans) + log_step, bottom, top)))


def target(baseline: Iterable[Record], slack: float = 0.0) -> float:
    """Return (1 + slack) · the lowest validation loss that every run of a method reaches.

    Args:
        baseline: Runs of one method that differ in the seed.
        slack: Share of the loss by which the target is easier.

    Raises:
        RecordError: There is no run, or one without a validation loss.
    """
    lowest = [min(value for _, value in losses(record)) for record in baseline]
    if not lowest:
        raise RecordError("There is no run to take a target from: name a baseline that was run.")
    return (1 + slack) * max(lowest)


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
        From the step after the evaluation before to the first evaluation that is not above the
        goal; from the end of the run on if none is.
    """
    before = 0
    for step, loss in losses(record):
        if loss <= goal:
            return Span(before + 1.0, float(step))
        before = step
    return Span(float(before), math.inf)


def clearly_above(control: Iterable[Record]) -> float:
    r"""Return what a development score must be above to show that something was learned.

    :math:`q + 2 \sqrt{q (1 - q) / n}` with the control's score q on n rows: what it has itself, and
    two standard errors of a share. The most frequent class has 0 by some metrics, such as the F1 of
    entities: there the head alone is the control that tells.

    Args:
        control: Runs of a control on one task, such as ``majority``; minus infinity without any.
    """
    floor = -math.inf
    for record in control:
        share = record.score("dev")
        assert record.sizes is not None  # the run is ok
        spread = max(share * (1 - share), 0.0) / record.sizes.dev
        floor = max(floor, share + 2 * math.sqrt(spread))
    return floor


def stopped(record: Record, patience: int, floor: float = -math.inf) -> Stop:
    """Say where a run would have ended that stops once its score has not risen for a while.

    The first paper's rule: judged once an epoch by the main metric on the development split, it
    ends after three epochs without a new best (Mundra et al., 2023, released code).

    Args:
        record: A run that went on at a constant rate, so that its beginning does not depend on
            where it ends.
        patience: Judgements without a new best that end it.
        floor: See :func:`clearly_above`. Below it nothing is counted: the rule would else end a run
            that has not begun to learn, and call that quick.

    Returns:
        The step, infinite if the run was over before the rule ended it, and the best score so far.
        An epoch is judged by the first evaluation after its last step.

    Raises:
        RecordError: There was no evaluation in a whole epoch.
    """
    best, stale, judged = -math.inf, 0, 0
    for point in record.evaluations:
        epochs = math.floor(point.epoch)
        if epochs == judged:
            continue
        if epochs > judged + 1:
            raise RecordError(
                f"The run {record.id} of {record.experiment!r} has no evaluation between the "
                f"epochs {judged + 1} and {epochs}, so that no rule can judge each: evaluate more "
                "often."
            )
        judged = epochs
        score = point.metrics[record.main_metric]
        best, stale = (score, 0) if score > best else (best, stale + 1)
        if best <= floor:
            stale = 0
        if stale == patience:
            return Stop(float(point.step), best)
    return Stop(math.inf, best)


def ends(record: Record, patience: int, control: Runs = ()) -> Stop:
    """Say where a rule of patience ends a run, judged once an epoch: see :func:`stopped`.

    Args:
        record: The run.
        patience: Epochs without a new best.
        control: Runs of one, such as the most frequent class: a run that is not clearly above it
            has no end yet, nor one that is not above what it was itself told to wait for. Without
            any, nothing is waited for.
    """
    floor = clearly_above(control)
    if control:
        floor = max(floor, float(str(record.settings.training.get("patience_above", -math.inf))))
    return stopped(record, patience, floor)


def cut_off(record: Record) -> bool:
    """Say whether a run came to the end of its epochs before its rule of patience ended it.

    At a constant rate it would have gone on, so that what it took is less than what the rule takes.
    A rate that falls to zero belongs to so many epochs: with them the run has had all of its plan.
    """
    training = record.settings.training
    patience = int(str(training.get("patience", 0)))
    if patience == 0 or training.get("schedule") != "constant":
        return False
    scores = [point.metrics[record.main_metric] for point in record.evaluations]
    above = float(str(training.get("patience_above", -math.inf)))
    if not scores or max(scores) <= above:
        return True
    return len(scores) - 1 - scores.index(max(scores)) < patience


def _middle(spans: Sequence[tuple[Span, Span]]) -> float:
    """Return the mean over seeds of the logarithm of the ratio; the median if some are infinite.

    Nothing is known of a pair where neither got there: NaN if the median hangs on it.
    """
    logs = [_log(ours.middle) - _log(theirs.middle) for ours, theirs in spans]
    if all(map(math.isfinite, logs)):
        return math.fsum(logs) / len(logs)
    low, high = (median(end if math.isnan(x) else x for x in logs) for end in (-math.inf, math.inf))
    return low if low == high else math.nan


def _log(x: float) -> float:
    return math.log(x) if x > 0 else -math.inf
