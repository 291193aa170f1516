"""What can be measured of runs that build on earlier ones: time, forgetting, selected layers.

Pure functions from records to an estimate with an interval, as in :mod:`peftlab.claims.measures`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from peftlab.claims.measures import Runs
from peftlab.claims.region import Estimate
from peftlab.claims.spent import Spent, Unit, spent, spent_ratio
from peftlab.errors import RecordError
from peftlab.experiments.earlier import USES, used
from peftlab.results.comparison import stability
from peftlab.results.comparison.pairing import by_seed
from peftlab.results.comparison.selection import part
from peftlab.results.comparison.statistics import paired, seed_interval
from peftlab.results.records.run import Record

#: Says of an earlier run whether its cost counts.
Counts = Callable[[Record], bool]


def path_ratio(
    ours: Runs,
    theirs: Runs,
    records: Mapping[str, Record],
    counts: Counts,
    unit: Unit = "seconds",
) -> Estimate:
    """Return what training has cost over what that of others has, earlier runs included.

    What several runs build on counts for each of them.

    Args:
        ours: Runs of a cell.
        theirs: Of another cell.
        records: All of the experiment, by id.
        counts: Says of an earlier run whether its cost counts.
        unit: See :func:`peftlab.claims.spent.spent`.

    See also :func:`peftlab.claims.spent.spent_ratio`.
    """
    return spent_ratio(
        [
            (path_cost(one, records, counts, unit), path_cost(other, records, counts, unit))
            for one, other in by_seed(ours, theirs)
        ]
    )


def path_cost(
    run: Record, records: Mapping[str, Record], counts: Counts, unit: Unit = "seconds"
) -> Spent:
    """Return the cost of training a run and the earlier runs that count, each once.

    Raises:
        RecordError: As :func:`earlier_runs`, or the FLOPs of one were not counted.
    """
    return spent([run, *filter(counts, earlier_runs(run, records))], unit)


def earlier_runs(run: Record, records: Mapping[str, Record]) -> list[Record]:
    """Return all runs that a run builds on, and those that they build on, each once.

    Raises:
        RecordError: One of them is not recorded.
    """
    earlier: dict[str, Record] = {}
    waiting = [*used(run.settings)]
    while waiting:
        each = waiting.pop()
        if each not in records:
            raise RecordError(
                f"The record {run.id} builds on the run {each}, which is not recorded: restore its "
                "record."
            )
        if each not in earlier:
            earlier[each] = records[each]
            waiting += used(records[each].settings)
    return [*earlier.values()]


def forgetting(runs: Runs, records: Mapping[str, Record], task: str) -> Estimate:
    """Return the score on an old task after a run, less that of the run that it started from.

    Args:
        runs: Of a cell; each kept the heads of the run that it started from.
        records: All of the experiment, by id.
        task: The old one.

    Raises:
        RecordError: A run is missing, or the two were not scored on the same rows.
    """
    before = []
    for run in runs:
        uses: Any = run.settings.model_options[USES]
        if uses["start"] not in records:
            raise RecordError(
                f"The record {run.id} starts from the run {uses['start']}, which is not recorded: "
                "restore its record."
            )
        before.append(part(records[uses["start"]], task))
    return Estimate.of(paired([part(run, task) for run in runs], before))


def selected_share(runs: Runs) -> Estimate:
    """Return the share of the layers that switches selected: the mean over seeds.

    Its interval is cut off at 0 and 1, beyond which there is no share.
    """
    found = Estimate.of(seed_interval([len(_chosen(r)) / _layers(r) for r in runs]))
    return replace(found, low=max(found.low, 0.0), high=min(found.high, 1.0))


def agreement(ours: Runs, theirs: Runs | None = None) -> Estimate:
    """Return how far selections of layers agree beyond chance.

    Args:
        ours: Runs of a cell.
        theirs: Of another; the two of a seed are compared. None: those of ours are, over seeds.

    Raises:
        RecordError: There are fewer than three seeds, or the two share fewer.

    See also :mod:`peftlab.results.comparison.stability`.
    """
    selections = [_chosen(r) for r in ours]
    layers = _layers(ours[0])
    if theirs is None:
        return Estimate.of(stability.stability(selections, layers))
    pairs = [(_chosen(one), _chosen(other)) for one, other in by_seed(ours, theirs)]
    return Estimate.of(stability.agreement(pairs, layers))


def _chosen(run: Record) -> set[int]:
    if run.layers is None:
        raise RecordError(
            f"The record {run.id} ({run.settings.method_label}) says nothing of selected layers: "
            "name a method with switches."
        )
    return set(run.layers.chosen)


def _layers(run: Record) -> int:
    assert run.layers is not None  # else _chosen has raised
    return len(run.layers.shares)
