"""The whole ledger at a glance: what the cells of each claim say, and the verdict beside them.

How cells are judged and verdicts found is in :mod:`peftlab.claims`; nothing is judged here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd
from matplotlib.figure import Figure

from peftlab.claims.region import Judgement
from peftlab.claims.summary import WORDS
from peftlab.errors import RecordError
from peftlab.plots import page
from peftlab.plots.page import Plot

if TYPE_CHECKING:
    from peftlab.claims import Finding

#: Judgement of a cell → colour, hatching.
KINDS: dict[Judgement | None, tuple[str, str]] = {
    "reproduced": ("#0072b2", ""),
    "not reproduced": ("#d55e00", "///"),
    "undecided": ("#999999", ""),
    None: ("none", ""),
}


def verdicts(findings: Sequence[Finding]) -> Plot:
    """Draw the shares of each claim's cells that say yes, no or neither; the verdict beside them.

    Where a claim has cells and a check of it waits for a GPU, "+ GPU" stands behind their number.

    Args:
        findings: One a claim; see :func:`peftlab.claims.verdicts.findings`.

    Raises:
        RecordError: There is no claim.
    """
    if not findings:
        raise RecordError("There is no claim to draw: give the findings of at least one.")
    rows = []
    for found in findings:
        judged = [cell.judgement for cell in found.judged]
        counts = {WORDS[kind]: judged.count(kind) for kind in KINDS}
        rows.append({"id": found.claim.id, "verdict": found.verdict, "cells": len(judged)} | counts)
    waits = [found.waits and bool(found.judged) for found in findings]
    table = pd.DataFrame(rows).assign(**{"waits for a GPU": waits})

    def draw(figure: Figure, theme: dict[str, Any]) -> None:
        axis = figure.subplots()
        shares = [table[WORDS[kind]] / table["cells"].clip(lower=1) for kind in KINDS]
        start = 0 * shares[0]
        for share, (kind, (colour, hatch)) in zip(shares, KINDS.items(), strict=True):
            axis.barh(
                range(len(table)), share, 0.72, start, color=colour, hatch=hatch, label=WORDS[kind],
                edgecolor=theme["ink"], linewidth=0.6,
            )  # fmt: skip
            start = start + share
        axis.set_yticks(range(len(table)), list(table["id"]))
        axis.set_ylim(len(table) - 0.5, -0.5)
        axis.set_xlim(0, 1)
        axis.xaxis.set_major_formatter("{x:.0%}")
        axis.set_xlabel("share of the claim's cells")
        beside = axis.secondary_yaxis("right")
        told = [
            f"{row['verdict']}, {row['cells']} cells" + " + GPU" * gpu
            for row, gpu in zip(rows, waits, strict=True)
        ]
        beside.set_yticks(range(len(table)), told)
        beside.tick_params(length=0)
        figure.legend(*axis.get_legend_handles_labels(), loc="outside lower center", ncols=4)

    said = "; ".join(
        f"{row['id']}, {row['verdict']}: "
        + (", ".join(f"{row[n]} {n}" for n in WORDS.values() if row[n]) or "no cell")
        + ", waits for a GPU" * gpu
        for row, gpu in zip(rows, waits, strict=True)
    )
    alt = f"The cells of each claim by what they say, and the verdict. {said}."
    return page.plot(draw, table, alt, 7.3, 0.9 + 0.24 * len(rows))
