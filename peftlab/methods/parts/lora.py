"""The module of LoRA: what it computes beside a linear map.

The settings, and which maps get one, are in :mod:`peftlab.methods.lora`.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from peftlab.methods.base import Lent, Part
from peftlab.methods.parts.gates import Gate


class LoRAPart(Part):
    r"""A low-rank map beside a linear one: :math:`y + s\,B A\,\mathrm{drop}(x)`.

    With a gate, :math:`s` is what the gate says of :math:`x`, one number a text.
    """

    def __init__(
        self,
        d_in: int,
        d_out: int,
        rank: int,
        scale: float,
        dropout: float,
        gate: Gate | None = None,
    ) -> None:
        super().__init__()
        self.scale = scale
        self.gate: Gate | Lent[Gate] | None = gate
        self.dropout = nn.Dropout(dropout)
        self.A = nn.Parameter(torch.empty(rank, d_in))
        self.B = nn.Parameter(torch.zeros(d_out, rank))
        nn.init.kaiming_uniform_(self.A, a=math.sqrt(5))

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """Add the low-rank map of x [..., d_in] to y [..., d_out]."""
        gate = self.gate.module if isinstance(self.gate, Lent) else self.gate
        scale = self.scale if gate is None else gate(x)
        return y + scale * F.linear(F.linear(self.dropout(x), self.A), self.B)

    def borrow_gate(self, other: LoRAPart) -> None:
        """Use the gate of another part instead of its own, which is dropped."""
        assert isinstance(other.gate, Gate)
        del self.gate
        self.gate = Lent(other.gate)

    def folded(self, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Return W + s·BA; the bias stays."""
        return weight + self.scale * (self.B.to(weight.dtype) @ self.A.to(weight.dtype)), bias
