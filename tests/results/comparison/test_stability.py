from __future__ import annotations

import math

import numpy as np
import pytest

from peftlab.errors import RecordError
from peftlab.results.comparison.stability import agreement, stability

ALL = (0, 1, 2, 3)


def test_stability_by_hand():
    # shares 1, 2/3, 1/3, 0: variances 3/2 · 2/9 twice, of four; by chance 1/4. Without the third
    # seed it is 1, without one of the others 0: values 1, 1, -1, whose error is 2/3
    found = stability([(0, 1), (0, 1), (0, 2)], 4)
    assert found.estimate == pytest.approx(1 - (1 / 6) / (1 / 4))
    assert (found.low, found.high) == (pytest.approx(1 / 3 - 4.303 * 2 / 3, abs=1e-3), 1)
    assert (found.n, found.over) == (3, "seeds")


def test_agreement_by_hand():
    # {0,1} and {0,2} agree on 0 and 3, as random pairs do; {0,1} and {0,1} on all, by chance half
    found = agreement([((0, 1), (0, 2)), ((0, 1), (0, 1)), ((2, 3), (2, 3))], 4)
    assert found.estimate == pytest.approx((0 + 0.5 + 0.5) / 1.5)
    # of different sizes: 3 of 4 agree, half by chance
    sizes = agreement([((0, 1), (0,))] * 3, 4)
    assert sizes.estimate == pytest.approx((0.75 - 0.5) / 0.5)
    opposite = agreement([((0, 1), (2, 3))] * 3, 4)
    assert (opposite.estimate, opposite.low, opposite.high) == pytest.approx((-1, -1, -1))


@pytest.mark.parametrize("chosen", [(0,), (0, 1, 2)])
def test_the_same_selection_agrees_wholly_however_large_it_is(chosen):
    for found in (stability([chosen] * 3, 4), agreement([(chosen, chosen)] * 3, 4)):
        assert (found.estimate, found.low, found.high) == pytest.approx((1, 1, 1))


def test_everything_leaves_nothing_to_agree_on():
    for found in (
        stability([ALL] * 3, 4),
        stability([ALL, ALL, (0,)], 4),
        agreement([(ALL, ALL)] * 3, 4),
    ):
        assert all(math.isnan(x) for x in (found.estimate, found.low, found.high))
        assert found.verdict == "tie"


def test_three_seeds_are_needed():
    with pytest.raises(RecordError, match="needs 3 of them, not 2: run more seeds"):
        stability([ALL, (0,)], 4)
    with pytest.raises(RecordError, match="not 0"):
        agreement([], 4)


def test_intervals_of_five_seeds_hold_what_they_say():
    draw = np.random.default_rng(0)
    likely = np.array([0.95, 0.9, 0.9, 0.8, 0.3, 0.3])
    k = likely.mean()
    truth = 1 - (likely * (1 - likely)).mean() / (k * (1 - k))
    hits = []
    for _ in range(400):
        seeds = draw.random((5, 6)) < likely
        found = stability([np.flatnonzero(seed) for seed in seeds], 6)
        hits.append(found.low <= truth <= found.high)
    assert 0.92 <= np.mean(hits) <= 0.99
    # and of sets that have nothing to do with one another, few are said to agree
    wrong = 0
    for _ in range(400):
        pairs = [
            tuple(np.flatnonzero(draw.random(6) < likely.mean()) for _ in "ab") for _ in "12345"
        ]
        wrong += agreement(pairs, 6).low > 0
    assert wrong / 400 <= 0.04
