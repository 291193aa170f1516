"""Loading a saved method with its head, or the checkpoint of another library."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from peftlab.checkpoints import foreign, setups
from peftlab.checkpoints.format import (
    FILE,
    check_head,
    digest,
    fill,
    header,
    heads,
    read,
    stored,
)
from peftlab.encoders import Encoder, load_encoder
from peftlab.errors import CheckpointError, PeftlabError
from peftlab.models import Model
from peftlab.models import model as build
from peftlab.tasks.multi import MultiTask

if TYPE_CHECKING:
    from peftlab.methods.base import Method
    from peftlab.tasks.base import Task


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
        encoder: The encoder, which keeps its type, or its name; by default the one that the
            checkpoint names, in the type that it was saved in.
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
    saved, _ = read(folder)
    if encoder is None and saved["encoder"]["random_weights"]:
        raise CheckpointError(
            f"The encoder of {folder} had random weights: give the same one with encoder=…."
        )
    if encoder is None:
        encoder = saved["encoder"]["name"]
    named = isinstance(encoder, str)
    if isinstance(encoder, str):
        encoder = load_encoder(encoder, attention=saved["encoder"]["attention"])
    head = saved.get("options", {}) if "of" in saved["task"] else saved["head"]
    model = build(
        encoder,
        task or _known_task(saved, folder),
        saved["method"],
        pooling=head.get("pooling"),
        dropout=head.get("dropout", 0.1),
    )
    if named:
        model.to(getattr(torch, saved["encoder"]["dtype"]))
    restore(model, folder)
    model.options = dict(saved.get("options", model.options))
    return model


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
    there, tensors = read(folder)
    saved, own = there["encoder"], model.encoder
    bare = {f"backbone.{name}" for name, _ in model.backbone.named_parameters()}
    if saved["fingerprint"] != own.fingerprint and not bare <= tensors.keys():
        raise CheckpointError(
            f"The checkpoint {folder} was made with other weights of {saved['name']!r} than those "
            f"of the encoder {own.name!r} here: load the encoder it was made with."
        )
    here = header(model)
    own_method = model.method.settings()
    if there["method"] != own_method:
        raise CheckpointError(
            f"The checkpoint {folder} is of the method {_words(there['method'])}, but the model "
            f"has {_words(own_method)}: build the model with the same settings."
        )
    names, own_names = ([t["name"] for t, _ in heads(h)] for h in (there, here))
    if len(names) != len(own_names) or (len(names) > 1 and names != own_names):
        raise CheckpointError(
            f"The checkpoint {folder} has heads for the tasks {', '.join(map(repr, names))}, but "
            f"the model for {', '.join(map(repr, own_names))}: give the tasks it was made for, in "
            "that order."
        )
    for theirs, mine in zip(heads(there), heads(here), strict=True):
        check_head(theirs, mine, folder)
    fill(stored(model), tensors, folder)
    model.runs, model.max_length = list(there.get("runs", [])), there.get("max_length")


def _known_task(there: dict[str, Any], folder: Path) -> Task:
    from peftlab.tasks import task

    found = []
    for saved, head in heads(there):
        try:
            found.append(task(saved["name"], head_layers=head["layers"]))
        except PeftlabError as error:
            raise CheckpointError(
                f"The checkpoint {folder} was made for the task {saved['name']!r}, which cannot be "
                f"opened here ({str(error).rstrip('.')}): give it with task=…."
            ) from error
    if "of" not in there["task"]:
        return found[0]
    return MultiTask(found, temperature=there["task"]["temperature"], name=there["task"]["name"])


def _words(settings: dict[str, Any]) -> str:
    rest = ", ".join(f"{k}={v!r}" for k, v in settings.items() if k != "name")
    return f"{settings['name']}({rest})"
