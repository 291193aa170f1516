"""Which number format the arithmetic uses, decided by what the processor really has.

bf16 autocast keeps weights and optimiser state in fp32 and runs the matrix products in bf16. On a
processor without instructions for it, it would be emulated and slower, so ``"auto"`` asks first.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Literal

import torch

from peftlab.errors import SettingsError
from peftlab.training.settings import Precision

Resolved = Literal["fp32", "bf16"]


def has_bf16(device: torch.device) -> bool:
    """Say whether a device multiplies bf16 matrices in hardware.

    Args:
        device: A CPU needs AVX512-BF16, AMX or Arm's bf16 extension; a GPU compute capability 8.
    """
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    if device.type != "cpu":
        return False
    return cpu_bf16()


def cpu_bf16() -> bool:
    """Say whether this machine's CPU has bf16 matrix instructions."""
    try:
        with open("/proc/cpuinfo") as info:
            flags = set(
                next((line for line in info if line.startswith(("flags", "Features"))), "").split()
            )
    except OSError:
        return False
    return bool(flags & {"avx512_bf16", "amx_bf16", "bf16"})


def resolve(precision: Precision, device: torch.device) -> Resolved:
    """Turn ``"auto"`` into the format that the device is made for.

    Raises:
        SettingsError: The setting is not known.
    """
    if precision == "auto":
        return "bf16" if has_bf16(device) else "fp32"
    if precision in ("fp32", "bf16"):
        return precision
    raise SettingsError(f"precision is {precision!r}: choose 'auto', 'fp32' or 'bf16'.")


def autocast(precision: Resolved, device: torch.device) -> AbstractContextManager[object]:
    """Return the context in which forward passes run."""
    if precision == "fp32":
        return nullcontext()
    return torch.autocast(device.type, dtype=torch.bfloat16)
