"""What may be said from a few seeds and a finite test set: means, intervals, differences, ties.

The bootstrap here has two levels: it resamples seeds and test examples, both paired between the two
methods that are compared. Every interval is for one comparison; a table with many of them holds
some that miss by chance.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from peftlab.errors import RecordError
from peftlab.results.comparison.selection import Cell, cells, selected
from peftlab.results.records.run import Record

if TYPE_CHECKING:
    from pandas import DataFrame

Array = NDArray[np.float64]
Verdict = Literal["better", "worse", "tie"]
Level = Literal["seeds and examples", "seeds", "examples"]
RESAMPLES = 10_000
COLUMNS = [
    "encoder",
    "random_weights",
    "task",
    "method",
    "trainable",
    "stored",
    "inference",
    "metric",
    "learning_rate",
    "seeds",
    "mean",
    "sd",
    "low",
    "high",
    "difference",
    "difference_low",
    "difference_high",
    "floor",
    "verdict",
    "over",
]
#: What a noise floor is known for: encoder, task, number of rows scored.
Place = tuple[str, str, int]
BLOCK = 2_000_000  # random numbers held at once


@dataclass(frozen=True)
class Interval:
    """An estimate with its confidence interval.

    Attributes:
        estimate, low, high: In the unit of the metric (a fraction for most); low and high are NaN
            where one number is all there is.
        over: What was taken as random: seeds, test examples, or both.
        n: Number of seeds.
    """

    estimate: float
    low: float
    high: float
    over: Level
    n: int

    @property
    def verdict(self) -> Verdict:
        """For a difference: ``"tie"`` unless the interval lies on one side of 0."""
        if self.low > 0:
            return "better"
        return "worse" if self.high < 0 else "tie"


def seed_interval(values: Sequence[float], confidence: float = 0.95) -> Interval:
    """Return mean and Student's t interval over seeds: ``mean ± t · sd / √n`` (NaN for one seed).

    Args:
        values: One score, or one paired difference, a seed.
        confidence: Of the interval.
    """
    from scipy.stats import t

    n = len(values)
    mean = float(np.mean(values))
    if n < 2:
        return Interval(mean, float("nan"), float("nan"), "seeds", n)
    half = float(t.ppf((1 + confidence) / 2, n - 1)) * float(np.std(values, ddof=1)) / n**0.5
    return Interval(mean, mean - half, mean + half, "seeds", n)


def bootstrap(
    scores: Array,
    baseline: Array | None = None,
    *,
    confidence: float = 0.95,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Interval:
    """Return a mean, or a paired difference of means, with an interval over seeds and examples.

    With ``D = scores − baseline``, each resample draws seeds s and examples e independently and
    takes the mean of D[s, e] (the pigeonhole bootstrap of crossed factors: Owen, 2007, The
    pigeonhole bootstrap). Of S seeds it draws S − 1, which makes the variance of the mean over few
    seeds right instead of too small by (S − 1)/S (Rao and Wu, 1988, Resampling inference with
    complex survey data). The interval is the percentile one; with one seed, over examples only.

    Args:
        scores: [seeds, examples], in the same order of rows for every seed.
        baseline: The same shape, paired by seed and example; None compares with 0.
        confidence: Of the interval.
        resamples: Number of draws.
        seed: Of the draws.

    Raises:
        RecordError: The two are not of the same shape, or empty.
    """
    if baseline is not None and baseline.shape != scores.shape:
        raise RecordError(
            f"Scores of shape {scores.shape} and {baseline.shape} cannot be paired: compare runs "
            "of the same seeds on the same rows."
        )
    if scores.ndim != 2 or scores.size == 0:
        raise RecordError(f"A bootstrap needs scores [seeds, examples], not {scores.shape}.")
    difference = scores if baseline is None else scores - baseline
    (means,) = resampled([difference[None]], resamples, seed)
    low, high = percentiles(means[:, 0], confidence)
    over: Level = "seeds and examples" if len(difference) > 1 else "examples"
    return Interval(float(difference.mean()), low, high, over, len(difference))


def resampled(groups: Sequence[Array], resamples: int = RESAMPLES, seed: int = 0) -> list[Array]:
    """Return the means of every resample of :func:`bootstrap`, for functions of several means.

    Args:
        groups: [quantities, seeds, examples] each. The seeds are those of all groups and are drawn
            once; the examples of a group are shared by its quantities and drawn apart from those of
            the other groups.
        resamples: Number of draws.
        seed: Of the draws.

    Returns:
        For each group [resamples, quantities].
    """
    n_seeds = groups[0].shape[1]
    random = np.random.default_rng(seed)
    drawn = max(n_seeds - 1, 1)
    # Examples on which all seeds do the same are drawn together: right and wrong answers of three
    # seeds make few kinds of example, however many there are.
    found = []
    for group in groups:
        flat = group.reshape(-1, group.shape[-1])
        kinds, each = np.unique(flat, axis=1, return_counts=True)
        found.append((kinds.reshape(len(group), n_seeds, -1), each, group.shape[-1]))
    means: list[list[Array]] = [[] for _ in groups]
    block = max(1, BLOCK // max(len(each) for _, each, _ in found))
    for start in range(0, resamples, block):
        size = min(block, resamples - start)
        # How often each seed and kind is drawn, instead of which: sums stay matrix products.
        of_seeds = random.multinomial(drawn, np.full(n_seeds, 1 / n_seeds), size) / drawn
        for (quantities, each, n), out in zip(found, means, strict=True):
            of_kinds = random.multinomial(n, each / n, size)
            sums = [np.einsum("rk,rk->r", of_seeds @ kinds, of_kinds) for kinds in quantities]
            out.append(np.stack(sums, axis=1) / n)
    return [np.concatenate(out) for out in means]


def percentiles(values: Array, confidence: float = 0.95) -> tuple[float, float]:
    """Return the ends of the middle part of some values."""
    tail = 50 * (1 - confidence)
    low, high = np.percentile(values, [tail, 100 - tail])
    return float(low), float(high)


def score(records: Sequence[Record], split: str = "test", confidence: float = 0.95) -> Interval:
    """Return the mean main metric of runs that differ only in the seed, with its interval.

    Over seeds and examples where the metric is the mean of the example scores; else (F1,
    correlations) over seeds.

    Args:
        records: At least one, all ok.
        split: Split or transfer task.
        confidence: Of the interval.
    """
    rows = examples(records, split)
    if rows is not None:
        return bootstrap(rows, confidence=confidence)
    return seed_interval([r.score(split) for r in records], confidence)


def difference(
    records: Sequence[Record],
    baseline: Sequence[Record],
    split: str = "test",
    confidence: float = 0.95,
) -> Interval:
    """Return ``records − baseline`` in the main metric, paired by seed (and by example if it can).

    A baseline that has one run only because nothing in it is random (a majority class) is paired
    with every seed.

    Args:
        records: Runs of one cell.
        baseline: Runs of another cell of the same task.
        split: Split or transfer task.
        confidence: Of the interval.

    Raises:
        RecordError: They share no seed.
    """
    return paired(*pair(records, baseline), split, confidence)


def pair(
    records: Sequence[Record], baseline: Sequence[Record]
) -> tuple[list[Record], list[Record]]:
    """Return the runs of two cells that share a seed, in the same order.

    A control that has one run only because nothing in it is random is paired with every seed.

    Raises:
        RecordError: They share no seed.
    """
    left = {r.settings.seed: r for r in records}
    right = {r.settings.seed: r for r in baseline}
    if len(right) == 1 and trains_nothing(baseline[0]):
        right = dict.fromkeys(left, baseline[0])
    elif len(left) == 1 and trains_nothing(records[0]):
        left = dict.fromkeys(right, records[0])
    shared = sorted(left.keys() & right.keys())
    if not shared:
        raise RecordError(
            f"Runs of seeds {sorted(left)} and {sorted(right)} cannot be paired: run both at the "
            "same seeds."
        )
    return [left[s] for s in shared], [right[s] for s in shared]


def paired(
    ours: Sequence[Record],
    theirs: Sequence[Record],
    split: str = "test",
    confidence: float = 0.95,
    resamples: int = RESAMPLES,
) -> Interval:
    """Return ``ours − theirs`` in the main metric for runs that are paired by their place.

    Over seeds and examples where the metric is the mean of the example scores; else over seeds.

    Args:
        ours: Runs of one cell.
        theirs: As many of another.
        split: Split or transfer task.
        confidence: Of the interval.
        resamples: Number of draws of the bootstrap.
    """
    a, b = examples(ours, split), examples(theirs, split)
    if a is not None and b is not None:
        return bootstrap(a, b, confidence=confidence, resamples=resamples)
    return seed_interval(
        [x.score(split) - y.score(split) for x, y in zip(ours, theirs, strict=True)], confidence
    )


def summarise(
    records: Iterable[Record],
    baseline: str = "full",
    split: str = "test",
    floors: Mapping[Place, float] | None = None,
) -> DataFrame:
    """Return the result table: one row a cell, with interval, difference to a baseline and verdict.

    Args:
        records: Of an experiment, all rates and seeds; the selected runs are kept.
        baseline: Label of the method to compare with; a cell without it has no difference.
        split: Split or transfer task; runs without it are left out.
        floors: Noise floors, see :func:`peftlab.results.comparison.noise.floors`: a difference that
            is no larger than the floor of its place is a tie, whatever its interval says.

    Returns:
        Columns ``encoder, random_weights, task, method, trainable, stored, inference, metric,
        learning_rate, seeds, mean, sd, low, high, difference, difference_low, difference_high,
        floor, verdict, over``
        (the last says what both intervals are over), ordered by number of trainable parameters
        within encoder and task.
    """
    import pandas as pd

    groups = cells(r for r in selected(records) if split in r.metrics)
    rows = [
        _row(cell, group, groups, baseline, split, floors or {}) for cell, group in groups.items()
    ]
    table = pd.DataFrame(rows, columns=COLUMNS)
    order = ["encoder", "random_weights", "task", "trainable", "method"]
    return table.sort_values(order, ignore_index=True)


def _row(
    cell: Cell,
    group: list[Record],
    groups: dict[Cell, list[Record]],
    baseline: str,
    split: str,
    floors: Mapping[Place, float],
) -> dict[str, object]:
    """Return one row of :func:`summarise`."""
    values = [r.score(split) for r in group]
    mean = score(group, split)
    counts = group[0].parameters
    row: dict[str, object] = {
        "encoder": cell.encoder,
        "random_weights": cell.random_weights,
        "task": cell.task,
        "method": cell.label,
        "trainable": counts.trainable if counts else None,
        "stored": counts.stored if counts else None,
        "inference": counts.inference if counts else None,
        "metric": group[0].main_metric,
        "learning_rate": group[0].settings.learning_rate,
        "seeds": len(group),
        "mean": mean.estimate,
        "sd": float(np.std(values, ddof=1)) if len(values) > 1 else float("nan"),
        "low": mean.low,
        "high": mean.high,
    }
    other = groups.get(cell._replace(label=baseline))
    if other is not None and cell.label != baseline:
        change = difference(group, other, split)
        floor = floors.get(place(group[0], split))
        hidden = floor is not None and abs(change.estimate) <= floor
        row |= {
            "difference": change.estimate,
            "difference_low": change.low,
            "difference_high": change.high,
            "floor": floor,
            "verdict": "tie" if hidden else change.verdict,
        }
    return row | {"over": mean.over}


def place(record: Record, split: str = "test") -> Place:
    """Return where a run was scored, as noise floors are kept by."""
    settings = record.settings
    return settings.encoder, settings.task, len(record.example_scores.get(split, []))


def trains_nothing(record: Record) -> bool:
    """Say whether a run is a control that has no learning rate, so that its seed means nothing."""
    return record.settings.learning_rate is None


def examples(records: Sequence[Record], split: str, metric: str = "") -> Array | None:
    """Return example scores [seeds, examples] if a metric is their mean, else None.

    Args:
        records: Of several seeds.
        split: Split or transfer task.
        metric: By default the main one.
    """
    rows = [record.example_scores.get(split, []) for record in records]
    if not rows or not rows[0] or len({len(row) for row in rows}) > 1:
        return None
    for record, row in zip(records, rows, strict=True):
        value = record.metrics[split][metric] if metric else record.score(split)
        if abs(float(np.mean(row)) - value) > 1e-6:
            return None
    return np.array(rows, dtype=np.float64)
