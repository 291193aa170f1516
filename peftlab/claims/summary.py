"""The ledger in short: verdicts counted by whose claims they are, and what decided cells say."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING

from peftlab.claims.ledger import WHOSE
from peftlab.claims.region import Judgement
from peftlab.claims.verdicts import VERDICTS, Finding

if TYPE_CHECKING:
    from pandas import DataFrame

#: What a cell says to its claim.
WORDS: dict[Judgement | None, str] = {
    "reproduced": "yes",
    "not reproduced": "no",
    "undecided": "undecided",
    None: "no record yet",
}
#: What the decided cells of a claim say → how :func:`in_short` puts it.
SAID = {
    "yes": "All cells that are decided say yes",
    "no": "All that are decided say no",
    "yes and no": "Some say yes, some no",
    "neither": "No cell is decided",
    "none": "No record",
}
#: So many claims are named.
FEW = 3


def count_table(findings: Iterable[Finding]) -> DataFrame:
    """Return how many claims have each verdict, one row by whose they are, and one of all."""
    import pandas as pd

    there = list(findings)
    rows = []
    for whose, words in WHOSE.items():
        those = [found for found in there if found.claim.whose == whose]
        if those:
            rows.append({"whose": words, "claims": len(those)} | counted(those))
    rows.append({"whose": "all", "claims": len(there)} | counted(there))
    return pd.DataFrame(rows)


def in_short(findings: Iterable[Finding]) -> list[str]:
    """Say in a few sentences what the decided cells of claims say, and how much waits."""
    there = list(findings)
    said: dict[str, list[str]] = {}
    for found in there:
        judged = Counter(WORDS[cell.judgement] for cell in found.judged)
        counts = [f"{judged[word]} {word}" for word in ("yes", "no") if judged[word]]
        way = " and ".join(word for word in ("yes", "no") if judged[word])
        of = f" ({', '.join(counts)} of {len(found.judged)})" if counts else ""
        said.setdefault(way or ("neither" if found.judged else "none"), []).append(
            found.claim.id + of
        )
    verdicts = (
        f"{number} {verdict}" + f" ({named})" * (number <= FEW)
        for verdict, number in counted(there).items()
        if (named := ", ".join(each.claim.id for each in there if each.verdict == verdict))
    )
    lines = [f"Of {len(there)} claims: {', '.join(verdicts)}."]
    lines += [f"{words}: {', '.join(said[way])}." for way, words in SAID.items() if way in said]
    if not any("paper's model" in found.scopes for found in there):
        lines.append("Nothing was trained yet from a paper's own encoder with its weights.")
    waiting = [found.claim.id for found in there if found.waits]
    if waiting:
        lines.append(f"Checks that need a GPU have no record: {', '.join(waiting)}.")
    return lines


def counted(findings: Iterable[Finding]) -> dict[str, int]:
    """Return how many claims have each verdict, all verdicts named."""
    counts = Counter(found.verdict for found in findings)
    return {each: counts[each] for each in VERDICTS}
