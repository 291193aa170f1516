"""Checks of what a step costs and how large a method is: nothing has to be trained for them.

How a number is made from records is in :mod:`peftlab.claims.measures`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from itertools import product
from typing import Literal

from pydantic import Field

from peftlab import methods
from peftlab.claims import measures
from peftlab.claims.checks import Base, Cell, OfExperiment
from peftlab.claims.evidence import Evidence
from peftlab.costs.plan import Pair
from peftlab.encoders import SHAPES
from peftlab.errors import SettingsError, unknown
from peftlab.results.records.costs import CostRecord


class StepRatio(OfExperiment):
    """What a training step or a forward pass costs, over that of another method.

    Attributes:
        experiment: Name of a cost experiment.
        encoders: Some of its encoders; empty means all.
        mode: ``"train"`` or ``"inference"``, if it measures both.
        of: ``"seconds"``, ``"flops"`` or ``"trainer flops"``.
    """

    measure: Literal["step ratio"]
    encoders: list[str] = Field(default=[])
    mode: Literal["train", "inference"] | None = None
    of: Literal["seconds", "flops", "trainer flops"] = "seconds"

    def verify(self, evidence: Evidence) -> None:
        """Check the names, and that it is clear what is timed."""
        found = evidence.measured(self.experiment)
        self._verify(self.experiment, "method", self.labels, found.methods)
        self._verify(self.experiment, "encoder", self.encoders, found.encoders)
        if len([mode for mode in found.modes if self.mode in (None, mode)]) != 1:
            raise SettingsError(
                f"A check on {self.experiment!r} needs one of its modes, {', '.join(found.modes)}: "
                "name it in mode."
            )

    def cells(self, evidence: Evidence) -> Iterator[Cell]:
        """Yield a cell an encoder, batch, length, precision and method.

        One a machine where there are more.
        """
        found = evidence.measured(self.experiment)
        there: dict[tuple[str, Pair, str], list[CostRecord]] = defaultdict(list)
        for record in evidence.costs(self.experiment):
            s = record.settings
            if self.mode in (None, s.mode):
                there[s.encoder, (s.batch, s.length), s.precision].append(record)
        axes = self.encoders or found.encoders, found.cells, found.precisions
        for (encoder, size, precision), label in product(product(*axes), self.methods):
            where = f"{encoder}, {size[0]} × {size[1]}"
            if len(found.precisions) > 1:
                where += f", {precision}"
            records = there[encoder, size, precision]
            if not records:
                yield self._cell(where, label, encoder, None, ())
            for record in records:
                against = self.rivals[label]
                failed = {label, against} & record.errors.keys()
                estimate = None
                if not failed:  # one that does not fit has no cost, and stops no other
                    estimate = measures.step_ratio(record, label, against, self.of)
                yield self._cell(where, label, encoder, estimate, {record.id})


class Count(Base):
    """Parameters by the closed form: nothing is run.

    Attributes:
        encoders: Names of shapes.
        of: Which parameters.
        ratio: Compare as a ratio, not a difference.
    """

    measure: Literal["count"]
    encoders: list[str] = Field(min_length=1)
    of: measures.Counted = "trainable"
    ratio: bool = False

    @property
    def needs(self) -> tuple[str, ...]:
        """Nothing."""
        return ()

    def verify(self, evidence: Evidence) -> None:
        """Check the names, and that a ratio is one of two numbers above 0."""
        if self.ratio and self.against is None:
            raise SettingsError(
                f"A check counts the {self.of} parameters of {', '.join(self.methods)} as a ratio "
                "over nothing: name a method in against."
            )
        for name in self.labels:
            methods.get(name)
        for name in self.encoders:
            if name not in SHAPES:
                raise unknown("shape of an encoder", name, SHAPES)

    def cells(self, evidence: Evidence) -> Iterator[Cell]:
        """Yield a cell an encoder and method."""
        for encoder in self.encoders:
            for label in self.methods:
                against = self.rivals.get(label)
                found = measures.count(encoder, label, against, self.of, self.ratio)
                yield self._cell(encoder, label, encoder, found, ())
