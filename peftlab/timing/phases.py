"""A clock that says how long each phase of a run took; the phases add up to the total.

Time outside every named phase is the phase ``other``, so nothing is hidden. A phase inside another
one takes its time away from it. This clock is for phases of seconds; to compare short pieces of
code use :mod:`peftlab.timing.compare`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import perf_counter

OTHER = "other"
TOTAL = "total"


class Phases:
    """A running clock with named phases.

    ``total = Σ phases``: every moment belongs to exactly one phase, the innermost open one.

    Args:
        synchronize: Called at both edges of a phase, so that work queued on a GPU is counted where
            it was ordered, for example ``torch.cuda.synchronize``.
        clock: Monotonic, in seconds.

    Example:
        >>> clock = Phases()
        >>> with clock("load"):
        ...     pass
        >>> sorted(clock.seconds())
        ['load', 'other', 'total']
    """

    def __init__(
        self,
        *,
        synchronize: Callable[[], object] | None = None,
        clock: Callable[[], float] = perf_counter,
    ) -> None:
        self._spent: dict[str, float] = {}
        self._synchronize = synchronize
        self._clock = clock
        self._open = [OTHER]
        self._start = self._mark = clock()

    @contextmanager
    def __call__(self, phase: str) -> Iterator[None]:
        """Count the time inside the ``with`` block as this phase; it may be entered again."""
        if phase == TOTAL:
            raise ValueError("'total' is the sum of the phases and cannot be one")
        self._charge()
        self._open.append(phase)
        try:
            yield
        finally:
            self._charge()
            self._open.pop()

    def seconds(self) -> dict[str, float]:
        """Return seconds by phase up to now, and their ``total``."""
        self._charge()
        return self._spent | {TOTAL: self._mark - self._start}

    def _charge(self) -> None:
        """Give the time since the last edge to the innermost open phase."""
        if self._synchronize is not None:
            self._synchronize()
        now = self._clock()
        phase = self._open[-1]
        self._spent[phase] = self._spent.get(phase, 0.0) + now - self._mark
        self._mark = now
