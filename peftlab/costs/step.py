"""One training step or one forward pass of a model on a fixed batch, as something to be timed.

The step is the one of :mod:`peftlab.training.loop`: the same optimiser, the same clipping, the same
autocast; what a loop does around it (rows, padding, curves) is left out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from peftlab.encoders import SHAPES, Encoder, load_encoder, shape
from peftlab.models import Model, summary
from peftlab.models import model as build_model
from peftlab.results.records.run import Parameters
from peftlab.tasks import task
from peftlab.training.loop import optimiser_for, penalised, penalty
from peftlab.training.precision import Resolved, autocast
from peftlab.training.settings import TrainSettings

if TYPE_CHECKING:
    from peftlab.methods import Method
    from peftlab.results.records.costs import CostSettings
    from peftlab.timing.marks import Marks

Batch = dict[str, Any]

#: Gives the head its size: two classes. No row of it is read.
TASK = "pocket/sentiment"
#: AdamW does all its work and moves nothing.
TINY = 1e-12


def encoder_of(settings: CostSettings) -> Encoder:
    """Build the backbone of a cell on its device."""
    if settings.encoder in SHAPES:
        # what has no values cannot be asked whether it is padded; eager attention does not ask, and
        # has the same products
        attention = "eager" if settings.device == "meta" else settings.attention
        encoder = shape(settings.encoder, settings.device, attention)
        if settings.device == "meta":
            config: Any = encoder.backbone.config
            config.pad_token_id = None  # or transformers looks for padding among the ids
    else:
        encoder = load_encoder(settings.encoder, attention=settings.attention)
        backbone: Any = encoder.backbone
        backbone.to(settings.device)
    if settings.checkpointing:
        encoder.recompute()
    return encoder


def parameters(model: Model) -> Parameters:
    """Return the numbers of parameters of a model as a record has them."""
    counted, counts = summary(model), model.method.counts(model.encoder.anatomy)
    return Parameters(**asdict(counts) | {"head": counted.head, "backbone": counted.backbone})


def build(
    encoder: Encoder,
    method: Method | str | Mapping[str, Any],
    seed: int = 0,
    *,
    own: bool = True,
) -> Model:
    """Build a model beside others on one frozen backbone.

    Tensors that the method leaves frozen are those of ``encoder``; those of the encoder that it
    trains are copies. So many models take little more memory than one.

    Args:
        encoder: Stays as it is.
        method: Settings, or the name of a preset.
        seed: Decides the method's and the head's weights.
        own: Copy what trains. Without that nothing of the encoder trains, and a fully fine-tuned
            model reads the weights that all others read: for inference. Merging changes shared
            weights, so merge only what is still at its start.
    """
    shared = {id(parameter) for parameter in encoder.backbone.parameters()}
    model = build_model(encoder.twin(), task(TASK), method, seed=seed)
    for module in model.backbone.modules():
        for name, parameter in module.named_parameters(recurse=False):
            if own and id(parameter) in shared and parameter.requires_grad:
                setattr(module, name, nn.Parameter(parameter.detach().clone()))
    encoder.backbone.requires_grad_(False)
    return model


def random_batch(encoder: Encoder, batch: int, length: int, seed: int = 0) -> Batch:
    """Draw a batch without padding.

    Args:
        encoder: Decides words and device.
        batch: Texts.
        length: Tokens of each.
        seed: Of the draw.

    Returns:
        ``input_ids`` and ``attention_mask`` [batch, length], ``labels`` [batch]. No mask on the
        meta device: transformers would ask whether it masks anything, and no value is there.
    """
    device = next(encoder.backbone.parameters()).device
    draws = torch.Generator().manual_seed(seed)
    words = torch.randint(5, encoder.anatomy.vocab_size, (batch, length), generator=draws)
    labels = torch.randint(2, (batch,), generator=draws)
    inputs = {"input_ids": words, "labels": labels}
    if device.type != "meta":
        inputs["attention_mask"] = torch.ones_like(words)
    return {name: tensor.to(device) for name, tensor in inputs.items()}


class Pass:
    """A model on a batch: calling it does one training step, and notes when its phases end.

    Args:
        model: Is trained by the calls, at a rate so small that every call is like the first.
        batch: As the model takes it.
        precision: Of the forward pass.
        marks: Notes the ends of the phases ``forward``, ``backward`` and ``optimiser``.
    """

    def __init__(
        self, model: Model, batch: Batch, precision: Resolved = "fp32", marks: Marks | None = None
    ) -> None:
        self.model, self.batch, self.precision, self.marks = model, batch, precision, marks
        self.settings = TrainSettings(learning_rate=TINY)
        self.optimiser = optimiser_for(model, self.settings)
        self.trained = [p for group in self.optimiser.param_groups for p in group["params"]]
        self.penalised = penalised(model)
        self._lowest: nn.Parameter | None = None
        self._training = True

    def __call__(self) -> None:
        """Do one step: forward, backward, clipping and AdamW."""
        self._mark("start")
        loss = self.forward()
        self._mark("forward")
        loss.backward()
        self._mark("backward")
        self._update()
        self.optimiser.zero_grad(set_to_none=True)
        self._mark("optimiser")

    def step(self) -> Tensor:
        """Do one step, leave its gradients and return its loss: for steps that are to be compared.

        The gradients of the step before are forgotten first: a CUDA graph then has them at
        addresses of its own.
        """
        self.optimiser.zero_grad(set_to_none=True)
        loss = self.forward()
        loss.backward()
        self._update()
        return loss.detach()

    @contextmanager
    def without_dropout(self) -> Iterator[None]:
        """Let training passes draw nothing for a while: in evaluation mode."""
        self._training = False
        try:
            yield
        finally:
            self._training = True

    def forward(self) -> Tensor:
        """Return the loss of the batch, in training mode."""
        self._switch(training=self._training)
        with autocast(self.precision, self.model.device):
            loss: Tensor = self.model(self.batch).loss + penalty(self.penalised)
        return loss

    def _update(self) -> None:
        """Clip the gradients and do AdamW's step."""
        if self.settings.max_grad_norm:
            nn.utils.clip_grad_norm_(self.trained, self.settings.max_grad_norm)
        self.optimiser.step()

    def activation(self) -> None:
        """Do the forward pass and take the gradient of the lowest trained tensor alone.

        Autograd then computes the activation gradients on the way there and no other weight's
        gradient. The lowest one is that which a backward pass reaches last, a table of embeddings
        excepted. Methods whose steps differ by chance (``method.partial``) have no such tensor.
        """
        if self._lowest is None:
            self._lowest = self._find_lowest()
        torch.autograd.grad(self.forward(), self._lowest)

    @torch.no_grad()
    def infer(self) -> Tensor:
        """Return the logits, in evaluation mode, with nothing kept for a backward pass."""
        self._switch(training=False)
        inputs = {name: value for name, value in self.batch.items() if name != "labels"}
        with autocast(self.precision, self.model.device):
            logits: Tensor = self.model(inputs).logits
        return logits

    def _switch(self, *, training: bool) -> None:
        """Set the model's mode if it is another: going through all modules would cost time."""
        if self.model.training != training:
            self.model.train(training)

    def _mark(self, name: str) -> None:
        if self.marks is not None:
            self.marks(name)

    def _find_lowest(self) -> nn.Parameter:
        tables = {
            id(parameter)
            for module in self.model.modules()
            if isinstance(module, nn.Embedding)
            for parameter in module.parameters()
        }
        reached: list[nn.Parameter] = []
        hooks = [
            parameter.register_post_accumulate_grad_hook(reached.append)
            for parameter in self.trained
            if id(parameter) not in tables
        ]
        self.forward().backward()
        for hook in hooks:
            hook.remove()
        self.optimiser.zero_grad(set_to_none=True)
        return reached[-1]
