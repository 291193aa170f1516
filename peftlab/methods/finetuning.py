"""Fine-tuning weights of the encoder itself: all of them, the upper layers, or none but the head.

These methods add no parts; they only say which weights train. They are the two ends that every
other method is compared with.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product
from types import MappingProxyType
from typing import TYPE_CHECKING, ClassVar

from peftlab.encoders import LINEARS
from peftlab.errors import SettingsError
from peftlab.methods.base import Counts, Method
from peftlab.methods.registry import preset, register
from peftlab.methods.sites import bare
from peftlab.methods.work import EMBEDDINGS

if TYPE_CHECKING:
    from peftlab.encoders import Anatomy, Encoder
    from peftlab.methods.work import Sketch

#: What does not work with methods that train the encoder's own weights, and why.
IN_PLACE = MappingProxyType(
    {
        "merge": "it trains the encoder's own weights in place",
        "several": "it changes weights of the encoder that the others share",
    }
)


def layer_size(anatomy: Anatomy) -> int:
    r"""Return the parameters of one layer.

    Four projections of the attention, two maps of the feed-forward part and two LayerNorms:
    :math:`4(d^2 + d) + 2 d\,d_{ff} + d_{ff} + d + 4d`.
    """
    d, wide = anatomy.hidden_size, anatomy.intermediate_size
    return 4 * (d * d + d) + 2 * d * wide + wide + d + 4 * d


@register
@dataclass(frozen=True)
class Full(Method):
    """Full fine-tuning: every weight of the encoder trains.

    Source: Devlin et al. 2019 (arXiv 1810.04805), section 4. Taught in the chapter on full
    fine-tuning.

    Attributes:
        freeze_embeddings: Keep the embeddings (words, positions, segments and their LayerNorm) as
            they are. In a multilingual encoder most parameters are there.
    """

    name: ClassVar[str] = "full"
    paper: ClassVar[str] = "devlin2019bert"
    chapter: ClassVar[str] = "foundations/full-fine-tuning"
    cannot: ClassVar[Mapping[str, str]] = IN_PLACE

    freeze_embeddings: bool = False

    def attach(self, encoder: Encoder, suffix: str = "") -> None:
        """Make the whole backbone trainable, with or without its embeddings."""
        for parameter in bare(encoder.backbone):
            parameter.requires_grad_(True)
        if self.freeze_embeddings:
            for parameter in bare(encoder.anatomy.embeddings.get()):
                parameter.requires_grad_(False)

    def counts(self, anatomy: Anatomy) -> Counts:
        """Count the layers in closed form, and the bare embeddings as they are."""
        trained = len(anatomy.layers) * layer_size(anatomy)
        if not self.freeze_embeddings:
            trained += sum(p.numel() for p in bare(anatomy.embeddings.get()))
        return Counts(trainable=trained, stored=trained, inference=0)

    def products(self, sketch: Sketch) -> None:
        """Draw nothing; all weights train."""
        sketch.weights.update(product(range(len(sketch.anatomy.layers)), LINEARS))
        if not self.freeze_embeddings:
            sketch.vectors.add((EMBEDDINGS, "embeddings"))


@register
@dataclass(frozen=True)
class HeadOnly(Method):
    """Linear probing: the encoder stays as it is and only the head trains.

    Source: Devlin et al. 2019 (arXiv 1810.04805), section 5.3, the feature-based approach. Taught
    in the chapter on full fine-tuning.
    """

    name: ClassVar[str] = "head-only"
    paper: ClassVar[str] = "devlin2019bert"
    chapter: ClassVar[str] = "foundations/full-fine-tuning"
    cannot: ClassVar[Mapping[str, str]] = MappingProxyType({"merge": "it adds nothing"})

    def attach(self, encoder: Encoder, suffix: str = "") -> None:
        """Do nothing: the backbone arrives frozen."""

    def counts(self, anatomy: Anatomy) -> Counts:
        """Count nothing: the head is counted apart."""
        return Counts(trainable=0, stored=0, inference=0)

    def products(self, sketch: Sketch) -> None:
        """Draw nothing."""


@register
@dataclass(frozen=True)
class TopLayers(Method):
    """The upper k layers train; what is below them is a fixed feature extractor.

    The backward pass ends at the lowest layer that trains. Source: Howard and Ruder 2018
    (arXiv 1801.06146), section 3.3, and as a baseline Houlsby et al. 2019 (arXiv 1902.00751),
    section 3.4. Taught in the chapter on full fine-tuning.

    Attributes:
        layers: How many layers train, from the top.
    """

    name: ClassVar[str] = "top-layers"
    paper: ClassVar[str] = "houlsby2019adapters"
    chapter: ClassVar[str] = "foundations/full-fine-tuning"
    cannot: ClassVar[Mapping[str, str]] = IN_PLACE

    layers: int = 2

    def check(self) -> None:
        """Check the settings."""
        if self.layers < 1:
            raise SettingsError(
                f"layers is {self.layers} in top-layers: train 1 layer or more, or use head-only."
            )

    def attach(self, encoder: Encoder, suffix: str = "") -> None:
        """Make the upper layers trainable.

        Raises:
            SettingsError: The encoder has fewer layers.
        """
        layers = encoder.anatomy.layers
        if self.layers > len(layers):
            raise SettingsError(
                f"layers is {self.layers} in top-layers, but {encoder.name!r} has "
                f"{len(layers)}: choose at most {len(layers)}."
            )
        for layer in layers[-self.layers :]:
            for parameter in bare(layer.module):
                parameter.requires_grad_(True)

    def counts(self, anatomy: Anatomy) -> Counts:
        """Count the layers that train, in closed form."""
        trained = self.layers * layer_size(anatomy)
        return Counts(trainable=trained, stored=trained, inference=0)

    def products(self, sketch: Sketch) -> None:
        """Draw nothing; the weights of the upper layers train."""
        upper = sketch.anatomy.layers[-self.layers :]
        sketch.weights.update((layer.index, name) for layer in upper for name in LINEARS)


preset("full", Full())
preset("full-frozen-embeddings", Full(freeze_embeddings=True))
preset("multitask", Full())  # the same weights train, with a head for each of several tasks
