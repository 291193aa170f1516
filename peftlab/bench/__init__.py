"""peftlab against the libraries next door: same work, same run, interleaved, as ratios.

Each benchmark is a function that returns rows; ``peftlab bench NAME`` prints them. Nothing here is
needed to train, and nothing here is imported by the rest of the package.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import import_module

from peftlab.errors import unknown
from peftlab.results.records.benches import BenchRecord, Row, bench_id
from peftlab.results.records.run import Git
from peftlab.timing import machine

BENCHES = {"step": "peftlab.bench.step", "throughput": "peftlab.bench.throughput"}

__all__ = ["BENCHES", "Row", "get", "recorded"]


def get(name: str) -> Callable[[], list[Row]]:
    """Return a benchmark by name; calling it takes minutes and wants a quiet machine.

    Raises:
        UnknownNameError: There is no such benchmark.
    """
    if name not in BENCHES:
        raise unknown("benchmark", name, BENCHES)
    run: Callable[[], list[Row]] = import_module(BENCHES[name]).run
    return run


def recorded(name: str, rows: Sequence[Row]) -> BenchRecord:
    """Return what a benchmark found, with the machine that it ran on just now."""
    found = machine.describe()
    processor = str(found["gpu"]["name"] if found["gpu"] else found["cpu"])
    threads = None if found["gpu"] else int(found["torch_threads"])
    return BenchRecord(
        id=bench_id(name, processor, threads),
        experiment=name,
        processor=processor,
        threads=threads,
        rows=list(rows),
        machine=found,
        versions=machine.versions(),
        git=Git(**machine.git()),
    )
