"""How large each method is on an encoder of known shape: parameters and added FLOPs, counted.

What a method *costs* in time or memory is not here.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from peftlab.encoders.shapes import shape
from peftlab.errors import SettingsError
from peftlab.methods import sites
from peftlab.methods.registry import catalogue

#: Tokens of the text over which added FLOPs are counted; attention's depend on the length.
LENGTH = 128


@dataclass(frozen=True)
class Size:
    """How large a method is on an encoder of known shape, without the head.

    Attributes:
        method: Name of the preset, or of the method where no preset has its plain settings.
        encoder: Name of the shape.
        trainable, stored, inference: See :class:`peftlab.methods.Counts`.
        flops: Added to the forward pass by the unmerged method, per token of a text of
            :data:`LENGTH` tokens; 2 × multiply-accumulates of matrix products.
        mergeable: Whether the method can be merged, so that inference adds nothing.
    """

    method: str
    encoder: str
    trainable: int
    stored: int
    inference: int
    flops: float
    mergeable: bool


def sizes(name: str) -> tuple[list[Size], dict[str, str]]:
    """Count every preset, and every method that is no preset, on one shape.

    Each is attached to the encoder, so that one which does not fit it is found out.

    Args:
        name: One of :data:`SHAPES`.

    Returns:
        The sizes in the order of the registry, and for each method that cannot be attached the
        reason.

    Raises:
        UnknownNameError: The shape is not known.
    """
    encoder = shape(name)
    found, left_out = [], {}
    for label, method in catalogue().items():
        encoder.backbone.requires_grad_(False)
        try:
            with torch.device("meta"):
                method.attach(encoder)
            counts = method.counts(encoder.anatomy)
            flops = method.flops(encoder.anatomy, LENGTH)
        except SettingsError as error:
            left_out[label] = str(error)
            continue
        finally:
            sites.remove(encoder)
        found.append(
            Size(
                method=label,
                encoder=name,
                trainable=counts.trainable,
                stored=counts.stored,
                inference=counts.inference,
                flops=flops / LENGTH,
                mergeable=method.mergeable,
            )
        )
    return found, left_out
