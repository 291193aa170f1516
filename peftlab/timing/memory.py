"""What a training step takes of a device's memory, split into what it is for.

Weights, gradients and optimiser state are sums over tensors, exact to the byte. Activations are
what the forward pass leaves for the backward pass. Two tensors that share memory count once. This
file knows nothing of models: it measures a callable that returns a loss, with its optimiser.
"""

from __future__ import annotations

import gc
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeVar
from weakref import WeakSet

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.optim import Optimizer

PROCESS = Path("/proc/self")
#: Written to ``clear_refs`` it sets the peak of the resident set to what is resident now.
RESET_PEAK = "5"

T = TypeVar("T")


@dataclass(frozen=True)
class Peak:
    """The most memory in use at once during a phase, in bytes; None where nobody tells.

    Attributes:
        allocated: On a GPU, held by tensors of the step: weights and optimiser state too, but not
            what else is on the GPU.
        reserved: On a GPU, the same with what torch keeps at hand for later tensors.
        resident: On a CPU, the resident set of the whole process: interpreter, libraries and all.
    """

    allocated: int | None = None
    reserved: int | None = None
    resident: int | None = None


@dataclass(frozen=True)
class Memory:
    """The memory of one training step, in bytes.

    Attributes:
        weights: Parameters and buffers.
        gradients: Of the parameters, after the backward pass.
        optimiser: Its state, as far as it lies beside the parameters.
        activations: On a CPU what autograd keeps for the backward pass, see :func:`saved`; on a GPU
            how far memory rises in the forward pass, passing tensors included.
        peaks: ``forward``, ``backward`` and ``optimiser`` → its peak.
    """

    weights: int
    gradients: int
    optimiser: int
    activations: int
    peaks: Mapping[str, Peak]

    @property
    def total(self) -> int:
        """Bytes that the step needs: on a GPU its highest peak, on a CPU the sum of the parts.

        The sum is an upper bound of the tensors' share: activations go while gradients come.
        """
        peaks = [peak.allocated for peak in self.peaks.values() if peak.allocated is not None]
        return max(peaks, default=self.weights + self.gradients + self.optimiser + self.activations)

    def as_dict(self) -> dict[str, int]:
        """Return name → bytes; the peak of a phase is ``forward_allocated`` and so on."""
        return {
            "weights": self.weights,
            "gradients": self.gradients,
            "optimiser": self.optimiser,
            "activations": self.activations,
            "total": self.total,
        } | {
            f"{phase}_{kind}": size
            for phase, peak in self.peaks.items()
            for kind, size in asdict(peak).items()
            if size is not None
        }


def size(tensors: Iterable[Tensor]) -> int:
    """Return the bytes of tensors' storages; a storage that several of them share counts once."""
    return sum(_storages(tensors).values())


def saved(call: Callable[[], object], given: Iterable[Tensor] = ()) -> int:
    """Return the bytes that autograd keeps for the backward pass of a call.

    Counted is what the graph holds when the call is over. What a checkpointed region computes is
    not: it is computed again. The bf16 copies of weights that autocast makes are. A custom
    ``autograd.Function`` is seen as far as it uses ``save_for_backward``.

    Args:
        call: A forward pass; it returns what the backward pass would start from.
        given: Tensors that exist anyway, such as weights and inputs: storages left out.

    Returns:
        Bytes of the storages, each counted once, for a view keeps its whole storage.
    """
    return _saved(call, given)[1]


def split(
    forward: Callable[[], Tensor],
    optimiser: Optimizer,
    module: nn.Module,
    inputs: Iterable[Tensor] = (),
) -> Memory:
    """Do two training steps and split the memory of the second.

    The first makes the optimiser's state. Both change the weights by the optimiser's rate; a rate
    of 0 does all the work and moves nothing.

    Args:
        forward: Returns the loss.
        optimiser: Of the parameters that are trained.
        module: Holds all parameters and buffers, on one device.
        inputs: Tensors that ``forward`` reads besides; they are no activations.

    Returns:
        The memory; gradients are None again afterwards.
    """
    parameters = list(module.parameters())
    weights = [*parameters, *module.buffers()]
    device = parameters[0].device
    optimiser.zero_grad(set_to_none=True)
    loss, kept = _saved(forward, [*weights, *inputs])
    loss.backward()  # type: ignore[no-untyped-call]
    del loss
    optimiser.step()
    optimiser.zero_grad(set_to_none=True)
    state = size(
        tensor
        for parameter, entries in optimiser.state.items()
        for tensor in entries.values()
        if isinstance(tensor, Tensor) and tensor.device == parameter.device
    )

    gc.collect()
    before = _tidy(device)
    others = before - size(weights) - state
    peaks: dict[str, Peak] = {}
    with _phase("forward", device, others, peaks):
        loss = forward()
    with _phase("backward", device, others, peaks):
        loss.backward()  # type: ignore[no-untyped-call]
    gradients = size(p.grad for p in parameters if p.grad is not None)
    with _phase("optimiser", device, others, peaks):
        optimiser.step()
    optimiser.zero_grad(set_to_none=True)
    highest = peaks["forward"].allocated
    return Memory(
        weights=size(weights),
        gradients=gradients,
        optimiser=state,
        activations=kept if highest is None else highest + others - before,
        peaks=peaks,
    )


def resident(status: str) -> int | None:
    """Read the peak resident set from Linux's ``/proc/self/status``, in bytes."""
    found = re.search(r"^VmHWM:\s*(\d+) kB$", status, re.MULTILINE)
    return int(found[1]) * 1024 if found else None


def _storages(tensors: Iterable[Tensor]) -> dict[int, int]:
    """Return the identity of every storage → its bytes; valid while the tensors live."""
    storages = (tensor.untyped_storage() for tensor in tensors)
    return {storage._cdata: storage.nbytes() for storage in storages}


class _Kept:
    """A tensor as autograd's graph holds it; dies with its node."""

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor.detach()  # itself it may hold its node: a cycle, never freed


def _saved(call: Callable[[], T], given: Iterable[Tensor]) -> tuple[T, int]:
    """Return what a call returns, and the bytes that it keeps."""
    alive: WeakSet[_Kept] = WeakSet()

    def pack(tensor: Tensor) -> _Kept:
        kept = _Kept(tensor)
        alive.add(kept)
        return kept

    with saved_tensors_hooks(pack, lambda kept: kept.tensor):
        result = call()
    left_out = _storages(given)
    found = _storages(kept.tensor for kept in alive)
    return result, sum(held for key, held in found.items() if key not in left_out)


def _tidy(device: torch.device) -> int:
    """Give back what torch holds in reserve; return the bytes that tensors hold, on a GPU."""
    if device.type != "cuda":
        return 0
    torch.cuda.empty_cache()
    return torch.cuda.memory_allocated(device)


@contextmanager
def _phase(name: str, device: torch.device, others: int, peaks: dict[str, Peak]) -> Iterator[None]:
    """Note the peaks of what is done inside, less what other tensors hold."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        yield
        peaks[name] = Peak(
            allocated=torch.cuda.max_memory_allocated(device) - others,
            reserved=torch.cuda.max_memory_reserved(device) - others,
        )
    else:
        known = _reset_resident()
        yield
        peaks[name] = Peak(resident=resident((PROCESS / "status").read_text()) if known else None)


def _reset_resident() -> bool:
    """Set the peak of the resident set to what is resident now; False where that is not allowed."""
    try:
        (PROCESS / "clear_refs").write_text(RESET_PEAK)
    except OSError:
        return False
    return True
