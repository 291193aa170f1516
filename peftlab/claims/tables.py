"""The ledger as tables: for the book, and for a terminal."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from statistics import median
from typing import TYPE_CHECKING

from peftlab.claims.checks import Cell
from peftlab.claims.evidence import Evidence
from peftlab.claims.hinges import swing
from peftlab.claims.ledger import Ledger
from peftlab.claims.verdicts import VERDICTS, Finding, middle

if TYPE_CHECKING:
    from pandas import DataFrame


def ours(cells: Sequence[Cell]) -> str:
    """Return the median of cells with the range of their intervals, and how many they are."""
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

    Columns ``id, claim, the paper's number, verdict, decided, first asked, ours, could have shown,
    seeds or rounds, scope, records``. ``ours`` and ``could have shown`` (see :func:`power`) are of
    the first check, which ``first asked`` names.
    """
    import pandas as pd

    rows = []
    for found in findings:
        claim, row, first = found.claim, found.row(), found.first
        decided = sum(cell.judgement not in (None, "undecided") for cell in found.judged)
        rows.append(
            {
                "id": claim.id,
                "claim": claim.claim,
                "the paper's number": claim.number,
                "verdict": found.verdict,
                "decided": f"{decided} of {len(found.judged)}" if found.judged else "",
                "first asked": first.check.what if first else "",
                "ours": ours(first.cells) if first else "",
                "could have shown": power(first.cells) if first else "",
                "seeds or rounds": row["n"] or "",
                "scope": found.scope,
                "records": len(row["records"]) or "",
            }
        )
    return pd.DataFrame(rows)


def cell_table(found: Finding) -> DataFrame:
    """Return one row a cell of a claim: what was compared, claimed and found."""
    import pandas as pd

    columns = ["what", "cell", "claimed to be", "ours", "n", "judgement"]
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


def hinge_table(ledger: Ledger, evidence: Evidence) -> DataFrame:
    """Return one row a hinge: a claim, what it may hang on, and what either way of asking finds.

    Columns ``claim, may hang on, one way, finds, the other way, finds then, does it``. What a way
    finds is the median cell with the range of the intervals, and how many cells say yes, no or
    neither, or have no record yet.
    """
    import pandas as pd

    rows = []
    for hinge in ledger.hinges:
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
    words = {
        "reproduced": "yes",
        "not reproduced": "no",
        "undecided": "undecided",
        None: "unrecorded",
    }
    said = Counter(words[cell.judgement] for cell in cells)
    counts = [
        f"{said[word]} {word}" for word in words.values() if word != "unrecorded" or said[word]
    ]
    return f"{ours(cells)} ({', '.join(counts)})"


def counted(findings: Iterable[Finding]) -> dict[str, int]:
    """Return how many claims have each verdict, all verdicts named."""
    counts = Counter(found.verdict for found in findings)
    return {each: counts[each] for each in VERDICTS}


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
