"""AdapterFusion: trained adapters stay as they are, and attention over them learns whom to ask.

How the members' weights come from their checkpoints is in :mod:`peftlab.checkpoints.joining`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, cast

import torch
from torch import Tensor, nn

from peftlab.errors import SettingsError
from peftlab.methods.base import Counts, Method, Part
from peftlab.methods.bottleneck import PFEIFFER, Adapter
from peftlab.methods.checks import check_rate
from peftlab.methods.parts.bottleneck import Bottleneck, PfeifferPart
from peftlab.methods.registry import preset, register
from peftlab.methods.sites import OutputSite, find

if TYPE_CHECKING:
    from peftlab.encoders import Anatomy, Encoder
    from peftlab.methods.work import Sketch, States, Tape


class FusionPart(Part):
    r"""Attention of every token over what the frozen adapters at one place have to say.

    The sums are taken in another order than the equation has them, with the same result: by
    :math:`q^\top (W_K u_k) = (W_K^\top q)^\top u_k` and :math:`\sum_k α_k W_V u_k = W_V \sum_k α_k
    u_k` all three maps run once a token, and not once an adapter.
    """

    def __init__(
        self, members: Sequence[Bottleneck], d: int, dropout: float, regularization: float
    ) -> None:
        super().__init__()
        self.members = nn.ModuleList(members).requires_grad_(False)
        self.after_norm = isinstance(members[0], PfeifferPart)
        self.query = nn.Linear(d, d)
        self.key = nn.Linear(d, d)
        self.value = nn.Linear(d, d, bias=False)
        self.dropout = nn.Dropout(dropout)
        self.regularization = regularization
        for linear in (self.query, self.key):
            nn.init.normal_(linear.weight, std=0.02)
            nn.init.zeros_(linear.bias)
        nn.init.constant_(self.value.weight, 1e-6)
        with torch.no_grad():
            self.value.weight.fill_diagonal_(1.0)

    def forward(self, h: Tensor, x: Tensor, norm: nn.Module) -> Tensor:
        """Return h + Σ α V u.

        Args:
            h: Result of the sublayer [batch, length, d].
            x: Its input, the residual [batch, length, d].
            norm: The LayerNorm that closes it.
        """
        weights, ups = self.attend(norm(h + x) if self.after_norm else h)
        return h + cast(Tensor, self.value((weights.unsqueeze(-2) @ ups).squeeze(-2)))

    def attend(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Map z [batch, length, d] to the weights α [batch, length, N] and u [batch, length, N, d].

        The adapters' own dropout is off: they do not train.
        """
        ups = torch.stack([cast(Bottleneck, member).network(z) for member in self.members], -2)
        query = self.query(z)
        scores = (ups @ (query @ self.key.weight).unsqueeze(-1)).squeeze(-1)
        # the same for all adapters; it counts only where dropout sets a score to zero
        scores = scores + (query * self.key.bias).sum(-1, keepdim=True)
        return self.dropout(scores).softmax(-1), ups

    def penalty(self) -> Tensor | None:
        """Return λ ‖V - I‖², the squared Frobenius norm."""
        V = self.value.weight
        identity = torch.eye(len(V), device=V.device, dtype=V.dtype)
        return self.regularization * (V - identity).pow(2).sum()


@register
@dataclass(frozen=True)
class AdapterFusion(Method):
    r"""Fusion of N trained adapters: they are frozen, and attention over them is trained.

    With :math:`h` the result of a layer's feed-forward part, :math:`x` its input, LN the pretrained
    LayerNorm that closes it, and :math:`u_k` what adapter :math:`k` would add, all [batch, length,
    d]:

    .. math::

        z = LN(h + x), \qquad u_k = W_{up}^k f(W_{down}^k z + b_{down}^k) + b_{up}^k \\
        α = \mathrm{softmax}_k\big((W_Q z + b_Q)^\top (W_K u_k + b_K)\big) \\
        h' = h + \sum_k α_k W_V u_k, \qquad y = LN(h' + x)

    The softmax is over the adapters; there is no factor :math:`1/\sqrt{d}`. :math:`W_V` starts as
    the identity (1e-6 beside the diagonal), and :math:`λ \lVert W_V - I \rVert_F^2` of every layer
    is added to the loss. There are :math:`3d^2 + 2d` trained parameters a layer, whatever N is;
    stored are the adapters too. Houlsby's adapters are fused after both sublayers, with
    :math:`z = h`. :func:`peftlab.fuse` makes such a model of checkpoints; without
    it the members are random.

    Source: Pfeiffer et al. 2021, AdapterFusion (arXiv 2005.00247), section 3; the released code
    is ``BertFusion`` of ``adapters``. Taught in the chapter on fusion.

    Attributes:
        members: N, the number of adapters.
        adapter: The settings that all of them have.
        dropout: On the raw scores, in training. As released, where it is the dropout rate of the
            encoder's attention.
        regularization: :math:`λ`.
    """

    name: ClassVar[str] = "adapterfusion"
    paper: ClassVar[str] = "pfeiffer2021adapterfusion"
    chapter: ClassVar[str] = "methods/fusion"

    members: int = 3
    adapter: Adapter = PFEIFFER
    dropout: float = 0.1
    regularization: float = 0.01

    def check(self) -> None:
        """Check the settings."""
        if self.members < 2:
            raise SettingsError(f"members is {self.members!r}: fuse 2 adapters or more.")
        if (
            self.adapter.parallel
            or self.adapter.placement == "bapna"
            or self.adapter.gate != "none"
        ):
            raise SettingsError(
                "AdapterFusion joins adapters in sequence before a sublayer's LayerNorm, without "
                "gates: give an Adapter with placement 'pfeiffer' or 'houlsby', parallel=False and "
                "gate='none'."
            )
        if not self.regularization >= 0:
            raise SettingsError(
                f"regularization is {self.regularization!r}: give 0 or a number above it."
            )
        check_rate("dropout", self.dropout)

    @property
    def starts_at_zero(self) -> bool:
        """Whether the encoder's output is unchanged before training: the adapters change it."""
        return False

    def attach(self, encoder: Encoder, suffix: str = "") -> None:
        """Attach N adapters, and put a fusion in their place in each layer.

        Raises:
            SettingsError: The adapters leave out a layer that does not exist.
        """
        labels = [f"{self.adapter.name}{suffix} {k}" for k in range(self.members)]
        for label in labels:
            self.adapter.attach(encoder, label.removeprefix(self.adapter.name))
        d = encoder.anatomy.hidden_size
        for _, site in find(encoder.backbone):
            if isinstance(site, OutputSite) and labels[0] in site.before:
                members = [cast(Bottleneck, site.before.pop(label)) for label in labels]
                part = FusionPart(members, d, self.dropout, self.regularization)
                site.add(site.before, self.name + suffix, part)

    def counts(self, anatomy: Anatomy) -> Counts:
        """Count 3d² + 2d trained a place; N adapters are stored and run beside them."""
        d = anatomy.hidden_size
        trained = self.adapter.bottlenecks(anatomy) * (3 * d * d + 2 * d)
        stored = trained + self.members * self.adapter.counts(anatomy).stored
        return Counts(trainable=trained, stored=stored, inference=stored)

    def products(self, sketch: Sketch) -> None:
        """Draw at every place N frozen adapters, and attention over them: 3d² + 2Nd."""
        n, d = self.members, sketch.anatomy.hidden_size
        m, reads = self.adapter.size(d), self.adapter.reads

        def part(tape: Tape, at: Mapping[str, States]) -> States:
            inner = tape.linear(at[reads], n * d * m, trained=False)
            ups = tape.linear(inner, n * m * d, trained=False)
            query = tape.linear(tape.linear(at[reads], d * d), d * d)  # by W_Q, then by W_K^T
            weights = tape.product(query, ups, n * d)
            return tape.linear(tape.product(weights, ups, n * d), d * d)

        for layer, block in self.adapter.blocks(sketch.anatomy):
            sketch.parts[layer, f"{block}.before"].append(part)


preset("adapterfusion", AdapterFusion(members=3, adapter=PFEIFFER))
