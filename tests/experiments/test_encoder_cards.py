"""The encoders made here: cards repeat the records, and these reach what was set for them."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

import pytest

from peftlab.encoders import language_model_head, load_encoder
from peftlab.results import Store
from peftlab.results.transfer.retention import Averages, averages
from peftlab.results.transfer.zero_shot import transfers

ROOT = Path(__file__).parents[2]
CARDS = {"pocket": "peftlab/pocket/README.md", "desk": "book/models/desk/README.md"}
TASKS = {
    "xSID intents": "xsid",
    "SIB-200 topics": "sib200",
    "UD parts of speech": "udpos",
    "WikiANN names": "wikiann",
}
TEACHER = "sentence-transformers/all-MiniLM-L6-v2"
#: Column → method, whether weights were drawn, whether the encoder is ours.
COLUMNS = {
    "this encoder": ("full", False, True),
    "random weights": ("full", True, True),
    "English only": ("full", False, False),
    "majority": ("majority", False, True),
}
NUMBER = r"(\d+\.\d)"
HEADER = re.compile(r"^\| \| this encoder \|.*$", re.MULTILINE)
ROW = re.compile(
    rf"^\| (?P<task>[\w -]+), (?P<where>en|mean of [a-z ]+) \| {NUMBER} \({NUMBER} to {NUMBER}\) "
    r"\|(?P<others>[ \d.|]+)\|$",
    re.MULTILINE,
)


@cache
def found(encoder: str) -> dict[tuple[str, str, bool, bool], Averages]:
    """Return what was reached, by task, method, whether weights were drawn, and if it is ours."""
    return {
        (each.task, each.method, each.random_weights, each.encoder != TEACHER): averages(each)
        for each in transfers(Store(ROOT / "book" / "results").load_all(f"{encoder}-real"))
    }


@pytest.mark.parametrize("encoder", CARDS)
def test_a_card_says_what_the_records_say(encoder: str) -> None:
    card = (ROOT / CARDS[encoder]).read_text(encoding="utf-8")
    header = HEADER.search(card)
    assert header is not None
    columns = [name.strip() for name in header[0].strip("|").split("|")][1:]
    rows = list(ROW.finditer(card))
    recorded = {task for task, *_ in found(encoder)}
    assert len(rows) == 2 * len(recorded)
    for row in rows:
        task, part = TASKS[row["task"]], "source" if row["where"] == "en" else "target"
        ours, *others = (getattr(found(encoder)[task, *COLUMNS[name]], part) for name in columns)
        values = [ours.estimate, ours.low, ours.high, *(each.estimate for each in others)]
        shown = [*row.groups()[2:5], *row["others"].replace("|", " ").split()]
        assert shown == [f"{100 * value:.1f}" for value in values], row[0]


@pytest.mark.parametrize(
    ("encoder", "task", "english", "others"),
    [
        ("pocket", "xsid", 0.0, 0.48),
        ("pocket", "sib200", 0.78, 0.48),
        ("pocket", "udpos", 0.0, 0.0),
        ("desk", "xsid", 0.0, 0.60),
        ("desk", "sib200", 0.0, 0.62),
        ("desk", "udpos", 0.0, 0.0),
        ("desk", "wikiann", 0.0, 0.0),
    ],
)
def test_an_encoder_reaches_what_was_set_for_it(
    encoder: str, task: str, english: float, others: float
) -> None:
    """Real data that it was not trained on; the bars were set before it was made."""
    reached, control = (found(encoder)[task, "full", drawn, True] for drawn in (False, True))
    assert reached.source.estimate >= max(english, control.source.estimate)
    assert reached.target.estimate >= max(others, control.target.estimate + 0.10)


def test_the_desk_encoder_is_no_larger_than_was_set() -> None:
    folder = ROOT / "book" / "models" / "desk"
    encoder = load_encoder(str(folder))
    assert language_model_head(encoder) is not None
    assert sum(p.numel() for p in encoder.backbone.parameters()) <= 12e6
    assert (folder / "model.safetensors").stat().st_size <= 24e6
