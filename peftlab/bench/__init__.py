"""peftlab against the libraries next door: same work, same run, interleaved, as ratios.

Each benchmark is a function that returns rows; ``peftlab bench NAME`` prints them. Nothing here is
needed to train, and nothing here is imported by the rest of the package.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module

from peftlab.bench.row import Row
from peftlab.errors import unknown

BENCHES = {"step": "peftlab.bench.step", "throughput": "peftlab.bench.throughput"}

__all__ = ["BENCHES", "Row", "get"]


def get(name: str) -> Callable[[], list[Row]]:
    """Return a benchmark by name; calling it takes minutes and wants a quiet machine.

    Raises:
        UnknownNameError: There is no such benchmark.
    """
    if name not in BENCHES:
        raise unknown("benchmark", name, BENCHES)
    run: Callable[[], list[Row]] = import_module(BENCHES[name]).run
    return run
