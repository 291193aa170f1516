"""The ledger as tables: for the book, and for a terminal."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Container, Iterable, Sequence
from statistics import median
from typing import TYPE_CHECKING

from peftlab.claims.checks import Cell
from peftlab.claims.evidence import Evidence
from peftlab.claims.hinges import swing
from peftlab.claims.ledger import WHOSE, Ledger
from peftlab.claims.summary import WORDS, counted
from peftlab.claims.verdicts import Finding, middle

if TYPE_CHECKING:
    from pandas import DataFrame


def ours(cells: Sequence[Cell]) -> str:
    """Return the median of cells with the range of their intervals, and how many they are.

    Where the median itself has no bound, how many cells are inside the claimed region.
    """
    found, known = middle(cells), [cell for cell in cells if cell.estimate is not None]
    if found is None or math.isfinite(found.value) or not known[1:]:
        return _middle(cells)
    inside = sum(cell.judgement == "reproduced" for cell in known)
    return f"{_middle(cells)}, {inside} of them {known[0].claimed}"


def _middle(cells: Sequence[Cell]) -> str:
    found = middle(cells)
    known = sum(cell.estimate is not None for cell in cells)
    return "" if found is None else f"{found}{f', {known} cells' * (known > 1)}"


def power(cells: Iterable[Cell]) -> str:
    """Say what effect cells would have seen in four of five cases, median; "" without any.

    A factor for ratios; "exact" where nothing is sampled.
    """
    estimates = [cell.estimate for cell in cells if cell.estimate is not None]
    sampled = [e for e in estimates if e.n]
    sizes = [size if math.isfinite(size := e.detectable) else math.inf for e in sampled]
    if not sizes:
        return "exact" if estimates else ""
    size = median(sizes)
    if math.isinf(size):
        return "no size: most have no bound"
    return f"×{size:.2f}" if sampled[0].ratio else f"{size:.3f}"


def claim_table(findings: Iterable[Finding]) -> DataFrame:
    """Return one row a claim: what the paper says, what the records say, the verdict.

    Columns ``id``; ``whose``, see :data:`peftlab.claims.ledger.WHOSE`; ``claim``; ``the paper's
    number``; ``verdict``; ``yes``, ``no``, ``undecided``: how many of its cells say so, of those
    that count, one without a record among the undecided; ``waits for a GPU``; ``first check``, of
    which ``median and ends`` and ``could have shown`` (see :func:`power`) are; ``seeds or rounds``,
    the fewest of one of its cells; ``records``; ``scope``.
    """
    import pandas as pd

    rows = []
    for found in findings:
        claim, row, first = found.claim, found.row(), found.first
        judged = Counter(WORDS[cell.judgement] for cell in found.judged)
        rows.append(
            {
                "id": claim.id,
                "whose": WHOSE[claim.whose],
                "claim": claim.claim,
                "the paper's number": claim.number,
                "verdict": found.verdict,
                "yes": judged["yes"],
                "no": judged["no"],
                "undecided": judged["undecided"] + judged[WORDS[None]],
                "waits for a GPU": "yes" if found.waits else "",
                "first check": first.check.what if first else "",
                "median and ends": ours(first.cells) if first else "",
                "could have shown": power(first.cells) if first else "",
                "seeds or rounds": row["n"] or "",
                "records": len(row["records"]) or "",
                "scope": found.scope,
            }
        )
    return pd.DataFrame(rows)


def cell_table(found: Finding) -> DataFrame:
    """Return one row a cell of a claim: what was compared, claimed and found."""
    import pandas as pd

    columns = ["what", "cell", "claimed to be", "found", "n", "judgement"]
    rows = [
        (
            check.what,
            cell.name,
            check.region,
            "" if cell.estimate is None else str(cell.estimate),
            "" if cell.estimate is None else f"{cell.estimate.n} {cell.estimate.over}".strip("0 "),
            cell.judgement or "no record yet",
        )
        for check, cells in found.asked
        for cell in cells
    ]
    return pd.DataFrame(rows, columns=columns)


def hinge_table(ledger: Ledger, evidence: Evidence, ids: Container[str] | None = None) -> DataFrame:
    """Return one row a hinge: a claim, what it may hang on, and what either way of asking finds.

    Args:
        ledger: Has the hinges.
        evidence: What they are judged by.
        ids: Claims whose hinges are wanted; None for all.

    Columns ``claim, may hang on, one way, finds, the other way, finds then, does it``. What a way
    finds is the median cell with the range of the intervals, and how many cells say yes, no or
    neither, or have no record yet.
    """
    import pandas as pd

    rows = []
    wanted = (each for each in ledger.hinges if ids is None or each.claim in ids)
    for hinge in wanted:
        found = swing(hinge, evidence)
        turned = f": {len(found.turned)} of {len(found.one)} turn" if found.turned else ""
        rows.append(
            {
                "claim": hinge.claim,
                "may hang on": hinge.on,
                "one way": hinge.one.what,
                "finds": _found(found.one),
                "the other way": hinge.other.what,
                "finds then": _found(found.other),
                "does it": found.answer + turned,
            }
        )
    return pd.DataFrame(rows)


def _found(cells: Sequence[Cell]) -> str:
    """Say what cells found, and what they say to the claim."""
    if all(cell.estimate is None for cell in cells):
        return "no record yet"
    said = Counter(WORDS[cell.judgement] for cell in cells)
    counts = [f"{said[word]} {word}" for kind, word in WORDS.items() if kind or said[word]]
    return f"{_middle(cells)} ({', '.join(counts)})"


def exhausted(found: Finding) -> str:
    """Say what is left for a claim that is not decided though all of it is recorded; else ""."""
    if found.missing or found.verdict not in ("undecided", "partly"):
        return ""
    return "All of it is recorded: more seeds, rows or tasks would say more."


def commands(found: Finding, ledger: Ledger) -> list[str]:
    """Return the commands that would say more of a claim, each with what it takes."""
    return [
        f"peftlab run book/experiments/{name}.toml  ({ledger.experiments[name]})"
        for name in found.missing
    ]


def text(findings: Sequence[Finding], ledger: Ledger) -> str:
    """Return the ledger for a terminal: a line a claim, and what would settle what is open."""
    lines = []
    for found in findings:
        first = found.first
        number = ours(first.cells) if first else ""
        lines.append(f"{found.claim.id:5} {found.verdict:15} {found.scope:26} {number}".rstrip())
        lines.append(f"      {found.claim.claim}")
        if first:
            lines.append(f"      First asked: {first.check.what}.")
        reasons = found.claim.out_of_reach, found.claim.open_parts, exhausted(found)
        lines += [f"      {reason}" for reason in reasons if reason]
        lines += [f"      → {command}" for command in commands(found, ledger)]
    told = (f"{n} {verdict}" for verdict, n in counted(findings).items() if n)
    return "\n".join([*lines, ", ".join(told)])
