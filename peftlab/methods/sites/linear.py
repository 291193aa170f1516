"""The place at a linear map, and folding what stands there into its weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from peftlab.encoders import Slot
from peftlab.errors import MergeError
from peftlab.methods.base import Part
from peftlab.methods.sites.site import Site, find


class LinearSite(Site):
    r"""A linear map with parts.

    Every *input* part gives :math:`x \leftarrow part(x)`; then :math:`y = Wx + b`; then every part
    gives :math:`y \leftarrow part(x, y)`.
    """

    def __init__(self, original: nn.Linear) -> None:
        super().__init__()
        self.original: nn.Linear = original
        self.inputs = nn.ModuleDict()
        self.parts = nn.ModuleDict()

    def forward(self, x: Tensor) -> Tensor:
        """Map x [..., d_in] to y [..., d_out]."""
        for part in self.inputs.values():
            x = part(x)
        y = self.original(x)
        for part in self.parts.values():
            y = part(x, y)
        return cast(Tensor, y)


def linear_site(slot: Slot) -> LinearSite:
    """Return the site around the linear map in a slot, made now if there is none yet."""
    module = slot.get()
    if not isinstance(module, LinearSite):
        module = LinearSite(cast(nn.Linear, module))
        slot.set(module)
    return module


@dataclass(frozen=True)
class Folded:
    """One linear map whose parts were folded in, with what is needed to take them out again."""

    slot: Slot
    site: LinearSite
    weight: Tensor
    bias: Tensor | None

    def undo(self) -> None:
        """Restore the original weights bitwise and put the site back."""
        linear = self.site.original
        with torch.no_grad():
            linear.weight.copy_(self.weight)
            if self.bias is not None:
                linear.bias.copy_(self.bias)
        # the model may have gone elsewhere meanwhile, and the parts were not in it
        self.site.to(linear.weight.device, linear.weight.dtype)
        self.site.train(linear.training)
        self.slot.set(self.site)


@torch.no_grad()
def fold(backbone: nn.Module) -> list[Folded]:
    """Fold every part into the weights of its linear map and leave the bare encoder.

    The sum is taken in fp32 (fp64 for fp64 weights) and rounded once to the weights' type.

    Returns:
        One entry a map, for undoing.

    Raises:
        MergeError: A part stands at a place that is no linear map. Nothing has been changed then.
    """
    sites = list(find(backbone))
    for _, site in sites:
        if not isinstance(site, LinearSite):
            raise MergeError(
                "The encoder carries parts that are no linear maps; they cannot be merged."
            )
    done = []
    for slot, site in sites:
        assert isinstance(site, LinearSite)
        linear = site.original
        bias: Tensor | None = linear.bias
        done.append(
            Folded(slot, site, linear.weight.clone(), None if bias is None else bias.clone())
        )
        dtype = torch.promote_types(linear.weight.dtype, torch.float32)
        new_weight = linear.weight.to(dtype)
        new_bias = None if bias is None else bias.to(dtype)
        for part in [*site.parts.values(), *reversed(list(site.inputs.values()))]:
            new_weight, new_bias = cast(Part, part).folded(new_weight, new_bias)
        linear.weight.copy_(new_weight)
        if bias is not None and new_bias is not None:
            bias.copy_(new_bias)
        slot.set(linear)
    return done
