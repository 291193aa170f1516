"""When the phases inside a call end, without disturbing them: a GPU is not waited for."""

from __future__ import annotations

from time import perf_counter

import torch

START = "start"


class Marks:
    """Notes moments by name and gives the seconds from each to the next.

    On a CUDA device a moment is an event in its queue, read when everything is over; elsewhere it
    is the reading of a monotonic clock.

    Args:
        device: Where the work is done.
    """

    def __init__(self, device: torch.device) -> None:
        self._cuda = device.type == "cuda"
        self._moments: list[tuple[str, torch.cuda.Event | float]] = []

    def __call__(self, name: str) -> None:
        """Note that the phase of that name ends now; ``"start"`` begins a call."""
        if self._cuda:
            event = torch.cuda.Event(enable_timing=True)
            event.record()
            self._moments.append((name, event))
        else:
            self._moments.append((name, perf_counter()))

    def seconds(self) -> dict[str, list[float]]:
        """Return the seconds of every phase, one value a call, in the order of the calls."""
        if self._cuda:
            torch.cuda.synchronize()
        found: dict[str, list[float]] = {}
        for (_, before), (name, after) in zip(self._moments, self._moments[1:], strict=False):
            if name == START:
                continue
            if isinstance(before, float) and isinstance(after, float):
                found.setdefault(name, []).append(after - before)
            elif not isinstance(before, float) and not isinstance(after, float):
                found.setdefault(name, []).append(before.elapsed_time(after) / 1000)
        return found
