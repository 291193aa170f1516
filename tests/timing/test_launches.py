"""The busy share of a GPU: from intervals by hand, and on a real one."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch.autograd import DeviceType

from peftlab.timing import cost, launches
from peftlab.timing.clock import clock

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


@pytest.mark.parametrize(
    ("intervals", "length"),
    [
        ([], 0),
        ([(0, 1), (2, 4)], 3),
        ([(2, 4), (0, 1)], 3),
        ([(0, 3), (1, 2)], 3),  # two streams
        ([(0, 2), (1, 3), (3, 4)], 4),
    ],
)
def test_what_overlaps_counts_once(intervals, length):
    assert launches.union(intervals) == length


def event(start, end, device=DeviceType.CUDA, annotation=False):
    return SimpleNamespace(
        time_range=SimpleNamespace(start=start, end=end),
        device_type=device,
        is_user_annotation=annotation,
    )


def test_only_work_of_the_gpu_counts():
    events = [
        event(0, 500, DeviceType.CPU),
        event(100, 150),
        event(300, 400),
        event(90, 450, annotation=True),  # an optimiser's step, gaps included
    ]
    assert launches.kernels(events) == [
        pytest.approx((100e-6, 150e-6)),
        pytest.approx((300e-6, 400e-6)),
    ]


def test_the_events_are_those_of_torch():
    cpu = [torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=cpu) as profiler, torch.profiler.record_function("mine"):
        torch.ones(2) + 1
    events = profiler.events()
    assert {e.name for e in events if e.is_user_annotation} == {"mine"}
    assert launches.kernels(events) == []


class Profiler:
    """Stands in for torch's, with the kernels of one call."""

    events_of_a_call = ()

    def __init__(self, activities):
        self.activities = activities

    def __enter__(self):
        return self

    def __exit__(self, *error):
        pass

    def events(self):
        return self.events_of_a_call


@pytest.fixture
def profiled(monkeypatch):
    """Return a function that says which kernels a profiled call has."""
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    monkeypatch.setattr(torch.profiler, "profile", Profiler)
    monkeypatch.setattr(launches, "MARGIN", 0)
    return lambda events: monkeypatch.setattr(Profiler, "events_of_a_call", events)


def test_busy_is_kernels_over_unprofiled_seconds(profiled):
    calls = []
    profiled([event(0, 200), event(1000, 1300)])
    assert launches.busy(lambda: calls.append(None), 1e-3) == pytest.approx(0.5)
    assert len(calls) == 1


def test_busy_is_at_most_one_and_unknown_without_kernels(profiled):
    profiled([event(0, 1100)])
    assert launches.busy(lambda: None, 1e-3) == 1
    profiled([event(0, 1100, DeviceType.CPU)])
    assert launches.busy(lambda: None, 1e-3) is None


def test_the_profiler_runs_once_for_nothing(profiled, monkeypatch):
    runs = []
    monkeypatch.setattr(launches, "busy", lambda call, seconds: runs.append(call))
    launches.start.cache_clear()
    launches.start()
    launches.start()
    assert len(runs) == 1
    launches.start.cache_clear()


@pytest.mark.parametrize(
    ("share", "text"),
    [(None, ""), (0.8, ""), (1.0, ""), (0.43, "launch-bound: GPU busy 43 %")],
)
def test_launch_bound_is_said_below_eight_tenths(share, text):
    assert launches.describe(share) == text


# --- on a GPU ------------------------------------------------------------------------------------


@pytest.mark.gpu
@needs_gpu
def test_large_kernels_keep_a_gpu_busy_and_small_ones_do_not():
    large = torch.randn(4096, 4096, device="cuda")
    small = torch.randn(16, device="cuda")

    def many():
        x = small
        for _ in range(200):
            x = x + 1

    found = cost({"large": lambda: large @ large, "small": many}, clock=clock("cuda"))
    assert found.busy["large"] > 0.9
    assert found.busy["small"] < launches.LAUNCH_BOUND
    assert "launch-bound: GPU busy" in str(found)


@pytest.mark.gpu
@needs_gpu
def test_an_optimisers_annotation_does_not_look_like_work():
    weights = [torch.nn.Parameter(torch.zeros(8, device="cuda")) for _ in range(200)]
    for weight in weights:
        weight.grad = torch.ones_like(weight)
    step = torch.optim.AdamW(weights, foreach=False, fused=False).step
    found = cost({"step": lambda: step()}, clock=clock("cuda"), min_seconds=0.2)
    assert found.busy["step"] < launches.LAUNCH_BOUND


@pytest.mark.gpu
@needs_gpu
def test_work_of_the_cpu_has_no_busy_share():
    found = cost({"cpu": lambda: sum(range(1000))}, clock=clock("cuda"), min_seconds=0.1)
    assert found.busy["cpu"] is None
