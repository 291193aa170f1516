"""Compacter: bottleneck adapters whose weights are sums of Kronecker products, partly shared.

A bottleneck adapter with other linear maps: see :mod:`peftlab.methods.bottleneck`. Only the form
that the paper calls Compacter is here: the small matrices are shared by the whole encoder, the
large ones are products of thin ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

import torch
from torch import Tensor, nn

from peftlab.errors import SettingsError
from peftlab.methods.base import Counts, Foreign, Lent, Library, Method, Part
from peftlab.methods.bottleneck import Adapter
from peftlab.methods.checks import check_whole
from peftlab.methods.parts.activations import activation
from peftlab.methods.parts.bottleneck import places
from peftlab.methods.registry import preset, register
from peftlab.methods.sites import output_site

if TYPE_CHECKING:
    from peftlab.encoders import Anatomy, Encoder
    from peftlab.methods.work import Sketch

Placement = Literal["houlsby", "pfeiffer"]

#: Settings of `adapters` that make another method of it, and the values with which it is this one.
FIXED = {
    "shared_phm_rule": True,
    "factorized_phm_rule": False,
    "shared_W_phm": False,
    "factorized_phm_W": True,
    "learn_phm": True,
    "phm_bias": True,
}


class Rule(nn.Module):
    """The small matrices that all maps share: A [n, n, n], from N(0, 0.0001²)."""

    def __init__(self, n: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(1e-4 * torch.randn(n, n, n))


class PHM(nn.Module):
    r"""A parameterised hypercomplex multiplication: a linear map with few parameters.

    .. math:: y = x H + b, \qquad H = \sum_{i=1}^{n} A_i \otimes (s_i\, t_i)

    with :math:`A_i \in R^{n \times n}` shared, :math:`s_i \in R^{d_{in}/n \times k}` and
    :math:`t_i \in R^{k \times d_{out}/n}`.

    :math:`H` is never formed. x, cut into n pieces, goes through all :math:`s_i`, then the pieces
    are mixed by :math:`A_i`, then each goes through all :math:`t_i`. That is
    :math:`2nk(d_{in} + d_{out}) + 2n^3k` FLOPs a token instead of :math:`2 d_{in} d_{out}` (6,464
    instead of 36,864 at 768 → 24 with n = 4, k = 1), and nothing of the size of :math:`H` is kept
    for the backward pass.
    """

    def __init__(self, d_in: int, d_out: int, rank: int, rule: Rule) -> None:
        super().__init__()
        self.rule = Lent(rule)
        n = len(rule.weight)
        self.left = nn.Parameter(torch.empty(n, d_in // n, rank))
        self.right = nn.Parameter(torch.empty(n, rank, d_out // n))
        self.bias = nn.Parameter(torch.zeros(d_out))
        for thin in (*self.left, *self.right):
            nn.init.xavier_normal_(thin)

    def forward(self, x: Tensor) -> Tensor:
        """Map x [..., d_in] to y [..., d_out]."""
        rule = self.rule.module.weight
        n = len(rule)
        u = x.unflatten(-1, (n, -1)) @ self.left.transpose(0, 1).flatten(1)  # [..., piece, i·k]
        u = torch.einsum("...aik,iac->...cik", u.unflatten(-1, (n, -1)), rule)
        return (u.flatten(-2) @ self.right.flatten(0, 1)).flatten(-2) + self.bias


class CompacterPart(Part):
    """A bottleneck of two PHM maps: h + up(f(down(z)))."""

    def __init__(self, d: int, m: int, settings: Compacter, rule: Rule, owns: bool) -> None:
        super().__init__()
        if owns:
            self.rule = rule
        self.before_norm = settings.placement == "houlsby"
        self.down = PHM(d, m, settings.rank, rule)
        self.activation = activation(settings.activation)
        self.up = PHM(m, d, settings.rank, rule)
        self.dropout = nn.Dropout(settings.dropout)

    def forward(self, h: Tensor, x: Tensor, norm: nn.Module) -> Tensor:
        """Return h + bn(z), where z is h or LN(h + x).

        Args:
            h: Result of the sublayer [batch, length, d].
            x: Its input, the residual [batch, length, d].
            norm: The sublayer's own LayerNorm, which :class:`OutputSite` applies afterwards.
        """
        z = h if self.before_norm else norm(h + x)
        return h + self.dropout(self.up(self.activation(self.down(z))))


@register
@dataclass(frozen=True)
class Compacter(Method):
    r"""Compacter and Compacter++: adapters of low-rank hypercomplex maps.

    The bottleneck is that of an adapter, :math:`bn(z) = W_{up}\,f(W_{down} z + b_{down}) + b_{up}`,
    and both maps are, as :class:`PHM` has it,

    .. math:: W^\top = \sum_{i=1}^{n} A_i \otimes (s_i\, t_i)

    The :math:`n^3` numbers of :math:`A` are one set for the whole encoder; the lowest bottleneck
    owns them. Every bottleneck has :math:`2k(d + m) + m + d` of its own, a third of them biases
    where k = 1. With h the result of a sublayer, x its input, LN its pretrained (frozen) LayerNorm:

    ============== ============================ =============================
    placement      where                        output
    ============== ============================ =============================
    ``"houlsby"``  after both sublayers         LN(h + bn(h) + x)
    ``"pfeiffer"`` after the feed-forward part  LN(h + bn(LN(h + x)) + x)
    ============== ============================ =============================

    The first is Compacter, the second Compacter++. Both start very near the identity: :math:`A`
    comes from N(0, 0.0001²), and it is a factor of both maps.

    Source: Karimi Mahabadi et al. 2021 (arXiv 2106.04647); the released code followed here is
    ``CompacterConfig`` and ``CompacterPlusPlusConfig`` of ``adapters``. Taught in the chapter on
    Compacter.

    Attributes:
        reduction_factor: :math:`d / m`; the bottleneck is :math:`m = \lfloor d/r \rfloor` wide.
        phm_dim: :math:`n`; divides d and m.
        rank: :math:`k`.
        activation: :math:`f`, see :func:`peftlab.methods.parts.activations.activation`.
        placement: Where the bottlenecks stand.
        dropout: On the bottleneck's result, in training. The released code has none.
        leave_out: Indices of layers that get none, 0 is the lowest.
    """

    name: ClassVar[str] = "compacter"
    paper: ClassVar[str] = "mahabadi2021compacter"
    chapter: ClassVar[str] = "methods/compacter"

    reduction_factor: float = 32
    phm_dim: int = 4
    rank: int = 1
    activation: str = "gelu"
    placement: Placement = "houlsby"
    dropout: float = 0.0
    leave_out: tuple[int, ...] = ()

    def check(self) -> None:
        """Check the settings."""
        self.plain()  # checks what they share
        check_whole("phm_dim", self.phm_dim)
        check_whole("rank", self.rank)

    def plain(self) -> Adapter:
        """Return the adapter with ordinary linear maps in the same places."""
        return Adapter(
            reduction_factor=self.reduction_factor,
            activation=self.activation,
            placement=self.placement,
            dropout=self.dropout,
            leave_out=self.leave_out,
        )

    @property
    def starts_at_zero(self) -> bool:
        """Whether the encoder's output is unchanged before training; it is very near it."""
        return False

    def size(self, d: int) -> int:
        """Return the width m of the bottleneck in an encoder of width d.

        Raises:
            SettingsError: n does not divide d and m.
        """
        m = int(d // self.reduction_factor)
        if m < 1 or m % self.phm_dim or d % self.phm_dim:
            raise SettingsError(
                f"phm_dim is {self.phm_dim}, which must divide the encoder's width {d} and the "
                f"bottleneck's, {d} // {self.reduction_factor:g} = {m}: choose another phm_dim or "
                "reduction_factor."
            )
        return m

    def attach(self, encoder: Encoder, suffix: str = "") -> None:
        """Add the bottlenecks to every layer but those left out.

        Raises:
            SettingsError: A layer to leave out does not exist, or the widths cannot be divided.
        """
        d = encoder.anatomy.hidden_size
        m, rule = self.size(d), Rule(self.phm_dim)
        blocks = places(encoder.anatomy, self.placement, self.leave_out)
        for index, (_, slot) in enumerate(blocks):
            site = output_site(slot)
            part = CompacterPart(d, m, self, rule, owns=index == 0)
            site.add(site.before, self.name + suffix, part)

    def counts(self, anatomy: Anatomy) -> Counts:
        """Count n³ once, and 2k(d + m) + m + d a bottleneck and what its activation has."""
        d, m = anatomy.hidden_size, self.size(anatomy.hidden_size)
        one = 2 * self.rank * (d + m) + m + d
        one += sum(p.numel() for p in activation(self.activation).parameters())
        n = self.phm_dim**3 + self.plain().bottlenecks(anatomy) * one
        return Counts(trainable=n, stored=n, inference=n)

    def products(self, sketch: Sketch) -> None:
        """Draw nkd + n³k + nkm a map and state; the Kronecker product is not formed."""
        d, m = sketch.anatomy.hidden_size, self.size(sketch.anatomy.hidden_size)
        nk, mix = self.phm_dim * self.rank, self.phm_dim**3 * self.rank
        plain = self.plain()
        for layer, block in plain.blocks(sketch.anatomy):
            chain = nk * d, mix, nk * m, nk * m, mix, nk * d
            sketch.add(layer, f"{block}.before", plain.reads, chain)

    def to_library(self, library: Library, anatomy: Anatomy, suffix: str = "") -> Foreign | None:
        """Return how ``adapters`` writes it; None for ``peft``, and for rational activations."""
        plain = self.plain().to_library(library, anatomy, suffix)
        if plain is None:
            return None
        config = plain.config | {
            "phm_layer": True,
            "phm_dim": self.phm_dim,
            "phm_rank": self.rank,
            "phm_c_init": "normal",
            "phm_init_range": 0.0001,
            "hypercomplex_nonlinearity": "glorot-uniform",
        }
        label = f".before.{self.name}{suffix}"
        lowest = min(x.index for x in anatomy.layers if x.index not in self.leave_out)
        block = "attention.output" if self.placement == "houlsby" else "output"
        owner = f"encoder.layer.{lowest}.{block}{label}.rule.weight"
        names = {owner: "shared_parameters.{name}.phm_rule"}
        for ours, theirs in (("down", "adapter_down.0"), ("up", "adapter_up")):
            for one, other in (("left", "W_left"), ("right", "W_right"), ("bias", "b")):
                names[f"{label}.{ours}.{one}"] = f".adapters.{{name}}.{theirs}.{other}"
        return Foreign(config | FIXED, names)

    @classmethod
    def from_library(
        cls, library: Library, config: Mapping[str, Any], anatomy: Anatomy
    ) -> Self | None:
        """Read the settings of a Compacter of ``adapters``.

        Raises:
            SettingsError: It shares or factorises other things than Compacter does.
        """
        if library != "adapters" or not config.get("phm_layer"):
            return None
        for key, value in FIXED.items():
            if config.get(key, value) != value:
                raise SettingsError(f"{key} is {config[key]!r}; here it is always {value!r}")
        return cls(
            reduction_factor=config["reduction_factor"],
            phm_dim=config.get("phm_dim", 4),
            rank=config.get("phm_rank", 1),
            activation=config.get("non_linearity", "gelu"),
            placement="houlsby" if config.get("mh_adapter") else "pfeiffer",
            dropout=config.get("dropout", 0.0),
            leave_out=tuple(config.get("leave_out", ())),
        )


preset("compacter", Compacter())
preset("compacter++", Compacter(placement="pfeiffer"))
