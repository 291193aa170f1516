"""Which learning rate goes on: chosen on the development split, never on the reported one.

A *cell* is everything with the same encoder, task and method. All its rates are run at one seed;
the rate with the best development score is run at the other seeds, and only its runs are reported.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import NamedTuple

from peftlab.errors import RecordError
from peftlab.results.records.run import Record


class Cell(NamedTuple):
    """What a row of a result table is about."""

    encoder: str
    random_weights: bool
    task: str
    limits: tuple[tuple[str, int], ...]
    label: str


def cell_of(record: Record) -> Cell:
    """Return the cell that a record belongs to."""
    settings = record.settings
    label = settings.method_label or str(settings.method.get("name"))
    limits = tuple(sorted(settings.limits.items()))
    return Cell(settings.encoder, settings.random_weights, settings.task, limits, label)


def cells(records: Iterable[Record]) -> dict[Cell, list[Record]]:
    """Group records by cell, in the order in which the cells first come."""
    groups: dict[Cell, list[Record]] = defaultdict(list)
    for record in records:
        groups[cell_of(record)].append(record)
    return dict(groups)


def part(record: Record, task: str) -> Record:
    """Return what a run on several tasks says about one of them, as a run on that one would.

    Args:
        record: Of several tasks that were learnt together.
        task: One of them; the first of its metrics is the main one. The task of the run itself
            is the run.

    Raises:
        RecordError: The run was not scored on that task.
    """
    if task not in record.metrics:
        if task == record.settings.task:
            return record
        raise RecordError(
            f"The run {record.id} of {record.experiment!r} was not scored on {task!r}: choose "
            f"among {', '.join(record.metrics)}."
        )
    metrics, scores = record.metrics[task], record.example_scores
    return record.replaced(
        metrics={"test": metrics},
        main_metric=next(iter(metrics)),
        example_scores={"test": scores[task]} if task in scores else {},
    )


def best_rate(records: Iterable[Record]) -> Record | None:
    """Return the record with the best development score; of equal ones, the lower rate.

    Args:
        records: Runs of one cell at one seed; failed ones are passed over.

    Returns:
        The best, or None if none succeeded.
    """
    good = [r for r in records if r.status == "ok"]
    return max(
        good,
        key=lambda r: (r.score("dev"), -(r.settings.learning_rate or 0.0)),
        default=None,
    )


def selected(records: Iterable[Record]) -> list[Record]:
    """Keep, of each cell, the runs at the selected rate, one a seed, in order of seed.

    Where there are several rates, the tuning seed is the one at which most were run, the lowest of
    those. Where there is one, nothing is chosen: that a run failed keeps no other seed out.

    Args:
        records: Of one or more cells; earlier runs, which others build on, are passed over.
    """
    kept: list[Record] = []
    for group in cells(r for r in records if not r.earlier).values():
        by_seed: dict[int, list[Record]] = defaultdict(list)
        for record in group:
            by_seed[record.settings.seed].append(record)
        rates = {record.settings.learning_rate for record in group}
        if len(rates) > 1:
            tuning = max(by_seed, key=lambda seed: (len(by_seed[seed]), -seed))
            best = best_rate(by_seed[tuning])
            if best is None:
                continue
            rates = {best.settings.learning_rate}
        runs = (r for r in group if r.status == "ok" and r.settings.learning_rate in rates)
        kept += sorted(runs, key=lambda r: r.settings.seed)
    return kept
