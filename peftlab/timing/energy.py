"""The energy of a window of work by the GPU's own counter, and what time and energy cost.

The counter holds the energy of the whole board, idle power included, since the driver was loaded
(NVML, ``nvmlDeviceGetTotalEnergyConsumption``; Volta and later). It advances in steps of 20 to
100 ms, so at both edges of a window it may be late by as much: short windows say nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import torch

from peftlab.errors import SettingsError, TimingError
from peftlab.timing.machine import identity

#: Seconds by which the counter may be late.
STEP = 0.1
#: Seconds a window lasts at least: the counter's delay is then 5 % of it at most.
SHORTEST = 20 * STEP

#: Seconds of calls whose energy is measured.
STRETCH = 1.2 * SHORTEST

JOULES_PER_KWH = 3.6e6


@dataclass
class Energy:
    """What was measured in a window.

    Attributes:
        seconds: Length of the window.
        advance: Joules by which the counter advanced; None where it cannot be read.
        reason: Why it cannot be read, in a sentence.
    """

    seconds: float = 0.0
    advance: float | None = None
    reason: str = ""

    @property
    def joules(self) -> float | None:
        """Joules of the window; None where the device has no counter, see ``reason``.

        Raises:
            TimingError: The window was too short, or the counter stood still.
        """
        if self.advance is None:
            return None
        if self.seconds < SHORTEST:
            raise TimingError(
                f"A window of {self.seconds:.3g} s is too short for the GPU's energy counter, "
                f"which advances every {1000 * STEP:g} ms: measure for at least {SHORTEST:g} s."
            )
        if self.advance <= 0:
            raise TimingError(
                f"The GPU's energy counter did not advance in {self.seconds:.3g} s: measure for at "
                f"least {10 * self.seconds:.2g} s, and give no energy if it still stands."
            )
        return self.advance

    def as_dict(self) -> dict[str, Any]:
        """Return ``seconds``, ``joules`` and, where there are none, the ``reason``."""
        try:
            joules, reason = self.joules, self.reason
        except TimingError as error:
            joules, reason = None, str(error)
        return {"seconds": self.seconds, "joules": joules, "reason": reason}


@contextmanager
def meter(device: torch.device | str) -> Iterator[Energy]:
    """Measure the energy of what is done inside; the GPU is waited for at both edges.

    Args:
        device: Where the work is done.

    Yields:
        The energy, filled in when the window is over.
    """
    place = torch.device(device)
    found = Energy()
    with ExitStack() as stack:
        read, found.reason = _counter(place, stack)
        _wait(place)
        before, start = read() if read else 0.0, perf_counter()
        yield found
        _wait(place)
        found.seconds = perf_counter() - start
        found.advance = read() - before if read else None


def of_call(
    call: Callable[[], object], seconds: float, device: torch.device | str
) -> tuple[float | None, str]:
    """Measure the energy of a call over a stretch of so many that the counter can tell.

    Args:
        call: Is called over and over, unless the device has no counter.
        seconds: That a call takes.
        device: Where its work is done.

    Returns:
        Joules a call and ``""``; or None and the reason.
    """
    at_once, calls = math.ceil(STEP / seconds), 0
    with meter(device) as found:
        start = perf_counter()
        while not found.reason and perf_counter() - start < STRETCH:
            for _ in range(at_once):
                call()
            calls += at_once
    told = found.as_dict()
    return (None if told["joules"] is None else told["joules"] / calls), told["reason"]


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _counter(device: torch.device, stack: ExitStack) -> tuple[Callable[[], float] | None, str]:
    """Return what reads a GPU's joules, closed by the stack; or None and the reason."""
    if device.type != "cuda":
        return (
            None,
            f"The energy of {str(device)!r} is not measured: only NVIDIA's counter is read.",
        )
    try:
        import pynvml
    except ImportError:
        return None, "The energy is not measured: the package nvidia-ml-py is not installed."

    def read() -> float:
        return float(pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)) / 1000

    try:
        pynvml.nvmlInit()
        stack.callback(pynvml.nvmlShutdown)
        handle = pynvml.nvmlDeviceGetHandleByUUID(identity(device.index or 0))
        read()
    except pynvml.NVMLError as error:
        return None, f"The energy is not measured: NVML answers {str(error)!r}."
    return read, ""


@dataclass(frozen=True)
class Price:
    """What time and energy cost; edit it to your own.

    Where a machine is rented, electricity is in the rent: ``per_kwh`` is 0. Where it is owned,
    ``per_hour`` is its price over the hours that it will be used.

    Attributes:
        currency: For example ``"EUR"``.
        per_hour: Of the machine.
        per_kwh: Of electricity.

    Raises:
        SettingsError: A price is negative.
    """

    currency: str
    per_hour: float
    per_kwh: float = 0.0

    def __post_init__(self) -> None:
        if self.per_hour < 0 or self.per_kwh < 0:
            raise SettingsError(f"{self} has a negative price: give 0 for what costs nothing.")

    def of(self, seconds: float, joules: float | None = None) -> float:
        """Return what a run costs, ``per_hour·s/3600 + per_kwh·J/3.6e6``, in the currency.

        Args:
            seconds: How long it took.
            joules: Its energy; None: not known.

        Raises:
            SettingsError: Electricity has a price and the energy is not known.
        """
        if self.per_kwh and joules is None:
            raise SettingsError(
                f"A kWh costs {self.per_kwh:g} {self.currency} and the energy is not known: "
                "measure it, or set per_kwh=0."
            )
        return self.per_hour * seconds / 3600 + self.per_kwh * (joules or 0.0) / JOULES_PER_KWH
