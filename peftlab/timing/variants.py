"""Other ways to run the same calls, a CUDA graph or compiled code, only where the result is right.

Both return a callable for :func:`peftlab.timing.compare.cost`, to stand beside the eager one, after
they have seen that it gives what the eager one gives.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from functools import partial
from textwrap import shorten
from typing import Any

import torch
from torch import Tensor, nn

from peftlab.errors import PeftlabError, SettingsError

WARM_UP = 3
TOLERANCE = 1e-3

Tensors = Mapping[str, Tensor]


def graphed(
    call: Callable[..., object],
    *inputs: object,
    gradients: Tensors | None = None,
    state: Sequence[Tensor] = (),
    tolerance: float = TOLERANCE,
) -> Callable[[], object]:
    """Capture a call in a CUDA graph: one launch for all its kernels.

    The graph reads and writes the addresses of the capture: new values are copied into ``inputs``
    in place. Nothing in the call may wait for the GPU, and an optimiser in it must be *capturable*.

    Args:
        call: Does the same work in every call; a training step begins by setting the gradients to
            None.
        *inputs: Its arguments.
        gradients: Name → parameter whose gradient after the call is compared as well.
        state: Tensors that the call changes, such as weights; they are put back.
        tolerance: Largest difference, relative to the largest output (or gradient); about 1e-3 for
            fp32 and 3e-2 for bf16.

    Returns:
        What replays the graph; it returns the same tensors every time, overwritten.

    Raises:
        SettingsError: There is no GPU, the call cannot be captured, it leaves nothing to compare,
            or the graph gives something else.
    """
    if not torch.cuda.is_available():
        raise SettingsError(
            "A CUDA graph needs a GPU, and there is none here: time the eager call."
        )
    eager = partial(call, *inputs)
    check = _Check(eager, gradients or {}, state, tolerance)
    if outside := [name for name, tensor in check.expected.items() if not tensor.is_cuda]:
        raise SettingsError(
            f"A CUDA graph holds work of the GPU alone, and the {outside[0]} of this call is on "
            "the CPU: move model and batch to the GPU."
        )
    with _explained("captured in a CUDA graph"):
        replay = _Graph(eager)
        check.agrees(replay, "the CUDA graph")
    return replay


def compiled(
    call: Callable[..., object],
    *inputs: object,
    module: nn.Module | None = None,
    alike: Callable[[], AbstractContextManager[object]] = nullcontext,
    gradients: Tensors | None = None,
    state: Sequence[Tensor] = (),
    tolerance: float = TOLERANCE,
    **options: Any,
) -> Callable[[], object]:
    """Compile a call, or a module in it, with :func:`torch.compile`.

    Args:
        call: As of :func:`graphed`.
        *inputs: Its arguments.
        module: Is compiled in place, and stays so; by default the whole call is.
        alike: Entered where outputs are compared: switches dropout off, for compiled code draws
            other random numbers.
        gradients: As of :func:`graphed`.
        state: As of :func:`graphed`.
        tolerance: As of :func:`graphed`.
        **options: Of ``torch.compile``, for example ``mode="max-autotune"``.

    Returns:
        The compiled call with its arguments.

    Raises:
        SettingsError: The call cannot be compiled, leaves nothing to compare, or the compiled code
            gives something else.
    """
    with alike():
        check = _Check(partial(call, *inputs), gradients or {}, state, tolerance)
    with _explained("compiled"):
        if module is None:
            fast = partial(torch.compile(call, **options), *inputs)
        else:
            # Module.compile() silently leaves torch's own containers as they are
            module.forward = torch.compile(module.forward, **options)  # type: ignore[method-assign]
            fast = partial(call, *inputs)
        with alike():
            for _ in range(WARM_UP):
                fast()
            check.agrees(fast, "the compiled code")
        fast()  # as it will be called: with dropout on it is compiled once more
        check.restore()
    return fast


class _Graph:
    """A captured call; keeps alive what the graph reads."""

    def __init__(self, eager: Callable[[], object]) -> None:
        self.eager = eager
        current, side = torch.cuda.current_stream(), torch.cuda.Stream()
        side.wait_stream(current)
        with torch.cuda.stream(side):
            for _ in range(WARM_UP):
                eager()
        current.wait_stream(side)
        self.graph = torch.cuda.CUDAGraph()
        generator = torch.cuda.default_generators[torch.cuda.current_device()]
        draws, pool = generator.clone_state(), torch.cuda.graph_pool_handle()
        try:
            # When a capture fails, the inner context leaves its stream in place.
            with torch.cuda.stream(current), torch.cuda.graph(self.graph, pool=pool):
                self.outputs = eager()
        except Exception as error:
            # The generator would refuse to draw from then on, and no memory would be given back.
            generator.graphsafe_set_state(draws)
            with suppress(RuntimeError):  # where torch has ended the allocation itself
                torch._C._cuda_endAllocateToPool(torch.cuda.current_device(), pool)
                torch._C._cuda_releasePool(torch.cuda.current_device(), pool)
            # The end of the capture fails as well, and says less than what went wrong before.
            raise error.__context__ or error from None

    def __call__(self) -> object:
        """Replay the graph."""
        self.graph.replay()
        return self.outputs


class _Check:
    """What the eager call gives, for others to be held against."""

    def __init__(
        self,
        eager: Callable[[], object],
        gradients: Tensors,
        state: Sequence[Tensor],
        tolerance: float,
    ) -> None:
        self.gradients, self.tolerance = gradients, tolerance
        self.saved = [(tensor, tensor.detach().clone()) for tensor in state]
        self.expected = self._run(eager)
        if not self.expected:
            raise SettingsError(
                "The call returns no tensor and leaves no gradient, so no other way to run it can "
                "be checked: let it return its loss, or name parameters in gradients."
            )

    def agrees(self, call: Callable[[], object], what: str) -> None:
        """Raise if a call gives something else than the eager one did."""
        found = self._run(call)
        if found.keys() != self.expected.keys():
            names = ", ".join(sorted(found.keys() ^ self.expected.keys()))
            raise SettingsError(
                f"Eager call and {what} do not give the same tensors ({names}): time the eager one."
            )
        worst, name = max((share, name) for name, share in self._differences(found).items())
        if worst > self.tolerance:
            raise SettingsError(
                f"The {name} of {what} differs from the eager one by up to {worst:.2g} of the "
                f"largest value, and {self.tolerance:g} is allowed: switch dropout off, name what "
                "the call changes in state, or time the eager one."
            )

    def _run(self, call: Callable[[], object]) -> dict[str, Tensor]:
        """Call from the same state and seed; copy what it returns and the gradients it leaves."""
        devices = [torch.cuda.current_device()] if torch.cuda.is_available() else []
        self.restore()
        with torch.random.fork_rng(devices=devices):
            torch.manual_seed(0)
            found = dict(_tensors(call(), "output"))
        for name, parameter in self.gradients.items():
            if parameter.grad is not None:
                found[f"gradient of {name}"] = parameter.grad
        copies = {name: tensor.detach().clone() for name, tensor in found.items()}
        self.restore()
        return copies

    def restore(self) -> None:
        """Put back the state that calls change."""
        with torch.no_grad():
            for tensor, value in self.saved:
                tensor.copy_(value)

    def _differences(self, found: Tensors) -> dict[str, float]:
        """Return the largest differences, relative to the largest output, or gradient, of all."""
        scales = {
            kind: max([_largest(t) for name, t in self.expected.items() if _kind(name) == kind])
            for kind in {_kind(name) for name in self.expected}
        }
        shares = {}
        for name, ours in found.items():
            theirs, scale = self.expected[name], scales[_kind(name)]
            if ours.shape != theirs.shape:
                shares[name] = math.inf
                continue
            difference = _largest(ours.double() - theirs.double())
            share = difference / scale if scale > 0 else difference
            shares[name] = share if math.isfinite(share) else math.inf
        return shares


def _kind(name: str) -> bool:
    """Say whether a tensor is a gradient."""
    return name.split()[0] == "gradient"


def _largest(tensor: Tensor) -> float:
    """Return the largest absolute value; 0 of an empty tensor."""
    return float(tensor.double().abs().max()) if tensor.numel() else 0.0


def _tensors(value: object, name: str) -> Iterator[tuple[str, Tensor]]:
    """Yield the tensors in nested dicts, lists and tuples, named by how to get at them."""
    if isinstance(value, Tensor):
        yield name, value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from _tensors(item, f"{name}[{key!r}]")
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            yield from _tensors(item, f"{name}[{index}]")


@contextmanager
def _explained(what: str) -> Iterator[None]:
    """Put what torch raises into one sentence; a full memory stays what it is."""
    try:
        yield
    except (PeftlabError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        said = shorten(str(error).partition("\n\n")[0], 200, placeholder=" ...")
        raise SettingsError(
            f"The call cannot be {what} ({type(error).__name__}: {said}): time the eager one."
        ) from error
