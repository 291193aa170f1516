"""Runs of several cells are compared seed by seed: which belong together."""

from __future__ import annotations

from collections.abc import Sequence

from peftlab.errors import RecordError
from peftlab.results.records.run import Record


def by_seed(*cells: Sequence[Record]) -> list[tuple[Record, ...]]:
    """Return the runs that share a seed, one of each cell, by rising seed.

    A control that has one run only because nothing in it is random is paired with every seed.

    Raises:
        RecordError: They share no seed.
    """
    there = [{r.settings.seed: r for r in runs} for runs in cells]
    fixed = [len(runs) == 1 and runs[0].settings.trains_nothing for runs in cells]
    seeds = [set(runs) for runs, same in zip(there, fixed, strict=True) if not same]
    shared = sorted(set.intersection(*(seeds or [set(there[0])])))
    if not shared:
        raise RecordError(
            f"Runs of seeds {' and '.join(str(sorted(runs)) for runs in there)} cannot be paired: "
            "run all at the same seeds."
        )
    return [
        tuple(
            cell[0] if same else runs[seed]
            for cell, runs, same in zip(cells, there, fixed, strict=True)
        )
        for seed in shared
    ]
