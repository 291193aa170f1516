"""The encoders made here: cards repeat the records, and these reach what was set for them."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

import pytest

from peftlab.results import Store
from peftlab.results.transfer.retention import Averages, averages
from peftlab.results.transfer.zero_shot import transfers

ROOT = Path(__file__).parents[2]
CARDS = {"pocket": "peftlab/pocket/README.md"}
TASKS = {"xSID intents": "xsid", "SIB-200 topics": "sib200", "UD parts of speech": "udpos"}
NUMBER = r"(\d+\.\d)"
ROW = re.compile(
    rf"^\| (?P<task>.+), (?P<where>en|mean of [a-z ]+) \| {NUMBER} \({NUMBER} to {NUMBER}\) "
    rf"\| {NUMBER} \| {NUMBER} \|$",
    re.MULTILINE,
)


@cache
def found(encoder: str) -> dict[tuple[str, str, bool], Averages]:
    """Return what was reached, by task, method, and whether the weights were drawn."""
    return {
        (each.task, each.method, each.random_weights): averages(each)
        for each in transfers(Store(ROOT / "book" / "results").load_all(f"{encoder}-real"))
        if each.encoder.endswith(encoder)
    }


@pytest.mark.parametrize("encoder", CARDS)
def test_a_card_says_what_the_records_say(encoder: str) -> None:
    rows = list(ROW.finditer((ROOT / CARDS[encoder]).read_text(encoding="utf-8")))
    assert len(rows) == 2 * len(TASKS)
    for row in rows:
        full, drawn, majority = (
            getattr(
                found(encoder)[TASKS[row["task"]], method, random_weights],
                "source" if row["where"] == "en" else "target",
            )
            for method, random_weights in [("full", False), ("full", True), ("majority", False)]
        )
        values = [full.estimate, full.low, full.high, drawn.estimate, majority.estimate]
        assert row.groups()[2:] == tuple(f"{100 * value:.1f}" for value in values), row[0]


@pytest.mark.parametrize(
    ("encoder", "task", "english", "others"),
    [
        ("pocket", "xsid", 0.0, 0.48),
        ("pocket", "sib200", 0.78, 0.48),
        ("pocket", "udpos", 0.0, 0.0),
    ],
)
def test_an_encoder_reaches_what_was_set_for_it(
    encoder: str, task: str, english: float, others: float
) -> None:
    """Real data that it was not trained on; the bars were set before it was made."""
    reached, control = (found(encoder)[task, "full", drawn] for drawn in (False, True))
    assert reached.source.estimate >= max(english, control.source.estimate)
    assert reached.target.estimate >= max(others, control.target.estimate + 0.10)
