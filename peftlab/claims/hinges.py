"""Does a claim hang on how it is asked? The same question in two ways that differ in one thing.

The two ways have the same cells in the same order, such as a task and a method. A cell *turns* if
one way says yes and the other no, and both would as one of all cells at once: then the claim hangs
on what differs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from peftlab.claims.checks import Cell
from peftlab.claims.evidence import Evidence
from peftlab.claims.ledger import Hinge
from peftlab.claims.verdicts import ENOUGH
from peftlab.errors import RecordError


@dataclass(frozen=True)
class Swing:
    """What the two ways of a hinge found.

    Attributes:
        hinge: See :class:`peftlab.claims.ledger.Hinge`.
        one, other: The cells of either way, in the same order.
    """

    hinge: Hinge
    one: tuple[Cell, ...]
    other: tuple[Cell, ...]

    @property
    def decided(self) -> list[tuple[Cell, Cell]]:
        """The cells that both ways decide."""
        pairs = zip(self.one, self.other, strict=True)
        return [
            pair for pair in pairs if not {cell.judgement for cell in pair} & {None, "undecided"}
        ]

    @property
    def turned(self) -> list[tuple[Cell, Cell]]:
        """The cells that one way says yes to and the other no, neither by chance."""
        return [
            (a, b)
            for a, b in self.decided
            if a.judgement != b.judgement and a.firm(len(self.one)) and b.firm(len(self.one))
        ]

    @property
    def answer(self) -> Literal["yes", "no", "not known"]:
        """Whether the claim hangs on it.

        Yes if a cell turns; no if both ways say the same of at least half of the cells, and of none
        one yes and the other no, be it by chance.
        """
        if self.turned:
            return "yes"
        alike = all(a.judgement == b.judgement for a, b in self.decided)
        enough = self.one and len(self.decided) >= ENOUGH * len(self.one)
        return "no" if alike and enough else "not known"


def swing(hinge: Hinge, evidence: Evidence) -> Swing:
    """Ask a claim both ways.

    Raises:
        RecordError: The two ways have cells of different tasks, sizes or encoders.
    """
    one, other = (tuple(way.cells(evidence)) for way in hinge.ways)
    if [(cell.where, cell.encoder) for cell in one] != [(c.where, c.encoder) for c in other]:
        raise RecordError(
            f"The two ways of asking {hinge.claim} about {hinge.on} have other cells: let both "
            "speak of the same tasks or sizes, in one order."
        )
    return Swing(hinge, one, other)
