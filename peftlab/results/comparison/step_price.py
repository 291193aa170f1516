"""What an optimiser step of a recorded run costs, from measurements of a step."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median
from typing import NamedTuple

from peftlab.errors import RecordError
from peftlab.results.comparison.cost_table import comparison, is_tie
from peftlab.results.records.costs import AGAIN, CostRecord
from peftlab.results.records.run import Record
from peftlab.results.records.store import processor
from peftlab.timing.intervals import Ratio


class Price(NamedTuple):
    """What one optimiser step costs: median seconds, and FLOPs by the closed form."""

    seconds: float
    flops: int


def nearest_machine(costs: Sequence[CostRecord], record: Record) -> CostRecord:
    """Return the measurement nearest to how a run computed.

    On its processor rather than another, then in its precision, then with as many threads.

    Args:
        costs: At least one, all of one cell.
        record: The run whose steps are to be priced.
    """

    def far(cost: CostRecord) -> tuple[bool, bool, bool, str]:
        there, machine = cost.settings, record.machine
        threads = there.threads != machine.get("torch_threads")
        precision = there.precision != record.precision
        return there.processor != processor(record), precision, threads, cost.id

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


def step_ratio(cost: CostRecord, label: str, against: str) -> Ratio:
    """Return the time of a call of one method over that of another.

    The median over rounds of the ratio within a round. Its interval is wider, on either side, by
    what the baseline against itself is off, and holds 1 where that differs as much.

    Args:
        cost: Holds both.
        label: Of the one.
        against: Of the other.

    Raises:
        RecordError: One of them was not timed.
    """
    timings = comparison(cost)
    if timings is None or not {label, against} <= set(timings.seconds):
        raise RecordError(
            f"The measurement {cost.id} has not timed {label!r} and {against!r}: measure both in "
            f"the cost experiment {cost.experiment!r}."
        )
    found = timings.ratio(label, against)
    if label == against:
        return found
    again = timings.baseline + AGAIN
    off = timings.ratio(again).ratio if again in timings.seconds else 1.0
    low, high = found.low * min(off, 1 / off), found.high * max(off, 1 / off)
    if is_tie(timings, label, against):
        low, high = min(low, 1.0), max(high, 1.0)
    return Ratio(found.ratio, low, high)
