"""Verdicts: from the judgements of a claim's cells to one word, by one rule.

A cell is *reproduced* if its interval lies inside the claimed region, *not reproduced* if it lies
outside, else *undecided*. A claim is

- *reproduced* or *not reproduced* if all decided cells agree, at least half of the cells of each of
  its checks are decided, and no other cell's estimate leans the other way;
- *partly* reproduced if at least half of its cells are decided, some say yes and some no, and of
  those that are fewer at least one would still do so as one of all cells at once (Bonferroni);
- *undecided* otherwise: the records have too little power, or are not all there;
- *open* if there is no record yet, and *out of reach* if, besides, it is said why there cannot be.

Cells that need a GPU count only once they are recorded, and no claim is *reproduced* before all of
its checks have some, nor while a part of it is not asked; *not reproduced* waits for neither. Cells
of a check that is *beside* the claim are shown and never count. Every interval is one of 95 %, for
one cell: of many some miss by chance, and a stray one must not make a verdict.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any, Literal, NamedTuple

from peftlab.claims.checks import Base, Cell
from peftlab.claims.evidence import Evidence
from peftlab.claims.ledger import Claim, Ledger
from peftlab.claims.region import Estimate

Verdict = Literal["reproduced", "partly", "not reproduced", "undecided", "open", "out of reach"]
VERDICTS: tuple[Verdict, ...] = (
    "reproduced",
    "partly",
    "not reproduced",
    "undecided",
    "open",
    "out of reach",
)
Scope = Literal["paper's model", "small encoder", "shape only"]
SCOPES: tuple[Scope, ...] = ("paper's model", "small encoder", "shape only")
#: Share of the cells that must be decided.
ENOUGH = 0.5


class Asked(NamedTuple):
    """A check of a claim, with its cells: none where all need a GPU and have no record."""

    check: Base
    cells: tuple[Cell, ...]

    @property
    def recorded(self) -> list[Cell]:
        """The cells with an estimate."""
        return [cell for cell in self.cells if cell.estimate is not None]


@dataclass(frozen=True)
class Finding:
    """What the records say about a claim.

    Attributes:
        claim: See :class:`peftlab.claims.ledger.Claim`.
        verdict: By the rule of this file.
        scopes: Of the cells that count and have an estimate.
        asked: All checks of the claim, in order.
        missing: Experiments whose records a check that counts still lacks.
    """

    claim: Claim
    verdict: Verdict
    scopes: tuple[Scope, ...]
    asked: tuple[Asked, ...]
    missing: tuple[str, ...]

    @property
    def cells(self) -> list[Cell]:
        """Those of all checks."""
        return [cell for asked in self.asked for cell in asked.cells]

    @property
    def judged(self) -> list[Cell]:
        """The cells that count, which those beside the claim do not."""
        return [cell for asked in self.asked if not asked.check.beside for cell in asked.cells]

    @property
    def waits(self) -> bool:
        """Whether a check that counts needs a GPU and has no record."""
        return any(not asked.cells for asked in self.asked if not asked.check.beside)

    @property
    def first(self) -> Asked | None:
        """The first check that counts and has an estimate."""
        counts = (asked for asked in self.asked if asked.recorded and not asked.check.beside)
        return next(counts, None)

    @property
    def scope(self) -> str:
        """The scopes as one text; "" if nothing is recorded."""
        return ", ".join(self.scopes)

    def row(self) -> dict[str, Any]:
        """Return the claim as a JSON row.

        ``estimate`` is the median over the cells of the first check that has estimates, ``low`` and
        ``high`` the lowest and highest end of their intervals, ``n`` the fewest seeds or rounds of
        one of them (0: counted, not sampled). What is not known or not finite is None.
        """
        records = sorted({each for cell in self.cells for each in cell.records})
        found = middle(self.first.cells) if self.first else None
        numbers = ("estimate", "value"), ("low", "low"), ("high", "high")
        return {
            "id": self.claim.id,
            "verdict": self.verdict,
            "scope": self.scope,
            **{name: found and _finite(getattr(found, of)) for name, of in numbers},
            "n": found and found.n,
            "records": records,
        }


def middle(cells: Iterable[Cell]) -> Estimate | None:
    """Return the median of the estimates of cells, with the range of their intervals.

    What is not known is left out; None if there is no estimate. ``n`` is the fewest of one of them.
    """
    estimates = [cell.estimate for cell in cells if cell.estimate is not None]
    if not estimates:
        return None
    value, low, high = (
        middle_of([x for x in (getattr(each, of) for each in estimates) if x == x] or [math.nan])
        for of, middle_of in (("value", median), ("low", min), ("high", max))
    )
    fewest = min(estimates, key=lambda each: each.n)
    return Estimate(value, low, high, fewest.n, fewest.over, fewest.ratio)


def verdict(
    checks: Sequence[Sequence[Cell]], out_of_reach: bool = False, whole: bool = True
) -> Verdict:
    """Return the verdict on a claim.

    Args:
        checks: The cells of each check that counts; none where all need a GPU and have no record.
        out_of_reach: Whether the claim says why it cannot be tested.
        whole: Whether the checks ask all of the claim.
    """
    cells = [cell for check in checks for cell in check]
    if all(cell.estimate is None for cell in cells):
        return "out of reach" if out_of_reach else "open"
    yes, no = (
        [cell for cell in cells if cell.judgement == each]
        for each in ("reproduced", "not reproduced")
    )
    if yes and no:
        fewer = min(len(yes), len(no))
        rare = [side for side in (yes, no) if len(side) == fewer]
        firm = all(any(cell.firm(len(cells)) for cell in side) for side in rare)
        return "partly" if firm and _decided(cells) >= ENOUGH else "undecided"
    if min(_decided(check) for check in checks if check) < ENOUGH:
        return "undecided"
    against = "not reproduced" if yes else "reproduced"
    waits = yes and not (all(checks) and whole)
    if waits or against in {cell.leaning for cell in cells}:
        return "undecided"
    return "reproduced" if yes else "not reproduced"


def _decided(cells: Sequence[Cell]) -> float:
    """Return the share of cells that say yes or no."""
    return sum(cell.judgement not in (None, "undecided") for cell in cells) / len(cells)


def finding(claim: Claim, ledger: Ledger, evidence: Evidence) -> Finding:
    """Judge one claim by the records."""
    on_gpu = {name for name, budget in ledger.experiments.items() if budget.gpu}
    asked: list[Asked] = []
    lacking: list[str] = []
    for check in claim.checks:
        all_of_it = Asked(check, tuple(check.cells(evidence)))
        if not check.beside and len(all_of_it.recorded) < len(all_of_it.cells):
            lacking += check.needs
        waits = on_gpu.intersection(check.needs)
        asked.append(Asked(check, tuple(all_of_it.recorded)) if waits else all_of_it)
    encoders = ledger.papers[claim.paper].encoders
    counted = [each for each in asked if not each.check.beside]
    found = {scope(cell, encoders) for each in counted for cell in each.recorded}
    return Finding(
        claim=claim,
        verdict=verdict(
            [each.cells for each in counted], bool(claim.out_of_reach), whole=not claim.open_parts
        ),
        scopes=tuple(each for each in SCOPES if each in found),
        asked=tuple(asked),
        missing=tuple(name for name in dict.fromkeys(lacking) if not evidence.complete(name)),
    )


def findings(
    ledger: Ledger, evidence: Evidence, claims: Iterable[Claim] | None = None
) -> list[Finding]:
    """Judge claims, all by default."""
    return [finding(claim, ledger, evidence) for claim in claims or ledger.claims]


def scope(cell: Cell, encoders: Sequence[str]) -> Scope:
    """Say what a cell speaks of: the paper's model, its shape alone, or a small encoder."""
    if cell.encoder not in encoders:
        return "small encoder"
    return "paper's model" if cell.weights else "shape only"


def _finite(x: float) -> float | None:
    return x if math.isfinite(x) else None
