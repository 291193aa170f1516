"""How long pieces of code take, compared fairly: interleaved, in random order, all samples kept.

Each round runs every candidate once, in a new order, so that a machine that slows down slows down
all of them; ratios are paired by round. What differs by less than a candidate differs from itself
is a tie. This file knows nothing of models: it times any callable.
"""

from __future__ import annotations

import gc
import math
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from time import perf_counter
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from peftlab.errors import SettingsError

if TYPE_CHECKING:
    from pandas import DataFrame

NOISY = 0.10


class NoisyTiming(UserWarning):
    """The spread of a timing is so large that its median means little."""


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

    def __str__(self) -> str:
        """Print no more digits than the interval allows."""
        ratio, low, high = (significant(x, self.high - self.low) for x in self)
        return f"{ratio} [{low}, {high}]"


@dataclass(frozen=True)
class Comparison:
    """All samples of one comparison.

    Attributes:
        seconds: Candidate → seconds a call, one value a round; index r is the same round for all.
        warmup: Candidate → seconds of each call before the rounds, not part of any statistic.
        baseline: What ratios are taken against.
        confidence: Of the intervals.
        resamples: Of the bootstrap.
        seed: Of the bootstrap.
    """

    seconds: dict[str, list[float]]
    warmup: dict[str, list[float]] = field(repr=False)
    baseline: str
    confidence: float = 0.95
    resamples: int = 2000
    seed: int = 0

    def median(self, name: str) -> float:
        """Return the median seconds a call."""
        return float(np.median(self.seconds[name]))

    def iqr(self, name: str) -> float:
        """Return the distance between the quartiles, in seconds."""
        low, high = np.percentile(self.seconds[name], [25, 75])
        return float(high - low)

    def ratio(self, name: str, against: str | None = None) -> Ratio:
        """Return time of ``name`` over time of ``against``; above 1 is slower.

        ``median(name) / median(against)`` with the percentile interval of a bootstrap that
        resamples whole rounds, so that what the machine does to both cancels.

        Args:
            name: A candidate.
            against: Another one; by default the baseline.
        """
        other = against or self.baseline
        pair = np.array([self.seconds[name], self.seconds[other]])
        rounds = pair.shape[1]
        draws = np.random.default_rng(self.seed).integers(0, rounds, (self.resamples, rounds))
        medians = np.median(pair[:, draws], axis=2)
        tail = 50 * (1 - self.confidence)
        low, high = np.percentile(medians[0] / medians[1], [tail, 100 - tail])
        return Ratio(self.median(name) / self.median(other), float(low), float(high))

    def noisy(self) -> list[str]:
        """Return the candidates whose IQR is above 10 % of the median."""
        return [n for n in self.seconds if self.iqr(n) > NOISY * self.median(n)]

    def table(self) -> DataFrame:
        """Return one row a candidate: median and IQR in ms, rounds, ratio and interval."""
        import pandas as pd

        rows = []
        for name, samples in self.seconds.items():
            ratio = self.ratio(name)
            rows.append(
                {
                    "candidate": name,
                    "median_ms": 1000 * self.median(name),
                    "iqr_ms": 1000 * self.iqr(name),
                    "rounds": len(samples),
                    "ratio": ratio.ratio,
                    "low": ratio.low,
                    "high": ratio.high,
                    "tie": ratio.tie,
                }
            )
        return pd.DataFrame(rows).set_index("candidate")

    def __str__(self) -> str:
        """Print the table with the digits that the noise allows."""
        width = max(len(name) for name in self.seconds)
        lines = [f"time against {self.baseline} (median of {len(self.seconds[self.baseline])})"]
        for name in self.seconds:
            median = significant(1000 * self.median(name), 1000 * self.iqr(name))
            mark = " noisy" if name in self.noisy() else ""
            lines.append(f"{name:<{width}}  {median} ms  ×{self.ratio(name)}{mark}")
        return "\n".join(lines)


def compare(
    candidates: Mapping[str, Callable[[], object]],
    baseline: str | None = None,
    *,
    warmup: int = 3,
    min_rounds: int = 10,
    min_seconds: float = 1.0,
    max_rounds: int = 1000,
    synchronize: Callable[[], object] | None = None,
    seed: int = 0,
) -> Comparison:
    """Time callables against each other.

    Args:
        candidates: Name → what to call, without arguments.
        baseline: The name that ratios are taken against; by default the first.
        warmup: Calls of each before the rounds; kept apart.
        min_rounds: At least so many rounds.
        min_seconds: And at least so many seconds of each candidate.
        max_rounds: But never more rounds than this.
        synchronize: Called before the clock is read; by default ``torch.cuda.synchronize`` where a
            GPU is in use, else nothing.
        seed: Of the order in each round and of the bootstrap.

    Returns:
        All samples, with medians, intervals and a table.

    Raises:
        SettingsError: There is nothing to compare, the baseline is not among the candidates, or
            a number cannot work.

    Warns:
        NoisyTiming: The IQR of a candidate is above 10 % of its median.
    """
    names = list(candidates)
    baseline = baseline if baseline is not None else next(iter(names), None)
    if baseline not in names:
        raise SettingsError(
            f"The baseline {baseline!r} is not among the candidates {names}: name one of them."
        )
    if not (warmup >= 0 and 2 <= min_rounds <= max_rounds and min_seconds >= 0):
        raise SettingsError(
            "A comparison needs warmup >= 0, 2 <= min_rounds <= max_rounds and min_seconds >= 0; "
            f"got {warmup}, {min_rounds}, {max_rounds}, {min_seconds}."
        )
    wait = synchronize or _default_synchronize()

    def once(name: str) -> float:
        wait()
        start = perf_counter()
        candidates[name]()
        wait()
        return perf_counter() - start

    warm = {name: [once(name) for _ in range(warmup)] for name in names}
    samples: dict[str, list[float]] = {name: [] for name in names}
    order = np.random.default_rng(seed)
    collecting = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        for done in range(max_rounds):
            if done >= min_rounds and min(map(math.fsum, samples.values())) >= min_seconds:
                break
            for index in order.permutation(len(names)):
                samples[names[index]].append(once(names[index]))
    finally:
        if collecting:
            gc.enable()
    result = Comparison(samples, warm, baseline, seed=seed)
    for name in result.noisy():
        share = result.iqr(name) / result.median(name)
        warnings.warn(
            f"The timing of {name!r} is noisy: its IQR is {share:.0%} of the median; close other "
            "programs, or time longer windows.",
            NoisyTiming,
            stacklevel=2,
        )
    return result


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
    if spread <= 0 or not math.isfinite(spread):
        return f"{value:.4g}"
    places = digits - 1 - math.floor(math.log10(spread))
    rounded = round(value, places)
    return f"{rounded:.{max(places, 0)}f}"


def _default_synchronize() -> Callable[[], object]:
    """Return torch's barrier where this process uses a GPU, else what does nothing."""
    import torch

    if torch.cuda.is_available() and torch.cuda.is_initialized():
        return torch.cuda.synchronize
    return lambda: None
