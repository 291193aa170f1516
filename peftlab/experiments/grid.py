"""Doing the runs of an experiment: each once, recorded, by any number of processes.

A run is claimed with a file lock, which the operating system releases when a process dies, however
it dies. The next process continues from the training loop's checkpoint. What a run is, is decided
in :mod:`peftlab.experiments.plan`; how it is trained, in :mod:`peftlab.training`.
"""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from statistics import fmean

from peftlab.checkpoints.format import FILE
from peftlab.errors import OutOfMemoryError, TrainingError
from peftlab.experiments.earlier import MODELS, SELECTED, used
from peftlab.experiments.execute import LAYERS, Executor, Kept, recorded_selection
from peftlab.experiments.plan import Experiment
from peftlab.results.records.run import Git, Record, RunSettings, now
from peftlab.results.records.store import Store
from peftlab.timing import machine

#: Does a run, with a folder for its checkpoints; says where models are kept, and whether to keep
#: this one.
Execute = Callable[[RunSettings, Path, Kept, bool], Record]
WORK = ".peftlab"
POLL_SECONDS = 1.0


@dataclass
class Grid:
    """An experiment on its way to being recorded.

    Attributes:
        experiment: What is to be run.
        store: Where records go; checkpoints, locks and the models of earlier runs lie in
            ``.peftlab`` beside them.
        execute: Does one run.
        report: Is given one line a finished run.
        retry: Run again what failed before this grid was started.
        records: What is recorded, by id.
    """

    experiment: Experiment
    store: Store
    execute: Execute | None = None
    report: Callable[[str], object] = print
    retry: bool = False
    records: dict[str, Record] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        self.started = now()
        self._execute = self.execute or Executor()
        self._earlier = self.experiment.every_earlier_run()
        self._only_earlier = self._earlier.keys() - self.experiment.every_run_id()
        self.refresh()

    def runs(self) -> list[RunSettings]:
        """Return every run that is decided by now, done or not."""
        return [run for cell in self.experiment.cells() for run in cell.runs(self.records)]

    def pending(self) -> list[RunSettings]:
        """Return the runs that can be done now: earlier ones in place of those that wait."""
        open_runs = [run for run in self.runs() if run.id not in self.records]
        return list({each.id: each for run in open_runs for each in self._next(run)}.values())

    def kept(self, run_id: str) -> Path:
        """Return where the model of an earlier run is or would be."""
        return self._folder("models") / run_id

    def left(self) -> int:
        """Return how many runs are still to be done, undecided ones included."""
        left, waiting = 0, self.awaited()
        for cell in self.experiment.cells():
            open_runs = [r for r in cell.runs(self.records) if r.id not in self.records]
            # Where every rate failed, nothing is open and the other seeds are never decided.
            undecided = cell.size() - len(cell.runs(self.records)) if open_runs else 0
            left += len(open_runs) + undecided
            for seed in cell.other_seeds() if undecided else ():
                run = cell.run(cell.tuning_runs()[0].learning_rate, seed)
                waiting |= self._waits(run) & self._only_earlier  # the same ones at any rate
        return left + len(waiting)

    def earlier(self) -> list[RunSettings]:
        """Return the earlier runs that are no runs of the grid too, in the order of their doing."""
        return [run for run in self._earlier.values() if run.id in self._only_earlier]

    def awaited(self) -> set[str]:
        """Return the ids of the earlier runs that open runs wait for, but for runs of the grid."""
        runs = self.runs()
        found = {i for run in runs if run.id not in self.records for i in self._waits(run)}
        return found - {run.id for run in runs}

    def _waits(self, run: RunSettings) -> set[str]:
        """Return the ids of all runs that must be done before a run."""
        missing = self._missing(run)
        return {*missing}.union(*(self._waits(self._earlier[i]) for i in missing))

    def _next(self, run: RunSettings) -> list[RunSettings]:
        """Return what to do for a run: those it builds on, or itself; nothing if one failed."""
        if run.id in self.records and self.records[run.id].status != "ok":
            return []
        missing = [self._earlier[i] for i in self._missing(run)]
        first = [self._next(each) for each in missing]
        return [*chain.from_iterable(first)] or [run] if all(first) else []

    def _missing(self, run: RunSettings) -> list[str]:
        """Return the ids of runs that a run builds on and whose model, or layers, are not there."""
        models = {*used(run, MODELS)}
        return [i for i in used(run) if not (self._is_kept if i in models else self._selected)(i)]

    def _selected(self, run_id: str) -> bool:
        return run_id in self.records and self.records[run_id].status == "ok"

    def _is_kept(self, run_id: str) -> bool:
        recorded = self.store.has(self.experiment.name, run_id)
        return recorded and (self.kept(run_id) / FILE).is_file()

    def work(self, limit: int | None = None, minutes: float | None = None) -> int:
        """Do runs until all are recorded, beside other processes that do the same.

        Where all runs that are left are being done by others, it waits: what they find may decide
        more runs, and if one of them dies its run is taken over.

        Args:
            limit: Stop after that many runs.
            minutes: Begin no run after so many minutes.

        Returns:
            How many runs this process did.
        """
        done = 0
        machine.git()  # asked once a process: of the code that runs, which may be edited meanwhile
        end = math.inf if minutes is None else time.monotonic() + 60 * minutes
        while (limit is None or done < limit) and time.monotonic() < end:
            self.refresh()
            pending = self.pending()
            if not pending:
                self._tidy()
                break
            for run in pending:
                with self._claimed(run) as mine:
                    if mine:
                        self._do(run)
                        done += 1
                        break
            else:
                time.sleep(POLL_SECONDS)
        return done

    def refresh(self) -> None:
        """Read the records that are new."""
        before = -1
        while before != len(self.records):  # a first stage that is complete decides more runs
            before = len(self.records)
            for run in [*self.runs(), *self._earlier.values()]:
                if run.id in self.records or not self.store.has(self.experiment.name, run.id):
                    continue
                record = self.store.load(self.experiment.name, run.id)
                stale = record.status != "ok" and record.created < self.started
                if not (stale and self.retry):
                    self.records[record.id] = record

    def _do(self, run: RunSettings) -> None:
        """Do one run and write its record, whatever becomes of it."""
        folder = self._folder("runs") / run.id
        for earlier in used(run, [SELECTED]):  # of the record: trained again it may select others
            recorded_selection(self.records[earlier]).save(self.kept(earlier) / LAYERS)
        try:
            done = self._execute(run, folder, self.kept, run.id in self._earlier)
            found = done.settings.encoder_fingerprint
            settings = run.model_copy(update={"encoder_fingerprint": found})
            record = done.replaced(
                settings=settings,
                experiment=self.experiment.name,
                earlier=run.id in self._only_earlier,
            )
        except TrainingError as error:
            record = Record(
                id=run.id,
                experiment=self.experiment.name,
                settings=run,
                status="oom" if isinstance(error, OutOfMemoryError) else "failed",
                error=str(error),
                earlier=run.id in self._only_earlier,
                machine=machine.describe(),
                versions=machine.versions(),
                git=Git(**machine.git()),
            )
        # an earlier run is done again where its record came without its model, as in a new clone
        if run.id not in self._earlier or run.id not in self.records:
            self.store.save(record, overwrite=self.retry)
        shutil.rmtree(folder, ignore_errors=True)
        self.records[record.id] = record
        self.report(self._line(record))

    @contextmanager
    def _claimed(self, run: RunSettings) -> Iterator[bool]:
        """Hold a run's lock and say whether it is ours to do; another process may have it."""
        with self._locked(run.id) as mine:
            if not mine:
                yield False
                return
            # It may have been finished between our look at the records and the lock.
            self.refresh()
            done = self._is_kept(run.id) if run.id in self._earlier else run.id in self.records
            yield not done

    @contextmanager
    def _locked(self, run_id: str) -> Iterator[bool]:
        """Hold a run's lock, or say that another process has it."""
        from filelock import FileLock, Timeout

        lock = FileLock(self._folder("locks") / f"{run_id}.lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            yield False
            return
        try:
            yield True
        finally:
            lock.release()

    def _tidy(self) -> None:
        """Remove what processes that died have left of recorded runs: checkpoints, half records."""
        for run_id in self.records:
            with self._locked(run_id) as mine:  # else another process does it again just now
                if not mine:
                    continue
                shutil.rmtree(self._folder("runs") / run_id, ignore_errors=True)
                record = self.store.path(self.experiment.name, run_id)
                for half in record.parent.glob(f".{record.name}.*.tmp"):
                    half.unlink(missing_ok=True)

    def _folder(self, name: str) -> Path:
        folder = self.store.folder / WORK / name
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def _line(self, record: Record) -> str:
        """Say in a line how a run ended, and what is left."""
        self.refresh()  # others may have finished some too
        left = self.left()
        total = left + len(self.records)
        settings = record.settings
        rate = "" if settings.learning_rate is None else f" rate {settings.learning_rate:g}"
        what = f"{settings.task} {settings.method_label}{rate} seed {settings.seed}"
        if record.status == "ok":
            scores = ", ".join(
                f"{split} {record.score(split):.3f}"
                for split in ("dev", "test")
                if split in record.metrics
            )
            end = f"{record.main_metric} {scores}, {record.seconds['total']:.0f} s"
        else:
            end = f"{record.status}: {record.error}"
        return f"[{total - left}/{total}] {what}: {end}{self._outlook(left)}"

    def _outlook(self, left: int) -> str:
        """Say how long the rest would take one process, judged by the runs that trained."""
        taken = [
            r.seconds["total"]
            for r in self.records.values()
            if r.seconds and r.settings.learning_rate is not None
        ]
        if not left or not taken:
            return ""
        seconds = left * fmean(taken)
        time = f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"
        return f" ({left} left, about {time} of work)"
