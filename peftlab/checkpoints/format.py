"""peftlab's own checkpoint: a folder with one safetensors file, whose header says how to build it.

It holds the tensors that the method stores and the head. ``peftlab.json`` beside it is the header
for people to read; loading does not look at it. The backbone is not in it, unless the method trains
it: a fingerprint says which one it was.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from peftlab import __version__
from peftlab.errors import CheckpointError
from peftlab.tasks.multi import MultiTask

if TYPE_CHECKING:
    from peftlab.models import Model
    from peftlab.tasks.base import Task

#: A task and the settings of its head, as a header has them.
Described = tuple[dict[str, Any], dict[str, Any]]
FILE = "model.safetensors"
NOTE = "peftlab.json"
VERSION = 1


def header(model: Model) -> dict[str, Any]:
    """Return everything that is needed to build a model again, but for the tensors."""
    import transformers

    config: Any = model.backbone.config
    return {
        "format": VERSION,
        "encoder": {
            "name": model.encoder.name,
            "fingerprint": model.encoder.fingerprint,
            "random_weights": model.encoder.random_weights,
            "attention": config._attn_implementation,
            "dtype": str(next(model.parameters()).dtype).removeprefix("torch."),
        },
        "method": model.method.flat.settings(),
        "task": _task(model.task),
        "head": model.head.settings,
        "options": model.options,
        "runs": model.runs,
        "max_length": model.max_length,
        "versions": {
            "peftlab": __version__,
            "torch": str(torch.__version__),
            "transformers": transformers.__version__,
        },
    }


def _task(task: Task) -> dict[str, Any]:
    described: dict[str, Any] = {"name": task.name, "kind": task.kind, "labels": list(task.labels)}
    if isinstance(task, MultiTask):
        described |= {"of": [_task(each) for each in task.tasks], "temperature": task.temperature}
    return described


def heads(header: dict[str, Any]) -> list[Described]:
    """Return task and head settings, one pair a head."""
    if "of" not in header["task"]:
        return [(header["task"], header["head"])]
    return [(task, header["head"]["heads"][task["name"]]) for task in header["task"]["of"]]


def check_head(theirs: Described, mine: Described, folder: str | Path) -> None:
    """Make sure that a head in a checkpoint is what a model has for its task.

    Args:
        theirs: Task and head settings in the checkpoint, as of :func:`heads`.
        mine: Of the model.
        folder: Where the checkpoint lies, for the error.

    Raises:
        CheckpointError: Kind, labels or form of the heads differ.
    """
    for saved, own in zip(theirs, mine, strict=True):
        for key in ("kind", "labels", "outputs", "layers", "pooling"):
            if saved.get(key) != own.get(key):
                raise CheckpointError(
                    f"The checkpoint {folder} was made for the task {theirs[0]['name']!r} with "
                    f"{key} {saved.get(key)!r}, but {mine[0]['name']!r} has {own.get(key)!r}: give "
                    "the task it was made for."
                )


def stored(model: Model) -> dict[str, Tensor]:
    """Return the live tensors that belong in a checkpoint."""
    stored = {f"backbone.{name}": tensor for name, tensor in model.method_state().items()}
    return stored | {f"head.{name}": tensor for name, tensor in model.head.state_dict().items()}


def read(folder: str | Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Read a checkpoint without building its model.

    Args:
        folder: Where :func:`save` wrote.

    Returns:
        What is needed to build the model, and the tensors, called ``backbone.…`` and ``head.…``.

    Raises:
        CheckpointError: The file is missing or damaged, or not from a peftlab as old as this one.
    """
    from safetensors import SafetensorError, safe_open

    path = Path(folder) / FILE
    if not path.is_file():
        raise CheckpointError(f"The folder {folder} holds no checkpoint: {FILE} is missing.")
    try:
        with safe_open(path, framework="pt") as file:
            header = json.loads((file.metadata() or {})["peftlab"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except KeyError:
        raise CheckpointError(
            f"{path} was not written by peftlab: its header lacks the entry 'peftlab'."
        ) from None
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(
            f"The checkpoint {path} is damaged ({error}): copy it again, or train again."
        ) from error
    if header["format"] > VERSION:
        raise CheckpointError(
            f"The checkpoint {path} has format {header['format']}, which is newer than this "
            f"peftlab {__version__} reads: update peftlab."
        )
    return header, tensors


def digest(tensors: Mapping[str, Tensor]) -> str:
    """Return 16 hex digits of the SHA-256 over names and values, as fp32."""
    found = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        found.update(name.encode() + tensor.detach().cpu().float().numpy().tobytes())
    return found.hexdigest()[:16]


@torch.no_grad()
def fill(live: dict[str, Tensor], tensors: dict[str, Tensor], folder: str | Path) -> None:
    """Copy tensors into a model's, all of them or none.

    Args:
        live: The model's.
        tensors: Those of a checkpoint, under the same names.
        folder: Where the checkpoint lies, for the error.

    Raises:
        CheckpointError: A tensor is missing, unexpected or of another shape.
    """
    for words, names in (
        ("lacks", live.keys() - tensors.keys()),
        ("has, against expectation,", tensors.keys() - live.keys()),
        (
            "has in another shape",
            {n for n in live.keys() & tensors.keys() if live[n].shape != tensors[n].shape},
        ),
    ):
        if names:
            more = f" and {len(names) - 1} more" if len(names) > 1 else ""
            raise CheckpointError(
                f"The checkpoint {folder} {words} the tensor {min(names)!r}{more}: it is damaged "
                "or of another model."
            )
    for name, tensor in live.items():
        tensor.copy_(tensors[name])
