"""Measuring the cells of a cost experiment, one after the other, each recorded as it is done."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from peftlab.costs.measure import measure
from peftlab.costs.plan import CostExperiment
from peftlab.errors import OutOfMemoryError, SettingsError, TimingError
from peftlab.results.comparison.cost_table import text
from peftlab.results.records.costs import CostRecord, CostSettings
from peftlab.results.records.store import Store
from peftlab.timing import machine


@dataclass
class Sweep:
    """A cost experiment on its way to being recorded.

    Attributes:
        experiment: What is to be measured.
        store: Where records go.
        report: Is given one line a measured cell.
        retry: Whether cells are measured again in which a method has an error.
    """

    experiment: CostExperiment
    store: Store[CostRecord]
    report: Callable[[str], object] = print
    retry: bool = False

    def plans(self) -> list[CostSettings]:
        """Return the settings of all cells on this machine."""
        device = self.experiment.device or ("cuda" if torch.cuda.is_available() else "cpu")
        found = machine.describe()
        gpu = found["gpu"]
        processor = "" if device == "meta" else str(gpu["name"] if gpu else found["cpu"])
        threads = torch.get_num_threads() if device == "cpu" else None
        return list(self.experiment.plans(device, processor, threads))

    def pending(self) -> list[CostSettings]:
        """Return the cells that are not recorded yet, or are to be measured again."""
        return [plan for plan in self.plans() if not self._done(plan)]

    def _done(self, plan: CostSettings) -> bool:
        name = self.experiment.name
        if not self.store.has(name, plan.id):
            return False
        return not (self.retry and self.store.load(name, plan.id).errors)

    def work(self, limit: int | None = None, minutes: float | None = None) -> int:
        """Measure what is not recorded.

        Args:
            limit: Stop after so many cells.
            minutes: Begin no cell after so many minutes.

        Returns:
            How many cells were measured.

        Raises:
            SettingsError: Another process measures into this folder: it would disturb.
        """
        from filelock import FileLock, Timeout

        end = math.inf if minutes is None else time.monotonic() + 60 * minutes
        self.store.folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self.store.folder / ".measuring.lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise SettingsError(
                f"Another process measures into {self.store.folder}: wait until it is done, for "
                "two measurements on one machine disturb each other."
            ) from None
        try:
            machine.git()  # of the code that runs, which may be edited meanwhile
            pending = self.pending()[:limit]
            done = 0
            for number, settings in enumerate(pending, 1):
                if time.monotonic() > end:
                    break
                head = f"[{number}/{len(pending)}] {describe(settings)}"
                try:
                    record = measure(settings, self.experiment.rounds, self.experiment.name)
                except (OutOfMemoryError, TimingError) as error:  # another cell may go
                    self.report(f"{head}\n{error}")
                    continue
                self.store.save(record, overwrite=self.retry)
                done += 1
                self.report(f"{head}\n{text(record)}")
            return done
        finally:
            lock.release()


def describe(settings: CostSettings) -> str:
    """Return what a cell is in a few words."""
    return (
        f"{settings.encoder}, {settings.mode}, {settings.batch} x {settings.length} tokens, "
        f"{settings.precision}, {settings.processor or settings.device}"
    )
