"""Energy by a made-up counter, and its price; a real counter where there is one."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest
import torch

from peftlab.errors import SettingsError, TimingError
from peftlab.timing import energy, machine
from peftlab.timing.energy import SHORTEST, Energy, Price, meter, of_call

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


class NVMLError(Exception):
    pass


class Nvml:
    """A driver whose GPU takes 300 W and whose clock is set by hand."""

    NVMLError = NVMLError

    def __init__(self):
        self.now, self.open, self.waits, self.supported, self.watts = 50.0, 0, 0, True, 300.0

    def nvmlInit(self):
        self.open += 1

    def nvmlShutdown(self):
        self.open -= 1

    def nvmlDeviceGetHandleByUUID(self, uuid):
        assert self.open
        return {"GPU-1234": "handle"}[uuid]

    def nvmlDeviceGetTotalEnergyConsumption(self, handle):
        assert self.open and handle == "handle"
        if not self.supported:
            raise NVMLError("Not Supported")
        return int(1000 * self.watts * self.now)

    def synchronize(self, device):
        self.waits += 1


@pytest.fixture
def nvml(monkeypatch):
    fake = Nvml()
    monkeypatch.setitem(sys.modules, "pynvml", fake)
    monkeypatch.setattr(torch.cuda, "synchronize", fake.synchronize)
    monkeypatch.setattr(energy, "identity", lambda index: "GPU-1234")
    monkeypatch.setattr(energy, "perf_counter", lambda: fake.now)
    return fake


def test_joules_of_a_window(nvml):
    with meter("cuda") as found:
        nvml.now += 4
    assert found.joules == 1200
    assert found.as_dict() == {"seconds": 4, "joules": 1200, "reason": ""}
    assert nvml.waits == 2  # work queued before the window, and work of the window
    assert nvml.open == 0


def test_the_counter_is_closed_after_an_error(nvml):
    with pytest.raises(ZeroDivisionError), meter("cuda"):
        raise ZeroDivisionError
    assert nvml.open == 0


def test_a_window_shorter_than_the_counter_can_tell_is_refused(nvml):
    with meter("cuda") as found:
        nvml.now += 0.5
    with pytest.raises(TimingError, match=r"0\.5 s is too short .* at least 2 s"):
        _ = found.joules
    assert found.as_dict()["joules"] is None
    assert "too short" in found.as_dict()["reason"]


def test_a_counter_that_stands_still_is_refused(nvml):
    nvml.watts = 0
    with meter("cuda") as found:
        nvml.now += 3
    with pytest.raises(TimingError, match=r"did not advance in 3 s: measure for at least 30 s"):
        _ = found.joules


def test_a_window_that_is_long_enough_is_off_by_a_twentieth_at_most():
    assert energy.STEP <= 0.05 * SHORTEST


def test_a_gpu_without_counter_gives_the_reason(nvml):
    nvml.supported = False
    with meter("cuda") as found:
        nvml.now += 3
    assert found.joules is None
    assert found.as_dict() == {
        "seconds": 3,
        "joules": None,
        "reason": "The energy is not measured: NVML answers 'Not Supported'.",
    }
    assert nvml.open == 0


def test_a_missing_package_gives_the_reason(nvml, monkeypatch):
    monkeypatch.setitem(sys.modules, "pynvml", None)
    with meter("cuda") as found:
        nvml.now += 3
    assert found.joules is None and found.seconds == 3
    assert "nvidia-ml-py is not installed" in found.reason


def test_a_cpu_has_no_counter():
    with meter("cpu") as found:
        pass
    assert found.joules is None
    assert found.reason == "The energy of 'cpu' is not measured: only NVIDIA's counter is read."


def test_joules_of_a_call_come_from_a_stretch_of_many(nvml):
    calls = []

    def call():
        calls.append(None)
        nvml.now += 0.5

    assert of_call(call, 0.5, "cuda") == (150, "")
    assert len(calls) * 0.5 >= SHORTEST


def test_a_call_that_became_faster_is_called_more_often(nvml):
    def call():
        nvml.now += 0.01

    assert of_call(call, 0.5, "cuda") == (pytest.approx(3, rel=1e-4), "")


def test_nothing_is_called_where_there_is_no_counter():
    joules, reason = of_call(pytest.fail, 0.5, "cpu")
    assert joules is None
    assert "'cpu' is not measured" in reason


def test_the_gpu_is_named_as_the_driver_names_it(monkeypatch):
    properties = SimpleNamespace(uuid="1234")
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: properties)
    assert machine.identity(0) == "GPU-1234"


class TestPrice:
    def test_by_hand(self):
        # half an hour at 2 an hour, and half a kWh at 0.30
        assert Price("EUR", 2.0, 0.30).of(1800, 1.8e6) == pytest.approx(1.15)
        assert Price("EUR", 2.0).of(1800) == 1.0
        assert Price("EUR", 0.0, 0.30).of(10, Energy(10, 3.6e6).joules) == pytest.approx(0.30)

    def test_an_unknown_energy_is_not_free(self):
        with pytest.raises(SettingsError, match=r"0\.3 EUR and the energy is not known"):
            Price("EUR", 2.0, 0.30).of(1800)

    def test_prices_are_not_negative(self):
        with pytest.raises(SettingsError, match="negative price"):
            Price("EUR", -1.0)


@pytest.mark.gpu
@needs_gpu
def test_a_busy_gpu_takes_a_plausible_power():
    pytest.importorskip("pynvml")
    a = torch.randn(4096, 4096, device="cuda")
    with meter("cuda") as found:
        start = torch.cuda.Event(enable_timing=True)
        end = torch.cuda.Event(enable_timing=True)
        start.record()
        passed = 0.0
        while passed < SHORTEST:
            for _ in range(20):
                torch.mm(a, a)
            end.record()
            end.synchronize()
            passed = start.elapsed_time(end) / 1000
    if found.advance is None:
        pytest.skip(found.reason)
    assert found.seconds >= SHORTEST
    assert 10 < found.joules / found.seconds < 2000
