"""Training vectors that the encoder already has: its biases, or its LayerNorms.

These methods add no parts and no computation; they train weights of the backbone in place.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Any, ClassVar, Self

from torch import nn

from peftlab.encoders import LINEARS
from peftlab.methods.base import Counts, Foreign, Library, Method
from peftlab.methods.checks import check_names
from peftlab.methods.finetuning import IN_PLACE
from peftlab.methods.parts.linears import finds, widths
from peftlab.methods.registry import register
from peftlab.methods.sites import Site
from peftlab.methods.work import EMBEDDINGS

if TYPE_CHECKING:
    from peftlab.encoders import Anatomy, Encoder
    from peftlab.methods.work import Sketch

#: The LayerNorms: behind the embeddings, and behind attention and feed-forward part of each layer.
NORMS = ("embeddings", "attention_layernorm", "output_layernorm")
BIASES = (*LINEARS, *NORMS)


def modules(anatomy: Anatomy) -> Iterator[tuple[str, Any]]:
    """Iterate over the modules that have biases, by the names of :data:`BIASES`, from low to high.

    They are the backbone's own, also where parts of other methods stand around them.
    """
    embeddings: Any = _bare(anatomy.embeddings.get())
    yield "embeddings", embeddings.LayerNorm
    for layer in anatomy.layers:
        for name, slot in layer.linears().items():
            yield name, _bare(slot.get())
        blocks = {"attention_layernorm": layer.attention_output, "output_layernorm": layer.output}
        for name, slot in blocks.items():
            block: Any = _bare(slot.get())
            yield name, block.LayerNorm


def _bare(module: nn.Module) -> nn.Module:
    return module.original if isinstance(module, Site) else module


@register
@dataclass(frozen=True)
class BitFit(Method):
    r"""Bias-term fine-tuning: of all that an encoder has learned, only the biases train.

    In every linear map :math:`W x + b` the vector :math:`b`, and the one in every LayerNorm. In a
    layer those are seven vectors of width :math:`d` and one of :math:`d_{ff}`, and :math:`d` more
    behind the embeddings. The released code trains the pooler's bias as well; the encoders here
    have no pooler.

    The gradient goes through all layers down to the embeddings. Nothing is added at inference.

    Source: Ben Zaken et al. 2022 (arXiv 2106.10199), section 3, and its released code. Taught in
    the chapter on IA3, BitFit and LayerNorm tuning.

    Attributes:
        terms: Whose biases train, out of :data:`BIASES`. The paper's smaller variant is
            ``("query", "intermediate")``, :math:`d + d_{ff}` parameters a layer.
    """

    name: ClassVar[str] = "bitfit"
    paper: ClassVar[str] = "benzaken2022bitfit"
    chapter: ClassVar[str] = "methods/ia3-bitfit-layernorm"
    cannot: ClassVar[Mapping[str, str]] = IN_PLACE

    terms: tuple[str, ...] = BIASES

    def check(self) -> None:
        """Check the settings."""
        check_names("terms", self.terms, BIASES, "bias term")

    def attach(self, encoder: Encoder, suffix: str = "") -> None:
        """Make the biases trainable."""
        for name, module in modules(encoder.anatomy):
            if name in self.terms:
                module.bias.requires_grad_(True)

    def counts(self, anatomy: Anatomy) -> Counts:
        """Count the biases; nothing is added at inference."""
        inside = [term for term in self.terms if term != "embeddings"]
        n = len(anatomy.layers) * sum(widths(anatomy, term)[1] for term in inside)
        n += anatomy.hidden_size * ("embeddings" in self.terms)
        return Counts(trainable=n, stored=n, inference=0)

    def products(self, sketch: Sketch) -> None:
        """Draw nothing; the biases train."""
        layers = range(EMBEDDINGS, len(sketch.anatomy.layers))
        sketch.vectors.update(product(layers, self.terms))


@register
@dataclass(frozen=True)
class LayerNormTuning(Method):
    r"""LayerNorm tuning: the gain and the bias of every LayerNorm train.

    .. math:: LN(h) = g \odot \frac{h - \mu(h)}{\sqrt{\sigma^2(h) + \epsilon}} + b

    with :math:`g, b \in R^d`: :math:`4d` parameters a layer, and :math:`2d` behind the embeddings.
    The gradient goes through all layers down to the embeddings. Nothing is added at inference.

    Source: Zhao et al. 2024 (arXiv 2312.11420), as ``LNTuningConfig`` in ``peft``. Taught in the
    chapter on IA3, BitFit and LayerNorm tuning.

    Attributes:
        norms: Which LayerNorms train, out of :data:`NORMS`.
    """

    name: ClassVar[str] = "layernorm"
    paper: ClassVar[str] = "zhao2024layernorm"
    chapter: ClassVar[str] = "methods/ia3-bitfit-layernorm"
    cannot: ClassVar[Mapping[str, str]] = IN_PLACE

    norms: tuple[str, ...] = NORMS

    def check(self) -> None:
        """Check the settings."""
        check_names("norms", self.norms, NORMS, "LayerNorm")

    def attach(self, encoder: Encoder, suffix: str = "") -> None:
        """Make the LayerNorms trainable."""
        for name, module in modules(encoder.anatomy):
            if name in self.norms:
                module.requires_grad_(True)

    def counts(self, anatomy: Anatomy) -> Counts:
        """Count 2d a LayerNorm; nothing is added at inference."""
        behind_embeddings = "embeddings" in self.norms
        norms = len(anatomy.layers) * (len(self.norms) - behind_embeddings) + behind_embeddings
        n = 2 * anatomy.hidden_size * norms
        return Counts(trainable=n, stored=n, inference=0)

    def products(self, sketch: Sketch) -> None:
        """Draw nothing; the LayerNorms train."""
        layers = range(EMBEDDINGS, len(sketch.anatomy.layers))
        sketch.vectors.update(product(layers, self.norms))

    def to_library(self, library: Library, anatomy: Anatomy, suffix: str = "") -> Foreign | None:
        """Return how ``peft`` writes it; ``adapters`` has no LayerNorm tuning."""
        if library == "adapters":
            return None
        paths = "|".join(_PEFT[norm].format(r"\d+").replace(".", r"\.") for norm in self.norms)
        return Foreign(
            {"peft_type": "LN_TUNING", "target_modules": rf"(.*\.)?({paths})"},
            {".LayerNorm.": ".LayerNorm.ln_tuning_layers."},
        )

    @classmethod
    def from_library(
        cls, library: Library, config: Mapping[str, Any], anatomy: Anatomy
    ) -> Self | None:
        """Read the settings of a LayerNorm tuning of ``peft``."""
        if library == "adapters" or config.get("peft_type") != "LN_TUNING":
            return None
        asked = config["target_modules"]
        return cls(norms=tuple(norm for norm in NORMS if finds(asked, _PEFT[norm].format(0))))


#: The paths of the LayerNorms, as `peft` finds them; in {} stands the layer.
_PEFT = {
    "embeddings": "embeddings.LayerNorm",
    "attention_layernorm": "encoder.layer.{}.attention.output.LayerNorm",
    "output_layernorm": "encoder.layer.{}.output.LayerNorm",
}
