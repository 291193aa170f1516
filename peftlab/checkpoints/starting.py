"""A model that begins where an earlier run has ended: with its encoder, and heads where they fit.

So an encoder is pretrained further on texts of a domain or task and then trained on the task, and a
model of several tasks learns one more.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from peftlab.checkpoints import format
from peftlab.encoders import Encoder, load_encoder
from peftlab.errors import CheckpointError, SettingsError
from peftlab.models import Model
from peftlab.models import model as build
from peftlab.seeding import seeded
from peftlab.tasks.language import LanguageModelTask
from peftlab.tasks.multi import Heads, place

if TYPE_CHECKING:
    from peftlab.methods.base import Method
    from peftlab.tasks.base import Task


def start(
    encoder: str | Encoder,
    task: Task | Sequence[Task],
    method: Method | str | dict[str, Any],
    folder: str | Path,
    *,
    seed: int = 0,
    random_weights: bool = False,
    **options: Any,
) -> Model:
    """Build a model on the encoder that an earlier run has trained.

    A head is taken over where the checkpoint has one for the task of that name; that of a language
    model serves all texts. The other heads are drawn anew. Source: Gururangan et al. 2020
    (arXiv 2004.10964), pretraining on domain and task; Mundra et al. 2023 (arXiv 2305.07491),
    released code, adding a task.

    Args:
        encoder: The one that the earlier run began with, or its name.
        task: What the model is for; several get a head each.
        method: As of :func:`peftlab.model`.
        folder: Checkpoint of a model whose method adds no parts, such as ``full`` or ``head-only``.
        seed: Decides every weight that is not taken over.
        random_weights: Whether the weights of an encoder that is named are drawn (a control).
        **options: Passed on to :func:`peftlab.model`.

    Returns:
        The model in evaluation mode. The fingerprint of its encoder is that of the trained weights.

    Raises:
        CheckpointError: The checkpoint is damaged, of another encoder or of a method with parts, or
            has a head of that name for other labels.
        SettingsError: The encoder is that of a model already.
    """
    header, tensors = format.read(folder)
    with seeded(seed):
        if isinstance(encoder, str):
            encoder = load_encoder(encoder, random_weights=random_weights)
    trained = _trained(encoder, header, tensors, folder)
    model = build(trained, task, method, seed=seed, **options)
    _take_heads(model, header, tensors, folder)
    model.runs = list(header.get("runs", []))
    return model


def _trained(
    encoder: Encoder, header: dict[str, Any], tensors: dict[str, Tensor], folder: str | Path
) -> Encoder:
    """Return the encoder with the weights of a checkpoint."""
    saved = header["encoder"]
    own = {f"backbone.{name}": p.data for name, p in encoder.backbone.named_parameters()}
    theirs = {name: t for name, t in tensors.items() if name.startswith("backbone.")}
    same = saved["fingerprint"] == encoder.fingerprint
    if saved["name"] != encoder.name or not (same or own.keys() <= theirs.keys()):
        raise CheckpointError(
            f"The checkpoint {folder} was made with {saved['name']!r}, and not with the weights of "
            f"the encoder {encoder.name!r} here: start from a run on the same encoder."
        )
    if not theirs.keys() <= own.keys():
        raise CheckpointError(
            f"The checkpoint {folder} is of the method {header['method']['name']!r}, which puts "
            "parts into the encoder: start from one that trains the encoder itself, such as 'full'."
        )
    if not theirs:
        return encoder
    if encoder.in_use:
        raise SettingsError(
            f"A model uses the encoder {encoder.name!r}, whose weights would be overwritten: load "
            "it again."
        )
    format.fill({name: own[name] for name in theirs}, theirs, folder)
    encoder.in_use = True
    return Encoder(  # whose fingerprint is taken anew
        encoder.name,
        encoder.backbone,
        encoder.tokenizer,
        encoder.pooling,
        random_weights=encoder.random_weights,
        source=encoder.source,  # of the head that was pretrained with it, which stays frozen
    )


def _take_heads(
    model: Model, header: dict[str, Any], tensors: dict[str, Tensor], folder: str | Path
) -> None:
    """Copy the heads of a checkpoint into a model, for the tasks that it knows."""
    there = format.heads(header)
    for mine in format.heads(format.header(model)):
        name = mine[0]["name"]
        found = [each for each in there if each[0]["name"] == name] or [
            each for each in there if each[0]["kind"] == mine[0]["kind"] == LanguageModelTask.kind
        ]
        if not found:
            continue
        format.check_head(found[0], mine, folder)
        several = "of" in header["task"]
        prefix = f"head.{place(found[0][0]['name'])}." if several else "head."
        head = model.head.of(name) if isinstance(model.head, Heads) else model.head
        format.fill(
            dict(head.state_dict()),
            {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)},
            folder,
        )
