"""Cards: what the records say stands there, what they do not say is called missing."""

from __future__ import annotations

from peftlab.results.comparison.card import FORWARD, MEMORY, NOTHING, STEP, card
from peftlab.results.comparison.statistics import summarise
from tests.results.made import cost_record, grid


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
    assert list(table["property"]) == ["score", STEP, MEMORY, FORWARD]
    assert set(table["lora-8"]) == {NOTHING}


def test_the_baseline_has_a_card_too():
    table = card(grid(), "full")
    assert list(table.columns) == ["property", "on", "full"]
    assert not table["property"].str.startswith("difference").any()


def test_what_was_measured_stands_there_and_the_rest_is_missing():
    table = card(grid(), "lora", costs=[cost_record(8), cost_record(32), cost_record(2)])
    step = table[table["property"] == STEP]
    assert list(step["on"]) == ["bert-base, 32 × 32 tokens, fp32, a processor"]
    assert step["lora"].item().startswith("0.7")
    assert step["full"].item() == "1"
    assert table[table["property"] == MEMORY]["lora"].item() == "5 MB"
    assert table[table["property"] == FORWARD]["lora"].item() == NOTHING


def test_a_forward_pass_has_its_median_and_95th_percentile():
    made = cost_record(1, mode="inference")
    seconds = [n / 1000 for n in range(1, 102)]
    candidates = {
        label: each.model_copy(update={"seconds": seconds})
        for label, each in made.candidates.items()
    }
    made = made.model_copy(update={"candidates": candidates})
    table = card(grid(), "lora", costs=[made])
    assert table[table["property"] == FORWARD]["lora"].item() == "51 ms, 96 ms"
