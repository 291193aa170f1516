"""Intervals hold the truth as often as they say, and no digit is printed that means nothing."""

from __future__ import annotations

import math

import numpy as np
import pytest

from peftlab.timing import Ratio, significant
from peftlab.timing.intervals import median_interval, paired_ratio


def noisy_pair(random, rounds, *, noise, drift, spikes, size, own=(1.0, 1.0)):
    """Draw the times of two candidates that are the same thing, measured in random order."""
    steps = 2 * rounds
    walk = np.cumsum(random.normal(size=steps)) * drift / math.sqrt(steps)
    wave = drift * np.sin(2 * math.pi * random.uniform(0.5, 3) * np.arange(steps) / steps)
    shared = (walk + wave).reshape(rounds, 2)
    shared = random.permuted(shared, axis=1).T
    jitter = random.normal(size=(2, rounds)) * noise * np.array(own)[:, None]
    spike = (random.random((2, rounds)) < spikes) * random.exponential(size, (2, rounds))
    return np.exp(shared + jitter) * (1 + spike)


NOISES = {
    "quiet": {"noise": 0.01, "drift": 0.0, "spikes": 0.0, "size": 1.0},
    "lognormal": {"noise": 0.05, "drift": 0.05, "spikes": 0.0, "size": 1.0},
    "drifting": {"noise": 0.02, "drift": 0.10, "spikes": 0.05, "size": 1.0},
    "spiky": {"noise": 0.01, "drift": 0.02, "spikes": 0.3, "size": 2.0},
    "uneven": {"noise": 0.02, "drift": 0.05, "spikes": 0.0, "size": 1.0, "own": (1.0, 3.0)},
}


@pytest.mark.parametrize("rounds", [10, 15, 20, 30])
@pytest.mark.parametrize("noise", NOISES)
def test_the_interval_of_a_thing_against_itself_holds_one(noise, rounds):
    random = np.random.default_rng(7)
    pairs = [noisy_pair(random, rounds, **NOISES[noise]) for _ in range(400)]
    covered = sum(paired_ratio(*pair).tie for pair in pairs) / 400
    assert covered >= 0.93


@pytest.mark.parametrize("rounds", [2, 3, 5])
def test_few_rounds_give_a_wide_interval_not_a_wrong_one(rounds):
    random = np.random.default_rng(8)
    pairs = [noisy_pair(random, rounds, **NOISES["lognormal"]) for _ in range(400)]
    assert sum(paired_ratio(*pair).tie for pair in pairs) / 400 >= 0.92


def test_a_real_difference_is_found_and_its_size_is_covered():
    random = np.random.default_rng(9)
    found = []
    for _ in range(400):
        ours, theirs = noisy_pair(random, 20, **NOISES["drifting"])
        found.append(paired_ratio(1.1 * ours, theirs))
    assert sum(r.low <= 1.1 <= r.high for r in found) / 400 >= 0.93
    assert sum(r.tie for r in found) == 0


def test_pairing_by_round_cancels_what_the_machine_does_to_both():
    machine = np.random.default_rng(0).uniform(1, 3, 200)  # slows both down, up to threefold
    assert paired_ratio(1.1 * machine, machine) == pytest.approx((1.1, 1.1, 1.1))


def test_the_interval_is_that_of_the_binomial():
    # n = 10: P(B <= 1) = 11/1024 <= 0.025 < P(B <= 2) = 56/1024, so the 2nd and the 9th.
    assert median_interval([7, 1, 9, 3, 10, 2, 8, 4, 6, 5]) == (2, 9)
    # n = 6: 2/64 = 0.031 outside of the extremes; n = 5 would have 2/32 = 0.0625.
    assert median_interval([1, 2, 3, 4, 5, 6]) == (1, 6)
    assert median_interval([1, 2, 3, 4, 5, 6], confidence=0.5) == (2, 5)


def test_five_values_or_fewer_have_the_interval_of_student():
    low, high = median_interval([1.0, 2.0, 3.0])
    assert ((low + high) / 2, (high - low) / 2) == pytest.approx((2, 4.302653 / math.sqrt(3)))


def test_one_round_says_nothing():
    assert paired_ratio([2.0], [1.0]) == Ratio(2.0, 0.0, math.inf)
    assert paired_ratio([2.0], [1.0]).tie


def test_ratios_turn_round():
    assert Ratio(2.0, 1.0, 4.0).inverse() == Ratio(0.5, 0.25, 1.0)
    assert not Ratio(2.0, 1.5, 4.0).tie


@pytest.mark.parametrize(
    ("value", "spread", "text"),
    [
        (1.23456, 0.021, "1.235"),
        (1234.5, 120, "1230"),
        (0.0, 0.1, "0.00"),
        (3.14159, 0, "3.142"),
        (3.14159, math.inf, "3.1"),
        (1234.5, math.inf, "1200"),
        (float("nan"), 1, "nan"),
    ],
)
def test_no_more_digits_than_the_noise_allows(value, spread, text):
    assert significant(value, spread) == text


def test_a_product_is_as_uncertain_as_both():
    found = Ratio(2.0, 1.0, 4.0).times(Ratio(0.5, 0.25, 1.0))
    assert found.ratio == 1
    assert math.log(found.high) == pytest.approx(math.hypot(math.log(2), math.log(2)))
    assert found.low == pytest.approx(1 / found.high)
    assert Ratio(2.0, 1.0, 4.0).times(Ratio(3.0, 3.0, 3.0)) == pytest.approx((6, 3, 12))


def test_a_ratio_prints_its_interval():
    assert str(Ratio(0.77123, 0.76512, 0.78034)) == "0.771 [0.765, 0.780]"
