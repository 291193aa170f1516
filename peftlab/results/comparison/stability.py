r"""Do selections agree beyond chance: over seeds, and of one task with another?

Both measures are 1 where selections are the same and 0 where they overlap as random sets of their
sizes do. Intervals are Student's of the jackknife's values, one a seed, and end at 1 at most. Where
everything is selected there is nothing to agree on: if all seeds do that, or all but one, estimate
and interval are NaN.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace

import numpy as np

from peftlab.errors import RecordError
from peftlab.results.comparison.statistics import Array, Interval, seed_interval

#: Of how many seeds an interval needs at least; with two, leaving out one leaves no pair.
FEWEST = 3


def stability(selections: Sequence[Collection[int]], of: int) -> Interval:
    r"""Return how far selections of several seeds agree.

    .. math:: \Phi = 1 - \frac{\frac1n \sum_f \frac{m}{m-1} p_f (1 - p_f)}{k (1 - k)}

    with n things to choose from, m seeds, the share :math:`p_f` of seeds that select f, and the
    mean k of these shares (Nogueira, Sechidis and Brown, 2018, On the stability of feature
    selection algorithms, JMLR 18, definition 4.1).

    Args:
        selections: The chosen, numbered from 0; one a seed.
        of: How many there were to choose from.

    Raises:
        RecordError: There are fewer than three seeds.
    """
    return _jackknifed(_table(selections, of), _stability)


def agreement(pairs: Sequence[tuple[Collection[int], Collection[int]]], of: int) -> Interval:
    r"""Return how far two selections agree that share their seed.

    Cohen's kappa (1960), pooled over seeds:

    .. math:: \kappa = \frac{\sum_s (o_s - e_s)}{\sum_s (1 - e_s)},
        \quad o = \frac{|A \cap B| + |\bar A \cap \bar B|}{n},
        \quad e = \frac{|A||B| + |\bar A||\bar B|}{n^2}

    Args:
        pairs: The two selections of each seed, numbered from 0.
        of: How many there were to choose from.

    Raises:
        RecordError: There are fewer than three seeds.
    """
    one, other = (_table([pair[i] for pair in pairs], of) for i in (0, 1))
    return _jackknifed(np.stack([one, other], axis=1), _kappa)


def _table(selections: Sequence[Collection[int]], of: int) -> Array:
    """Return seeds × things: 1 where it was selected."""
    return np.array([[float(f in chosen) for f in range(of)] for chosen in selections])


def _stability(chosen: Array) -> float:
    m, share = len(chosen), chosen.mean(axis=0)
    chance = share.mean() * (1 - share.mean())
    if not chance:
        return math.nan
    return float(1 - m / (m - 1) * (share * (1 - share)).mean() / chance)


def _kappa(chosen: Array) -> float:
    one, other = chosen[:, 0], chosen[:, 1]
    observed = (one == other).mean(axis=1)
    a, b = one.mean(axis=1), other.mean(axis=1)
    expected = a * b + (1 - a) * (1 - b)
    left = (1 - expected).sum()
    return float((observed - expected).sum() / left) if left else math.nan


def _jackknifed(seeds: Array, measure: Callable[[Array], float]) -> Interval:
    """Return a measure of seeds with its interval: m times all, less m − 1 times without one."""
    m = len(seeds)
    if m < FEWEST:
        raise RecordError(f"Agreement over seeds needs {FEWEST} of them, not {m}: run more seeds.")
    whole = measure(seeds)
    without = [measure(np.delete(seeds, i, axis=0)) for i in range(m)]
    found = seed_interval([m * whole - (m - 1) * each for each in without])
    return replace(found, estimate=min(found.estimate, 1.0), high=min(found.high, 1.0))
