"""Cards: what the records say stands there, what they do not say is called missing."""

from __future__ import annotations

from peftlab.results.card import NOT_MEASURED, NOTHING, card
from peftlab.results.statistics import summarise
from tests.results.made import grid


def test_scores_and_differences_are_those_of_the_summary():
    records = grid()
    summary = summarise(records)
    label = next(m for m in summary["method"] if m not in ("full", "majority"))
    table = card(records, label)
    assert list(table.columns) == ["property", "on", label, "full"]
    for line in summary[summary["method"] == label].itertuples():
        place = table["on"].str.startswith(line.task)
        score = table[place & table["property"].str.endswith(", test")]
        assert score[label].item().startswith(f"{line.mean:.3f} ({line.low:.3f} to")
        change = table[place & (table["property"] == "difference to full")]
        assert change[label].item().endswith(line.verdict)
        assert change["full"].item() == "–"
    assert f"{line.trainable:,.0f}" in set(table[label])


def test_what_is_not_recorded_is_called_missing():
    table = card([], "lora-8")
    assert list(table["property"]) == ["score", *NOT_MEASURED]
    assert set(table["lora-8"]) == {NOTHING}


def test_the_baseline_has_a_card_too():
    table = card(grid(), "full")
    assert list(table.columns) == ["property", "on", "full"]
    assert not table["property"].str.startswith("difference").any()
