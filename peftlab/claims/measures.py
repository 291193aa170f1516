"""What can be measured for a claim: pure functions from records to an estimate with an interval.

Differences of scores are those of :mod:`peftlab.results.comparison.statistics`. Ratios of what
training has cost are those of :mod:`peftlab.claims.spent`. Ratios of timings are paired by round:
see :mod:`peftlab.timing.intervals`. What is counted is exact.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

from peftlab import methods
from peftlab.claims.region import Estimate
from peftlab.claims.spent import Unit, spent, spent_ratio
from peftlab.encoders import shape
from peftlab.errors import RecordError, SettingsError
from peftlab.results.comparison import curves, step_price
from peftlab.results.comparison.curves import Runs
from peftlab.results.comparison.pairing import by_seed
from peftlab.results.comparison.statistics import difference, geometric_mean
from peftlab.results.records.costs import CostRecord, Flops
from peftlab.results.transfer import retention
from peftlab.results.transfer.zero_shot import transfers
from peftlab.timing.intervals import Ratio

Counted = Literal["trainable", "stored", "inference"]
ONE = Estimate.exact(1.0, ratio=True)
#: FLOPs of a step by name of the convention.
FLOPS: dict[str, Callable[[Flops], int | None]] = {
    "flops": lambda flops: flops.expected,
    "trainer flops": lambda flops: flops.hugging_face,
}


def score_difference(ours: Runs, theirs: Runs, metric: str | None = None) -> Estimate:
    """Return ``ours − theirs`` in a metric, paired by seed, and by example if it is their mean.

    Args:
        ours: Runs of a cell.
        theirs: Of another cell of the same task.
        metric: By default the main one; the rates were chosen by that in any case.

    Raises:
        RecordError: A run has no such metric, or they share no seed.
    """
    if metric is not None:
        for run in (*ours, *theirs):
            if metric not in run.metrics["test"]:
                raise RecordError(
                    f"The run {run.id} of {run.experiment!r} has no {metric!r}: choose among "
                    f"{', '.join(run.metrics['test'])}."
                )
        ours, theirs = ([r.replaced(main_metric=metric) for r in runs] for runs in (ours, theirs))
    return Estimate.of(difference(ours, theirs))


def transfer_difference(ours: Runs, theirs: Runs) -> Estimate:
    """Return ``ours − theirs`` in the mean score of the target languages, each counting the same.

    Args:
        ours: Runs of a cell that were trained on one task and tested on it in other languages.
        theirs: Of another cell of the same task.

    Raises:
        RecordError: They were not tested in the same languages, or in none.
    """
    found = [*transfers(ours), *transfers(theirs)]
    if len(found) != 2:
        raise RecordError(
            f"The run {ours[0].id} and its rival have {len(found)} transfers together: compare "
            "runs on one task, tested in other languages."
        )
    left, right = found
    return Estimate.of(retention.difference(left, right).target)


def step_ratio(cost: CostRecord, label: str, against: str, what: str = "seconds") -> Estimate:
    """Return what a call of one method costs over a call of another.

    Args:
        cost: Holds both.
        label: Of the one.
        against: Of the other.
        what: ``"seconds"``, see :func:`peftlab.results.comparison.step_price.step_ratio`;
            ``"flops"`` (closed form) or ``"trainer flops"`` (by the convention of ``Trainer``):
            exact.
    """
    if what in FLOPS:
        counted = [_flops(cost, each, what) for each in (label, against)]
        return Estimate.exact(counted[0] / counted[1], ratio=True)
    found = step_price.step_ratio(cost, label, against)
    return Estimate(*found, len(cost.candidates[label].seconds), "rounds", ratio=True)


def run_ratio(ours: Runs, theirs: Runs, reach: curves.Reach, step: Estimate = ONE) -> Estimate:
    """Return what it takes one method to get somewhere, over what it takes another.

    Args:
        ours: Runs of a cell.
        theirs: Of another cell of the same task.
        reach: Gives the steps between which a run got there.
        step: Cost of a step of ours over one of theirs; 1 counts steps.

    See also :func:`peftlab.results.comparison.curves.ratio`.
    """
    found = curves.ratio(ours, theirs, reach, Ratio(step.value, step.low, step.high))
    return Estimate(*found, len(by_seed(ours, theirs)), "seeds", ratio=True)


def joint_ratio(joint: Runs, single: Sequence[Runs], unit: Unit = "seconds") -> Estimate:
    """Return what training one model on several tasks has cost over the sum of one on each.

    Args:
        joint: Of one cell.
        single: A cell a task.
        unit: See :func:`peftlab.claims.spent.spent`.

    See also :func:`peftlab.claims.spent.spent_ratio`.
    """
    pairs = by_seed(joint, *single)
    return spent_ratio([(spent([one], unit), spent(others, unit)) for one, *others in pairs])


def count(encoder: str, method: str, against: str | None, of: Counted, ratio: bool) -> Estimate:
    """Return a number of parameters without the head, by the closed form.

    Args:
        encoder: Name of a shape.
        method: Preset name.
        against: Another one: return the difference, or the ratio.
        of: Which parameters.
        ratio: Which of the two.

    Raises:
        SettingsError: The other one has no such parameters, and there is no ratio.
    """
    anatomy = shape(encoder).anatomy
    ours = getattr(methods.get(method).counts(anatomy), of)
    if against is None:
        return Estimate.exact(ours)
    theirs = getattr(methods.get(against).counts(anatomy), of)
    if not ratio:
        return Estimate.exact(ours - theirs)
    if not theirs:
        raise SettingsError(
            f"{against!r} has no {of} parameters on {encoder!r}, so nothing can be told as a ratio "
            "over it: ask for the difference."
        )
    return Estimate.exact(ours / theirs, ratio=True)


def size_ratio(ours: Runs, theirs: Runs, of: Counted) -> Estimate:
    """Return the recorded number of parameters of one method over that of another.

    Over seeds, where they differ: as where the layers were selected by a run each.

    Raises:
        RecordError: They share no seed, or the other method has no such parameters.
    """
    pairs = by_seed(ours, theirs)
    for _, other in pairs:
        if not getattr(other.parameters, of, 0):
            raise RecordError(
                f"The run {other.id} of {other.experiment!r} ({other.settings.method_label}) has "
                f"no {of} parameters: compare sizes with a method that has."
            )
    ratios = [
        getattr(one.parameters, of, 0) / getattr(other.parameters, of) for one, other in pairs
    ]
    if len(set(ratios)) == 1:
        return Estimate.exact(ratios[0], ratio=True)
    return Estimate(*geometric_mean(ratios), len(ratios), "seeds", ratio=True)


def _flops(cost: CostRecord, label: str, what: str) -> int:
    flops = cost.candidates[label].flops
    found = None if flops is None else FLOPS[what](flops)
    if found is None:
        raise RecordError(
            f"The measurement {cost.id} has no {what} of {label!r}: measure a training step."
        )
    return found
