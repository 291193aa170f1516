"""What training has cost, as records say, and ratios of it over seeds.

A ratio is the geometric mean over the seeds that both sides have, with Student's interval of the
logarithms; a run that its rule of patience had not ended yet says only how much it takes at least.
Seconds of two processors, or of two precisions, are never set against each other.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from peftlab.claims.region import Estimate
from peftlab.errors import RecordError
from peftlab.results.comparison.curves import Span, between, cut_off
from peftlab.results.records.run import Record
from peftlab.results.records.store import processor

Unit = Literal["seconds", "flops", "trainer flops"]


@dataclass(frozen=True)
class Spent:
    """What training some models has cost together.

    Attributes:
        amount: In its unit; from what was spent up, where a run was cut off, see
            :func:`peftlab.results.comparison.curves.cut_off`.
        measured: On which processors and in which precisions the seconds were; empty for FLOPs,
            which are counted.
    """

    amount: Span
    measured: frozenset[tuple[str, str | None]]


def spent(runs: Iterable[Record], unit: Unit) -> Spent:
    """Return what training all of these runs has cost.

    Args:
        runs: Each counts once.
        unit: ``"seconds"``, ``"flops"`` (closed form) or ``"trainer flops"`` (by the convention of
            ``Trainer``).

    Raises:
        RecordError: FLOPs are asked for that were not counted, or a run trained nothing.
    """
    there = list(runs)
    for run in there:
        if "train" not in run.seconds:
            raise RecordError(
                f"The run {run.id} of {run.experiment!r} ({run.settings.method_label}) trained "
                "nothing and has no cost: name a method that trains."
            )
    seconds = unit == "seconds"
    total = math.fsum(run.seconds["train"] if seconds else _flops(run, unit) for run in there)
    amount = Span(total, math.inf if any(map(cut_off, there)) else total)
    measured = ((processor(run), run.precision) for run in there if seconds)
    return Spent(amount, frozenset(measured))


def spent_ratio(pairs: Sequence[tuple[Spent, Spent]]) -> Estimate:
    """Return what one way has cost over what another has.

    Args:
        pairs: The one and the other, one a seed; at least one.

    Returns:
        Over the seeds whose seconds are all of one processor and precision; not known (NaN) if
        there is none.

    See also :func:`peftlab.results.comparison.curves.between`.
    """
    alike = [
        (one.amount, other.amount)
        for one, other in pairs
        if len(one.measured | other.measured) <= 1
    ]
    found = between(alike) if alike else (math.nan,) * 3
    return Estimate(*found, len(alike or pairs), "seeds", ratio=True)


def _flops(run: Record, unit: Unit) -> float:
    found = None
    if run.flops is not None:
        found = run.flops.closed_form if unit == "flops" else run.flops.hugging_face
    if found is None:
        raise RecordError(
            f"The record {run.id} of {run.experiment!r} does not say how many FLOPs its training "
            "took: delete it and run the experiment again."
        )
    return found
