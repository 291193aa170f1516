"""When a device's memory is full: how to tell, and how to get it back.

What to do about it is decided where it happens, in the loop and in the evaluation.
"""

from __future__ import annotations

import traceback

import torch


def out_of_memory(error: RuntimeError) -> bool:
    """Say whether an error is about memory, of a GPU or of the machine."""
    return isinstance(error, torch.cuda.OutOfMemoryError) or "allocate memory" in str(error)


def release(error: BaseException, device: torch.device) -> None:
    """Free what a failed pass still holds: an error's traceback keeps its frames' tensors alive."""
    traceback.clear_frames(error.__traceback__)
    if device.type == "cuda":
        torch.cuda.empty_cache()
