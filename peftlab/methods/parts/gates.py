"""Gates: one learned number between 0 and 1 a text that says how much a part takes part.

Used by adapters, LoRA, prefixes and IA3 inside UniPELT.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from peftlab.encoders import Encoder, LayerAnatomy
from peftlab.methods.sites import attention_site

Gating = Literal["none", "real", "all"]


class Gate(nn.Module):
    r"""A gate: :math:`G = \mathrm{mean}_t\,\sigma(w^\top x_t + b)`.

    The mean is over the real tokens of a text. The released code averages over padding too
    (``over="all"``), so that there a text's gate depends on what it is batched with. ``width`` is
    that of what the gate reads, by default the encoder's.

    Source: Mao et al. 2022, UniPELT (arXiv 2110.07577), and its released code. Taught in the
    chapter on UniPELT.
    """

    def __init__(
        self, encoder: Encoder, layer: LayerAnatomy, over: Gating, width: int | None = None
    ) -> None:
        super().__init__()
        self.linear = nn.Linear(width or encoder.anatomy.hidden_size, 1)
        nn.init.normal_(self.linear.weight, std=0.02)
        nn.init.zeros_(self.linear.bias)
        self.over = over
        self.padding = attention_site(encoder, layer).padding

    def forward(self, x: Tensor) -> Tensor:
        """Map x [batch, length, d] to G [batch, 1, 1]."""
        values = torch.sigmoid(self.linear(x))
        return values.mean(1, keepdim=True) if self.over == "all" else self.padding.mean(values)
