"""Checks of runs that build on earlier ones: tasks that are added, layers that were selected.

How a number is made from records is in :mod:`peftlab.claims.chains`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Literal

from pydantic import PositiveInt

from peftlab.claims import chains, measures
from peftlab.claims.checks import Cell, OfExperiment
from peftlab.claims.evidence import Evidence, Groups, Place
from peftlab.claims.region import Estimate
from peftlab.claims.spent import Unit
from peftlab.claims.trained import Trained, refuse_pocket
from peftlab.errors import SettingsError
from peftlab.results.comparison.selection import part
from peftlab.results.records.run import Record


class TrainingRatio(Trained):
    """What training has cost over another method's, with the runs that both build on.

    Attributes:
        of: See :func:`peftlab.claims.spent.spent`.
    """

    measure: Literal["training ratio"]
    of: Unit

    def _estimate(
        self, evidence: Evidence, groups: Groups, ours: list[Record], theirs: list[Record]
    ) -> Estimate:
        records = evidence.records(self.experiment)
        return chains.path_ratio(ours, theirs, records, lambda run: True, self.of)

    def _besides(
        self, evidence: Evidence, groups: Groups, ours: list[Record], theirs: list[Record]
    ) -> set[str]:
        return _built_on((*ours, *theirs), evidence.records(self.experiment))


class AddedTask(OfExperiment):
    """A task that is added to a model of others, against another way to learn it.

    Attributes:
        experiment: Its name.
        task: The new one.
        on: The task of the experiment that the methods are trained on, if it is made of the new one
            and old ones; by default the new one alone.
        of: ``"score"`` on the new task, less that of ``against``; what the cost of training is in
            (see :func:`peftlab.claims.spent.spent`), over that of ``against``, with
            earlier runs on the new task; ``"forgetting"``: the score on each old task, less that
            before, without ``against``.
    """

    measure: Literal["added task"]
    task: str
    on: str | None = None
    of: Literal["score", "forgetting"] | Unit
    against: str | None = None

    def verify(self, evidence: Evidence) -> None:
        """Check the names, and that old tasks are scored where forgetting is asked for."""
        found = self._planned(evidence)
        there = {task.name: task for task in found.tasks}
        named = [self.task, *([] if self.on is None else [self.on])]
        self._verify(self.experiment, "task", named, there)
        refuse_pocket([self.task, *there[self.on or self.task].members])
        for task in named:
            self._place(evidence, task)
        if (self.of == "forgetting") != (self.against is None):
            raise SettingsError(
                f"A check on {self.experiment!r} asks for {self.of}: forgetting is measured "
                "against nothing, score and cost against a method."
            )
        for label in self.methods:
            if self.of == "forgetting" and not self._old(evidence, label):
                raise SettingsError(
                    f"A check on {self.experiment!r} asks what {label!r} forgets, but it keeps no "
                    "heads: set keep_heads in what it uses."
                )
            if label in there[self.on or self.task].without:
                raise SettingsError(
                    f"A check on {self.experiment!r} compares nothing: {label!r} is not trained on "
                    f"{self.on or self.task!r}."
                )

    def cells(self, evidence: Evidence) -> Iterator[Cell]:
        """Yield a cell a method, or one an old task and method for what is forgotten."""
        place, groups = self._place(evidence, self.on or self.task)
        alone = self._place(evidence, self.task)[1]
        for label in self.methods:
            ours = groups.get(label, [])
            if self.of == "forgetting":
                yield from self._forgotten(evidence, place, label, ours)
                continue
            theirs = alone.get(self.rivals[label], [])
            estimate = self._compared(evidence, ours, theirs) if ours and theirs else None
            ids = {r.id for r in (*ours, *theirs)}
            if self.of != "score":
                ids |= _built_on((*ours, *theirs), evidence.records(self.experiment))
            yield self._cell(place.task, label, place.encoder, estimate, ids, weights=True)

    def _forgotten(
        self, evidence: Evidence, place: Place, label: str, ours: list[Record]
    ) -> Iterator[Cell]:
        records = evidence.records(self.experiment)
        for old in self._old(evidence, label):
            found = None
            if ours:
                found = chains.forgetting(ours, records, old)
            where = f"{old} after {place.task}"
            ids = {r.id for r in ours} | _built_on(ours, records)
            yield self._cell(where, label, place.encoder, found, ids, weights=True)

    def _compared(self, evidence: Evidence, ours: list[Record], theirs: list[Record]) -> Estimate:
        if self.of == "score":
            if self.on is not None:
                ours = [part(run, self.task) for run in ours]
            return measures.score_difference(ours, theirs)
        assert self.of != "forgetting"  # which is compared with nothing
        records = evidence.records(self.experiment)
        # what was there for the old tasks is there already
        return chains.path_ratio(
            ours, theirs, records, lambda run: run.settings.task == self.task, self.of
        )

    def _old(self, evidence: Evidence, label: str) -> list[str]:
        """Return the names of the tasks that a method knew before."""
        found = evidence.trained(self.experiment)
        uses = found.uses.get(label)
        if uses is None or uses.start is None or not uses.keep_heads:
            return []
        first = found.earlier[uses.start].task
        return [] if first is None else first.members


def _built_on(runs: Iterable[Record], records: Mapping[str, Record]) -> set[str]:
    """Return the ids of the earlier runs of some runs."""
    return {each.id for run in runs for each in chains.earlier_runs(run, records)}


class SelectedLayers(OfExperiment):
    """Which layers switches selected: how many, and whether another run selects the same.

    Attributes:
        experiment: Its name.
        task: Of the experiment.
        rows: Its train rows, where it is there with several limits.
        of: The ``"share"`` of the layers, or the ``"agreement"`` beyond chance.
        other: Another task of the experiment to agree with, seed by seed; by default the seeds of
            the task agree with each other.
        other_rows: Its train rows.
    """

    measure: Literal["selected layers"]
    task: str
    rows: PositiveInt | None = None
    of: Literal["share", "agreement"]
    other: str | None = None
    other_rows: PositiveInt | None = None
    against: str | None = None

    def verify(self, evidence: Evidence) -> None:
        """Check the names, and that it is clear which tasks are meant."""
        found = self._planned(evidence)
        named = [self.task, *([] if self.other is None else [self.other])]
        self._verify(self.experiment, "task", named, [task.name for task in found.tasks])
        refuse_pocket(named)
        if self.against is not None or (self.other is not None and self.of == "share"):
            raise SettingsError(
                f"A check on {self.experiment!r} asks which layers were selected: name no method "
                "in against, and another task only for the agreement with it."
            )
        for name, rows in ((self.task, self.rows), (self.other, self.other_rows)):
            if name is not None:
                self._place(evidence, name, rows)

    def cells(self, evidence: Evidence) -> Iterator[Cell]:
        """Yield a cell a method."""
        place, groups = self._place(evidence, self.task, self.rows)
        where = str(place)
        if self.other is not None:
            other, others = self._place(evidence, self.other, self.other_rows)
            where += f" and {other}"
        for label in self.methods:
            ours = groups.get(label, [])
            theirs = others.get(label, []) if self.other is not None else None
            estimate = None
            if ours and theirs != []:
                estimate = self._estimate(ours, theirs)
            ids = {r.id for r in (*ours, *(theirs or []))}
            yield self._cell(where, label, place.encoder, estimate, ids, weights=True)

    def _estimate(self, ours: list[Record], theirs: list[Record] | None) -> Estimate:
        if self.of == "share":
            return chains.selected_share(ours)
        return chains.agreement(ours, theirs)
