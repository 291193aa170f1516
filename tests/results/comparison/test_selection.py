import pytest

from peftlab.errors import RecordError
from peftlab.results import best_rate, selected
from peftlab.results.comparison.selection import part
from tests.results.made import grid, record


def test_the_development_split_selects_not_the_test_split():
    low = record(rate=1e-4, accuracy=0.99, dev=0.5)
    high = record(rate=1e-3, accuracy=0.10, dev=0.6)
    assert best_rate([low, high]) is high


def test_of_equal_scores_the_lower_rate_wins():
    runs = [record(rate=rate, dev=0.7) for rate in (1e-3, 1e-4, 1e-2)]
    assert best_rate(runs) is runs[1]


def test_failed_runs_are_passed_over():
    good = record(rate=1e-4, dev=0.1)
    failed = good.replaced(settings=record(rate=1e-3).settings, status="failed", error="NaN.")
    assert best_rate([failed, good]) is good
    assert best_rate([failed]) is None
    assert selected([failed]) == []


def test_a_failed_seed_keeps_no_other_out_where_no_rate_is_chosen():
    runs = [record(seed=seed) for seed in (0, 1, 2)]
    runs[0] = runs[0].replaced(status="failed", error="NaN.")
    assert [run.settings.seed for run in selected(runs)] == [1, 2]


def test_a_part_is_of_a_task_that_was_scored():
    run = record("full", "one")
    assert part(run, "one") is run
    with pytest.raises(RecordError, match="was not scored on 'two': choose among dev, test"):
        part(run, "two")


def test_only_runs_at_the_selected_rate_are_reported():
    kept = selected(grid())
    assert len(kept) == 2 * (1 + 3 + 3)
    assert {r.settings.learning_rate for r in kept} == {None, 1e-3}
    full = [r for r in kept if (r.settings.task, r.settings.method_label) == ("one", "full")]
    assert [r.settings.seed for r in full] == [0, 1, 2]


def test_the_seed_with_most_rates_is_the_tuning_seed():
    runs = [
        record(rate=1e-3, seed=0, dev=0.9),
        record(rate=1e-3, seed=7, dev=0.5),
        record(rate=1e-4, seed=7, dev=0.6),
    ]
    assert {r.settings.learning_rate for r in selected(runs)} == {1e-4}


def test_cells_of_other_sizes_or_encoders_stay_apart():
    runs = [record(), record(limits={"train": 10}), record(random_weights=True)]
    assert len(selected(runs)) == 3
