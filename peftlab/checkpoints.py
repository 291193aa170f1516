"""Saving a method and its head, and loading them again: nothing silently missing.

A checkpoint is a folder with one safetensors file, which holds the tensors that the method stores,
the head, and in its header everything that is needed to build the model again. ``peftlab.json``
beside it is that header for people to read; loading does not look at it. The backbone is not in it,
unless the method trains it: a fingerprint says which one it was. How other libraries write
checkpoints is in :mod:`peftlab.foreign` and :mod:`peftlab.setups`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from peftlab import __version__, foreign, setups
from peftlab.encoders import Encoder, load_encoder
from peftlab.errors import CheckpointError, PeftlabError
from peftlab.files import replacing
from peftlab.methods.fusion import AdapterFusion
from peftlab.models import Model
from peftlab.models import model as build
from peftlab.tasks.multi import MultiTask

if TYPE_CHECKING:
    from collections.abc import Sequence

    from peftlab.methods.base import Method
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
            ``PeftModel.from_pretrained(AutoModel, folder)``; a fusion as ``adapters`` reads it
            with ``load_adapter_setup``.

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
    if format == "adapters" and isinstance(model.method, AdapterFusion):
        return setups.write(model, model.method, folder)
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
    task: Task | Sequence[Task] | None = None,
    seed: int = 0,
) -> Model:
    """Build a saved model again.

    The folder may also hold a checkpoint of ``adapters`` or ``peft``. Those have no head that fits:
    they need ``encoder`` and ``task``, and the head is drawn anew.

    Args:
        folder: Where :func:`save` wrote, or ``save_adapter`` or ``save_pretrained`` of the others.
        encoder: The encoder or its name; by default the one that the checkpoint names.
        task: The task, or the tasks of several heads in their order; by default the known ones that
            the checkpoint names. Must be given for your own data.
        seed: Decides what is not in the checkpoint: the head of a foreign one.

    Returns:
        The model in evaluation mode. Of a foreign checkpoint its ``options["loaded"]`` is a digest
        of the weights, so that a record says where training began.

    Raises:
        CheckpointError: The file is missing or damaged, a tensor is missing, unexpected or of
            another shape, or the checkpoint is of another encoder or task.
        OfflineError: The encoder is not here and the hub cannot be reached.
    """
    folder = Path(folder)
    theirs = [name for name in (setups.SETUP, foreign.CONFIG) if (folder / name).is_file()]
    if theirs and not (folder / FILE).is_file():
        if encoder is None or task is None:
            raise CheckpointError(
                f"The checkpoint {folder} is of another library and names neither encoder nor "
                "task: give encoder=… and task=…."
            )
        base = load_encoder(encoder) if isinstance(encoder, str) else encoder
        method: Method
        if setups.SETUP in theirs:
            method, tensors = setups.read(folder, base)
        else:
            method, tensors = foreign.read(folder, base.anatomy)
        model = build(base, task, method, seed=seed)
        state = model.method_state()
        live = {f"backbone.{foreign.bare(name)}": tensor for name, tensor in state.items()}
        fill(live, tensors, folder)
        model.options["loaded"] = digest(live)
        return model
    header, _ = read(folder)
    if encoder is None and header["encoder"]["random_weights"]:
        raise CheckpointError(
            f"The encoder of {folder} had random weights: give the same one with encoder=…."
        )
    if encoder is None:
        encoder = header["encoder"]["name"]
    if isinstance(encoder, str):
        encoder = load_encoder(encoder, attention=header["encoder"]["attention"])
    head = header.get("options", {}) if "of" in header["task"] else header["head"]
    model = build(
        encoder,
        task or _known_task(header, folder),
        header["method"],
        pooling=head.get("pooling"),
        dropout=head.get("dropout", 0.1),
    )
    restore(model, folder)
    model.options = dict(header.get("options", model.options))
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
    header, tensors = read(folder)
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
    names, own_names = ([t["name"] for t, _ in _heads(h)] for h in (header, here))
    if len(names) != len(own_names) or (len(names) > 1 and names != own_names):
        raise CheckpointError(
            f"The checkpoint {folder} has heads for the tasks {', '.join(map(repr, names))}, but "
            f"the model for {', '.join(map(repr, own_names))}: give the tasks it was made for, in "
            "that order."
        )
    for there, mine in zip(_heads(header), _heads(here), strict=True):
        for saved_part, own_part in zip(there, mine, strict=True):
            for key in ("kind", "labels", "outputs", "layers", "pooling"):
                if saved_part.get(key) != own_part.get(key):
                    raise CheckpointError(
                        f"The checkpoint {folder} was made for the task {there[0]['name']!r} "
                        f"with {key} {saved_part[key]!r}, but {mine[0]['name']!r} has "
                        f"{own_part[key]!r}: give the task it was made for."
                    )
    fill(_stored(model), tensors, folder)
    model.runs = list(header.get("runs", []))


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
        "task": _task(model.task),
        "head": model.head.settings,
        "options": model.options,
        "runs": model.runs,
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


def _heads(header: dict[str, Any]) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Return task and head settings, one pair a head."""
    if "of" not in header["task"]:
        return [(header["task"], header["head"])]
    return [(task, header["head"]["heads"][task["name"]]) for task in header["task"]["of"]]


def _stored(model: Model) -> dict[str, Tensor]:
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


def _known_task(header: dict[str, Any], folder: Path) -> Task:
    from peftlab.tasks import task

    found = []
    for saved, head in _heads(header):
        try:
            found.append(task(saved["name"], head_layers=head["layers"]))
        except PeftlabError as error:
            raise CheckpointError(
                f"The checkpoint {folder} was made for the task {saved['name']!r}, which cannot be "
                f"opened here ({str(error).rstrip('.')}): give it with task=…."
            ) from error
    if "of" not in header["task"]:
        return found[0]
    return MultiTask(found, temperature=header["task"]["temperature"], name=header["task"]["name"])


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


def _words(settings: dict[str, Any]) -> str:
    rest = ", ".join(f"{k}={v!r}" for k, v in settings.items() if k != "name")
    return f"{settings['name']}({rest})"
