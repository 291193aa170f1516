"""Where a number was measured: processor, memory, GPU, versions, commit.

Read from the system when asked; nothing here is measured and nothing identifies a person or host.
What the machine is goes into every record, because a time without it means little.
"""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Collection, Mapping
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from time import sleep
from typing import Any

from peftlab.errors import TimingError

PACKAGES = (
    "torch",
    "transformers",
    "tokenizers",
    "datasets",
    "numpy",
    "scikit-learn",
    "safetensors",
    "adapters",
    "peft",
)
# The instruction sets that decide how fast matrices are multiplied, as Linux spells them.
FLAGS = (
    "avx2",
    "fma",
    "avx512f",
    "avx512_vnni",
    "avx512_bf16",
    "avx512_fp16",
    "amx_bf16",
    "amx_int8",
    "amx_tile",
    "asimd",
    "sve",
    "bf16",
)
# What nvidia-smi is asked for → our name, with the unit that it prints, and type.
GPU_FIELDS: dict[str, tuple[str, type]] = {
    "name": ("name", str),
    "driver_version": ("driver", str),
    "memory.total": ("memory_mib", float),
    "power.limit": ("power_limit_w", float),
    "clocks.sm": ("clock_mhz", float),
    "clocks.mem": ("memory_clock_mhz", float),
    "clocks.max.sm": ("max_clock_mhz", float),
    "temperature.gpu": ("temperature_c", float),
}
# Those of them that change while something is measured.
CHANGING = ("clock_mhz", "memory_clock_mhz", "temperature_c")
#: Bytes of a GPU that a process takes beside torch's memory, at most: its context and its kernels.
CONTEXT = 2**30
#: Percent of the time that an idle GPU may seem busy.
IDLE = 5.0
#: Seconds over which a driver takes the mean of how busy a GPU is, at most.
SETTLE = 1.0
#: So often a GPU is looked at before it counts as shared: what this process did may still show.
LOOKS = 4


def describe() -> dict[str, Any]:
    """Describe this machine as plain JSON types.

    Returns:
        ``cpu`` (model name), ``cores`` (that this process may use), ``memory_gib``, ``cpu_flags``
        (instruction sets that matter for matrices), ``system``, ``torch_threads``, and ``gpu``: the
        GPU that torch would use with driver, power limit and clocks at this moment, or None.
    """
    import torch

    return {
        **_processor(),
        "torch_threads": torch.get_num_threads(),
        "gpu": gpu() if torch.cuda.is_available() else None,
    }


def versions() -> dict[str, str]:
    """Return the versions of Python, peftlab and the installed packages that results depend on."""
    from peftlab import __version__

    found = {"python": platform.python_version(), "peftlab": __version__}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


#: How ``git describe --dirty`` ends.
DIRTY = "-dirty"


@cache
def _commit() -> tuple[str | None, bool | None]:
    """Ask git about the folder that peftlab's source is in."""
    package = Path(__file__).resolve().parents[1]
    # An installed copy inside somebody's repository is not that repository's commit.
    if _output("git", "-C", str(package), "ls-files", "--error-unmatch", "__init__.py") is None:
        told = os.environ.get("PEFTLAB_COMMIT", "")
        return (told.removesuffix(DIRTY), told.endswith(DIRTY)) if told else (None, None)
    commit = _output("git", "-C", str(package), "rev-parse", "HEAD")
    changes = _output("git", "-C", str(package), "status", "--porcelain", "--", ".")
    return commit, None if changes is None else bool(changes)


def git() -> dict[str, Any]:
    """Return the ``commit`` of peftlab's source and whether the package is ``dirty``.

    Where peftlab does not run from its git repository, the environment variable ``PEFTLAB_COMMIT``
    says it, as ``git describe --always --abbrev=40 --dirty`` prints it where the files come from;
    without that both are None. Only the package's own files count as changes: new records beside it
    do not. Asked once a process.
    """
    commit, dirty = _commit()
    return {"commit": commit, "dirty": dirty}


def gpu(index: int = 0) -> dict[str, Any]:
    """Describe a GPU: name and memory from torch, the rest from ``nvidia-smi`` where it exists.

    Args:
        index: As torch counts the GPUs.

    Returns:
        ``name``, ``driver``, ``memory_mib``, ``power_limit_w``, clocks in MHz, ``temperature_c``
        (the last ones None where the driver hides them), ``cuda`` and ``count``.
    """
    import torch

    properties = torch.cuda.get_device_properties(index)
    found: dict[str, Any] = {
        "name": properties.name,
        "memory_mib": properties.total_memory / 2**20,
        "cuda": torch.version.cuda,
        "count": torch.cuda.device_count(),
    }
    line = _ask(index, f"--query-gpu={','.join(GPU_FIELDS)}")
    if line is not None:
        found |= parse_gpu(line)
    return found


def clocks(index: int = 0) -> dict[str, float | None] | None:
    """Return what changes while a GPU works: its clocks in MHz, and its temperature in °C.

    To be read before and after a measurement. None where torch has no GPU.
    """
    import torch

    if not torch.cuda.is_available():
        return None
    found = gpu(index)
    return {name: found.get(name) for name in CHANGING}


def identity(index: int = 0) -> str:
    """Return the name by which the driver's tools know a GPU.

    torch obeys CUDA_VISIBLE_DEVICES and they do not: the uuid is the same for both.
    """
    import torch

    uuid = getattr(torch.cuda.get_device_properties(index), "uuid", None)
    return f"GPU-{uuid}" if uuid is not None else str(index)


def refuse_shared(index: int = 0) -> None:
    """Raise if other processes use a GPU; takes a second, and some where one seems to.

    Args:
        index: As torch counts the GPUs.

    Raises:
        TimingError: It is shared; says by whom, or how that shows.
    """
    import torch

    torch.zeros(1, device=f"cuda:{index}")  # so that the driver knows of this process
    torch.cuda.synchronize(index)
    for _ in range(LOOKS):
        sleep(SETTLE)
        free, total = torch.cuda.mem_get_info(index)
        sharers = who_shares(
            parse_processes(_ask(index, "--query-compute-apps=pid,process_name") or ""),
            own=os.getpid(),
            foreign=total - free - torch.cuda.memory_reserved(index),
            busy=parse_percent(_ask(index, "--query-gpu=utilization.gpu") or ""),
        )
        if not sharers:
            return
    raise TimingError(
        f"GPU {index} is shared ({sharers}), and what is measured there means little: wait, or "
        "choose another with CUDA_VISIBLE_DEVICES."
    )


def who_shares(
    processes: Mapping[int, str], own: int, foreign: int, busy: float | None
) -> str | None:
    """Say what betrays other users of a GPU while this process has one and lets it rest.

    Args:
        processes: Id → name, of those that compute on it, as the driver counts ids: in a container
            it may give the host's, or none.
        own: This process's id.
        foreign: Bytes in use that torch did not reserve.
        busy: Percent of the last second; None: not known.

    Returns:
        Some words, or None if nothing does.
    """
    others = {pid: name for pid, name in processes.items() if pid != own}
    if own in processes and others:
        return "by " + ", ".join(f"{name} with id {pid}" for pid, name in others.items())
    if own not in processes and len(others) > 1:  # one of them may be this process
        return f"{len(others)} processes compute on it"
    # A desktop holds memory too; where this process sees itself, it would see who computes.
    if own not in processes and foreign > CONTEXT:
        return f"{foreign / 2**20:.0f} MiB are in use, more than the context of this process"
    if busy is not None and busy > IDLE:
        return f"it is {busy:.0f} % busy while this process lets it rest"
    return None


def parse_processes(text: str) -> dict[int, str]:
    """Turn ``nvidia-smi``'s lines of id and name into a dict; lines without an id are left out."""
    pairs = (line.partition(",") for line in text.splitlines())
    return {int(pid): name.strip() for pid, _, name in pairs if pid.strip().isdigit()}


def parse_percent(text: str) -> float | None:
    """Read a percentage; None where the driver hides it."""
    try:
        return float(text)
    except ValueError:
        return None


def parse_gpu(line: str) -> dict[str, Any]:
    """Turn one line of ``nvidia-smi``'s csv into named values; what the driver hides is None."""
    found: dict[str, Any] = {}
    for (name, kind), text in zip(GPU_FIELDS.values(), line.split(","), strict=True):
        try:
            found[name] = kind(text.strip())
        except ValueError:
            found[name] = None
    return found


def usable_cores() -> Collection[int]:
    """Return the numbers of the cores that this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)
    return affinity(0) if affinity else range(os.cpu_count() or 1)


@cache
def _processor() -> dict[str, Any]:
    """Describe what does not change while a process runs."""
    info: dict[str, str] = {}
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text().splitlines():
            key, _, value = line.partition(":")
            info.setdefault(key.strip(), value.strip())
    name = info.get("model name") or _output("sysctl", "-n", "machdep.cpu.brand_string")
    present = set((info.get("flags") or info.get("Features") or "").split())
    return {
        "cpu": name or platform.processor() or platform.machine(),
        "cores": len(usable_cores()),
        "memory_gib": _memory_gib(),
        "cpu_flags": [flag for flag in FLAGS if flag in present],
        "system": f"{platform.system()} {platform.machine()}",
    }


def _memory_gib() -> float | None:
    """Return the machine's memory in GiB, or None where the system does not say."""
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    except (AttributeError, OSError, ValueError):
        return None


def _ask(index: int, query: str) -> str | None:
    """Ask ``nvidia-smi`` about a GPU, in csv; None where it does not exist or does not answer."""
    return _output("nvidia-smi", f"--id={identity(index)}", query, "--format=csv,noheader,nounits")


def _output(*command: str) -> str | None:
    """Return what a command prints, or None if it is missing or fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
