"""The place inside self-attention: keys and values that no token has, and which tokens are real."""

from __future__ import annotations

import math
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from peftlab.encoders import Encoder, LayerAnatomy
from peftlab.errors import SettingsError
from peftlab.methods.sites.site import Site

#: What transformers calls the ways to compute attention that are here too.
KERNELS = ("sdpa", "eager")


class Padding:
    """Which tokens of the batch in a layer are real; the layer's attention notes it.

    Attributes:
        real: True for real tokens [batch, length]; None if all are.
    """

    real: Tensor | None = None

    def note(self, mask: Tensor | None) -> None:
        """Read it from the mask of the attention [batch, 1, queries, keys]: bool, or 0 and -inf."""
        if mask is None:
            self.real = None
        else:
            row = mask[:, 0, 0, :]  # without a causal mask the rows are equal
            self.real = row if row.dtype == torch.bool else row == 0

    def mean(self, values: Tensor) -> Tensor:
        """Average values [batch, length, ·] over the real tokens: [batch, 1, ·]."""
        if self.real is None:
            return values.mean(1, keepdim=True)
        weights = self.real.unsqueeze(-1).to(values.dtype)
        return (values * weights).sum(1, keepdim=True) / weights.sum(1, keepdim=True)


class AttentionSite(Site):
    r"""Self-attention in which every query also sees the keys and values of *prefixes*.

    .. math:: \mathrm{softmax}\left(Q [P_K; K]^\top / \sqrt{d_{head}} + mask\right) [P_V; V]

    A prefix is a part that maps the layer's input [batch, length, d] to :math:`P_K, P_V`, each
    [batch, p, d]. It stands before the tokens' own keys and is never masked. The projections are
    the original's, with the parts that stand at them. Without prefixes the original does the work.

    Attributes:
        config: The backbone's, which says at every call how attention is computed.
        prefixes: The parts.
        padding: Which tokens are real; valid from the moment this layer's attention begins.
    """

    def __init__(self, original: nn.Module, config: Any) -> None:
        super().__init__()
        self.original: Any = original
        self.config = config
        self.prefixes = nn.ModuleDict()
        self.padding = Padding()

    def forward(
        self, hidden_states: Tensor, attention_mask: Tensor | None = None, **others: Any
    ) -> tuple[Tensor, Tensor | None]:
        """Return what the tokens gather [batch, length, d], and where from (eager only).

        The weights [batch, heads, length, p + length] contain the prefixes.

        Raises:
            SettingsError: Attention is computed in a way that is not here, or heads are masked
                where there are prefixes.
        """
        kernel = self.config._attn_implementation
        if kernel not in KERNELS:
            raise SettingsError(
                f"The encoder's attention is {kernel!r}, with which prefixes and gates do not "
                f"work: set it to one of {', '.join(KERNELS)}."
            )
        self.padding.note(attention_mask)
        if not self.prefixes:
            return cast(
                tuple[Tensor, Tensor | None], self.original(hidden_states, attention_mask, **others)
            )
        if others.get("head_mask") is not None:
            raise SettingsError(
                "head_mask does not work with prefixes: leave it out, or remove the method."
            )
        found = [prefix(hidden_states) for prefix in self.prefixes.values()]
        query = self._heads(self.original.query(hidden_states))
        key = self._heads(torch.cat([*(k for k, _ in found), self.original.key(hidden_states)], 1))
        value = self._heads(
            torch.cat([*(v for _, v in found), self.original.value(hidden_states)], 1)
        )
        mask = attention_mask
        if mask is not None:
            visible = mask.dtype == torch.bool  # 0 where the mask is added
            mask = F.pad(mask, (key.shape[2] - mask.shape[-1], 0), value=visible)
        dropout = self.original.dropout.p if self.training else 0.0
        weights = None
        if kernel == "eager" or others.get("output_attentions"):
            scores = query @ key.transpose(-1, -2) / math.sqrt(query.shape[-1])
            if mask is not None:
                scores = scores.masked_fill(~mask, -math.inf) if visible else scores + mask
            weights = F.dropout(scores.softmax(-1), dropout, self.training)
            gathered = weights @ value
        else:
            gathered = F.scaled_dot_product_attention(
                query, key, value, attn_mask=mask, dropout_p=dropout
            )
        output = gathered.transpose(1, 2).flatten(2), weights
        for seen in self.original._forward_hooks.values():
            seen(self.original, (hidden_states,), output)  # so transformers 5 collects the weights
        return output

    def _heads(self, states: Tensor) -> Tensor:
        """Split [batch, length, d] into [batch, heads, length, d / heads]."""
        size = self.original.attention_head_size
        return states.unflatten(-1, (-1, size)).transpose(1, 2)


def attention_site(encoder: Encoder, layer: LayerAnatomy) -> AttentionSite:
    """Return the site around a layer's self-attention, made now if there is none yet."""
    module = layer.attention.get()
    if not isinstance(module, AttentionSite):
        module = AttentionSite(module, encoder.backbone.config)
        module.train(module.original.training)
        layer.attention.set(module)
    return module
