"""Invertible adapters: a map of the embeddings that can be undone before the words are decoded.

The map is a coupling of two halves, which is exactly invertible whatever its networks are. Where it
is undone is said by the head that decodes words: :mod:`peftlab.tasks.decoder`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Self, cast

import torch
from torch import Tensor, nn

from peftlab.errors import SettingsError
from peftlab.methods.base import Counts, Foreign, Library, Method, Part
from peftlab.methods.checks import check_positive
from peftlab.methods.parts.activations import ACTIVATIONS, activation
from peftlab.methods.registry import register
from peftlab.methods.sites import embedding_site
from peftlab.methods.work import EMBEDDINGS

if TYPE_CHECKING:
    from peftlab.encoders import Anatomy, Encoder
    from peftlab.methods.work import Sketch, States, Tape


class Coupling(Part):
    r"""The additive coupling of NICE (Dinh et al. 2015, arXiv 1410.8516, section 3).

    Args:
        halves: Widths of :math:`x_1` and :math:`x_2`.
        widths: Inner widths of :math:`F` and :math:`G`.
        function: Name of the nonlinearity between their two linear maps.
    """

    def __init__(self, halves: tuple[int, int], widths: tuple[int, int], function: str) -> None:
        super().__init__()
        self.halves = halves
        one, two = halves
        self.F = _network(two, widths[0], one, function)
        self.G = _network(one, widths[1], two, function)

    def forward(self, x: Tensor) -> Tensor:
        """Map x [..., d] to y [..., d]: y₁ = x₁ + F(x₂), y₂ = x₂ + G(y₁)."""
        x1, x2 = x.split(self.halves, -1)
        y1 = x1 + self.F(x2)
        return torch.cat([y1, x2 + self.G(y1)], -1)

    def inverse(self, y: Tensor) -> Tensor:
        """Map y [..., d] back to x [..., d]: x₂ = y₂ - G(y₁), x₁ = y₁ - F(x₂)."""
        y1, y2 = y.split(self.halves, -1)
        x2 = y2 - self.G(y1)
        return torch.cat([y1 - self.F(x2), x2], -1)

    def undone(self, tape: Tape, y: States) -> States:
        """Note the products of :meth:`inverse`: those of G, then those of F."""
        for linear in (self.G[0], self.G[2], self.F[0], self.F[2]):
            weight = cast(Tensor, linear.weight)
            y = tape.linear(y, weight.numel(), weight.requires_grad)
        return y


def _network(d_in: int, width: int, d_out: int, function: str) -> nn.Sequential:
    into, out = nn.Linear(d_in, width), nn.Linear(width, d_out)
    for linear in (into, out):
        nn.init.normal_(linear.weight, std=0.02)
        nn.init.zeros_(linear.bias)
    return nn.Sequential(into, activation(function), out)


@register
@dataclass(frozen=True)
class Invertible(Method):
    r"""The invertible adapter of MAD-X: a coupling of the two halves of every token's embedding.

    With the halves :math:`x_1 \in R^{\lfloor d/2 \rfloor}` and :math:`x_2` of an embedding (after
    its LayerNorm) and two networks :math:`F, G` of one hidden layer each,

    .. math::

        y_1 = x_1 + F(x_2), \qquad y_2 = x_2 + G(y_1), \\
        x_2 = y_2 - G(y_1), \qquad x_1 = y_1 - F(x_2).

    The first line stands behind the embeddings; the second, the inverse with the same weights, is
    applied before words are decoded with the (tied) embeddings. For even d there are
    :math:`d^2/r + (1 + 1/r)\,d` parameters.

    Source: Pfeiffer et al. 2020, MAD-X (arXiv 2005.00052), section on invertible adapters; the
    released code is ``inv_adapter="nice"`` of ``adapters``. Taught in the chapter on language
    adapters.

    Attributes:
        reduction_factor: :math:`r`; a network's hidden layer is as wide as its input divided by r,
            rounded down.
        activation: Of the hidden layers, see :func:`peftlab.methods.parts.activations.activation`.
    """

    name: ClassVar[str] = "invertible"
    paper: ClassVar[str] = "pfeiffer2020madx"
    chapter: ClassVar[str] = "crosslingual/language-adapters"

    reduction_factor: float = 2
    activation: str = "relu"

    def check(self) -> None:
        """Check the settings."""
        check_positive("reduction_factor", self.reduction_factor)
        activation(self.activation)

    @property
    def starts_at_zero(self) -> bool:
        """Whether the encoder's output is unchanged before training: it is only near it."""
        return False

    def sizes(self, d: int) -> tuple[tuple[int, int], tuple[int, int]]:
        """Return the widths of the halves of d, and the inner widths of F and G.

        Raises:
            SettingsError: The reduction factor leaves nothing of a half.
        """
        one, two = d // 2, d - d // 2
        widths = int(two // self.reduction_factor), int(one // self.reduction_factor)
        if min(widths) < 1:
            raise SettingsError(
                f"reduction_factor is {self.reduction_factor}, but half of the encoder is only "
                f"{one} wide: give {one} or less."
            )
        return (one, two), widths

    def attach(self, encoder: Encoder, suffix: str = "") -> None:
        """Add the coupling behind the embeddings.

        Raises:
            SettingsError: A hidden layer would have no width.
        """
        site = embedding_site(encoder)
        part = Coupling(*self.sizes(encoder.anatomy.hidden_size), self.activation)
        site.add(site.states, self.name + suffix, part)

    def counts(self, anatomy: Anatomy) -> Counts:
        """Count the two networks' weights and biases, and what their nonlinearities have."""
        (one, two), (wide_f, wide_g) = self.sizes(anatomy.hidden_size)
        n = (wide_f + wide_g) * (one + two) + wide_f + wide_g + one + two
        n += 2 * sum(p.numel() for p in activation(self.activation).parameters())
        return Counts(trainable=n, stored=n, inference=n)

    def products(self, sketch: Sketch) -> None:
        """Draw F and G, which reads what F gives; the inverse runs only where words are decoded."""
        (one, two), (wide_f, wide_g) = self.sizes(sketch.anatomy.hidden_size)
        chain = two * wide_f, wide_f * one, one * wide_g, wide_g * two
        sketch.add(EMBEDDINGS, "states", "x", chain)

    def to_library(self, library: Library, anatomy: Anatomy, suffix: str = "") -> Foreign | None:
        """Return how ``adapters`` writes it: as an adapter without bottlenecks.

        None for ``peft``, which has none, and for nonlinearities that it does not have.
        """
        if library == "peft" or self.activation not in ACTIVATIONS:
            return None
        config = {
            "architecture": None,
            "mh_adapter": False,
            "output_adapter": False,
            "reduction_factor": 16,  # of the bottlenecks, which there are none of
            "non_linearity": self.activation,
            "inv_adapter": "nice",
            "inv_adapter_reduction_factor": self.reduction_factor,
            "original_ln_before": True,
            "original_ln_after": True,
            "residual_before_ln": True,
            "scaling": 1.0,
        }
        return Foreign(config, {f"embeddings.states.{self.name}{suffix}.": THEIRS})

    @classmethod
    def from_library(
        cls, library: Library, config: Mapping[str, Any], anatomy: Anatomy
    ) -> Self | None:
        """Read an adapter of ``adapters`` that is invertible and has no bottlenecks."""
        if library != "adapters" or not config.get("inv_adapter"):
            return None
        if config.get("mh_adapter") or config.get("output_adapter"):
            return None
        return cls(config["inv_adapter_reduction_factor"], config.get("non_linearity", "relu"))


#: Where `adapters` keeps a coupling; its networks are called F and G there too.
THEIRS = "invertible_adapters.{name}."
