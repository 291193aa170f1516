"""Tables of time to quality: what methods need to a loss, or until a rule of patience stops them.

When a run gets there is read off its curve (:mod:`peftlab.results.comparison.curves`), what a step
costs off a measurement (:mod:`peftlab.results.comparison.step_price`): runs of an experiment may
have shared their machine.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from statistics import median
from typing import TYPE_CHECKING

from peftlab.errors import RecordError
from peftlab.results.comparison import curves
from peftlab.results.comparison.curves import Reach, Runs
from peftlab.results.comparison.selection import cells, selected
from peftlab.results.comparison.step_price import label_in, price, step_ratio
from peftlab.results.records.costs import CostRecord
from peftlab.results.records.run import Record
from peftlab.timing.intervals import Ratio

if TYPE_CHECKING:
    from pandas import DataFrame

#: How far above the validation loss of the baseline a target may lie, as a share of it.
SLACKS = (0.0, 0.02, 0.05, 0.1, 0.2)
UNITS = ("steps", "seconds", "tflop")
RUN = ("method", "learning_rate", "seeds")
COSTS = (*UNITS, *(f"{unit}_{what}" for unit in UNITS for what in ("ratio", "low", "high")))
REACHED = (*RUN, "slack", "target", "reached", *COSTS)
STOPPED = (*RUN, "stopped", "best_score", *COSTS)


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
            machine that did nothing else.
        baseline: Label whose loss is the target.
        slacks: See :func:`peftlab.results.comparison.curves.target`.

    Returns:
        One row a method and slack: ``method, learning_rate, seeds``; ``slack``, ``target``;
        ``reached``, the seeds that got there; the medians ``steps``, ``seconds``, ``tflop``, each
        at the evaluation where it was seen, infinite if most seeds did not get there; and each with
        ``_ratio``, ``_low`` and ``_high``, to the baseline with its 95 % interval: see
        :func:`peftlab.results.comparison.curves.ratio`.

    Raises:
        RecordError: There is no baseline, no validation loss or no measurement.
    """
    import pandas as pd

    groups = _groups(records, baseline)
    rows = []
    for slack in slacks:
        goal = curves.target(groups[baseline], slack)
        reach = curves.to_target(groups[baseline], slack)
        for label, runs in groups.items():
            steps = [reach(run).most for run in runs]
            reached = sum(map(math.isfinite, steps))
            rows.append(
                {**_run(label, runs), "slack": slack, "target": goal, "reached": reached}
                | _costs(runs, groups[baseline], reach, cost)
            )
    return pd.DataFrame(rows, columns=list(REACHED))


def stop_table(
    records: Iterable[Record], cost: CostRecord, *, patience: int = 3, baseline: str = "full"
) -> DataFrame:
    """Return what each method costs up to where a rule of patience stops it.

    Args:
        records: As for :func:`reach_table`; those of the control ``majority`` say what a run must
            be above before anything counts.
        cost: As for :func:`reach_table`.
        patience: Epochs; see :func:`peftlab.results.comparison.curves.stopped`.
        baseline: Label of the method to compare with.

    Returns:
        One row a method: ``method, learning_rate, seeds``; ``stopped``, the seeds that the rule
        ended; ``best_score``, the mean of the best scores until then; the medians ``steps``,
        ``seconds``, ``tflop``, infinite if the rule did not end most of the runs; their ratios as
        in :func:`reach_table`.
    """
    import pandas as pd

    records = list(records)
    majority = [r for r in records if r.settings.trains_nothing]
    reach = curves.to_stop(patience, majority)
    groups = _groups(records, baseline)
    rows = []
    for label, runs in groups.items():
        stops = [curves.ends(run, patience, majority) for run in runs]
        row = {
            "stopped": sum(math.isfinite(stop.step) for stop in stops),
            "best_score": sum(stop.score for stop in stops) / len(stops),
        }
        rows.append(_run(label, runs) | row | _costs(runs, groups[baseline], reach, cost))
    return pd.DataFrame(rows, columns=list(STOPPED))


def _costs(runs: Runs, base: Runs, reach: Reach, cost: CostRecord) -> dict[str, float]:
    """Return the columns of what it takes runs to get somewhere, and over a baseline."""
    ours, theirs = (label_in(cost, each[0]) for each in (runs, base))
    here, there = (price(each[0], cost) for each in (runs, base))
    time = curves.SAME if ours == theirs else step_ratio(cost, ours, theirs)
    flops = here.flops / there.flops
    prices = {
        "steps": (1.0, curves.SAME),
        "seconds": (here.seconds, time),
        "tflop": (here.flops / 1e12, Ratio(flops, flops, flops)),
    }
    steps = median(reach(run).most for run in runs)
    row: dict[str, float] = {}
    for unit, (each, step) in prices.items():
        found = curves.SAME if runs is base else curves.ratio(runs, base, reach, step)
        told = zip(("ratio", "low", "high"), found, strict=True)
        row |= {unit: each * steps} | {f"{unit}_{what}": value for what, value in told}
    return row


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
