"""An encoder, a method and a head, put together.

This file builds models, counts their parameters and merges them. It reads no data and trains
nothing; saving and loading are in :mod:`peftlab.checkpoints`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn

from peftlab import methods
from peftlab.encoders import Encoder, load_encoder
from peftlab.errors import MergeError, SettingsError
from peftlab.methods import sites
from peftlab.methods.base import Method

if TYPE_CHECKING:
    from peftlab.checkpoints import Format
    from peftlab.tasks.base import Head, Task

INPUTS = ("input_ids", "attention_mask", "token_type_ids")


class Output(NamedTuple):
    """What a model returns: logits, whose shape is the head's, and the mean loss if labels came."""

    logits: Tensor
    loss: Tensor | None


class Model(nn.Module):
    """An encoder with a method attached and a head on top.

    Made by :func:`model`. Taught in the chapter on full fine-tuning.

    Attributes:
        encoder: The encoder; its backbone carries the method's parts.
        method: The method's settings.
        head: The task's head.
        task: The task that the head was made for.
        seed: Decided every initial weight that was not loaded.
        options: What was asked of :func:`model` that is not its default, for the record.
    """

    def __init__(
        self,
        encoder: Encoder,
        method: Method,
        head: Head,
        task: Task,
        *,
        seed: int = 0,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.seed = seed
        self.options = dict(options or {})
        self.encoder = encoder
        self.method = method
        self.task = task
        self.backbone: nn.Module = encoder.backbone
        self.head = head
        self._folded: list[sites.Folded] = []

    def forward(self, batch: Mapping[str, Any]) -> Output:
        """Run a batch.

        Args:
            batch: ``input_ids`` and ``attention_mask`` [batch, length], ``token_type_ids`` where
                the tokenizer makes them, ``labels`` as the head wants them (optional).

        Returns:
            Logits and, with labels, the mean loss.
        """
        inputs = {key: batch[key] for key in INPUTS if key in batch}
        hidden = self.backbone(**inputs).last_hidden_state
        logits = self.head(hidden, batch)
        loss = self.head.loss(logits, batch) if "labels" in batch else None
        return Output(logits, loss)

    @property
    def device(self) -> torch.device:
        """The device that the weights are on."""
        return next(self.parameters()).device

    @property
    def merged(self) -> bool:
        """Whether the method is folded into the backbone's weights now."""
        return bool(self._folded)

    def trainable_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Iterate over the names and parameters that train: the method's and the head's."""
        for name, parameter in self.named_parameters():
            if parameter.requires_grad:
                yield name, parameter

    def method_state(self) -> dict[str, Tensor]:
        """Return every tensor that the method must store, by its path in the backbone.

        These are the parameters and buffers of its parts, in their flat form, and the backbone's
        weights that it trains.
        """
        parts = dict(sites.parts(self.backbone))
        within = tuple(f"{path}." for path in parts)
        state = {
            name: parameter.detach()
            for name, parameter in self.backbone.named_parameters()
            if parameter.requires_grad and not name.startswith(within)
        }
        for path, part in parts.items():
            state |= {f"{path}.{name}": t for name, t in part.flat().state_dict().items()}
        return state

    def merge(self) -> Model:
        """Fold the method into the backbone's weights; the encoder then is a bare one.

        The sum is taken in fp32 and rounded once. Merging a merged model does nothing.

        Returns:
            The model itself.

        Raises:
            MergeError: The method is no linear map of its input.
        """
        if self.merged:
            return self
        if not self.method.mergeable:
            raise MergeError(
                f"The method {self.method.name!r} cannot be merged: its parts are not linear maps "
                "of a layer's input; serve it unmerged, or choose a mergeable method such as LoRA."
            )
        self._folded = sites.fold(self.backbone)
        return self

    def unmerge(self) -> Model:
        """Undo :meth:`merge`; the backbone's weights are bitwise what they were.

        Returns:
            The model itself.
        """
        for folded in self._folded:
            folded.undo()
        self._folded = []
        return self

    def flatten(self) -> Model:
        """Replace every part by the form in which it is stored and served.

        A prefix that a network made in training becomes the plain prefix. Nothing changes for most
        methods.

        Returns:
            The model itself; its ``method`` is then the flat one.
        """
        sites.flatten(self.backbone)
        self.method = self.method.flat
        return self

    def save(self, folder: str | Path, format: Format = "peftlab") -> Path:
        """Save method and head; see :func:`peftlab.checkpoints.save`."""
        from peftlab.checkpoints import save

        return save(self, folder, format)


def model(
    encoder: str | Encoder,
    task: Task,
    method: Method | str | Mapping[str, Any],
    *,
    seed: int = 0,
    attention: str = "sdpa",
    random_weights: bool = False,
    pooling: str | None = None,
    dropout: float = 0.1,
) -> Model:
    """Build a model: encoder + method + head.

    The seed is set before any module is made and the caller's random state is left alone, so two
    builds with one seed are bitwise equal.

    Args:
        encoder: A hub id, a folder, ``"pocket"``, or an encoder that no model was made of yet.
        task: The task that the head is for.
        method: Settings such as ``pl.LoRA(rank=8)``, a preset name such as ``"lora-8"``, or plain
            settings.
        seed: Decides every initial weight that is not loaded.
        attention: ``"sdpa"`` or ``"eager"``.
        random_weights: Draw the encoder's weights instead of loading them (a control).
        pooling: ``"cls"`` or ``"mean"``; by default what the encoder was trained with.
        dropout: Of the head.

    Returns:
        The model in evaluation mode.

    Raises:
        UnknownNameError: No such method.
        SettingsError: The encoder carries a method already, or a setting cannot work.
        OfflineError: The encoder is not here and the hub cannot be reached.
    """
    settings = methods.get(method)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if isinstance(encoder, str):
            encoder = load_encoder(encoder, attention=attention, random_weights=random_weights)
        elif encoder.in_use or next(sites.find(encoder.backbone), None) is not None:
            raise SettingsError(
                f"The encoder {encoder.name!r} carries a method already: load it again."
            )
        encoder.in_use = True
        encoder.backbone.requires_grad_(False)
        settings.attach(encoder)
        head = task.head(encoder.anatomy.hidden_size, pooling or encoder.pooling, dropout)
    asked = {"attention": attention, "pooling": pooling, "dropout": dropout}
    usual = {"attention": "sdpa", "pooling": None, "dropout": 0.1}
    options = {name: value for name, value in asked.items() if value != usual[name]}
    return Model(encoder, settings, head, task, seed=seed, options=options).eval()


@dataclass(frozen=True)
class Summary:
    """What a model is made of and how far its gradient goes.

    Attributes:
        trainable: Parameters of the method that get gradients.
        stored: Parameters that must be saved for the method.
        inference: Parameters that the unmerged method adds to the encoder.
        head: Parameters of the head, all trained and stored too.
        backbone: Parameters of the bare encoder.
        lowest_trained_layer: The backward pass stops here; 0 is the lowest layer, -1 the
            embeddings, the number of layers means only the head.
        layers: Number of layers.
    """

    trainable: int
    stored: int
    inference: int
    head: int
    backbone: int
    lowest_trained_layer: int
    layers: int

    def __str__(self) -> str:
        """Say it in two lines."""
        share = 100 * self.trainable / self.backbone
        if self.lowest_trained_layer < 0:
            depth = "through all layers into the embeddings"
        elif self.lowest_trained_layer >= self.layers:
            depth = "into the head only"
        else:
            depth = f"down to layer {self.lowest_trained_layer} of 0–{self.layers - 1}"
        return (
            f"method: {self.trainable:,} trainable ({share:.2f} % of {self.backbone:,}), "
            f"{self.stored:,} stored, {self.inference:,} added at inference; "
            f"head: {self.head:,}\nthe backward pass goes {depth}"
        )


def summary(model: Model) -> Summary:
    """Count a model's parameters and find how deep its backward pass goes.

    Args:
        model: An unmerged model.

    Returns:
        The counts, method and head apart.

    Raises:
        MergeError: The model is merged, so that method and encoder cannot be told apart.
    """
    if model.merged:
        raise MergeError("A merged model cannot be summed up: call unmerge() first.")
    in_parts = {
        id(p): p.numel() for _, part in sites.parts(model.backbone) for p in part.parameters()
    }
    everything = {id(p): p for p in model.backbone.parameters()}
    trained = [n for n, p in model.backbone.named_parameters() if p.requires_grad]
    layers = model.encoder.anatomy.layers
    lowest = len(layers)
    inside = {id(p) for layer in layers for p in layer.module.parameters()}
    for layer in reversed(layers):
        if any(p.requires_grad for p in layer.module.parameters()):
            lowest = layer.index
    if any(p.requires_grad and id(p) not in inside for p in model.backbone.parameters()):
        lowest = -1
    sizes = {n: p.numel() for n, p in model.backbone.named_parameters()}
    return Summary(
        trainable=sum(sizes[n] for n in trained),
        stored=sum(t.numel() for t in model.method_state().values()),
        inference=sum(in_parts.values()),
        head=sum(p.numel() for p in model.head.parameters()),
        backbone=sum(p.numel() for p in everything.values()) - sum(in_parts.values()),
        lowest_trained_layer=lowest,
        layers=len(layers),
    )
