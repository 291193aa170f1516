"""What a few noisy samples say: a median with its interval, a ratio, and no digit too many."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

CONFIDENCE = 0.95


class Ratio(NamedTuple):
    """A ratio and its interval; a tie where the interval holds 1."""

    ratio: float
    low: float
    high: float

    @property
    def tie(self) -> bool:
        """Whether the data do not separate the ratio from 1."""
        return self.low <= 1.0 <= self.high

    def inverse(self) -> Ratio:
        """Return the ratio the other way round, for example a speed-up for a time ratio."""
        return Ratio(1 / self.ratio, 1 / self.high, 1 / self.low)

    def times(self, other: Ratio) -> Ratio:
        """Return the product with an independent ratio; in logarithms, widths add in quadrature."""
        product = self.ratio * other.ratio
        below = math.hypot(*(math.log(each.ratio / each.low) for each in (self, other)))
        above = math.hypot(*(math.log(each.high / each.ratio) for each in (self, other)))
        return Ratio(product, product * math.exp(-below), product * math.exp(above))

    def __str__(self) -> str:
        """Print no more digits than the interval allows."""
        if self.low == self.high and math.isfinite(self.ratio):
            return f"{self.ratio:,.4g}"
        # 0: what it is over was never waited for to the end, and only a bound is known
        value = -math.inf if self.ratio == 0 else self.ratio
        return with_interval(value, self.low, self.high)


def paired_ratio(
    seconds: Sequence[float], others: Sequence[float], confidence: float = CONFIDENCE
) -> Ratio:
    """Return the median of the ratios of pairs, with its interval.

    ``ratio = median_r(seconds_r / others_r)``, where pair r was measured in the same round. What
    the machine does to both halves of a round cancels, which it does not in a ratio of medians.

    Args:
        seconds: Positive, one value a round.
        others: The same rounds of what is compared with.
        confidence: Of the interval.
    """
    logs = np.log(seconds) - np.log(others)
    low, high = median_interval(logs, confidence)
    return Ratio(math.exp(np.median(logs)), math.exp(low), math.exp(high))


def median_interval(
    values: Sequence[float] | np.ndarray, confidence: float = CONFIDENCE
) -> tuple[float, float]:
    """Return the interval of a median from order statistics; it assumes no distribution.

    ``[x₍ₖ₎, x₍ₙ₊₁₋ₖ₎]`` holds the median with probability ``1 − 2·P(B ≤ k − 1)``, B ~ Bin(n, ½); k
    is the largest for which that is at least the confidence (Thompson, 1936, On confidence ranges
    for the median). It is what a percentile bootstrap of the median tends to, without its shortfall
    for small n. For a thing timed against itself, simulated with log-normal noise, a drift that
    both share and spikes (1,000 comparisons each of 10, 15, 20 and 30 rounds), 95 % intervals held
    the truth in

    - 94 to 99 %: this one, of the ratios within rounds;
    - 91 to 95 %: the percentile bootstrap of the same median;
    - 95 to 100 %: the percentile bootstrap of the ratio of the two medians, but it is up to three
      times as wide, for that ratio does not cancel the drift; with BCa 86 to 96 %;
    - 94 to 99 %: Student's t of the logarithms, but up to 14 times as wide where there are spikes;
    - 86 to 96 %: the studentised bootstrap of their mean.

    It does not see noise that stays with one candidate over rounds: with a correlation of ½ from
    round to round it held the truth in 86 to 92 %.

    Fewer than 6 values give no such interval of 95 %. For them it is Student's,
    ``mean ± t·sd/√n``, which takes the noise for symmetric; one value says nothing.

    Args:
        values: Samples; independent and of one distribution.
        confidence: At least this probability.

    Returns:
        Lower and upper end.
    """
    from scipy import stats

    ordered = np.sort(np.asarray(values, dtype=float))
    n = len(ordered)
    if n < 2:
        return -math.inf, math.inf
    tail = (1 - confidence) / 2
    k = int(stats.binom.ppf(tail, n, 0.5))
    if k > 0:
        return float(ordered[k - 1]), float(ordered[n - k])
    half = stats.t.ppf(1 - tail, n - 1) * ordered.std(ddof=1) / math.sqrt(n)
    return float(ordered.mean() - half), float(ordered.mean() + half)


def significant(value: float, spread: float, digits: int = 2) -> str:
    """Print a value down to the second digit of its spread, not further.

    Args:
        value: The value.
        spread: Width of its interval, or IQR, in the same unit.
        digits: Digits of the spread that are kept.

    Returns:
        For example ``significant(1.23456, 0.021)`` is ``"1.235"``.
    """
    if not math.isfinite(value):
        return str(value)
    if spread <= 0:
        return f"{value:.4g}"
    if not math.isfinite(spread):
        return f"{float(f'{value:.{digits}g}'):g}"
    places = digits - 1 - math.floor(math.log10(spread))
    rounded = round(value, places)
    return f"{rounded:.{max(places, 0)}f}"


def _outwards(bound: float, rounded: Callable[[float], int], digits: int = 2) -> float:
    """Round a bound to so many digits, down or up."""
    if bound == 0:
        return 0.0
    places = digits - 1 - math.floor(math.log10(abs(bound)))
    # Nine digits more first: 1.4 times ten is 14, not 13.99.
    return round(rounded(round(bound * 10.0**places, 9)) * 10.0**-places, max(places, 0))


def with_interval(value: float, low: float, high: float) -> str:
    """Print a value and its interval, each with no more digits than the interval allows.

    A value that is not finite is told by the bound that is known of it, in two digits and never
    more than is known: 1.465 from below is ``"above 1.4"``.
    """
    if not math.isfinite(value):
        if value > 0 and 0 < low < math.inf:
            return f"above {_outwards(low, math.floor):g}"
        if not value > 0 and math.isfinite(high):
            return f"below {_outwards(high, math.ceil):g}"
        return "not known"
    value_, low_, high_ = (significant(x, high - low) for x in (value, low, high))
    return f"{value_} [{low_}, {high_}]".replace("inf", "∞")
