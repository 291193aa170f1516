"""Averages over languages, what of the source's score is kept, and which methods differ.

The languages are those that were tested, not a sample of all: intervals are over seeds and test
rows. One seed is one model, so seeds count for all languages together. Test sets with equally
many rows are taken as parallel, row by row, and count together too: where they are translations, a
row that is hard is hard in all; where they are not, their rows are unrelated and it makes no
difference. Where a metric is no mean over rows (F1, accuracy of words), intervals are over seeds.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from peftlab.errors import RecordError
from peftlab.results.comparison.pairing import by_seed
from peftlab.results.comparison.statistics import (
    Array,
    Interval,
    seed_interval,
    summed_interval,
)
from peftlab.results.records.run import Record
from peftlab.results.transfer.zero_shot import JOINT, MAJORITY, Transfer, transfers

if TYPE_CHECKING:
    from pandas import DataFrame

COLUMNS = [
    "encoder",
    "random_weights",
    "task",
    "source",
    "rank",
    "method",
    "metric",
    "languages",
    "seeds",
    "source_score",
    "source_low",
    "source_high",
    "average",
    "low",
    "high",
    "difference",
    "difference_low",
    "difference_high",
    "verdict",
    "retention",
    "retention_low",
    "retention_high",
    "inflated",
    "majority",
    "over",
]
VERDICTS = ("better", "tie", "worse")


class Averages(NamedTuple):
    """What is said of one transfer, or of the difference of two.

    Attributes:
        source: The score in the source language.
        target: The mean of the scores in the target languages, each counting the same.
        retention: ``target / source``, of the means over seeds; NaN for a source score of 0. A
            difference has none.
    """

    source: Interval
    target: Interval
    retention: Interval | None = None


def averages(transfer: Transfer) -> Averages:
    """Return source score, mean over the target languages, and retention, with 95 % intervals.

    The interval of the ratio r is that of the linearised one, r + (target − r · source) / source,
    in which both scores are of the same seeds and rows (Cochran, 1977, Sampling techniques, section
    6.4).

    Args:
        transfer: What was scored.
    """
    source, target = _seeds(transfer)
    base = float(source.mean()) or math.nan  # of a score of 0 nothing can be kept
    ratio = float(target.mean()) / base
    rows = _rows(transfer)
    if rows is None:
        kept = seed_interval(list((target - ratio * source) / base))
        found = seed_interval(list(source)), seed_interval(list(target))
    else:
        groups = _groups(rows)
        kept = summed_interval([(one - ratio * home) / base for home, one in groups])
        found = _interval(groups, 0), _interval(groups, 1)
    return Averages(
        *found,
        replace(kept, estimate=ratio, low=ratio + kept.low, high=ratio + kept.high),
    )


def difference(ours: Transfer, theirs: Transfer) -> Averages:
    """Return ``ours − theirs`` at the source and on average, paired by seed, language and row.

    Args:
        ours: A method.
        theirs: Another one on the same task; one that trains nothing is paired with every seed.

    Raises:
        RecordError: They share no seed, or were not scored in the same languages.
    """
    if set(ours.targets) != set(theirs.targets):
        raise RecordError(
            f"{ours.method!r} and {theirs.method!r} were not scored in the same languages of "
            f"{ours.task!r}: compare runs with the same transfer tasks."
        )
    left, right = zip(*by_seed(ours.runs, theirs.runs), strict=True)
    ours, theirs = replace(ours, runs=tuple(left)), replace(theirs, runs=tuple(right))
    rows, base = _rows(ours), _rows(theirs)
    if rows is None or base is None or any(rows[c].shape != base[c].shape for c in rows):
        changes = zip(_seeds(ours), _seeds(theirs), strict=True)
        return Averages(*(seed_interval(list(one - other)) for one, other in changes))
    groups = _groups({code: rows[code] - base[code] for code in rows})
    return Averages(_interval(groups, 0), _interval(groups, 1))


def summary(records: Iterable[Record], baseline: str = "full") -> DataFrame:
    """Return one row a method and task: averages, retention, and how it compares with a baseline.

    Args:
        records: Of experiments, all rates and seeds.
        baseline: Label of the method to compare with.

    Returns:
        Columns ``encoder, random_weights, task, source, rank, method, metric, languages, seeds,
        source_score, source_low, source_high, average, low, high, difference, difference_low,
        difference_high, verdict, retention, retention_low, retention_high, inflated, majority,
        over``, the best average first within a task. ``rank`` knows three places: better than the
        baseline, tied with it (as the baseline itself), worse; it is the number of methods in the
        places before, plus one. ``inflated``: the source score is not clearly above the majority
        class's, so that the retention says nothing; None where there is no such control.
        ``majority`` is that class's average over the target languages.
    """
    import pandas as pd

    found = transfers(records)
    rows: list[dict[str, Any]] = []
    for place in dict.fromkeys(each.place for each in found):
        methods = {each.method: each for each in found if each.place == place}
        control = methods.get(MAJORITY) or methods.get(MAJORITY + JOINT)
        made = [_row(each, methods.get(baseline), control) for each in methods.values()]
        verdicts = [row["verdict"] for row in made]
        for row in made:
            if row["verdict"] in VERDICTS:
                before = VERDICTS[: VERDICTS.index(row["verdict"])]
                row["rank"] = 1 + sum(verdict in before for verdict in verdicts)
            if row["method"] == baseline:
                row["verdict"] = None
        rows += sorted(made, key=lambda row: -row["average"])
    return pd.DataFrame(rows, columns=COLUMNS)


def _row(transfer: Transfer, baseline: Transfer | None, control: Transfer | None) -> dict[str, Any]:
    """Return one row of :func:`summary`, without its rank; the baseline is tied with itself."""
    source, target, retention = averages(transfer)
    assert retention is not None
    row: dict[str, Any] = {
        "encoder": transfer.encoder,
        "random_weights": transfer.random_weights,
        "task": transfer.task,
        "source": transfer.source,
        "method": transfer.method,
        "metric": transfer.metric,
        "languages": len(transfer.targets),
        "seeds": len(transfer.runs),
        "verdict": None,
        "over": target.over,
    }
    row |= _named(source, "source_score", "source_low", "source_high")
    row |= _named(target, "average", "low", "high")
    row |= _named(retention, "retention", "retention_low", "retention_high")
    if baseline is transfer:
        row["verdict"] = "tie"
    elif baseline is not None and set(baseline.targets) == set(transfer.targets):
        change = difference(transfer, baseline).target
        row |= _named(change, "difference", "difference_low", "difference_high")
        row["verdict"] = change.verdict
    if control is not None and set(control.targets) == set(transfer.targets):
        row["majority"] = float(_seeds(control)[1].mean())
        above = difference(transfer, control).source
        row["inflated"] = above.verdict != "better"
    return row


def _named(interval: Interval, *names: str) -> dict[str, float]:
    values = interval.estimate, interval.low, interval.high
    return dict(zip(names, values, strict=True))


def _interval(groups: Sequence[Array], which: int) -> Interval:
    """Return the source score (0) or the mean over the target languages (1) with its interval."""
    return summed_interval([group[which] for group in groups])


def _seeds(transfer: Transfer) -> tuple[Array, Array]:
    """Return source score and mean over the target languages, each [seeds]."""
    targets = [transfer.scores(split) for split in transfer.targets.values()]
    return np.array(transfer.scores(transfer.home)), np.mean(targets, axis=0)


def _rows(transfer: Transfer) -> dict[str, Array] | None:
    """Return the scores of every row by language, the source first; None if they are no means."""
    found: dict[str, Array] = {}
    for language, split in ((transfer.source, transfer.home), *transfer.targets.items()):
        scores = transfer.examples(split)
        if scores is None:
            return None
        found[language] = scores
    return found


def _groups(rows: Mapping[str, Array]) -> list[Array]:
    """Join languages with equally many rows: [2, seeds, rows] each.

    The sums of the groups' means are the score of the first language and the mean of the others.
    """
    groups: dict[int, Array] = {}
    for place, scores in enumerate(rows.values()):
        group = groups.setdefault(scores.shape[1], np.zeros((2, *scores.shape)))
        if place == 0:
            group[0] = scores
        else:
            group[1] += scores / (len(rows) - 1)
    return list(groups.values())
