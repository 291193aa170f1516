"""The ledger in short: every claim is told once, under what its decided cells say."""

from __future__ import annotations

from typing import Any

from peftlab.claims import Claim, Finding
from peftlab.claims.summary import count_table, in_short
from tests.claims.made import asked
from tests.claims.test_verdicts import cell


def finding(
    name: str, verdict: Any, *says: str | None, whose: Any = "summary", **more: Any
) -> Finding:
    claim = Claim(
        id=name, paper="one", whose=whose, claim="More.", protocol="Compare.", open_parts="No."
    )
    checks = (asked(*(cell(each) for each in says)),) if says else ()
    return Finding(claim, verdict, more.get("scopes", ("small encoder",)), checks, ())


FOUND = [
    finding("C1.1", "partly", "yes", "no", "leans"),
    finding("C1.2", "undecided", "yes", "yes", "leans", None),
    finding("C1.3", "undecided", "no"),
    finding("C1.4", "undecided", "leans"),
    finding("C1.5", "undecided", "leans away"),
    finding("C1.6", "out of reach"),
    finding("C1.7", "reproduced", "surely", whose="ours"),
]


def test_each_claim_is_told_by_what_its_cells_say() -> None:
    assert in_short(FOUND) == [
        "Of 7 claims: 1 reproduced (C1.7), 1 partly (C1.1), 4 undecided, 1 out of reach (C1.6).",
        "All cells that are decided say yes: C1.2 (2 yes of 4), C1.7 (1 yes of 1).",
        "All that are decided say no: C1.3 (1 no of 1).",
        "Some say yes, some no: C1.1 (1 yes, 1 no of 3).",
        "No cell is decided: C1.4, C1.5.",
        "No record: C1.6.",
        "Nothing was trained yet from a paper's own encoder with its weights.",
    ]


def test_what_needs_a_gpu_is_named_and_a_papers_own_model_ends_the_reserve() -> None:
    waits = Finding(FOUND[0].claim, "open", (), (asked(),), ("large",))
    own = finding("C2.1", "reproduced", "surely", scopes=("paper's model",))
    assert in_short([waits, own])[-1] == "Checks that need a GPU have no record: C1.1."
    assert not any("own encoder" in line for line in in_short([waits, own]))


def test_verdicts_are_counted_by_whose_claims_they_are() -> None:
    table = count_table(FOUND).set_index("whose")
    assert list(table.index) == ["summaries by others", "our control", "all"]
    assert table["claims"].tolist() == [6, 1, 7]
    assert table["reproduced"].tolist() == [0, 1, 1]
    assert table["undecided"].tolist() == [4, 0, 4]
