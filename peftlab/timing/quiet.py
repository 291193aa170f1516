"""Do other programs use the cores that something is to be timed on?"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from time import sleep

from peftlab.timing.machine import usable_cores

#: What Linux tells of the time that each core has spent.
STAT = Path("/proc/stat")
#: Seconds that the cores are watched for.
SECONDS = 1.0
#: Share of the cores that other programs may use while something is timed.
QUIET = 0.1


def cores_busy() -> float | None:
    """Return which share of this process's cores other programs use while it rests for a second.

    None where the system does not tell.
    """
    try:
        before = parse_stat(STAT.read_text(), usable_cores())
        sleep(SECONDS)
        after = parse_stat(STAT.read_text(), usable_cores())
    except OSError:
        return None
    total = after[1] - before[1]
    return (after[0] - before[0]) / total if total else None


def parse_stat(text: str, cores: Collection[int]) -> tuple[int, int]:
    """Return the ticks that cores were busy, and all their ticks, from Linux's ``/proc/stat``.

    A tick is idle in the fourth column, or in the fifth while it waits for a disk.
    """
    busy = total = 0
    for line in text.splitlines():
        name, _, ticks = line.partition(" ")
        if name.removeprefix("cpu").isdigit() and int(name[3:]) in cores:
            # the columns behind these are guests, which the first ones have counted
            counts = [int(count) for count in ticks.split()[:8]]
            total += sum(counts)
            busy += sum(counts) - sum(counts[3:5])
    return busy, total
