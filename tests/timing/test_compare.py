import time

import numpy as np
import pytest

from peftlab.errors import SettingsError
from peftlab.timing import Comparison, NoisyTiming, Ratio, compare, significant

pytestmark = pytest.mark.filterwarnings("ignore::peftlab.timing.NoisyTiming")


def made(**seconds):
    return Comparison({k: list(v) for k, v in seconds.items()}, {}, baseline=next(iter(seconds)))


def test_every_round_runs_every_candidate_in_changing_order():
    order = []
    result = compare(
        {name: (lambda name=name: order.append(name)) for name in "abc"},
        warmup=2,
        min_rounds=20,
        max_rounds=20,
        synchronize=lambda: None,
    )
    rounds = [order[i : i + 3] for i in range(6, len(order), 3)]
    assert len(rounds) == 20
    assert all(sorted(r) == ["a", "b", "c"] for r in rounds)
    assert len({tuple(r) for r in rounds}) > 3
    assert all(len(samples) == 20 for samples in result.seconds.values())
    assert all(len(samples) == 2 for samples in result.warmup.values())


def test_goes_on_for_a_minimum_of_seconds_and_of_rounds():
    def sleep():
        time.sleep(0.002)

    result = compare({"a": sleep, "b": sleep}, min_rounds=3, min_seconds=0.04)
    assert sum(result.seconds["a"]) >= 0.04
    result = compare({"a": sleep, "b": sleep}, min_rounds=7, min_seconds=0)
    assert len(result.seconds["a"]) == 7


def test_a_candidate_that_does_twice_the_work_takes_twice_the_time():
    def work(n):
        return lambda: sum(range(n))

    result = compare({"one": work(60_000), "again": work(60_000), "two": work(120_000)})
    assert result.ratio("two").ratio == pytest.approx(2, rel=0.2)
    assert result.ratio("two").low > 1.5
    assert result.ratio("again").ratio == pytest.approx(1, rel=0.1)
    assert result.ratio("one") == Ratio(1, 1, 1)


def test_pairing_by_round_cancels_what_the_machine_does_to_both():
    random = np.random.default_rng(0)
    machine = random.uniform(1, 3, 200)  # slows both down, up to threefold
    result = made(a=machine, b=1.1 * machine)
    ratio = result.ratio("b")
    assert (ratio.ratio, ratio.low, ratio.high) == pytest.approx((1.1, 1.1, 1.1))


def test_the_interval_covers_the_truth_at_its_rate():
    random = np.random.default_rng(1)
    inside = 0
    for _ in range(200):
        a, b = random.normal(1, 0.05, (2, 40))
        inside += made(a=a, b=b).ratio("b").tie
    assert 0.90 <= inside / 200 <= 0.99


def test_noise_warns_and_is_named():
    random = np.random.default_rng(2)

    def jitter():
        time.sleep(float(random.uniform(0.0005, 0.005)))

    with pytest.warns(NoisyTiming, match="'a' is noisy"):
        compare({"a": jitter, "b": jitter}, min_rounds=15, min_seconds=0)
    assert made(a=[1.0, 1.01, 1.02] * 5).noisy() == []


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
        (float("nan"), 1, "nan"),
    ],
)
def test_no_more_digits_than_the_noise_allows(value, spread, text):
    assert significant(value, spread) == text


def test_the_table_holds_what_is_printed():
    result = made(full=[0.010, 0.011, 0.012, 0.011], lora=[0.005, 0.006, 0.0055, 0.005])
    table = result.table()
    assert list(table.index) == ["full", "lora"]
    assert table.loc["full", "median_ms"] == pytest.approx(11)
    assert table.loc["lora", "ratio"] == pytest.approx(5.25 / 11)
    assert "against full" in str(result)
    assert "lora" in str(result)


@pytest.mark.parametrize(
    ("candidates", "options"),
    [
        ({}, {}),
        ({"a": print}, {"baseline": "b"}),
        ({"a": print}, {"min_rounds": 1}),
        ({"a": print}, {"warmup": -1}),
    ],
)
def test_what_cannot_be_compared_is_refused(candidates, options):
    with pytest.raises(SettingsError):
        compare(candidates, **options)
