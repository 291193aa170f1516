"""How fast a device multiplies matrices and copies memory at best, to hold results against.

No program of the same number format is faster than these two, so a result can be given as a share
of them (Williams et al. 2009, Roofline, doi 10.1145/1498765.1498785). They are measured, not read
from a data sheet.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import torch

from peftlab.errors import unknown
from peftlab.timing.clock import Clock, clock

#: Sides of the square matrices. The largest fills any GPU; a CPU is asked for what is below.
SMALLEST, LARGEST = 512, 8192
#: Sides are doubled as long as a product takes no longer than so many seconds.
PATIENCE = 0.25
#: The best of so many windows of so many seconds counts.
WINDOWS, WINDOW = 5, 0.05
#: Bytes that are copied: several times any cache.
COPIED = {"cpu": 2**28, "cuda": 2**30}
# Numbers drawn once and repeated: a large array of them takes a CPU longer to draw than to copy.
DRAWN = 2**20

FORMATS = {"fp32": torch.float32, "tf32": torch.float32, "bf16": torch.bfloat16}


@dataclass(frozen=True)
class Ceilings:
    """What a device reaches at best.

    Attributes:
        tflops: ``fp32``, ``tf32`` (on a GPU that has it) and ``bf16`` → 10¹² FLOP/s of a product of
            square matrices, 2 FLOPs a multiply-accumulate.
        gb_per_second: 10⁹ bytes/s of a copy within the device; read and written bytes both count.
        sides: Format → side of the matrices.
    """

    tflops: Mapping[str, float]
    gb_per_second: float
    sides: Mapping[str, int]

    def share(self, flops: float, seconds: float, dtype: str = "fp32") -> float:
        """Return a call's FLOP/s over what a product of large matrices reaches.

        Args:
            flops: Of its matrix products.
            seconds: That it takes.
            dtype: Number format of the products, a key of ``tflops``.

        Raises:
            UnknownNameError: That format was not measured.
        """
        if dtype not in self.tflops:
            raise unknown("number format with a measured ceiling", dtype, self.tflops)
        return flops / seconds / (1e12 * self.tflops[dtype])

    def as_dict(self) -> dict[str, Any]:
        """Return dicts and numbers, as JSON has them; ``Ceilings(**data)`` reads them again."""
        return asdict(self)


def ceilings(device: torch.device | str) -> Ceilings:
    """Measure a device, for some seconds; nothing else should run on it.

    Operands are random: products of zeros take less power and run faster.

    Args:
        device: A CPU or a GPU.

    Raises:
        SettingsError: There is no such device here.
    """
    timer = clock(device)
    place = torch.device(device)
    draws = torch.Generator(place).manual_seed(0)
    sides, tflops = {}, {}
    for name, dtype in FORMATS.items():
        if name == "tf32" and not _has_tf32(place):
            continue
        with _tensor_cores(name == "tf32"):
            sides[name], seconds = _product(timer, draws, dtype)
        tflops[name] = 2 * sides[name] ** 3 / seconds / 1e12
    return Ceilings(tflops, _copy(timer, draws) / 1e9, sides)


def _product(timer: Clock, draws: torch.Generator, dtype: torch.dtype) -> tuple[int, float]:
    """Return the side of the largest matrices that patience allows, and seconds a product."""
    side = SMALLEST
    while True:
        shape, options = (side, side), {"device": draws.device, "dtype": dtype}
        a, b = (torch.randn(shape, generator=draws, **options) for _ in range(2))  # type: ignore[call-overload]
        call = partial(torch.mm, a, b, out=torch.empty(shape, **options))  # type: ignore[call-overload]
        seconds = _first(timer, call)
        if 2 * side > LARGEST or 8 * seconds > PATIENCE:
            return side, _best(timer, call, seconds)
        side *= 2


def _copy(timer: Clock, draws: torch.Generator) -> float:
    """Return bytes/s, read and written, of a copy."""
    some = torch.randn(DRAWN, generator=draws, device=draws.device)
    source = some.repeat(COPIED[draws.device.type] // some.nbytes)
    call = partial(torch.empty_like(source).copy_, source)
    return 2 * source.nbytes / _best(timer, call, _first(timer, call))


def _first(timer: Clock, call: Callable[[], object]) -> float:
    """Return the seconds of a call after one that is not counted."""
    call()
    return timer.window(call)


def _best(timer: Clock, call: Callable[[], object], seconds: float) -> float:
    """Return the fewest seconds a call of several windows."""
    calls = max(1, round(WINDOW / seconds))
    return min(timer.window(call, calls) for _ in range(WINDOWS))


def _has_tf32(device: torch.device) -> bool:
    return device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 0)


@contextmanager
def _tensor_cores(tf32: bool) -> Iterator[None]:
    """Let products of fp32 matrices on a GPU be rounded to tf32, or not."""
    matmul: Any = torch.backends.cuda.matmul
    # torch 2.9 renamed the switch, and reading one name after setting the other is an error
    renamed = hasattr(matmul, "fp32_precision")
    name = "fp32_precision" if renamed else "allow_tf32"
    before = getattr(matmul, name)
    setattr(matmul, name, ("tf32" if tf32 else "ieee") if renamed else tf32)
    try:
        yield
    finally:
        setattr(matmul, name, before)
