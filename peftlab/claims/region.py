"""An estimate, the region that a paper claims for it, and whether the one lies in the other."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

from pydantic import model_validator

from peftlab.results.comparison.noise import power
from peftlab.results.comparison.statistics import Interval
from peftlab.results.records.run import Strict
from peftlab.timing.intervals import Ratio, with_interval

Judgement = Literal["reproduced", "not reproduced", "undecided"]


@dataclass(frozen=True)
class Estimate:
    """A number with its interval.

    Attributes:
        value, low, high: All three are equal where the number is exact, as a count is. NaN: nothing
            is known.
        n: Seeds or rounds that it rests on; 0 for an exact number.
        over: What was taken as random; "" for an exact number.
        ratio: Whether it is a ratio, whose size is told as a factor, or a difference.
    """

    value: float
    low: float
    high: float
    n: int
    over: str
    ratio: bool = False

    @classmethod
    def exact(cls, value: float, ratio: bool = False) -> Estimate:
        """Return a number without uncertainty."""
        return cls(value, value, value, 0, "", ratio)

    @classmethod
    def of(cls, interval: Interval) -> Estimate:
        """Return a difference of scores."""
        return cls(interval.estimate, interval.low, interval.high, interval.n, interval.over)

    @property
    def detectable(self) -> float:
        """The effect that would have been seen with a probability of 0.8.

        A difference from the bound of a region, or a factor:
        :func:`~peftlab.results.comparison.noise.power` times half the width of the interval, in
        logarithms for a ratio. 0 for an exact number, NaN where there is no interval.
        """
        if self.n == 0:
            return 0.0
        if not math.isfinite(self.low + self.high) or (self.ratio and self.low <= 0):
            return math.nan
        factor = power(self.n, self.over) / 2
        if self.ratio:
            return (self.high / self.low) ** factor
        return factor * (self.high - self.low)

    def among(self, cells: int) -> Estimate:
        r"""Return it with an interval that holds for so many cells at once (Bonferroni).

        Each end is :math:`t_{1 - 0.025 / c,\, n - 1} / t_{0.975,\, n - 1}` times as far away, in
        logarithms for a ratio. An exact number stays; NaN where the value itself is not finite.
        """
        if self.n == 0:
            return self
        if self.n == 1 or not math.isfinite(self.value) or (self.ratio and self.value <= 0):
            return replace(self, low=math.nan, high=math.nan)
        from scipy.stats import t

        further = float(t.ppf(1 - 0.025 / cells, self.n - 1) / t.ppf(0.975, self.n - 1))
        if self.ratio:
            ends = (self.value * (end / self.value) ** further for end in (self.low, self.high))
        else:
            ends = (self.value + (end - self.value) * further for end in (self.low, self.high))
        return replace(self, **dict(zip(("low", "high"), ends, strict=True)))

    def __str__(self) -> str:
        """Print no more digits than the interval allows."""
        if self.ratio:
            return str(Ratio(self.value, self.low, self.high))
        if self.low == self.high and math.isfinite(self.value):
            return f"{self.value:,.4g}" if abs(self.value) < 1000 else f"{self.value:,.0f}"
        return with_interval(self.value, self.low, self.high)


class Region(Strict):
    """What a claim says about a number: between two bounds that are left out, or one value.

    Attributes:
        above, below: Bounds; None is no bound.
        equals: The one value.
    """

    above: float | None = None
    below: float | None = None
    equals: float | None = None

    @model_validator(mode="after")
    def _says_something(self) -> Region:
        bounds = (self.above, self.below)
        if (self.equals is None) == (bounds == (None, None)):
            raise ValueError("give equals, or above, below or both")
        if None not in bounds and self.above >= self.below:  # type: ignore[operator]
            raise ValueError("above is not less than below, so nothing lies between them")
        return self

    def judge(self, estimate: Estimate) -> Judgement:
        """Say whether an estimate's interval lies in the region, outside, or across its edge.

        One seed or round cannot say how far they vary, and decides nothing.
        """
        low, high = estimate.low, estimate.high
        if math.isnan(low) or math.isnan(high) or estimate.n == 1:
            return "undecided"
        if self.equals is not None:
            if low == self.equals == high:
                return "reproduced"
            return "undecided" if low <= self.equals <= high else "not reproduced"
        above = -math.inf if self.above is None else self.above
        below = math.inf if self.below is None else self.below
        # An interval that ends at infinity is inside a region without a bound there.
        if low > above and (high < below or below == math.inf):
            return "reproduced"
        return "not reproduced" if high <= above or low >= below else "undecided"

    def __str__(self) -> str:
        """Say it in words."""
        if self.equals is not None:
            return f"equal to {self.equals:,g}"
        bounds = (("above", self.above), ("below", self.below))
        return " and ".join(f"{word} {bound:g}" for word, bound in bounds if bound is not None)
