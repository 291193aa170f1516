"""Which runs of several cells belong together."""

from __future__ import annotations

import pytest

from peftlab.errors import RecordError
from peftlab.results.comparison.pairing import by_seed
from tests.results.made import record


def runs(label: str, *seeds: int, rate: float | None = 1e-3) -> list:
    return [record(label, seed=seed, rate=rate) for seed in seeds]


def test_runs_are_paired_by_seed_whatever_their_order():
    found = by_seed(runs("full", 2, 0, 1), runs("lora", 1, 2, 5), runs("houlsby", 3, 2, 1))
    assert [[r.settings.seed for r in each] for each in found] == [[1, 1, 1], [2, 2, 2]]
    assert [r.settings.method_label for r in found[0]] == ["full", "lora", "houlsby"]


def test_a_control_that_trains_nothing_is_paired_with_every_seed():
    control = runs("majority", 0, rate=None)
    for cells in ((control, runs("full", 1, 2)), (runs("full", 1, 2), control)):
        found = by_seed(*cells)
        assert len(found) == 2
        assert all(control[0] in each for each in found)
    assert len(by_seed(control, runs("other", 1, rate=None))) == 1


def test_two_runs_of_a_control_are_no_constant():
    assert len(by_seed(runs("majority", 0, 1, rate=None), runs("full", 1, 2))) == 1


def test_one_run_that_is_trained_is_not_paired_with_other_seeds():
    with pytest.raises(RecordError, match=r"seeds \[0\] and \[1, 2\] cannot be paired"):
        by_seed(runs("full", 0), runs("lora", 2, 1))
