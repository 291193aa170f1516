"""The modules of bottleneck adapters: what they compute, and where they stand.

:class:`Bottleneck` is the arithmetic that all share; its subclasses say what it reads and where its
result is added. The settings, and which layers get one, are in :mod:`peftlab.methods.bottleneck`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import ClassVar, Literal, cast

import torch
from torch import Tensor, nn

from peftlab.encoders import Anatomy, LayerAnatomy, Slot
from peftlab.methods.base import Part
from peftlab.methods.checks import check_leave_out
from peftlab.methods.parts.activations import activation as make
from peftlab.methods.parts.gates import Gate

INITS = ("bert", "zero", "houlsby", "mam")

Scale = float | Literal["learned", "channel"]


class Bottleneck(Part):
    r"""The arithmetic of a bottleneck adapter without its residual connection.

    .. math:: \mathrm{bn}(z) = G(z)\,\mathrm{drop}\bigl(s\,(W_{up}\,f(W_{down} z + b_{down}) +
        b_{up})\bigr)

    with :math:`W_{down} \in R^{m \times d}` and :math:`W_{up} \in R^{d \times m}`; without a gate
    :math:`G = 1`. :class:`BapnaPart` puts a LayerNorm of its own before :math:`W_{down}`, which the
    gate does not see.

    Args:
        d: Width of the encoder.
        m: Width of the bottleneck.
        activation: :math:`f`, by name.
        dropout: Rate, in training.
        init: One of :data:`INITS`; see :class:`peftlab.methods.bottleneck.Adapter`.
        scale: :math:`s`: a number, or weights that start at 1: ``"learned"`` (one) or ``"channel"``
            (d of them).
        gate: :math:`G`.
    """

    own_norm: ClassVar[bool] = False

    def __init__(
        self,
        d: int,
        m: int,
        activation: str = "relu",
        dropout: float = 0.0,
        init: str = "bert",
        scale: Scale = 1.0,
        gate: Gate | None = None,
    ) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(d) if self.own_norm else nn.Identity()
        self.down = nn.Linear(d, m)
        self.activation = make(activation)
        self.up = nn.Linear(m, d)
        self.scale: nn.Parameter | float | None = None
        if isinstance(scale, str):
            self.scale = nn.Parameter(torch.ones(1 if scale == "learned" else d))
        elif scale != 1:
            self.scale = scale
        self.dropout = nn.Dropout(dropout)
        self.gate = gate
        for linear in (self.down, self.up):
            if init == "houlsby":
                nn.init.trunc_normal_(linear.weight, std=0.01, a=-0.02, b=0.02)
            else:
                nn.init.normal_(linear.weight, std=0.02)
            nn.init.zeros_(linear.bias)
        if init == "mam":
            nn.init.kaiming_uniform_(self.down.weight, a=math.sqrt(5))
        if init in ("zero", "mam"):
            nn.init.zeros_(self.up.weight)

    def network(self, z: Tensor) -> Tensor:
        """Map z [batch, length, d] to s (W_up f(W_down z + b_down) + b_up), of the same shape."""
        u = self.up(self.activation(self.down(self.norm(z))))
        return cast(Tensor, u if self.scale is None else self.scale * u)

    def transform(self, z: Tensor) -> Tensor:
        """Map z [batch, length, d] to bn(z), of the same shape."""
        u = self.dropout(self.network(z))
        return cast(Tensor, u if self.gate is None else self.gate(z) * u)


class HoulsbyPart(Bottleneck):
    """A bottleneck on a sublayer's result: h + bn(h)."""

    def forward(self, h: Tensor, x: Tensor, norm: nn.Module) -> Tensor:
        """Return h + bn(h) [batch, length, d]; :class:`OutputSite` adds x and applies LN."""
        return h + self.transform(h)


class PfeifferPart(Bottleneck):
    """A bottleneck between a block's result and the block's LayerNorm: h + bn(LN(h + x))."""

    def forward(self, h: Tensor, x: Tensor, norm: nn.Module) -> Tensor:
        """Return h + bn(LN(h + x)).

        Args:
            h: Result of the feed-forward part [batch, length, d].
            x: Its input, the residual [batch, length, d].
            norm: The block's own LayerNorm, which :class:`OutputSite` applies again afterwards.
        """
        return h + self.transform(norm(h + x))


class ParallelPart(Bottleneck):
    """A bottleneck beside a sublayer, on the same input: h + bn(x)."""

    def forward(self, h: Tensor, x: Tensor, norm: nn.Module) -> Tensor:
        """Return h + bn(x) [batch, length, d], where x is what the sublayer has read."""
        return h + self.transform(x)


class BapnaPart(Bottleneck):
    """A bottleneck behind a whole layer, with a LayerNorm of its own: z + bn(z)."""

    own_norm = True

    def forward(self, z: Tensor) -> Tensor:
        """Return z + bn(z) [batch, length, d], where z is the layer's output."""
        return z + self.transform(z)


def places(
    anatomy: Anatomy, placement: str, leave_out: tuple[int, ...]
) -> Iterator[tuple[LayerAnatomy, Slot]]:
    """Iterate over the blocks that get a bottleneck, from low to high, with their layers.

    Those are two in a layer with the placement ``"houlsby"``, behind attention and feed-forward
    part, and else the second of them.

    Raises:
        SettingsError: A layer to leave out does not exist.
    """
    check_leave_out(leave_out, anatomy)
    for layer in anatomy.layers:
        if layer.index not in leave_out:
            if placement == "houlsby":
                yield layer, layer.attention_output
            yield layer, layer.output
