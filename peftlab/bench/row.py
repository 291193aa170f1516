"""One line of a benchmark: a ratio with its interval."""

from __future__ import annotations

from typing import NamedTuple


class Row(NamedTuple):
    """How peftlab compares with a rival in the same run.

    Attributes:
        name: What was measured.
        against: The rival.
        ratio: Ours over the rival's, in ``unit``.
        low: Lower end of the 95 % interval.
        high: Upper end.
        unit: What is compared, and whether more or less of it is better.
    """

    name: str
    against: str
    ratio: float
    low: float
    high: float
    unit: str
