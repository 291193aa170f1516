"""A clock for windows of calls: monotonic on a CPU, events in the queue on a GPU.

A GPU works behind the program's back: a call returns when its kernels are queued, not when they are
done. So a window waits for the device at its two edges, and at no other place: waiting after every
call would forbid the overlap of queueing and computing that real programs have.
"""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter

import torch

from peftlab.errors import SettingsError
from peftlab.timing import launches

CPU_WINDOW = 0.001
GPU_WINDOW = 0.020

Call = Callable[[], object]


def _nothing() -> None:
    """Wait for nothing: on a CPU a call is over when it returns."""


class Clock:
    """The host's monotonic clock.

    Args:
        now: Returns seconds.
        synchronize: Called at both edges of a window; waits until the device has no work left.
        shortest: Seconds that a window should last at least, against the clock's own error.
    """

    def __init__(
        self,
        now: Callable[[], float] = perf_counter,
        synchronize: Call = _nothing,
        shortest: float = CPU_WINDOW,
    ) -> None:
        self._now = now
        self._synchronize = synchronize
        self.shortest = shortest

    def window(self, call: Call, calls: int = 1) -> float:
        """Return seconds per call of so many calls, one after the other."""
        self._synchronize()
        start = self._now()
        for _ in range(calls):
            call()
        self._synchronize()
        return (self._now() - start) / calls

    def busy(self, call: Call, seconds: float) -> float | None:
        """Return the share of a call during which a GPU works; None: there is none.

        Args:
            call: Is called once more, under a profiler.
            seconds: That a call takes without one.
        """
        return None


class EventClock(Clock):
    """The clock of a CUDA device: two events in its queue, read when both have passed.

    Args:
        device: Whose current stream the calls use.
    """

    def __init__(self, device: torch.device) -> None:
        super().__init__(shortest=GPU_WINDOW)
        self.device = device

    def window(self, call: Call, calls: int = 1) -> float:
        """Return seconds per call of so many calls, from event to event."""
        with torch.cuda.device(self.device):
            launches.start()
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            torch.cuda.synchronize()
            start.record()
            for _ in range(calls):
                call()
            end.record()
            torch.cuda.synchronize()
            return start.elapsed_time(end) / 1000 / calls

    def busy(self, call: Call, seconds: float) -> float | None:
        """Return the share of a call during which the GPU works; None if it has nothing to do."""
        with torch.cuda.device(self.device):
            return launches.busy(call, seconds)


def clock(device: torch.device | str | None = None) -> Clock:
    """Return the clock of a device.

    Args:
        device: A CPU or a CUDA device; by default the GPU if this process uses one, else the CPU.

    Raises:
        SettingsError: There is no such device here, or no clock for it.
    """
    if device is None:
        device = "cuda" if torch.cuda.is_available() and torch.cuda.is_initialized() else "cpu"
    try:
        found = torch.device(device)
    except RuntimeError:
        raise SettingsError(f"{device!r} is no device: give 'cpu' or 'cuda'.") from None
    if found.type == "cpu":
        return Clock()
    if found.type != "cuda":
        raise SettingsError(f"There is no clock for {str(found)!r}: give 'cpu' or 'cuda'.")
    if not torch.cuda.is_available() or (found.index or 0) >= torch.cuda.device_count():
        raise SettingsError(f"There is no GPU {str(found)!r} here: give 'cpu', or another index.")
    return EventClock(found)
