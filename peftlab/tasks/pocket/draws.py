"""Random choices that are the same on every machine and in every release of Python.

Not for training: only the pocket tasks draw from here. ``random.choice`` and ``hash`` may change
between releases, so a stream of SHA-256 digests is used instead.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from typing import TypeVar

T = TypeVar("T")


class Draw:
    """A stream of choices that is fixed by its seed.

    Args:
        seed: Any text; equal texts give equal streams.
    """

    def __init__(self, seed: str) -> None:
        self._numbers = _numbers(seed)

    def below(self, end: int) -> int:
        """Return a whole number in ``[0, end)``; the bias of 64 bits modulo ``end`` is < 1e-15."""
        return next(self._numbers) % end

    def chance(self, percent: int) -> bool:
        """Return True in so many of a hundred draws."""
        return self.below(100) < percent

    def one(self, items: Sequence[T]) -> T:
        """Return one of the items."""
        return items[self.below(len(items))]

    def some(self, items: Sequence[T], count: int) -> list[T]:
        """Return ``count`` different items in random order (Fisher and Yates)."""
        pool = list(items)
        return [pool.pop(self.below(len(pool))) for _ in range(count)]


def _numbers(seed: str) -> Iterator[int]:
    counter = 0
    while True:
        digest = hashlib.sha256(f"{seed}/{counter}".encode()).digest()
        yield from (int.from_bytes(digest[i : i + 8], "big") for i in range(0, 32, 8))
        counter += 1
