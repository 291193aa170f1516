"""The clock is right about known durations, and right where the classic mistakes are wrong."""

from __future__ import annotations

from time import perf_counter, process_time

import pytest
import torch

from peftlab.errors import SettingsError
from peftlab.timing import Phases, cost
from peftlab.timing.clock import Clock, EventClock, clock
from peftlab.timing.simulated import Device

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


def busy_wait(seconds, now):
    """Return a callable that takes so long by a clock."""

    def call():
        end = now() + seconds
        while now() < end:
            pass

    return call


def test_a_known_duration_is_measured_within_two_percent():
    # The fastest of many: another program that takes the core away only adds to a wait.
    call = busy_wait(0.005, perf_counter)
    assert min(Clock().window(call) for _ in range(50)) == pytest.approx(0.005, rel=0.02)


def test_a_window_of_several_calls_gives_the_time_of_one():
    # The fastest of some: another thread of this process, such as the test runner's, only adds.
    call = busy_wait(0.002, process_time)
    fastest = min(Clock(process_time).window(call, 5) for _ in range(10))
    assert fastest == pytest.approx(0.002, rel=0.02)


def test_a_known_duration_comes_out_of_a_comparison_within_two_percent():
    # Processor time, which other programs do not take part in.
    found = cost(
        {n: busy_wait(s, process_time) for n, s in {"one": 0.002, "two": 0.004}.items()},
        clock=Clock(process_time),
        min_seconds=0.1,
    )
    assert found.median("one") == pytest.approx(0.002, rel=0.02)
    assert found.ratio("two").ratio == pytest.approx(2, rel=0.02)


def test_agrees_with_the_timer_of_torch():
    from torch.utils.benchmark import Timer

    call = busy_wait(0.002, process_time)
    theirs = Timer("call()", globals={"call": call}, timer=process_time).timeit(50).median
    ours = cost({"ours": call}, clock=Clock(process_time), min_seconds=0.1).median("ours")
    assert ours / theirs == pytest.approx(1, abs=0.02)


# --- the classic mistakes, on a device whose true times are known --------------------------------


def test_waits_at_the_edges_of_a_window():
    device = Device(launch=1e-4, kernel=5e-3)
    right = Clock(device.now, device.synchronize).window(device.call, 100)
    assert right == pytest.approx(5e-3, rel=0.01)


def test_without_waiting_only_the_launches_would_be_timed():
    device = Device(launch=1e-4, kernel=5e-3)
    wrong = Clock(device.now).window(device.call, 100)
    assert wrong == pytest.approx(1e-4)  # fifty times too small


def test_waiting_after_every_call_would_forbid_the_overlap():
    device = Device(launch=4e-3, kernel=5e-3)

    def call_and_wait():
        device.call()
        device.synchronize()

    measured = Clock(device.now, device.synchronize)
    assert measured.window(device.call, 100) == pytest.approx(5e-3, rel=0.02)
    assert measured.window(call_and_wait, 100) == pytest.approx(9.1e-3, rel=0.02)


def test_the_first_call_is_not_counted():
    device = Device()
    calls = []

    def step():
        calls.append(None)
        device.call(kernels=1000 if len(calls) == 1 else 1)  # the first one compiles

    found = cost({"step": step}, clock=Clock(device.now, device.synchronize), min_seconds=0)
    true = device.kernel
    assert found.warmup["step"][0] == pytest.approx(1000 * true, rel=0.01)
    assert max(found.seconds["step"]) == pytest.approx(true, rel=0.05)
    everything = found.warmup["step"] + found.seconds["step"]
    assert sum(everything) / len(everything) > 50 * true  # what counting it would have said


def test_evaluation_is_not_training_time():
    device = Device()
    phases = Phases(synchronize=device.synchronize, clock=device.now)
    steps = 10
    for step in range(steps):
        with phases("train"):
            device.call()
        if step % 5 == 4:
            with phases("validate"):
                device.call(kernels=20)
    seconds = phases.seconds()
    assert seconds["train"] / steps == pytest.approx(device.kernel, rel=0.1)
    assert seconds["validate"] == pytest.approx(40 * device.kernel, rel=0.1)
    assert seconds["total"] / steps > 4 * device.kernel  # what one clock around all would say


def test_phases_that_do_not_wait_would_charge_training_to_the_evaluation():
    device = Device()
    phases = Phases(clock=device.now)
    with phases("train"):
        device.call(kernels=10)
    with phases("validate"):
        device.call()
        device.synchronize()
    seconds = phases.seconds()
    assert seconds["train"] < 0.03 * 10 * device.kernel
    assert seconds["validate"] > 10 * device.kernel


# --- which clock ---------------------------------------------------------------------------------


def test_a_cpu_has_the_monotonic_clock_and_no_busy_share():
    found = clock("cpu")
    assert type(found) is Clock
    assert found.busy(lambda: None, 1.0) is None


def test_the_clock_is_that_of_the_device_in_use(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: False)
    assert type(clock()) is Clock
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    assert type(clock()) is EventClock


@pytest.mark.parametrize(
    ("device", "sentence"),
    [
        ("gpu", "'gpu' is no device: give 'cpu' or 'cuda'."),
        ("meta", "There is no clock for 'meta': give 'cpu' or 'cuda'."),
        ("cuda:99", "There is no GPU 'cuda:99' here: give 'cpu', or another index."),
    ],
)
def test_other_devices_are_refused(device, sentence):
    with pytest.raises(SettingsError) as error:
        clock(device)
    assert str(error.value) == sentence


# --- on a GPU ------------------------------------------------------------------------------------


@pytest.fixture
def cycles():
    """Cycles a second of a GPU that waits, by the host's clock and a wait of half a second."""
    torch.cuda._sleep(1_000_000_000)  # until its clock rate has risen
    torch.cuda.synchronize()
    start = perf_counter()
    torch.cuda._sleep(1_000_000_000)
    torch.cuda.synchronize()
    return 1e9 / (perf_counter() - start)


@pytest.mark.gpu
@needs_gpu
@pytest.mark.parametrize("milliseconds", [1, 10])
def test_a_known_wait_of_the_gpu_is_measured_within_five_percent(cycles, milliseconds):
    known = milliseconds / 1000
    found = cost({"wait": lambda: torch.cuda._sleep(int(cycles * known))}, clock=clock("cuda"))
    assert found.median("wait") == pytest.approx(known, rel=0.05)
    assert found.calls["wait"] * known >= 0.019


@pytest.mark.gpu
@needs_gpu
def test_agrees_with_the_benchmark_of_triton():
    testing = pytest.importorskip("triton.testing")
    # Larger than the caches, which do_bench empties between calls, and limited by the memory: the
    # clock rate of a GPU that multiplies falls with the time it does so.
    source = torch.zeros(2**28, device="cuda")
    target = torch.empty_like(source)

    def copy():
        target.copy_(source)

    theirs = testing.do_bench(copy, return_mode="median") / 1000
    ours = cost({"copy": copy}, clock=clock("cuda")).median("copy")
    assert ours / theirs == pytest.approx(1, abs=0.05)
