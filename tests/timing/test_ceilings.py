"""Ceilings from a clock that is set by hand, and measured ones."""

from __future__ import annotations

import json
import math

import pytest
import torch

from peftlab.errors import SettingsError, UnknownNameError
from peftlab.timing import ceilings as module
from peftlab.timing.ceilings import Ceilings, ceilings

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


class Clock:
    """A clock that always says the same seconds a call, but once says half of them."""

    def __init__(self, seconds):
        self.seconds, self.windows = seconds, 0

    def window(self, call, calls=1):
        self.windows += 1
        call()
        return self.seconds / 2 if calls > 1 and self.windows % 3 == 0 else self.seconds


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(module, "SMALLEST", 8)
    monkeypatch.setattr(module, "LARGEST", 32)
    monkeypatch.setattr(module, "COPIED", {"cpu": 2**16})
    monkeypatch.setattr(module, "DRAWN", 2**10)

    def timed(seconds):
        monkeypatch.setattr(module, "clock", lambda device: Clock(seconds))
        return ceilings("cpu")

    return timed


def test_rates_are_those_of_the_best_window(small):
    found = small(2e-3)
    assert found.sides == {"fp32": 32, "bf16": 32}
    flops = 2 * 32**3
    assert found.tflops == pytest.approx({"fp32": flops / 1e9, "bf16": flops / 1e9})
    assert found.gb_per_second == pytest.approx(2 * 2**16 / 1e-3 / 1e9)


def test_a_slow_device_gets_smaller_matrices(small):
    # a product of twice the side would take eight times as long
    assert small(1.01 * module.PATIENCE / 8).sides == {"fp32": 8, "bf16": 8}


def test_operands_are_no_zeros_and_of_the_format(small, monkeypatch):
    seen, multiply = {}, torch.mm

    def mm(a, b, out):
        seen[a.dtype] = (a.count_nonzero() / a.numel(), b.count_nonzero() / b.numel(), out.dtype)
        return multiply(a, b, out=out)

    monkeypatch.setattr(torch, "mm", mm)
    small(1e-3)
    for dtype in (torch.float32, torch.bfloat16):
        assert seen[dtype][2] == dtype
        assert min(seen[dtype][:2]) > 0.99


def test_neither_seed_nor_precision_is_disturbed(small):
    torch.manual_seed(1)
    before, precision = torch.get_rng_state(), torch.get_float32_matmul_precision()
    small(1e-3)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.get_float32_matmul_precision() == precision


@pytest.mark.parametrize("name", ["fp32_precision", "allow_tf32"])
def test_tf32_is_switched_by_the_name_that_torch_has(monkeypatch, name):
    class Matmul:
        pass

    switch = Matmul()
    setattr(switch, name, "before")
    monkeypatch.setattr(torch.backends.cuda, "matmul", switch)
    on, off = {"fp32_precision": ("tf32", "ieee"), "allow_tf32": (True, False)}[name]
    with module._tensor_cores(True):
        assert vars(switch) == {name: on}
    with module._tensor_cores(False):
        assert vars(switch) == {name: off}
    assert vars(switch) == {name: "before"}


def test_a_share_by_hand():
    found = Ceilings({"fp32": 2.0, "bf16": 8.0}, 100.0, {"fp32": 512, "bf16": 512})
    assert found.share(5e11, 0.5) == pytest.approx(0.5)  # 1e12 FLOP/s of 2e12
    assert found.share(5e11, 0.5, "bf16") == pytest.approx(0.125)
    with pytest.raises(UnknownNameError, match="number format"):
        found.share(1, 1, "fp64")


def test_ceilings_are_kept_as_plain_data(small):
    found = small(1e-3)
    assert Ceilings(**json.loads(json.dumps(found.as_dict()))) == found


def test_an_unknown_device_is_refused():
    with pytest.raises(SettingsError, match="'gpu' is no device"):
        ceilings("gpu")


def test_this_processor(monkeypatch):
    monkeypatch.setattr(module, "PATIENCE", 0.02)
    monkeypatch.setattr(module, "COPIED", {"cpu": 2**24})
    found = ceilings("cpu")
    assert set(found.tflops) == {"fp32", "bf16"}
    assert all(0 < rate < math.inf for rate in found.tflops.values())
    assert 0.01 < found.gb_per_second < 1e5


@pytest.mark.gpu
@needs_gpu
def test_this_gpu():
    found = ceilings("cuda")
    if torch.cuda.get_device_capability() >= (8, 0):
        assert found.tflops["fp32"] < found.tflops["tf32"] < found.tflops["bf16"]
    # slower than the fastest memory there is, and faster than any bus to it
    assert 50 < found.gb_per_second < 20_000
