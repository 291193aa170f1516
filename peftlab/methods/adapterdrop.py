"""AdapterDrop: no adapters in the lower layers, always or by chance in every training step.

The adapters themselves are those of :mod:`peftlab.methods.bottleneck`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
from torch import nn

from peftlab.errors import SettingsError
from peftlab.methods.base import Counts, Foreign, Library, Method, Part
from peftlab.methods.bottleneck import PFEIFFER, Adapter
from peftlab.methods.finetuning import HeadOnly
from peftlab.methods.registry import register
from peftlab.methods.sites import hook, parts

if TYPE_CHECKING:
    from peftlab.encoders import Anatomy, Encoder
    from peftlab.methods.work import Sketch

Draw = Literal["released", "paper"]
#: How many of the top layers keep their adapters in every step.
KEPT: dict[Draw, int] = {"released": 2, "paper": 1}


@register
@dataclass(frozen=True)
class AdapterDrop(Method):
    """Adapters in the upper layers only; the lower ones are the bare encoder's.

    Below the lowest adapter nothing trains, so the backward pass ends there, and several tasks can
    share what the lower layers compute.

    Source: Rücklé et al. 2021 (arXiv 2010.11918). Taught in the chapter on AdapterDrop.

    Attributes:
        adapter: The adapters of the upper layers.
        dropped: How many of the lowest layers get none; by default 5 of 12, of other depths L the
            same share, ⌊5L/12⌋.
    """

    name: ClassVar[str] = "adapterdrop"
    paper: ClassVar[str] = "rueckle2021adapterdrop"
    chapter: ClassVar[str] = "methods/adapterdrop"

    adapter: Adapter = PFEIFFER
    dropped: int | None = None

    def check(self) -> None:
        """Check the settings."""
        _check_dropped(self.dropped or 0)

    @property
    def starts_at_zero(self) -> bool:
        """Whether the encoder's output is unchanged before training."""
        return self.adapter.starts_at_zero

    def upper(self, anatomy: Anatomy) -> Adapter:
        """Return the adapters as they stand in an encoder: with the lower layers left out.

        Raises:
            SettingsError: There are not as many layers.
        """
        layers = len(anatomy.layers)
        return _without(
            self.adapter, 5 * layers // 12 if self.dropped is None else self.dropped, anatomy
        )

    def attach(self, encoder: Encoder, suffix: str = "") -> None:
        """Add the adapters of the upper layers.

        Raises:
            SettingsError: There are not as many layers as shall be dropped.
        """
        self.upper(encoder.anatomy).attach(encoder, suffix)

    def counts(self, anatomy: Anatomy) -> Counts:
        """Count the adapters of the upper layers."""
        return self.upper(anatomy).counts(anatomy)

    def products(self, sketch: Sketch) -> None:
        """Draw the adapters of the upper layers."""
        self.upper(sketch.anatomy).products(sketch)

    def to_library(self, library: Library, anatomy: Anatomy, suffix: str = "") -> Foreign | None:
        """Return how ``adapters`` writes it: with ``leave_out``, by which we read it back."""
        return self.upper(anatomy).to_library(library, anatomy, suffix)


@register
@dataclass(frozen=True)
class RobustAdapterDrop(Method):
    r"""Adapters in all layers; in every training step the lowest n are passed by, n by chance.

    n is drawn anew for every forward pass in training (with accumulation: for every part of the
    batch), the same for all layers and texts, from torch's random state. What lies below the
    lowest adapter of the step runs without gradient. An adapter that a step passes by gets no
    gradient then, so that AdamW leaves it and its moments alone. The trained adapters work with any
    number of lower layers dropped.

    Source: Rücklé et al. 2021 (arXiv 2010.11918). Taught in the chapter on AdapterDrop.

    Attributes:
        adapter: The adapters.
        draw: ``"released"``: n from 0 … L-2, each as likely, for L = 12 the ``randint(0, 11)`` of
            the code of Mundra et al. (arXiv 2305.07491) and of Moosavi et al. (arXiv 2205.01549);
            ``"paper"``: from 0 … L-1.
        dropped: How many of the lowest layers are passed by in evaluation.
    """

    name: ClassVar[str] = "adapterdrop-robust"
    paper: ClassVar[str] = "rueckle2021adapterdrop"
    chapter: ClassVar[str] = "methods/adapterdrop"

    adapter: Adapter = PFEIFFER
    draw: Draw = "released"
    dropped: int = 0

    def check(self) -> None:
        """Check the settings."""
        _check_dropped(self.dropped)

    @property
    def partial(self) -> bool:
        """Whether a training step may leave some of its parameters without a gradient."""
        return True

    @property
    def starts_at_zero(self) -> bool:
        """Whether the encoder's output is unchanged before training."""
        return self.adapter.starts_at_zero

    @property
    def flat(self) -> Method:
        """The adapters alone, unless evaluation drops some: chance is for training."""
        return self if self.dropped else self.adapter

    def attach(self, encoder: Encoder, suffix: str = "") -> None:
        """Add the adapters, and let every forward pass decide which of them it meets.

        Raises:
            SettingsError: There are not as many layers as shall be dropped in evaluation.
        """
        _without(self.adapter, self.dropped, encoder.anatomy)
        self.adapter.attach(encoder, suffix)
        label = self.adapter.name + suffix
        layers = [
            [part for path, part in parts(layer.module) if path.endswith(f".{label}")]
            for layer in encoder.anatomy.layers
        ]
        drop = Dropping(layers, _most(self.draw, encoder.anatomy), self.dropped).decide
        hook(encoder.backbone, before=drop, detour=not self.dropped)

    def counts(self, anatomy: Anatomy) -> Counts:
        """Count the adapters of all layers."""
        return self.adapter.counts(anatomy)

    def products(self, sketch: Sketch) -> None:
        """Draw the adapters that evaluation meets."""
        _without(self.adapter, self.dropped, sketch.anatomy).products(sketch)

    def draws(self, anatomy: Anatomy) -> Sequence[Method]:
        """Return the adapters of a step for each n that can be drawn."""
        adapted = {layer for layer, _ in self.adapter.blocks(anatomy)}
        return [
            _without(self.adapter, n, anatomy) if max(adapted) >= n else HeadOnly()
            for n in range(_most(self.draw, anatomy) + 1)
        ]


class Dropping:
    """Decides before every forward pass which layers' adapters are passed by.

    Args:
        layers: The parts of each layer, the lowest first.
        most: In training the number of lowest layers is drawn from 0 … most.
        served: In evaluation it is this.
    """

    def __init__(self, layers: Sequence[Sequence[Part]], most: int, served: int) -> None:
        self.layers, self.most, self.served = layers, most, served

    def decide(self, backbone: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Draw, and switch the parts on or off.

        A layer that is computed a second time, as under gradient checkpointing, finds the same.
        """
        drawn = int(torch.randint(self.most + 1, ())) if backbone.training else self.served
        for index, layer in enumerate(self.layers):
            for part in layer:
                part.active = index >= drawn


def _most(draw: Draw, anatomy: Anatomy) -> int:
    """Return how many layers a training step drops at most."""
    return max(0, len(anatomy.layers) - KEPT[draw])


def _without(adapter: Adapter, dropped: int, anatomy: Anatomy) -> Adapter:
    """Leave the lowest layers out too."""
    layers = len(anatomy.layers)
    leave_out = tuple(sorted({*range(dropped), *adapter.leave_out}))
    if dropped >= layers or len(leave_out) >= layers:
        raise SettingsError(
            f"dropped is {dropped}, but the encoder has {layers} layers, and one must keep its "
            "adapter: drop fewer."
        )
    return replace(adapter, leave_out=leave_out)


def _check_dropped(dropped: int) -> None:
    if dropped < 0:
        raise SettingsError(f"dropped is {dropped!r}: give a whole number of 0 or more.")
