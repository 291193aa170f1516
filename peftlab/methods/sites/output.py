"""The place at the end of a sublayer: before and after its LayerNorm."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, cast

from torch import Tensor, nn

from peftlab.encoders import Slot
from peftlab.methods.base import Part
from peftlab.methods.sites.site import Site


class OutputSite(Site):
    r"""The block that closes a sublayer, with parts before and after its LayerNorm.

    With the sublayer's result :math:`h` (after dense and dropout) and its input :math:`x`:
    every part *before* gives :math:`h \leftarrow part(h, x, LN)`; then :math:`y = LN(h + x)`; every
    part *after* gives :math:`y \leftarrow part(y)`. Parts that are not ``active`` are passed by.
    """

    def __init__(self, original: nn.Module) -> None:
        super().__init__()
        self.original = original
        self.before = nn.ModuleDict()
        self.after = nn.ModuleDict()

    def forward(self, hidden_states: Tensor, input_tensor: Tensor) -> Tensor:
        """Map the sublayer's raw result and its input, both [batch, length, ·], to its output."""
        block: Any = self.original
        h = block.dropout(block.dense(hidden_states))
        for part in cast(Iterable[Part], self.before.values()):
            if part.active:
                h = part(h, input_tensor, block.LayerNorm)
        y = block.LayerNorm(h + input_tensor)
        for part in cast(Iterable[Part], self.after.values()):
            if part.active:
                y = part(y)
        return cast(Tensor, y)


def output_site(slot: Slot) -> OutputSite:
    """Return the site around the closing block in a slot, made now if there is none yet."""
    module = slot.get()
    if not isinstance(module, OutputSite):
        module = OutputSite(module)
        slot.set(module)
    return module
