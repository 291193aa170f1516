from __future__ import annotations

import gc
import json
import time

import numpy as np
import pytest
import torch

import peftlab as pl
from peftlab.errors import RecordError, SettingsError, UnknownNameError
from peftlab.timing import Comparison, NoisyTiming, Ratio, cost
from peftlab.timing.clock import Clock
from peftlab.timing.simulated import Device

pytestmark = pytest.mark.filterwarnings("ignore::peftlab.timing.NoisyTiming")


def made(**seconds):
    return Comparison({k: list(v) for k, v in seconds.items()}, {}, baseline=next(iter(seconds)))


def simulated(**kernels):
    """Return candidates on one simulated device, and its clock: name → seconds a call."""
    device = Device(launch=0.0, wait=0.0)

    def taking(seconds):
        def call():
            device.kernel = seconds
            device.call()

        return call

    return {n: taking(s) for n, s in kernels.items()}, Clock(device.now, device.synchronize)


# --- how it measures -----------------------------------------------------------------------------


def test_it_is_public():
    assert pl.cost is cost


def test_every_round_runs_every_candidate_in_changing_order():
    order = []

    def noted(name):
        def call():
            order.append(name)
            time.sleep(1e-3)

        return call

    result = cost(
        {name: noted(name) for name in "abc"},
        warmup=2,
        min_rounds=20,
        min_seconds=0,
        window_seconds=0,
    )
    rounds = [order[i : i + 3] for i in range(6, len(order), 3)]
    assert len(rounds) == 20
    assert all(sorted(r) == ["a", "b", "c"] for r in rounds)
    assert len({tuple(r) for r in rounds}) > 3
    assert all(len(samples) == 20 for samples in result.seconds.values())
    assert all(len(samples) == 2 for samples in result.warmup.values())


def test_the_order_is_that_of_the_seed():
    def orders(seed):
        order = []
        candidates, clock = simulated(a=0.01, b=0.01, c=0.01)
        noted = {
            n: lambda n=n, call=call: (order.append(n), call()) for n, call in candidates.items()
        }
        cost(noted, clock=clock, min_seconds=0, seed=seed)
        return order

    assert orders(1) == orders(1) != orders(2)


def test_goes_on_for_a_minimum_of_seconds_and_of_rounds():
    candidates, clock = simulated(a=0.002, b=0.001)
    found = cost(candidates, clock=clock, min_rounds=3, min_seconds=0.04)
    assert len(found.seconds["b"]) == 40
    assert sum(found.seconds["b"]) == pytest.approx(0.04)
    found = cost(candidates, clock=clock, min_rounds=7, min_seconds=0)
    assert len(found.seconds["a"]) == 7


def test_a_window_has_as_many_calls_as_it_needs():
    candidates, clock = simulated(short=1e-5, long=0.05)
    found = cost(candidates, clock=clock, min_seconds=0, window_seconds=0.02)
    assert found.calls["long"] == 1
    assert 0.02 <= found.calls["short"] * found.median("short") <= 0.03
    assert found.median("short") == pytest.approx(1e-5)


def test_on_a_cpu_a_call_of_a_millisecond_is_a_window():
    candidates, clock = simulated(short=1e-4, long=1.01e-3)
    found = cost(candidates, clock=clock)
    assert found.calls["long"] == 1
    assert 10 <= found.calls["short"] <= 13


def test_at_most_max_rounds_and_still_the_minimum_of_seconds():
    candidates, clock = simulated(a=1e-4, b=1e-4)
    found = cost(candidates, clock=clock, max_rounds=10, min_seconds=1.0)
    assert len(found.seconds["a"]) == 10
    assert found.calls["a"] * sum(found.seconds["a"]) >= 1.0


def test_a_window_that_is_told_is_not_lengthened():
    candidates, clock = simulated(a=1e-4, b=1e-4)
    found = cost(candidates, clock=clock, max_rounds=10, min_seconds=1.0, window_seconds=0.0)
    assert (len(found.seconds["a"]), found.calls["a"]) == (10, 1)


def test_a_slow_first_call_does_not_make_windows_short():
    device = Device(launch=0.0, wait=0.0, kernel=1e-4)
    calls = []

    def call():
        calls.append(None)
        device.call(kernels=10_000 if len(calls) == 1 else 1)

    clock = Clock(device.now, device.synchronize)
    found = cost({"a": call}, clock=clock, window_seconds=0.01, min_seconds=0)
    assert found.calls["a"] * found.median("a") >= 0.01


def test_no_garbage_is_collected_meanwhile_but_it_is_afterwards():
    seen = set()

    def call():
        seen.add(gc.isenabled())
        time.sleep(1e-3)

    cost({"a": call}, warmup=1, min_rounds=2, min_seconds=0)
    assert seen == {True, False}  # in the warm-up, and in the rounds
    assert gc.isenabled()
    calls = []

    def fails_in_a_round():
        calls.append(None)
        time.sleep(1e-3)
        if not gc.isenabled():
            raise RuntimeError

    with pytest.raises(RuntimeError):
        cost({"a": fails_in_a_round}, min_seconds=0)
    assert gc.isenabled()


def test_a_candidate_that_does_twice_the_work_takes_twice_the_time():
    def work(n):
        return lambda: sum(range(n))

    result = cost(
        {"one": work(60_000), "again": work(60_000), "two": work(120_000)},
        clock=Clock(time.process_time),
        min_seconds=0.2,
    )
    assert result.ratio("two").ratio == pytest.approx(2, rel=0.2)
    assert result.ratio("two").low > 1.5
    assert result.ratio("again").ratio == pytest.approx(1, rel=0.1)
    assert result.ratio("one") == Ratio(1, 1, 1)


@pytest.mark.slow
def test_a_thing_against_itself_is_a_tie_in_nine_of_ten():
    layers = torch.nn.Sequential(*[torch.nn.Linear(128, 128) for _ in range(4)])
    batch = torch.randn(32, 128)

    def forward():
        with torch.no_grad():
            return layers(batch)

    def step():
        layers.zero_grad()
        layers(batch).sum().backward()

    ties = 0
    for seed in range(100):
        for call in (forward, step, lambda: sum(range(20_000))):
            options = {"min_rounds": 15, "min_seconds": 0, "seed": seed}
            ties += cost({"a": call, "b": call}, **options).ratio("b").tie
    assert ties >= 270


def test_noise_warns_and_is_named():
    random = np.random.default_rng(2)

    def jitter():
        time.sleep(float(random.uniform(0.0005, 0.005)))

    with pytest.warns(NoisyTiming, match=r"'a' is noisy: its IQR is \d+ % of the median"):
        cost({"a": jitter, "b": jitter}, min_rounds=15, min_seconds=0)
    assert made(a=[1.0, 1.01, 1.02] * 5).noisy() == []


class Gpu(Clock):
    """A clock of a GPU that is busy for a known time of every call."""

    def busy(self, call, seconds):
        return min(1.0, 0.5e-3 / seconds)


def test_a_launch_bound_call_is_named():
    candidates, clock = simulated(full=0.5e-3, lora=2e-3)
    found = cost(candidates, clock=Gpu(clock._now, clock._synchronize), min_seconds=0)
    assert found.busy == {"full": pytest.approx(1), "lora": pytest.approx(0.25)}
    full, lora = str(found).splitlines()[1:]
    assert lora.endswith("launch-bound: GPU busy 25 %")
    assert "launch-bound" not in full
    assert found.table().loc["lora", "busy"] == pytest.approx(0.25)


def test_the_busy_share_is_not_asked_for_where_nobody_wants_it():
    candidates, clock = simulated(full=0.5e-3)
    found = cost(candidates, clock=Gpu(clock._now, clock._synchronize), min_seconds=0, busy=False)
    assert found.busy == {}
    assert "launch-bound" not in str(found)


def test_a_cpu_has_no_busy_share():
    found = cost({"a": lambda: time.sleep(1e-3)}, min_rounds=2, min_seconds=0)
    assert found.busy == {"a": None}
    assert "launch-bound" not in str(found)


# --- what it says --------------------------------------------------------------------------------


def test_a_ratio_is_the_median_within_rounds():
    result = made(full=[1.0, 2.0, 4.0], lora=[0.5, 1.0, 8.0])
    assert result.ratio("lora").ratio == pytest.approx(0.5)
    assert result.ratio("full", against="lora").ratio == pytest.approx(2)


def test_the_table_holds_what_is_printed():
    rounds = np.random.default_rng(3).normal(1, 0.001, (2, 20))
    result = made(full=0.010 * rounds[0], lora=0.005 * rounds[1], again=0.010 * rounds[1])
    table = result.table()
    assert list(table.index) == ["full", "lora", "again"]
    assert table.loc["full", "median_ms"] == pytest.approx(10, rel=1e-3)
    assert table.loc["full", "median_low_ms"] < 10 < table.loc["full", "median_high_ms"]
    assert table.loc["lora", "ratio"] == pytest.approx(0.5, rel=1e-3)
    assert list(table["tie"]) == [True, False, True]
    head, full, lora, again = str(result).splitlines()
    assert head == "time a call, and its ratio to full: medians of 20 rounds [95 % interval]"
    assert full.startswith("full   ") and full.endswith("baseline")
    assert "×0.500" in lora and "tie" not in lora
    assert again.endswith("tie")


def test_noise_takes_digits_away_and_is_said():
    random = np.random.default_rng(4)
    calm, wild = random.normal(0.01, 1e-5, 15), random.normal(0.01, 3e-3, 15)
    assert "10.00 ms" not in str(made(a=wild))
    assert f"{1000 * np.median(calm):.3f} [" in str(made(a=calm))
    assert "noisy: IQR" in str(made(a=wild))


def test_plain_data_and_back():
    candidates, clock = simulated(a=0.002, b=0.001)
    found = cost(candidates, clock=clock, min_seconds=0)
    again = Comparison.from_dict(json.loads(json.dumps(found.to_dict())))
    assert again == found
    assert str(again) == str(found)


# --- what is refused -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("candidates", "options", "sentence"),
    [
        ({}, {}, "baseline '' is not among the candidates []"),
        ({"a": print}, {"baseline": "b"}, "baseline 'b' is not among the candidates ['a']"),
        ({"a": torch.ones(1)}, {}, "Candidate 'a' is a Tensor, which cannot be called"),
        ({"a": print}, {"min_rounds": 1}, "got 3, 1, 1000, 1.0, 0.001"),
        ({"a": print}, {"warmup": 0}, "needs warmup >= 1"),
        ({"a": print}, {"window_seconds": -1}, "window_seconds >= 0"),
    ],
)
def test_what_cannot_be_compared_is_refused(candidates, options, sentence):
    with pytest.raises(SettingsError) as error:
        cost(candidates, **options)
    assert sentence in str(error.value)
    assert str(error.value).count(". ") == 0


@pytest.mark.parametrize(
    ("seconds", "options", "sentence"),
    [
        ({"a": [1.0, 2.0], "b": [1.0]}, {}, "different or no rounds"),
        ({"a": []}, {}, "different or no rounds"),
        ({"a": [1.0, 0.0]}, {}, "A time of 'a' is not positive"),
        ({"a": [1.0, float("nan")]}, {}, "A time of 'a' is not positive"),
        ({"a": [1.0]}, {"confidence": 95}, "The confidence 95 is no probability"),
    ],
)
def test_what_is_no_comparison_is_refused(seconds, options, sentence):
    with pytest.raises(SettingsError, match=sentence):
        Comparison(seconds, {}, "a", **options)


def test_an_unknown_candidate_is_named():
    with pytest.raises(UnknownNameError, match="no candidate 'lore': did you mean 'lora'"):
        made(full=[1.0], lora=[1.0]).ratio("lore")


def test_a_clock_that_stands_still_is_no_clock():
    with pytest.raises(SettingsError, match="not positive: check the clock"):
        cost({"a": lambda: None}, clock=Clock(lambda: 0.0), min_seconds=0)


def test_data_of_something_else_are_refused():
    data = made(a=[1.0]).to_dict()
    del data["warmup"]
    with pytest.raises(RecordError, match="warmup missing or not known"):
        Comparison.from_dict(data)
    with pytest.raises(RecordError, match="colour missing or not known"):
        Comparison.from_dict(made(a=[1.0]).to_dict() | {"colour": "red"})
