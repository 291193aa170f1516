"""The noise floor: how far apart groups of runs are that differ in nothing but the seed.

An A/A comparison of training. Every difference that it finds is noise, so it says which
differences mean nothing, and whether the intervals of
:mod:`peftlab.results.comparison.statistics` keep what they promise.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from typing import NamedTuple

import numpy as np

from peftlab.errors import RecordError
from peftlab.results.comparison.selection import cells
from peftlab.results.comparison.statistics import Level, Place, paired, place
from peftlab.results.records.run import Record

#: Degrees of freedom of an interval over the examples of a test set.
MANY = 1000


class Noise(NamedTuple):
    """What an A/A comparison found.

    Attributes:
        runs: That were there, all of one configuration.
        seeds: In each of the two groups that were compared.
        mean: Of the scores.
        sd: Of the scores, over seeds.
        floor: 95 % of the differences between two groups are at most so large.
        false_alarms: Share of the comparisons whose 95 % interval leaves out 0; it should be 0.05.
        detectable: A true difference of this size would be seen in four of five comparisons.
        over: What the intervals take as random.
    """

    runs: int
    seeds: int
    mean: float
    sd: float
    floor: float
    false_alarms: float
    detectable: float
    over: Level


@cache
def power(n: int, over: str) -> float:
    r"""Return the true difference that is seen with a probability of 0.8, in half-widths.

    Of the 95 % interval :math:`\bar D \pm t_\nu s / \sqrt n` with :math:`\nu = n - 1`, the
    median half-width, because s itself varies. With :math:`\delta` where Student's t with
    :math:`\nu` degrees of freedom and the noncentrality :math:`\delta` exceeds :math:`t_\nu` four
    times in five (Cohen, 1988, Statistical power analysis, chapter 2), and m the median of
    :math:`\chi_\nu / \sqrt\nu`, it is :math:`\delta / (t_\nu m)`: 1.58 with three seeds, 1.43 with
    very many. Where an interval is over examples as well, it is somewhat less than that.

    Args:
        n: Seeds or rounds that the interval is over, at least 2 unless it is over examples alone.
        over: What the interval takes as random; with ``"examples"`` n does not count.
    """
    from scipy.optimize import brentq
    from scipy.stats import chi2, nct, t

    freedom = MANY if over == "examples" else n - 1
    bound = t.ppf(0.975, freedom)
    shift = brentq(lambda shift: nct.sf(bound, freedom, shift) - 0.8, bound / 2, 1.5 * bound)
    return float(shift / bound / (chi2.median(freedom) / freedom) ** 0.5)


def noise(
    records: Sequence[Record],
    seeds: int = 3,
    split: str = "test",
    *,
    draws: int = 400,
    seed: int = 0,
) -> Noise:
    """Compare runs with runs of the same configuration.

    Args:
        records: Runs of one cell and one rate that differ in the seed; 2 · ``seeds`` at least.
        seeds: Runs in each of the two groups.
        split: Split or transfer task.
        draws: How often two groups without a common run are drawn.
        seed: Of the draws.

    Raises:
        RecordError: The runs differ in more than the seed, or are too few.
    """
    found = [paired(ours, theirs, split) for ours, theirs in _groups(records, seeds, draws, seed)]
    scores = [record.score(split) for record in records]
    half = [(each.high - each.low) / 2 for each in found]
    return Noise(
        runs=len(records),
        seeds=seeds,
        mean=float(np.mean(scores)),
        sd=float(np.std(scores, ddof=1)),
        floor=_floor(each.estimate for each in found),
        false_alarms=float(np.mean([each.verdict != "tie" for each in found])),
        detectable=power(found[0].n, found[0].over) * float(np.median(half)),
        over=found[0].over,
    )


def floors(
    records: Iterable[Record],
    seeds: int = 3,
    split: str = "test",
    *,
    draws: int = 400,
    seed: int = 0,
) -> dict[Place, float]:
    """Return the noise floor of every place at which runs were repeated.

    A place is an encoder, a task and a number of rows that are scored: the floor of one says
    nothing of another. Of several methods the largest floor counts.

    Args:
        records: Of A/A experiments: each cell at one rate, with ``2 · seeds`` runs at least.
        seeds: Of the comparisons that the floor is for.
        split: Split or transfer task.
        draws: How often two groups without a common run are drawn.
        seed: Of the draws.

    Raises:
        RecordError: As :func:`noise`.
    """
    found: dict[Place, float] = {}
    for group in cells(records).values():
        where = place(group[0], split)
        floor = _floor(
            _mean(ours, split) - _mean(theirs, split)
            for ours, theirs in _groups(group, seeds, draws, seed)
        )
        found[where] = max(found.get(where, 0.0), floor)
    return found


def _mean(records: Sequence[Record], split: str) -> float:
    return float(np.mean([record.score(split) for record in records]))


def _floor(differences: Iterable[float]) -> float:
    """Return what 95 % of the differences are at most, in size."""
    return float(np.quantile(np.abs(list(differences)), 0.95))


def _groups(
    records: Sequence[Record], seeds: int, draws: int, seed: int
) -> Iterator[tuple[list[Record], list[Record]]]:
    """Draw pairs of groups of runs that differ in nothing but the seed, without a common run."""
    rates = {record.settings.learning_rate for record in records}
    if len(cells(records)) != 1 or len(rates) != 1:
        raise RecordError(
            f"The {len(records)} runs are of {len(cells(records))} cells and {len(rates)} rates: "
            "an A/A comparison takes runs that differ in nothing but the seed."
        )
    if len(records) < 2 * seeds:
        raise RecordError(
            f"{len(records)} runs are too few for two groups of {seeds}: run "
            f"{2 * seeds - len(records)} more seeds."
        )
    random = np.random.default_rng(seed)
    for _ in range(draws):
        chosen = [records[i] for i in random.permutation(len(records))[: 2 * seeds]]
        yield chosen[:seeds], chosen[seeds:]
