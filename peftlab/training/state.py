"""What a killed run needs to go on exactly where it was: one file, written whole or not at all.

The file is safetensors: the trained weights, AdamW's moments, the random state, and the progress as
JSON in its header. It holds no data and no code.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from peftlab.errors import CheckpointError
from peftlab.files import replacing

if TYPE_CHECKING:
    from peftlab.models import Model

FILE = "training.safetensors"


@dataclass
class Progress:
    """How far a run has come.

    Attributes:
        step: Optimiser steps done.
        losses: Mean training loss of every step so far.
        evaluations: One entry an evaluation: step, epoch and metrics.
        best_step: Step of the best evaluation; -1 before the first.
        best_score: Its main metric.
        stale: Evaluations since the best one.
        tokens: Tokens trained on so far, without padding, and with it.
        shapes: Batches of each shape so far, see :mod:`peftlab.training.workload`.
        labelled: Tokens with a label by task, where the head maps no others.
        seconds: Time of earlier attempts by phase.
    """

    step: int = 0
    losses: list[float] = field(default_factory=list)
    evaluations: list[dict[str, Any]] = field(default_factory=list)
    best_step: int = -1
    best_score: float = float("-inf")
    stale: int = 0
    tokens: dict[str, int] = field(default_factory=lambda: {"real": 0, "padded": 0})
    shapes: dict[str, int] = field(default_factory=dict)
    labelled: dict[str, int] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)


def trained(model: Model) -> dict[str, Tensor]:
    """Return the trained tensors by name; they share memory with the model."""
    return {name: parameter.data for name, parameter in model.trainable_parameters()}


def save(
    folder: Path,
    key: str,
    model: Model,
    optimiser: torch.optim.Optimizer,
    progress: Progress,
    best: dict[str, Tensor],
) -> None:
    """Write the state of a run, atomically.

    Args:
        folder: Where; made if missing.
        key: Identity of the run; another run must not go on from this file.
        model: Its trained tensors are saved.
        optimiser: AdamW.
        progress: How far it has come.
        best: Trained tensors of the best evaluation; empty before the first.
    """
    from safetensors.torch import save_file

    tensors = {f"now/{name}": tensor for name, tensor in trained(model).items()}
    tensors |= {f"best/{name}": tensor for name, tensor in best.items()}
    for name, parameter in model.trainable_parameters():
        for moment, value in optimiser.state.get(parameter, {}).items():
            tensors[f"adam/{moment}/{name}"] = torch.as_tensor(value)
    tensors["random/cpu"] = torch.get_rng_state()
    if model.device.type == "cuda":
        tensors["random/cuda"] = torch.cuda.get_rng_state(model.device)
    with replacing(folder / FILE) as temporary:
        save_file(
            {k: v.detach().cpu().contiguous() for k, v in tensors.items()},
            temporary,
            metadata={"key": key, "progress": json.dumps(asdict(progress))},
        )


def restore(
    folder: Path, key: str, model: Model, optimiser: torch.optim.Optimizer
) -> tuple[Progress, dict[str, Tensor]] | None:
    """Go back to a saved state.

    Args:
        folder: Where :func:`save` wrote.
        key: Identity of the run.
        model: Gets the saved tensors.
        optimiser: Gets the saved moments.

    Returns:
        The progress and the best tensors, or ``None`` if nothing was saved.

    Raises:
        CheckpointError: The file is damaged or belongs to another run.
    """
    from safetensors import SafetensorError, safe_open

    path = folder / FILE
    if not path.is_file():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        progress = Progress(**json.loads(header["progress"]))
    except (SafetensorError, KeyError, TypeError, ValueError, OSError) as error:
        raise CheckpointError(
            f"The training checkpoint {path} is damaged ({error}); delete it to start again."
        ) from error
    if header["key"] != key:
        raise CheckpointError(
            f"The training checkpoint {path} belongs to a run with other settings or rows; "
            "choose another folder or delete it."
        )
    best = {}
    with torch.no_grad():
        for name, parameter in model.trainable_parameters():
            parameter.copy_(tensors[f"now/{name}"])
            if f"best/{name}" in tensors:
                best[name] = tensors[f"best/{name}"].to(parameter.device)
            moments = {
                moment: tensors[f"adam/{moment}/{name}"]
                for moment in ("step", "exp_avg", "exp_avg_sq")
                if f"adam/{moment}/{name}" in tensors
            }
            if moments:
                optimiser.state[parameter] = {
                    # torch keeps the step of a fused optimiser beside the weights
                    moment: value.to(parameter.device)
                    for moment, value in moments.items()
                }
    torch.set_rng_state(tensors["random/cpu"])
    if "random/cuda" in tensors and model.device.type == "cuda":
        torch.cuda.set_rng_state(tensors["random/cuda"], model.device)
    return progress, best
