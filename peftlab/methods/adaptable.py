"""Adaptable Adapters: adapters with a learned nonlinearity, and a switch that picks the layers.

Here is the method that learns both. Training fresh adapters only in the layers that were picked,
and the controls for it, are in :mod:`peftlab.methods.focused`; the nonlinearity is in
:mod:`peftlab.methods.parts.rational`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

import torch
from torch import Tensor, nn

from peftlab.methods.base import Counts, Method
from peftlab.methods.bottleneck import Adapter
from peftlab.methods.checks import check_positive
from peftlab.methods.parts.bottleneck import Bottleneck, places
from peftlab.methods.parts.rational import RATE, Rational
from peftlab.methods.registry import preset, register
from peftlab.methods.sites import output_site

if TYPE_CHECKING:
    from peftlab.encoders import Anatomy, Encoder
    from peftlab.methods.work import Sketch

Skip = Literal["none", "identity"]
Strategy = Literal["global", "token", "number"]


class SwitchedPart(Bottleneck):
    """A bottleneck beside a skip branch, with two logits that say how likely each of them is.

    Attributes:
        logits: :math:`π`, of the skip branch and of the adapter.
        settings: Of the method that made it.
    """

    def __init__(self, d: int, m: int, settings: Adaptable) -> None:
        super().__init__(d, m, settings.activation, init=settings.init)
        self.settings = settings
        self.logits = nn.Parameter(torch.full((2,), 0.5))
        self.rates = {"logits": settings.switch_rate}
        if isinstance(self.activation, Rational):
            self.activation.rates = dict.fromkeys(self.activation.rates, settings.rational_rate)

    def forward(self, h: Tensor, x: Tensor, norm: nn.Module) -> Tensor:
        """Return h and a mixture of the two branches.

        Args:
            h: Result of the feed-forward part [batch, length, d].
            x: Its input, the residual [batch, length, d].
            norm: The block's own LayerNorm, which :class:`OutputSite` applies again afterwards.
        """
        z = norm(h + x)
        adapted = self.transform(z)
        skipped = z if self.settings.skip == "identity" else torch.zeros_like(z)
        if self.training:
            share = self.share(z)
            return h + (1 - share) * skipped + share * adapted
        return h + torch.where(self.logits[1] > self.logits[0], adapted, skipped)

    def share(self, z: Tensor) -> Tensor:
        """Draw the share of the adapter branch, of a shape that fits z [batch, length, d]."""
        shapes = {"global": (len(z), 1, 1), "token": (*z.shape[:2], 1), "number": z.shape}
        drawn = torch.empty(*shapes[self.settings.strategy], 2, device=z.device).exponential_()
        noise = -drawn.clamp(min=torch.finfo(drawn.dtype).tiny).log()  # Gumbel(0, 1)
        weights = ((noise + self.logits.float()) / self.settings.temperature).softmax(-1)
        return weights[..., 1].to(z.dtype)


@register
@dataclass(frozen=True)
class Adaptable(Method):
    r"""Adaptable Adapters: in every layer a rational adapter, and a switch that may skip it.

    With :math:`h` the result of a layer's feed-forward part, :math:`x` its input, LN the pretrained
    (frozen) LayerNorm, all [batch, length, d], and the rational activation :math:`R`:

    .. math::

        z = LN(h + x), \qquad f(z) = W_{up}\,R(W_{down} z + b_{down}) + b_{up}, \qquad
        y = LN(h + w_0\,s(z) + w_1 f(z) + x)

    In training :math:`w = \mathrm{softmax}((g + π) / τ)` with :math:`g_i` from Gumbel(0, 1), drawn
    for each text, and :math:`π \in R^2` learned, from (½, ½). In evaluation the branch with the
    greater :math:`π_i` is taken, and skipping if they are equal. There are 2dm + m + d + 10 + 2
    parameters a layer. No term of the loss asks for few layers.

    Both branches are computed in evaluation too, so that a switched-off adapter costs as much as
    one that is on; :class:`peftlab.methods.focused.AdaptableFocused` is the form without that.

    In the released code the skipped layer is not a layer without adapter: its branch is
    :math:`s(z) = z`, and LN is applied to :math:`z + h + x`. The layers that the method leaves out
    afterwards are without adapter. Here :math:`s(z) = 0` is the default, so that the switch decides
    between what the paper speaks of: adapter or none.

    Source: Moosavi et al. 2022 (arXiv 2205.01549) and its released code. Taught in the chapter on
    Adaptable Adapters.

    Attributes:
        reduction_factor: :math:`d / m`; the bottleneck is :math:`m = \lfloor d/r \rfloor` wide.
        bottleneck_size: :math:`m` itself; if given, ``reduction_factor`` is not used.
        activation: :math:`R`; with another one than a rational, the switch alone is studied.
        skip: :math:`s`: ``"none"``, as described, is 0; ``"identity"``, as released, is z.
        temperature: :math:`τ`; constant, as in the released code.
        strategy: What has a draw of its own: ``"global"``, each text; ``"token"``, each token;
            ``"number"``, each number of each token.
        switch_rate: Peak learning rate of the logits.
        rational_rate: Peak learning rate of the coefficients of :math:`R`.
        init: See :class:`peftlab.methods.bottleneck.Adapter`.
        leave_out: Indices of layers that get neither adapter nor switch, 0 is the lowest.
    """

    name: ClassVar[str] = "adaptable"
    paper: ClassVar[str] = "moosavi2022adaptable"
    chapter: ClassVar[str] = "methods/adaptable-adapters"

    reduction_factor: float = 16
    bottleneck_size: int | None = None
    activation: str = "rational:one"
    skip: Skip = "none"
    temperature: float = 0.1
    strategy: Strategy = "global"
    switch_rate: float = 0.05
    rational_rate: float = RATE
    init: str = "bert"
    leave_out: tuple[int, ...] = ()

    def check(self) -> None:
        """Check the settings."""
        self.alone()  # checks what they share
        for name in ("temperature", "switch_rate", "rational_rate"):
            check_positive(name, getattr(self, name))

    def alone(self) -> Adapter:
        """Return the adapter that the switch may skip, by itself."""
        return Adapter(
            reduction_factor=self.reduction_factor,
            bottleneck_size=self.bottleneck_size,
            activation=self.activation,
            init=self.init,
            leave_out=self.leave_out,
        )

    @property
    def starts_at_zero(self) -> bool:
        """Whether the encoder's output is unchanged before training: the switch starts at skip."""
        return self.skip == "none"

    def attach(self, encoder: Encoder, suffix: str = "") -> None:
        """Add one switched bottleneck to the closing block of every layer but those left out.

        Raises:
            SettingsError: A layer to leave out does not exist, or the bottleneck has no width.
        """
        d = encoder.anatomy.hidden_size
        for _, slot in places(encoder.anatomy, self.alone().placement, self.leave_out):
            site = output_site(slot)
            part = SwitchedPart(d, self.alone().size(d), self)
            site.add(site.before, self.name + suffix, part)

    def counts(self, anatomy: Anatomy) -> Counts:
        """Count the adapters and two logits a layer."""
        n = 2 * self.alone().bottlenecks(anatomy)
        return self.alone().counts(anatomy) + Counts(trainable=n, stored=n, inference=n)

    def products(self, sketch: Sketch) -> None:
        """Draw the adapters of all layers, whatever the switches say."""
        self.alone().products(sketch)


preset("adaptable", Adaptable())
preset("adaptable-released", Adaptable(skip="identity"))
