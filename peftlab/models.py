"""An encoder, a method and a head, put together.

This file builds models, counts their parameters and merges them. It reads no data and trains
nothing; saving and loading are in :mod:`peftlab.checkpoints`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
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
from peftlab.methods.finetuning import Full
from peftlab.methods.work import work
from peftlab.seeding import seeded
from peftlab.tasks.multi import Heads, MultiTask, joined, members

if TYPE_CHECKING:
    from peftlab.checkpoints import Format
    from peftlab.tasks.base import Head, Task

#: Tokens of the text for which a summary counts FLOPs.
LENGTH = 128

INPUTS = ("input_ids", "attention_mask", "token_type_ids")


class Output(NamedTuple):
    """What a model returns: logits, whose shape is the head's, and the mean loss if labels came."""

    logits: Tensor
    loss: Tensor | None


class Model(nn.Module):
    """An encoder with a method attached and a head on top, or a head for each of several tasks.

    Made by :func:`model`. Taught in the chapter on full fine-tuning.

    Attributes:
        encoder: The encoder; its backbone carries the method's parts.
        method: The method's settings.
        head: The task's head; for several tasks :class:`peftlab.tasks.multi.Heads`.
        task: The task that the head was made for; several are one
            :class:`peftlab.tasks.multi.MultiTask`.
        runs: Ids of the runs that trained it, oldest first.
        max_length: Longest input of the last of them, in tokens; None before the first.
        seed: Decided every initial weight that was not loaded.
        options: What was asked of :func:`model` that is not its default, for the record.
    """

    def __init__(
        self,
        encoder: Encoder,
        method: Method,
        head: Head | Heads,
        task: Task,
        *,
        seed: int = 0,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.seed = seed
        self.options = dict(options or {})
        self.runs: list[str] = []
        self.max_length: int | None = None
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
                the tokenizer makes them, ``labels`` as the head wants them (optional), ``task`` if
                there are several heads: the one that the rows are of.

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
    task: Task | Sequence[Task],
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
        task: The task that the head is for, or several tasks, which get a head each.
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
    task = joined(task)
    with seeded(seed):
        if isinstance(encoder, str):
            encoder = load_encoder(encoder, attention=attention, random_weights=random_weights)
        elif encoder.in_use or next(sites.find(encoder.backbone), None) is not None:
            raise SettingsError(
                f"The encoder {encoder.name!r} carries a method already: load it again."
            )
        encoder.in_use = True
        encoder.backbone.requires_grad_(False)
        try:
            settings.attach(encoder)
            head = task.head(encoder.anatomy.hidden_size, pooling or encoder.pooling, dropout)
            head.bind(encoder)
        except SettingsError:  # the encoder is as it was, for settings that work
            sites.remove(encoder)
            encoder.in_use = False
            raise
    weight = next(encoder.backbone.parameters())
    head.to(weight.device, weight.dtype)  # as the method's parts, where the encoder has moved
    config: Any = encoder.backbone.config  # an encoder that was given has a kernel of its own
    asked = {"attention": config._attn_implementation, "pooling": pooling, "dropout": dropout}
    usual = {"attention": "sdpa", "pooling": None, "dropout": 0.1}
    options = {name: value for name, value in asked.items() if value != usual[name]}
    return Model(encoder, settings, head, task, seed=seed, options=options).eval()


def add_task(model: Model, task: Task, *, seed: int | None = None) -> Model:
    """Give a model a head for one more task; all other weights stay as they are.

    Trained on the new task with a share of the old ones' rows, it learns the one and keeps the
    others: ``train(model, [new, *(task.share(1 / 5) for task in old)])``. Source: Mundra et al.
    (arXiv 2305.07491), released code (adding a task). Taught in the chapter on multi-task training.

    Args:
        model: With one head or several; is changed.
        task: Has a name that no head of the model has.
        seed: Decides the new head's initial weights; by default the model's.

    Returns:
        The model itself.

    Raises:
        SettingsError: The model has a head for a task of that name.
    """
    old = members(model.task)
    temperature = model.task.temperature if isinstance(model.task, MultiTask) else 1.0
    every = MultiTask([*old, task], temperature=temperature)  # refuses a name that is there
    if not isinstance(model.head, Heads):
        model.head = Heads({model.task.name: model.head})
    seed = model.seed if seed is None else seed
    with seeded(seed):
        head = task.head(
            model.encoder.anatomy.hidden_size,
            model.options.get("pooling") or model.encoder.pooling,
            model.options.get("dropout", 0.1),
        )
        head.bind(model.encoder)
    weight = next(model.head.parameters())
    model.head.extended(task.name, head.to(weight.device, weight.dtype).train(model.training))
    model.task = every
    model.options["added"] = [*model.options.get("added", []), [task.name, seed]]
    return model


@dataclass(frozen=True)
class Summary:
    """What a model is made of and how far its gradient goes.

    Attributes:
        trainable: Parameters of the method that get gradients.
        stored: Parameters that must be saved for the method.
        inference: Parameters that the unmerged method adds to the encoder.
        head: Parameters of the head, all stored too, and trained unless it came with the encoder.
        backbone: Parameters of the bare encoder.
        lowest_trained_layer: The backward pass stops here; 0 is the lowest layer, -1 the
            embeddings, the number of layers means only the head.
        layers: Number of layers.
        step: FLOPs of a training step over those of full fine-tuning, both without the head, by the
            closed form (:mod:`peftlab.methods.work`) for a text of :data:`LENGTH` tokens. Its
            inverse is how much faster a step can be at most by its matrix products.
    """

    trainable: int
    stored: int
    inference: int
    head: int
    backbone: int
    lowest_trained_layer: int
    layers: int
    step: float

    def __str__(self) -> str:
        """Say it in three lines."""
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
            f"head: {self.head:,}\nthe backward pass goes {depth}\n"
            f"a training step has {self.step:.2f} of the FLOPs of full fine-tuning: by those it "
            f"can be at most {1 / self.step:.1f} times as fast"
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
    parts = [part for _, part in sites.parts(model.backbone)]
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
        inference=sum(_size(part.flat()) for part in parts),
        head=_size(model.head),
        backbone=_size(model.backbone) - sum(map(_size, parts)),
        lowest_trained_layer=lowest,
        layers=len(layers),
        step=_step(model),
    )


def _step(model: Model) -> float:
    """Return the FLOPs of a step over those of full fine-tuning, both without the head."""
    anatomy = model.encoder.anatomy
    length = min(LENGTH, anatomy.max_length - model.method.extra_tokens)
    own, full = (work(anatomy, method, 1, length).total for method in (model.method, Full()))
    return own / full


def _size(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
