"""Saving a method and its head, and loading them again: nothing silently missing.

A checkpoint is a folder with one safetensors file, which holds the tensors that the method stores,
the head, and in its header everything that is needed to build the model again. ``peftlab.json``
beside it is that header for people to read; loading does not look at it. The backbone is not in it,
unless the method trains it: a fingerprint says which one it was. How other libraries write
checkpoints is in :mod:`peftlab.foreign`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from peftlab import __version__, foreign
from peftlab.encoders import Encoder, load_encoder
from peftlab.errors import CheckpointError, PeftlabError
from peftlab.files import replacing
from peftlab.models import Model
from peftlab.models import model as build

if TYPE_CHECKING:
    from peftlab.tasks.base import Task

FILE = "model.safetensors"
NOTE = "peftlab.json"
VERSION = 1

Format = Literal["peftlab", "adapters", "peft"]


def save(model: Model, folder: str | Path, format: Format = "peftlab") -> Path:
    """Save what a model has learned.

    An older checkpoint in the folder is replaced at once: a kill leaves the old or the new one.

    Args:
        model: An unmerged model.
        folder: Where; made if missing.
        format: ``"peftlab"``: method and head. ``"adapters"`` or ``"peft"``: the method alone, as
            that library reads it with ``load_adapter(folder, use_safetensors=True)`` or
            ``PeftModel.from_pretrained(AutoModel, folder)``.

    Returns:
        The folder.

    Raises:
        CheckpointError: The model is merged, or the other library does not have its method.
    """
    folder = Path(folder)
    if model.merged:
        raise CheckpointError(
            "A merged model has no method left to save: call unmerge() first, or save the merged "
            "encoder with backbone.save_pretrained(folder)."
        )
    if format not in ("peftlab", *foreign.LIBRARIES):
        raise CheckpointError(
            f"format is {format!r}: choose one of peftlab, {', '.join(foreign.LIBRARIES)}."
        )
    if format != "peftlab":
        return foreign.write(model, folder, format)
    from safetensors.torch import save_file

    header = json.dumps(_header(model), indent=2, ensure_ascii=False)
    tensors = {name: t.detach().cpu().clone() for name, t in _stored(model).items()}
    with replacing(folder / FILE) as temporary:
        save_file(tensors, temporary, metadata={"peftlab": header})
    with replacing(folder / NOTE) as temporary:
        temporary.write_text(header + "\n", encoding="utf-8")
    return folder


def load(
    folder: str | Path,
    *,
    encoder: Encoder | str | None = None,
    task: Task | None = None,
    seed: int = 0,
) -> Model:
    """Build a saved model again.

    The folder may also hold a checkpoint of ``adapters`` or ``peft``. Those have no head that fits:
    they need ``encoder`` and ``task``, and the head is drawn anew.

    Args:
        folder: Where :func:`save` wrote, or ``save_adapter`` or ``save_pretrained`` of the others.
        encoder: The encoder or its name; by default the one that the checkpoint names.
        task: The task; by default the known one that the checkpoint names. Must be given for your
            own data.
        seed: Decides what is not in the checkpoint: the head of a foreign one.

    Returns:
        The model in evaluation mode.

    Raises:
        CheckpointError: The file is missing or damaged, a tensor is missing, unexpected or of
            another shape, or the checkpoint is of another encoder or task.
        OfflineError: The encoder is not here and the hub cannot be reached.
    """
    folder = Path(folder)
    if not (folder / FILE).is_file() and (folder / foreign.CONFIG).is_file():
        if encoder is None or task is None:
            raise CheckpointError(
                f"The checkpoint {folder} is of another library and names neither encoder nor "
                "task: give encoder=… and task=…."
            )
        base = load_encoder(encoder) if isinstance(encoder, str) else encoder
        method, tensors = foreign.read(folder, base.anatomy)
        model = build(base, task, method, seed=seed)
        state = model.method_state()
        _fill({f"backbone.{name}": tensor for name, tensor in state.items()}, tensors, folder)
        return model
    header, _ = _read(folder)
    if encoder is None and header["encoder"]["random_weights"]:
        raise CheckpointError(
            f"The encoder of {folder} had random weights: give the same one with encoder=…."
        )
    if encoder is None:
        encoder = header["encoder"]["name"]
    if isinstance(encoder, str):
        encoder = load_encoder(encoder, attention=header["encoder"]["attention"])
    head = header["head"]
    model = build(
        encoder,
        task or _known_task(header, folder),
        header["method"],
        pooling=head["pooling"],
        dropout=head["dropout"],
    )
    restore(model, folder)
    return model.to(getattr(torch, header["encoder"]["dtype"]))


def restore(model: Model, folder: str | Path) -> None:
    """Put a checkpoint's tensors into a model that is already built.

    Args:
        model: Unmerged; built with the same encoder, method and task.
        folder: Where :func:`save` wrote.

    Raises:
        CheckpointError: Encoder, method, task or tensors are not those of the checkpoint. The
            model is unchanged then.
    """
    folder = Path(folder)
    header, tensors = _read(folder)
    saved, own = header["encoder"], model.encoder
    if saved["fingerprint"] != own.fingerprint:
        raise CheckpointError(
            f"The checkpoint {folder} was made with other weights of {saved['name']!r} than those "
            f"of the encoder {own.name!r} here: load the encoder it was made with."
        )
    here = _header(model)
    own_method = model.method.settings()
    if header["method"] != own_method:
        raise CheckpointError(
            f"The checkpoint {folder} is of the method {_words(header['method'])}, but the model "
            f"has {_words(own_method)}: build the model with the same settings."
        )
    for part in ("task", "head"):
        for key in ("kind", "labels", "outputs", "layers", "pooling"):
            if header[part].get(key) != here[part].get(key):
                raise CheckpointError(
                    f"The checkpoint {folder} was made for the task {header['task']['name']!r} "
                    f"with {key} {header[part][key]!r}, but {here['task']['name']!r} has "
                    f"{here[part][key]!r}: give the task it was made for."
                )
    _fill(_stored(model), tensors, folder)


def _header(model: Model) -> dict[str, Any]:
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
        "task": {
            "name": model.task.name,
            "kind": model.task.kind,
            "labels": list(model.task.labels),
        },
        "head": model.head.settings,
        "versions": {
            "peftlab": __version__,
            "torch": str(torch.__version__),
            "transformers": transformers.__version__,
        },
    }


def _stored(model: Model) -> dict[str, Tensor]:
    """Return the live tensors that belong in a checkpoint."""
    stored = {f"backbone.{name}": tensor for name, tensor in model.method_state().items()}
    return stored | {f"head.{name}": tensor for name, tensor in model.head.state_dict().items()}


def _read(folder: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    from safetensors import SafetensorError, safe_open

    path = folder / FILE
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


def _known_task(header: dict[str, Any], folder: Path) -> Task:
    from peftlab.tasks import task

    name = header["task"]["name"]
    try:
        return task(name, head_layers=header["head"]["layers"])
    except PeftlabError as error:
        raise CheckpointError(
            f"The checkpoint {folder} was made for the task {name!r}, which cannot be opened "
            f"here ({str(error).rstrip('.')}): give it with task=…."
        ) from error


@torch.no_grad()
def _fill(live: dict[str, Tensor], tensors: dict[str, Tensor], folder: Path) -> None:
    """Copy tensors into a model's, all of them or none."""
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


def _words(settings: dict[str, Any]) -> str:
    rest = ", ".join(f"{k}={v!r}" for k, v in settings.items() if k != "name")
    return f"{settings['name']}({rest})"
