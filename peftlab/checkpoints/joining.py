"""Several checkpoints made into one model: their adapters fused, or their weights averaged.

Both want checkpoints of one encoder and of one method with the same settings. Several adapters side
by side, each for rows of its own, are in :mod:`peftlab.serving`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from peftlab import methods
from peftlab.checkpoints import format
from peftlab.checkpoints.loading import load
from peftlab.encoders import Encoder, load_encoder
from peftlab.errors import CheckpointError, SettingsError
from peftlab.methods.bottleneck import Adapter
from peftlab.methods.fusion import AdapterFusion
from peftlab.models import Model
from peftlab.models import model as build

if TYPE_CHECKING:
    from peftlab.tasks.base import Task

Folder = str | Path
Content = tuple[dict[str, Any], dict[str, Tensor]]

#: Settings that change nothing once the weights are trained.
MOOT = ("dropout", "init")


def fuse(
    encoder: str | Encoder,
    task: Task,
    folders: Sequence[Folder],
    *,
    seed: int = 0,
    dropout: float = 0.1,
    regularization: float = 0.01,
    **options: Any,
) -> Model:
    """Build a model with AdapterFusion over trained adapters; its fusion and head are to train.

    Source: Pfeiffer et al. 2021 (arXiv 2005.00247). Taught in the chapter on fusion.

    Args:
        encoder: The one that the adapters were trained with.
        task: What the new head is for.
        folders: Checkpoints of models with :class:`peftlab.Adapter`; their heads are not used.
        seed: Decides the weights of fusion and head.
        dropout: On the scores; see :class:`peftlab.AdapterFusion`.
        regularization: Of the values; see there.
        **options: Passed on to :func:`peftlab.model`.

    Returns:
        The model in evaluation mode.

    Raises:
        CheckpointError: A checkpoint is damaged, of another encoder, or not of an adapter with the
            settings of the first.
        SettingsError: There are fewer than two.
    """
    encoder = load_encoder(encoder) if isinstance(encoder, str) else encoder
    contents = _alike(folders, encoder)
    adapter = methods.get(contents[0][0]["method"])
    if not isinstance(adapter, Adapter):
        raise CheckpointError(
            f"The checkpoint {folders[0]} is of the method {adapter.name!r}, which AdapterFusion "
            "cannot join: give checkpoints of the method 'adapter'."
        )
    method = AdapterFusion(len(folders), adapter, dropout, regularization)
    model = build(encoder, task, method, seed=seed, **options)
    live = {f"backbone.{name}": tensor for name, tensor in model.method_state().items()}
    with torch.no_grad():
        for k, (_, tensors) in enumerate(contents):
            for name, tensor in tensors.items():
                if name.startswith("backbone."):
                    place = f".before.{method.name}.members.{k}."
                    live[name.replace(f".before.{adapter.name}.", place)].copy_(tensor)
    model.runs, model.max_length = _runs(contents), _longest(contents)
    return model


def average(
    folders: Sequence[Folder],
    weights: Sequence[float] | None = None,
    *,
    encoder: Encoder | str | None = None,
    task: Task | None = None,
    seed: int = 0,
) -> Model:
    r"""Build a model whose weights are the mean of those of several checkpoints.

    .. math:: θ = \sum_k w_k θ_k \Big/ \sum_k w_k

    for every tensor that the method stores, and for the head if all are of one task. That is no
    mean of functions: of LoRA, for instance, A and B are averaged by themselves, as in
    ``average_adapter`` of ``adapters``. Taught in the chapter on fusion.

    Args:
        folders: Checkpoints of one encoder and one method with the same settings.
        weights: One number each; by default all the same.
        encoder: The encoder or its name; by default the one that the checkpoints name.
        task: Needed where :func:`peftlab.load` needs it, and for checkpoints of different tasks:
            the head is then drawn anew.
        seed: Decides such a head.

    Returns:
        The model in evaluation mode.

    Raises:
        CheckpointError: A checkpoint is damaged, or of another encoder, method or settings than the
            first; or they are of different tasks and ``task`` is missing.
        SettingsError: There are fewer than two, or the weights do not fit.
    """
    shares = [1.0] * len(folders) if weights is None else [float(w) for w in weights]
    if len(shares) != len(folders) or not (math.isfinite(sum(shares)) and sum(shares) > 0):
        raise SettingsError(
            f"weights is {weights!r} for {len(folders)} checkpoints: give one number each, with a "
            "sum above 0."
        )
    contents = _alike(folders)
    headers = [header for header, _ in contents]
    one_task = all(h["task"] == headers[0]["task"] for h in headers)
    if one_task:
        for header, folder in zip(headers, folders, strict=True):
            for other, first in zip(format.heads(header), format.heads(headers[0]), strict=True):
                format.check_head(other, first, folder)
        model = load(folders[0], encoder=encoder, task=task)
    elif task is None:
        names = ", ".join(repr(h["task"]["name"]) for h in headers)
        raise CheckpointError(
            f"The checkpoints are for the tasks {names}: give task=…, and their mean gets a new "
            "head for it."
        )
    else:
        encoder = headers[0]["encoder"]["name"] if encoder is None else encoder
        encoder = load_encoder(encoder) if isinstance(encoder, str) else encoder
        _check_encoder(headers[0], folders[0], encoder.fingerprint)
        model = build(encoder, task, headers[0]["method"], seed=seed)
    live = model.state_dict()
    averaged = [name for name in contents[0][1] if one_task or name.startswith("backbone.")]
    with torch.no_grad():
        for name in averaged:
            found = [tensors[name] for _, tensors in contents]
            mean = sum(w * t.double() for w, t in zip(shares, found, strict=True)) / sum(shares)
            live[name].copy_(mean)
    model.runs, model.max_length = _runs(contents), _longest(contents)
    model.options["averaged"] = shares  # those runs are its parts, and not one after the other
    return model


def _alike(folders: Sequence[Folder], encoder: Encoder | None = None) -> list[Content]:
    """Read checkpoints and make sure that they are of one encoder and have the same tensors."""
    if len(folders) < 2:
        raise SettingsError("One checkpoint alone cannot be joined with others: give 2 or more.")
    contents = [format.read(folder) for folder in folders]
    first = contents[0][0]
    for (header, tensors), folder in zip(contents, folders, strict=True):
        fingerprint = encoder.fingerprint if encoder else first["encoder"]["fingerprint"]
        _check_encoder(header, folder, fingerprint)
        settings, wanted = (
            {key: value for key, value in h["method"].items() if key not in MOOT}
            for h in (header, first)
        )
        if settings != wanted:
            words = ", ".join(
                f"{key} {settings.get(key)!r} and not {wanted.get(key)!r}"
                for key in sorted(settings.keys() | wanted.keys())
                if settings.get(key) != wanted.get(key)
            )
            raise CheckpointError(
                f"The checkpoint {folder} is of another method than {folders[0]} (it has {words}): "
                "join checkpoints of one method with the same settings."
            )
        if {n: t.shape for n, t in tensors.items() if n.startswith("backbone.")} != {
            n: t.shape for n, t in contents[0][1].items() if n.startswith("backbone.")
        }:
            raise CheckpointError(
                f"The checkpoint {folder} has tensors of other shapes than {folders[0]}: join "
                "checkpoints of adapters of one size."
            )
    return contents


def _check_encoder(header: dict[str, Any], folder: Folder, fingerprint: str) -> None:
    if header["encoder"]["fingerprint"] != fingerprint:
        raise CheckpointError(
            f"The checkpoint {folder} was made with other weights of {header['encoder']['name']!r} "
            "than the others, or than the encoder here: join what was trained with one encoder."
        )


def _longest(contents: Iterable[Content]) -> int | None:
    """Return the longest input that one of them was trained with; None where none says it."""
    return max((header.get("max_length") or 0 for header, _ in contents), default=0) or None


def _runs(contents: Iterable[Content]) -> list[str]:
    """Return the ids of all runs that trained something of it, each once."""
    return list(dict.fromkeys(run for header, _ in contents for run in header.get("runs", [])))
