"""What may be said from a few seeds and a finite test set: means, intervals, differences, ties.

Another seed could have been drawn, and other test examples: an interval is over both, which are
paired between the two methods that are compared. All seeds of a task share one draw of its training
rows and the rate that was chosen on them: an interval speaks of these. Every interval is for one
comparison; a table with many of them holds some that miss by chance.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from peftlab.errors import RecordError
from peftlab.results.comparison.pairing import by_seed
from peftlab.results.comparison.selection import Cell, cells, selected
from peftlab.results.records.run import Record
from peftlab.timing.intervals import Ratio

if TYPE_CHECKING:
    from pandas import DataFrame

Array = NDArray[np.float64]
Verdict = Literal["better", "worse", "tie"]
Level = Literal["seeds and examples", "seeds", "examples"]
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


def geometric_mean(ratios: Sequence[float]) -> Ratio:
    """Return the geometric mean of one ratio a seed, with Student's interval of the logarithms."""
    found = seed_interval([math.log(ratio) for ratio in ratios])
    return Ratio(*(math.exp(x) for x in (found.estimate, found.low, found.high)))


def crossed_interval(
    scores: Array, baseline: Array | None = None, *, confidence: float = 0.95
) -> Interval:
    r"""Return a mean, or a paired difference of means, with an interval over seeds and examples.

    Of D = ``scores − baseline``, with S seeds and N examples, every one scored under every seed,
    the two-way analysis of variance has the mean squares :math:`M_S` of the seeds, :math:`M_E` of
    the examples and :math:`M_R` of what is left. Another draw of both would move the mean of D with
    the variance

    .. math:: v_S + v_E, \qquad v_S = \frac{M_S}{SN}, \quad v_E = \frac{\max(M_E - M_R, 0)}{SN}

    and each part is known from so few seeds, or so many examples, as there are:

    .. math:: \bar D \pm \sqrt{t_{S-1}^2 v_S + t_{N-1}^2 v_E}

    (Howe, 1974, Approximate confidence limits on the mean of X + Y), but no narrower than the
    interval over examples alone, of :math:`t_{N-1}^2 M_E / (SN)`. Where only seeds vary it is
    Student's interval over seeds, where only examples vary that over examples. In simulations with
    three to eight seeds, whichever varies more, it holds the truth in 94 to 99 of 100 cases. Taught
    in the chapter on full fine-tuning.

    Args:
        scores: [seeds, examples], in the same order of rows for every seed.
        baseline: The same shape, paired by seed and example; None compares with 0.
        confidence: Of the interval.

    Raises:
        RecordError: The two are not of the same shape, or empty.
    """
    if baseline is not None and baseline.shape != scores.shape:
        raise RecordError(
            f"Scores of shape {scores.shape} and {baseline.shape} cannot be paired: compare runs "
            "of the same seeds on the same rows."
        )
    if scores.ndim != 2 or scores.size == 0:
        raise RecordError(f"An interval needs scores [seeds, examples], not {scores.shape}.")
    return summed_interval([scores if baseline is None else scores - baseline], confidence)


def summed_interval(groups: Sequence[Array], confidence: float = 0.95) -> Interval:
    """Return the sum of the means of several test sets, with its interval.

    As :func:`crossed_interval`: the seeds are those of all sets together, the examples of each
    are its own, so that the sets' parts of the variance add up.

    Args:
        groups: [seeds, examples] each.
        confidence: Of the interval.
    """
    from scipy.stats import t

    def squared(part: float, freedom: int) -> float:
        return float(t.ppf((1 + confidence) / 2, freedom)) ** 2 * part if freedom else 0.0

    seeds = len(groups[0])
    mean = math.fsum(float(group.mean()) for group in groups)
    if seeds * max(group.shape[1] for group in groups) == 1:  # of one number nothing is known
        return Interval(mean, math.nan, math.nan, "examples", seeds)
    each = [(*_of_examples(group), group.shape[1] - 1) for group in groups]
    alone = math.fsum(squared(between, freedom) for between, _, freedom in each)
    both = math.fsum(squared(between - left, freedom) for between, left, freedom in each)
    if seeds > 1:
        of_seeds = np.sum([group.mean(axis=1) for group in groups], axis=0)
        both += squared(float(np.var(of_seeds, ddof=1)) / seeds, seeds - 1)
    half = max(alone, both) ** 0.5
    over: Level = "seeds and examples" if seeds > 1 else "examples"
    return Interval(mean, mean - half, mean + half, over, seeds)


def _of_examples(scores: Array) -> tuple[float, float]:
    """Return M_E / SN of scores [seeds, examples], and M_R / SN or the former if that is less."""
    seeds, n = scores.shape
    if n == 1:
        return 0.0, 0.0
    by_example = scores.mean(axis=0)
    between = float(np.var(by_example, ddof=1)) / n
    rest = scores - by_example - scores.mean(axis=1, keepdims=True) + scores.mean()
    left = float(np.sum(rest**2)) / (max(seeds - 1, 1) * (n - 1) * seeds * n)
    return between, min(left, between)


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
        return crossed_interval(rows, confidence=confidence)
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
    ours, theirs = zip(*by_seed(records, baseline), strict=True)
    return paired(ours, theirs, split, confidence)


def paired(
    ours: Sequence[Record],
    theirs: Sequence[Record],
    split: str = "test",
    confidence: float = 0.95,
) -> Interval:
    """Return ``ours − theirs`` in the main metric for runs that are paired by their place.

    Over seeds and examples where the metric is the mean of the example scores; else over seeds.

    Args:
        ours: Runs of one cell.
        theirs: As many of another.
        split: Split or transfer task.
        confidence: Of the interval.
    """
    a, b = examples(ours, split), examples(theirs, split)
    if a is not None and b is not None:
        return crossed_interval(a, b, confidence=confidence)
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
