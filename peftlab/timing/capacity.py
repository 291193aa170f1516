"""The largest batch that fits into a memory: by trying, and from a straight line.

Trying costs a step a guess and is what the device says; the line ``bytes = fixed + each × batch``
costs three measurements and answers for any budget. What to do about a full memory elsewhere is
decided where it happens.
"""

from __future__ import annotations

import gc
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from peftlab.errors import SettingsError, TimingError

#: How torch, CUDA and cuBLAS say that memory is full, where they have no class for it.
FULL = ("allocate memory", "CUDA error: out of memory", "CUBLAS_STATUS_ALLOC_FAILED")
#: A line may be off by this share at the batch that checks it.
TOLERANCE = 0.05


def out_of_memory(error: RuntimeError) -> bool:
    """Say whether an error is about memory, of a GPU or of the machine."""
    return isinstance(error, torch.OutOfMemoryError) or any(text in str(error) for text in FULL)


def release(error: BaseException) -> None:
    """Free what a failed pass still holds: an error's traceback keeps its frames' tensors alive."""
    traceback.clear_frames(error.__traceback__)
    torch.cuda.empty_cache()  # does nothing in a process that has not used a GPU


@contextmanager
def budget(size: float, device: torch.device | str = "cuda") -> Iterator[None]:
    """Let torch take no more than so many bytes of a GPU, as if it were a smaller one.

    Of a real GPU the CUDA context takes some hundred MB besides, which the budget does not count.

    Args:
        size: Bytes.
        device: A GPU; nothing bounds tensors on a CPU.

    Raises:
        SettingsError: It is no GPU, or one with less memory.
    """
    place = torch.device(device)
    if place.type != "cuda":
        raise SettingsError(f"Memory cannot be bounded on {str(place)!r}: give a GPU.")
    there = torch.cuda.get_device_properties(place).total_memory
    if not 0 < size <= there:
        raise SettingsError(
            f"{size / 1e9:.3g} GB cannot be tried on a GPU with {there / 1e9:.3g} GB: choose a "
            "budget that it has."
        )
    torch.cuda.empty_cache()  # what is reserved already is not bounded
    torch.cuda.set_per_process_memory_fraction(size / there, place.index)
    try:
        yield
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0, place.index)


def largest_batch(fits: Callable[[int], bool], start: int = 1, limit: int = 2**20) -> int:
    """Search the largest batch that fits: double until one does not, then halve the gap.

    Args:
        fits: Says whether a batch fits; running out of memory says no. If it does a training step,
            it should do two, for the optimiser's state is there only after the first.
        start: First guess.
        limit: Is not gone beyond.

    Returns:
        The largest that fits; 0 if not even one row does, ``limit`` if everything tried did.

    Raises:
        SettingsError: ``start`` is not between 1 and ``limit``.
    """
    if not 1 <= start <= limit:
        raise SettingsError(f"The search begins at {start}: choose a batch from 1 to {limit}.")
    low, high = 0, start
    while low < limit and _fits(fits, high):
        low, high = high, min(2 * high, limit)
    while high - low > 1:
        middle = (low + high) // 2
        if _fits(fits, middle):
            low = middle
        else:
            high = middle
    return low


def _fits(fits: Callable[[int], bool], batch: int) -> bool:
    """Ask, and clean up where memory was full."""
    gc.collect()  # what an earlier guess left in reference cycles
    try:
        return fits(batch)
    except RuntimeError as error:
        if not out_of_memory(error):
            raise
        release(error)
        return False


@dataclass(frozen=True)
class Line:
    """``bytes(batch) = fixed + each × batch`` of a training step.

    Attributes:
        fixed: Bytes whatever the batch: weights, gradients, optimiser state.
        each: Bytes a row: its activations.
    """

    fixed: float
    each: float

    @classmethod
    def through(cls, measured: Mapping[int, float], tolerance: float = TOLERANCE) -> Line:
        """Draw the line through the two smallest batches and check it with the others.

        Args:
            measured: Batch → bytes of a step, such as :attr:`peftlab.timing.memory.Memory.total`;
                at least three batches.
            tolerance: Largest relative difference at the others.

        Raises:
            SettingsError: There are fewer than three batches.
            TimingError: The line misses one of the others, or does not rise.
        """
        if len(measured) < 3:
            raise SettingsError(
                f"A line was measured at {len(measured)} batches: two give it and one checks it, "
                "so measure at least three."
            )
        first, second, *others = sorted(measured)
        each = (measured[second] - measured[first]) / (second - first)
        line = cls(measured[first] - each * first, each)
        for batch in others:
            off = line.bytes(batch) / measured[batch] - 1
            if abs(off) > tolerance:
                raise TimingError(
                    f"The memory of batches {first} and {second} foretells that of {batch} with "
                    f"an error of {100 * off:+.0f} %: measure larger batches, where activations "
                    "are most of it."
                )
        if each <= 0:
            raise TimingError(
                f"The memory of batch {second} is not above that of {first}: measure larger "
                "batches, where activations are most of it."
            )
        return line

    def bytes(self, batch: int) -> float:
        """Return the bytes of a step on a batch."""
        return self.fixed + self.each * batch

    def largest(self, budget: float) -> int:
        """Return the largest batch whose step fits into so many bytes; 0 if none does."""
        return max(0, int((budget - self.fixed) // self.each))
