"""The modules of prefix tuning: a prefix, and the network that can make it in training.

The settings, and which layers get one, are in :mod:`peftlab.methods.prefix`.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from peftlab.methods.base import Lent, Part
from peftlab.methods.parts.gates import Gate


class PrefixPart(Part):
    r"""The prefix of one layer: :math:`P_K, P_V \in R^{p \times d}`, the same for every text."""

    def __init__(self, keys: Tensor, values: Tensor, dropout: float, gate: Gate | None) -> None:
        super().__init__()
        self.keys = nn.Parameter(keys)
        self.values = nn.Parameter(values)
        self.dropout = nn.Dropout(dropout)
        self.gate = gate

    def vectors(self) -> tuple[Tensor, Tensor]:
        """Return the keys and values [p, d]."""
        return self.keys, self.values

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the keys and values [batch, p, d] that texts with states x [batch, L, d] see."""
        keys, values = (self.dropout(v.repeat(x.shape[0], 1, 1)) for v in self.vectors())
        if self.gate is None:
            return keys, values
        gate = self.gate(x)
        return gate * keys, gate * values


class Trunk(nn.Module):
    r"""What the prefixes of all layers are made from: :math:`\tanh(W_1 E + b_1)`, [p, m]."""

    def __init__(self, p: int, d: int, m: int) -> None:
        super().__init__()
        self.embedding = nn.Parameter(torch.randn(p, d))
        self.linear = nn.Linear(d, m)

    def forward(self) -> Tensor:
        """Return the features [p, m]."""
        return torch.tanh(self.linear(self.embedding))


class ReparameterisedPart(PrefixPart):
    r"""One layer's prefix as a network makes it: :math:`[P_K; P_V] = W_2 \tanh(W_1 E + b_1) + b_2`.

    The lowest layer owns the trunk and lends it to the others; each owns its slice of the second
    linear map.
    """

    def __init__(
        self, trunk: Trunk | Lent[Trunk], d: int, dropout: float, gate: Gate | None
    ) -> None:
        Part.__init__(self)
        self.trunk = trunk
        self.linear = nn.Linear(self._trunk().linear.out_features, 2 * d)
        self.dropout = nn.Dropout(dropout)
        self.gate = gate

    def _trunk(self) -> Trunk:
        return self.trunk.module if isinstance(self.trunk, Lent) else self.trunk

    def vectors(self) -> tuple[Tensor, Tensor]:
        """Return the keys and values [p, d]."""
        keys, values = self.linear(self._trunk()()).chunk(2, -1)
        return keys, values

    @torch.no_grad()
    def flat(self) -> PrefixPart:
        """Return the prefix itself, without the network that made it."""
        keys, values = (vector.clone() for vector in self.vectors())
        return PrefixPart(keys, values, self.dropout.p, self.gate).train(self.training)
