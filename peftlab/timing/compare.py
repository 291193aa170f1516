"""How long pieces of code take, compared fairly: interleaved, in random order, all samples kept.

Each round times one window of every candidate, in a new order, so that a machine that slows down
slows down all of them; ratios are paired by round. What differs by less than a candidate differs
from itself is a tie. This file knows nothing of models: it times any callable.
"""

from __future__ import annotations

import gc
import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import TYPE_CHECKING, Any

import numpy as np

from peftlab.errors import RecordError, SettingsError, unknown
from peftlab.timing import launches
from peftlab.timing.clock import Call, Clock
from peftlab.timing.clock import clock as clock_of
from peftlab.timing.intervals import CONFIDENCE, Ratio, median_interval, paired_ratio, with_interval

if TYPE_CHECKING:
    from pandas import DataFrame

NOISY = 0.10
# Calls a window are a fifth more than the fastest warm-up asks for: later ones may be faster.
SPARE = 1.2
RESOLUTION = 1e-7


class NoisyTiming(UserWarning):
    """The spread of a timing is so large that its median means little."""


@dataclass(frozen=True)
class Comparison:
    """All samples of one comparison; plain data that can be kept and read again.

    Attributes:
        seconds: Candidate → seconds a call, one value a round; index r is the same round for all.
        warmup: Candidate → seconds a call of each window before the rounds, in no statistic; the
            first is the very first call.
        baseline: What ratios are taken against.
        calls: Candidate → calls in each window of the rounds.
        busy: Candidate → share of a call during which a GPU works; None: it uses none.
        confidence: Of the intervals.

    Raises:
        SettingsError: The baseline is no candidate, the rounds are not the same for all, a time is
            not positive, or the confidence is no probability.
    """

    seconds: Mapping[str, Sequence[float]]
    warmup: Mapping[str, Sequence[float]] = field(repr=False)
    baseline: str
    calls: Mapping[str, int] = field(default_factory=dict)
    busy: Mapping[str, float | None] = field(default_factory=dict)
    confidence: float = CONFIDENCE

    def __post_init__(self) -> None:
        _check_baseline(self.baseline, list(self.seconds))
        rounds = {name: len(samples) for name, samples in self.seconds.items()}
        if len(set(rounds.values())) > 1 or not rounds[self.baseline]:
            raise SettingsError(
                f"The candidates were timed in different or no rounds ({rounds}): ratios are "
                "paired by round, so time all of them in each."
            )
        for name, samples in self.seconds.items():
            if not all(0 < s < math.inf for s in samples):
                raise SettingsError(
                    f"A time of {name!r} is not positive: check the clock that measured it."
                )
        if not 0 < self.confidence < 1:
            raise SettingsError(
                f"The confidence {self.confidence} is no probability: give one such as 0.95."
            )

    def median(self, name: str) -> float:
        """Return the median seconds a call."""
        return float(np.median(self._samples(name)))

    def interval(self, name: str) -> tuple[float, float]:
        """Return the confidence interval of the median, in seconds."""
        low, high = median_interval(np.log(self._samples(name)), self.confidence)
        return math.exp(low), math.exp(high)

    def iqr(self, name: str) -> float:
        """Return the distance between the quartiles, in seconds."""
        low, high = np.percentile(self._samples(name), [25, 75])
        return float(high - low)

    def ratio(self, name: str, against: str | None = None) -> Ratio:
        """Return time of ``name`` over time of ``against``; above 1 is slower.

        The median over rounds of the ratio within a round: see
        :func:`peftlab.timing.intervals.paired_ratio`.

        Args:
            name: A candidate.
            against: Another one; by default the baseline.

        Raises:
            UnknownNameError: There is no such candidate.
        """
        other = self.baseline if against is None else against
        return paired_ratio(self._samples(name), self._samples(other), self.confidence)

    def noisy(self) -> list[str]:
        """Return the candidates whose IQR is above 10 % of the median."""
        return [n for n in self.seconds if self.iqr(n) > NOISY * self.median(n)]

    def table(self) -> DataFrame:
        """Return one row a candidate: median with interval and IQR in ms, rounds, calls, ratio."""
        import pandas as pd

        rows = []
        for name, samples in self.seconds.items():
            ratio = self.ratio(name)
            low, high = self.interval(name)
            rows.append(
                {
                    "candidate": name,
                    "median_ms": 1000 * self.median(name),
                    "median_low_ms": 1000 * low,
                    "median_high_ms": 1000 * high,
                    "iqr_ms": 1000 * self.iqr(name),
                    "rounds": len(samples),
                    "calls": self.calls.get(name),
                    "ratio": ratio.ratio,
                    "low": ratio.low,
                    "high": ratio.high,
                    "tie": ratio.tie,
                    "busy": self.busy.get(name),
                }
            )
        return pd.DataFrame(rows).set_index("candidate")

    def __str__(self) -> str:
        """Print the table with the digits that the noise allows."""
        width = max(len(name) for name in self.seconds)
        rounds = len(self.seconds[self.baseline])
        lines = [
            f"time a call, and its ratio to {self.baseline}: medians of {rounds} rounds "
            f"[{100 * self.confidence:g} % interval]"
        ]
        return "\n".join(lines + [f"{name:<{width}}  {self._line(name)}" for name in self.seconds])

    def _samples(self, name: str) -> Sequence[float]:
        """Return the seconds of a candidate, or raise if there is none of that name."""
        if name not in self.seconds:
            raise unknown("candidate", name, self.seconds)
        return self.seconds[name]

    def _line(self, name: str) -> str:
        """Return what is printed about a candidate."""
        median = with_interval(*(1000 * s for s in (self.median(name), *self.interval(name))))
        ratio = self.ratio(name)
        parts = [f"{median} ms", "baseline" if name == self.baseline else f"×{ratio}"]
        if ratio.tie and name != self.baseline:
            parts.append("tie")
        if name in self.noisy():
            parts.append(f"noisy: IQR {100 * self.iqr(name) / self.median(name):.0f} %")
        if bound := launches.describe(self.busy.get(name)):
            parts.append(bound)
        return "  ".join(parts)

    def to_dict(self) -> dict[str, Any]:
        """Return everything as dicts, lists and numbers, as JSON has them."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Comparison:
        """Make a comparison from what :meth:`to_dict` returned.

        Raises:
            RecordError: Keys are missing, or not known.
            SettingsError: As of the class.
        """
        known = {f.name for f in fields(cls)}
        if wrong := known ^ set(data):
            raise RecordError(
                f"This is no comparison ({', '.join(sorted(wrong))} missing or not known): give "
                "what to_dict() returned."
            )
        return cls(**data)


def cost(
    candidates: Mapping[str, Call],
    baseline: str | None = None,
    *,
    clock: Clock | None = None,
    warmup: int = 3,
    min_rounds: int = 10,
    min_seconds: float = 1.0,
    max_rounds: int = 1000,
    window_seconds: float | None = None,
    seed: int = 0,
    busy: bool = True,
) -> Comparison:
    """Time callables against each other.

    A sample is a *window*: so many calls of one candidate that it lasts long enough for the clock.
    The number of calls is found in the warm-up, for each candidate by itself. Garbage collection is
    off during the rounds.

    Args:
        candidates: Name → what to call, without arguments.
        baseline: The name that ratios are taken against; by default the first.
        clock: By default that of the GPU if this process uses one, else of the CPU; see
            :func:`peftlab.timing.clock.clock`.
        warmup: At least so many windows of each before the rounds; kept apart.
        min_rounds: At least so many rounds.
        min_seconds: And at least so many seconds of each candidate.
        max_rounds: Never more rounds than this; windows are as long as ``min_seconds`` then asks,
            if ``window_seconds`` is not given.
        window_seconds: A window lasts at least about this, with 0 one call; by default 1 ms on a
            CPU, so that a longer call is a window by itself, and 20 ms on a GPU.
        seed: Of the order in each round.
        busy: Whether a GPU is asked, after the rounds, for the share of a call during which it
            works: one more call of each candidate, under a profiler.

    Returns:
        All samples, with medians, intervals and a table.

    Raises:
        SettingsError: There is nothing to compare, the baseline is not among the candidates, one
            cannot be called, or a number cannot work.

    Warns:
        NoisyTiming: The IQR of a candidate is above 10 % of its median.
    """
    names = list(candidates)
    baseline = baseline if baseline is not None else next(iter(names), "")
    _check_baseline(baseline, names)
    for name, call in candidates.items():
        if not callable(call):
            raise SettingsError(
                f"Candidate {name!r} is a {type(call).__name__}, which cannot be called: give a "
                "function without arguments, such as lambda: model(batch)."
            )
    clock = clock or clock_of()
    shortest = clock.shortest if window_seconds is None else window_seconds
    if not (warmup >= 1 and 2 <= min_rounds <= max_rounds and min_seconds >= 0 and shortest >= 0):
        raise SettingsError(
            "A comparison needs warmup >= 1, 2 <= min_rounds <= max_rounds, min_seconds >= 0 and "
            f"window_seconds >= 0; got {warmup}, {min_rounds}, {max_rounds}, {min_seconds}, "
            f"{shortest}."
        )
    if window_seconds is None:
        shortest = max(shortest, min_seconds / max_rounds)

    warm: dict[str, list[float]] = {}
    calls: dict[str, int] = {}
    for name, call in candidates.items():
        warm[name], calls[name] = _warm_up(clock, call, warmup, shortest)
    samples: dict[str, list[float]] = {name: [] for name in names}
    order = np.random.default_rng(seed)
    collecting = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        while len(samples[baseline]) < max_rounds:
            spent = min(calls[name] * math.fsum(samples[name]) for name in names)
            if len(samples[baseline]) >= min_rounds and spent >= min_seconds:
                break
            for index in order.permutation(len(names)):
                name = names[index]
                samples[name].append(clock.window(candidates[name], calls[name]))
    finally:
        if collecting:
            gc.enable()
    # After the rounds, for it needs the seconds of a call, and a profiler slows what it watches.
    asked = names if busy else []
    shares = {n: clock.busy(candidates[n], float(np.median(samples[n]))) for n in asked}
    result = Comparison(samples, warm, baseline, calls, shares)
    for name in result.noisy():
        share = 100 * result.iqr(name) / result.median(name)
        warnings.warn(
            f"The timing of {name!r} is noisy: its IQR is {share:.0f} % of the median; close other "
            "programs, or time longer windows.",
            NoisyTiming,
            stacklevel=2,
        )
    return result


def _warm_up(clock: Clock, call: Call, windows: int, shortest: float) -> tuple[list[float], int]:
    """Return seconds a call of each warm-up window, and how many calls make a window long enough.

    The first window is the first call alone, which may compile or allocate and says nothing about
    the later ones. Of those the fastest counts: a disturbance makes none faster.
    """
    samples, calls = [clock.window(call, 1)], 1
    while True:
        fastest = max(min(samples[1:] or samples), RESOLUTION)
        if calls * fastest < shortest:
            calls = math.ceil(SPARE * shortest / fastest)
        elif len(samples) >= windows:
            return samples, calls
        samples.append(clock.window(call, calls))


def _check_baseline(baseline: str, names: list[str]) -> None:
    """Raise if the baseline is no candidate."""
    if baseline not in names:
        raise SettingsError(
            f"The baseline {baseline!r} is not among the candidates {names}: name one of them."
        )
