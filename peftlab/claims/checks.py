"""What all checks of a claim have in common.

A check is one question to many *cells*, such as a task and a method; each cell has an estimate, or
none yet. The kinds of check are in :mod:`peftlab.claims.trained`, :mod:`peftlab.claims.built` and
:mod:`peftlab.claims.priced`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator
from dataclasses import dataclass

from pydantic import Field, model_validator

from peftlab.claims.evidence import Evidence, Groups, Place
from peftlab.claims.region import Estimate, Judgement, Region
from peftlab.errors import SettingsError, unknown
from peftlab.experiments import Experiment
from peftlab.results.records.run import Strict

#: What is said of the region of a check that does not count.
BESIDE = " (beside)"


@dataclass(frozen=True)
class Cell:
    """One comparison of a check.

    Attributes:
        where: What it is measured on: a task with its rows, or a size of the input.
        label: Of the method.
        claimed: What the claim says of the estimate.
        estimate: None: its records are not there.
        encoder: Its name.
        weights: Whether the encoder's weights matter: else only its shape was used.
        records: Ids.
    """

    where: str
    label: str
    claimed: Region
    estimate: Estimate | None
    encoder: str
    weights: bool
    records: tuple[str, ...]

    @property
    def name(self) -> str:
        """Where it is measured, and the method."""
        return f"{self.where}, {self.label}"

    @property
    def judgement(self) -> Judgement | None:
        """What the estimate says of the claim; None without one."""
        return None if self.estimate is None else self.claimed.judge(self.estimate)

    @property
    def leaning(self) -> Judgement | None:
        """What the value alone says, whatever its interval."""
        if self.estimate is None:
            return None
        return self.claimed.judge(Estimate.exact(self.estimate.value))

    def firm(self, cells: int) -> bool:
        """Say whether it is decided, and would be if it were one of so many at once."""
        judgement = self.judgement
        if self.estimate is None or judgement == "undecided":
            return False
        return self.claimed.judge(self.estimate.among(cells)) == judgement


class Base(Strict, ABC):
    """What all checks say.

    Attributes:
        what: Is compared, in words that go before "is claimed to be above 1".
        claimed: The region.
        methods: Labels or presets of the methods.
        against: What they are compared with: one for all of them, or one for each.
        beside: Whether it asks what the claim does not say: it is shown, and counts for nothing.
    """

    what: str = Field(min_length=1)
    claimed: Region
    methods: list[str] = Field(min_length=1)
    against: str | list[str] | None = "full"
    beside: bool = False

    @model_validator(mode="after")
    def _paired(self) -> Base:
        if isinstance(self.against, list) and len(self.against) != len(self.methods):
            raise ValueError("against: name one method for all, or one for each of the methods")
        return self

    @property
    @abstractmethod
    def needs(self) -> tuple[str, ...]:
        """Names of the experiments whose records it takes."""

    @abstractmethod
    def verify(self, evidence: Evidence) -> None:
        """Raise an error if it names what the experiment files do not have."""

    @abstractmethod
    def cells(self, evidence: Evidence) -> Iterator[Cell]:
        """Yield every cell, whether or not its records are there."""

    @property
    def rivals(self) -> dict[str, str]:
        """Method → what it is compared with; empty if that is nothing."""
        if self.against is None:
            return {}
        each = [self.against] * len(self.methods) if isinstance(self.against, str) else self.against
        return dict(zip(self.methods, each, strict=True))

    @property
    def labels(self) -> list[str]:
        """The methods and what they are compared with."""
        return list(dict.fromkeys([*self.methods, *self.rivals.values()]))

    @property
    def region(self) -> str:
        """What is claimed, in words, with a mark if it does not count."""
        return f"{self.claimed}{BESIDE * self.beside}"

    @staticmethod
    def _verify(experiment: str, kind: str, named: Collection[str], there: Collection[str]) -> None:
        """Raise an error for the first name that is not there."""
        for name in named:
            if name not in there:
                raise unknown(f"{kind} in the experiment {experiment!r}", name, there)

    def _cell(
        self,
        where: str,
        label: str,
        encoder: str,
        estimate: Estimate | None,
        records: Collection[str],
        weights: bool = False,
    ) -> Cell:
        """Return a cell; without an estimate it rests on no records."""
        used = tuple(sorted(records)) if estimate is not None else ()
        return Cell(where, label, self.claimed, estimate, encoder, weights, used)


class OfExperiment(Base):
    """A check that takes the records of one experiment.

    Attributes:
        experiment: Its name.
    """

    experiment: str

    @property
    def needs(self) -> tuple[str, ...]:
        """The experiment."""
        return (self.experiment,)

    def _planned(self, evidence: Evidence) -> Experiment:
        """Return the experiment as planned, after a check that it has the methods."""
        found = evidence.trained(self.experiment)
        self._verify(self.experiment, "method", self.labels, found.methods)
        return found

    def _place(
        self, evidence: Evidence, task: str, rows: int | None = None
    ) -> tuple[Place, Groups]:
        """Return the one place of a task, with what methods have recorded there.

        Raises:
            SettingsError: It is there several times, or never with so many train rows.
        """
        found = list(evidence.papers(self.experiment, [task], rows))
        if len(found) != 1:
            there = evidence.papers(self.experiment, [task], None)
            limit = "" if rows is None else f" with {rows} train rows"
            raise SettingsError(
                f"A check on {self.experiment!r} needs {task!r}{limit} once, but it is there as "
                f"{', '.join(f'{place} on {place.encoder}' for place, _ in there)}: name the rows "
                "of one, or give it an experiment of its own."
            )
        return found[0]
