"""The places of an encoder where a method can add its parts.

A *site* takes the seat of one module of the backbone and calls the original inside. Sites are made
on demand and shared, so that several methods can meet at one place. They know no method: a part is
any callable module with the signature that the site names. :func:`remove` restores the bare
encoder, :func:`fold` merges the parts into its weights.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from peftlab.encoders import Slot
from peftlab.errors import MergeError, SettingsError
from peftlab.methods.base import Part


class Site(nn.Module):
    """A module of the backbone with parts around it."""

    original: nn.Module

    def add(self, parts: nn.ModuleDict, label: str, part: Part) -> None:
        """Add a part under a label that is unique at this place.

        Parts are drawn on the CPU, so that a seed gives the same weights everywhere, and take the
        device and type of the weights they meet here.
        """
        if label in parts:
            raise SettingsError(
                f"There is already a part named {label!r} at this place of the encoder; "
                "give one of the two methods another name."
            )
        weight = next(self.original.parameters())
        parts[label] = part.to(weight.device, weight.dtype)


class LinearSite(Site):
    r"""A linear map with parts: :math:`y_0 = Wx + b`, then :math:`y_{i+1} = part_i(x, y_i)`."""

    def __init__(self, original: nn.Linear) -> None:
        super().__init__()
        self.original: nn.Linear = original
        self.parts = nn.ModuleDict()

    def forward(self, x: Tensor) -> Tensor:
        """Map x [..., d_in] to y [..., d_out]."""
        y = self.original(x)
        for part in self.parts.values():
            y = part(x, y)
        return cast(Tensor, y)


class OutputSite(Site):
    r"""The block that closes a sublayer, with parts before and after its LayerNorm.

    With the sublayer's result :math:`h` (after dense and dropout) and its input :math:`x`:
    every part *before* gives :math:`h \leftarrow part(h, x, LN)`; then :math:`y = LN(h + x)`; every
    part *after* gives :math:`y \leftarrow part(y)`.
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
        for part in self.before.values():
            h = part(h, input_tensor, block.LayerNorm)
        y = block.LayerNorm(h + input_tensor)
        for part in self.after.values():
            y = part(y)
        return cast(Tensor, y)


def linear_site(slot: Slot) -> LinearSite:
    """Return the site around the linear map in a slot, made now if there is none yet."""
    module = slot.get()
    if not isinstance(module, LinearSite):
        module = LinearSite(cast(nn.Linear, module))
        slot.set(module)
    return module


def output_site(slot: Slot) -> OutputSite:
    """Return the site around the closing block in a slot, made now if there is none yet."""
    module = slot.get()
    if not isinstance(module, OutputSite):
        module = OutputSite(module)
        slot.set(module)
    return module


def find(backbone: nn.Module) -> Iterator[tuple[Slot, Site]]:
    """Iterate over all sites of a backbone with the slots they sit in, outermost first."""
    for module in list(backbone.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, Site):
                yield Slot(module, name), child


def parts(backbone: nn.Module) -> Iterator[tuple[str, Part]]:
    """Iterate over all parts of a backbone with their module paths."""
    for name, module in backbone.named_modules():
        if isinstance(module, Part):
            yield name, module


def remove(backbone: nn.Module) -> None:
    """Put the original modules back; what the parts had learned is gone."""
    for slot, site in find(backbone):
        slot.set(site.original)


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

    The sum is taken in fp32 and rounded once to the weights' type.

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
        new_weight = linear.weight.float()
        new_bias = None if bias is None else bias.float()
        for part in site.parts.values():
            new_weight, new_bias = cast(Part, part).folded(new_weight, new_bias)
        linear.weight.copy_(new_weight)
        if bias is not None and new_bias is not None:
            bias.copy_(new_bias)
        slot.set(linear)
    return done
