"""Is a GPU busy, or does it wait for the program to give it work?

A program queues kernels one by one. Where they are so short that queueing takes longer than
computing, the GPU idles in between: the call is *launch-bound*, and less arithmetic does not make
it take less time. Small batches of small models are, and so are many small modules.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cache
from time import sleep
from typing import Any

import torch
from torch.autograd import DeviceType

#: Below this share of busy time a call is launch-bound.
LAUNCH_BOUND = 0.8
#: The profiler drops kernels that seem to lie outside its session, and the clocks of GPU and host
#: may disagree by milliseconds: it starts so many seconds before the call and ends as many after.
MARGIN = 0.1

Interval = tuple[float, float]


@cache
def start() -> None:
    """Run the profiler once for nothing.

    Its first run in a process may slow what comes after it: so it comes before all that is timed.
    """
    busy(torch.cuda.synchronize, 1.0)


def busy(call: Callable[[], object], seconds: float) -> float | None:
    """Return the share of a call during which the GPU works.

    ``busy = |union of the kernels' intervals| / seconds``. The intervals are those of one call
    under the profiler, the seconds those of a call without it: a profiler slows the program that
    queues the kernels, but hardly the kernels.

    Args:
        call: Is called once, on the current CUDA device.
        seconds: That a call takes without a profiler.

    Returns:
        At most 1, or None if the call gives the GPU nothing to do.
    """
    torch.cuda.synchronize()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profiler:
        sleep(MARGIN)
        call()
        torch.cuda.synchronize()
        sleep(MARGIN)
    intervals = kernels(profiler.events() or [])
    return min(1.0, union(intervals) / seconds) if intervals else None


def kernels(events: Iterable[Any]) -> list[Interval]:
    """Return when the GPU computed, copied or filled memory.

    Args:
        events: Of torch's profiler.

    Returns:
        Start and end of each, in seconds.
    """
    # An annotation spans kernels and the gaps between them; optimisers annotate their steps.
    return [
        (event.time_range.start / 1e6, event.time_range.end / 1e6)
        for event in events
        if event.device_type == DeviceType.CUDA and not event.is_user_annotation
    ]


def union(intervals: Iterable[Interval]) -> float:
    """Return the length of the union of intervals: what overlaps counts once."""
    length, reached = 0.0, float("-inf")
    for start, end in sorted(intervals):
        length += max(0.0, end - max(start, reached))
        reached = max(reached, end)
    return length


def describe(share: float | None) -> str:
    """Say that a call is launch-bound; say nothing if it is not, or if that is not known."""
    if share is None or share >= LAUNCH_BOUND:
        return ""
    return f"launch-bound: GPU busy {100 * share:.0f} %"
