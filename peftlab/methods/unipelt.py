"""UniPELT: LoRA, a prefix and an adapter in every layer, each behind a gate; and its relatives.

Nothing new is computed here: the parts come from their own files, and the gates from
:mod:`peftlab.methods.parts.gates`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar, Literal, Self, cast

from peftlab.errors import SettingsError
from peftlab.methods.base import Counts, Foreign, Library, Method
from peftlab.methods.bottleneck import Adapter
from peftlab.methods.composition import Composed, Stack, Union
from peftlab.methods.ia3 import IA3
from peftlab.methods.lora import LoRA
from peftlab.methods.parts.gates import Gating
from peftlab.methods.parts.lora import LoRAPart
from peftlab.methods.prefix import Prefix
from peftlab.methods.prompt import Prompt
from peftlab.methods.registry import preset, register
from peftlab.methods.sites import linear_site

if TYPE_CHECKING:
    from peftlab.encoders import Anatomy, Encoder

SUBMODULES = ("APL", "AP")
LoRAGate = Literal["each", "shared"]


@register
@dataclass(frozen=True)
class UniPELT(Composed):
    r"""UniPELT: a gated adapter (A), a gated prefix (P) and gated LoRA (L) in every layer.

    A gate is one number a text, :math:`G = \mathrm{mean}_t\,\sigma(w^\top x_t + b)`, from the input
    of the part that it belongs to:

    .. math::

        W x + b + G_L\,B A x \quad\text{(query and value, a gate each)}, \qquad
        [G_P P_K; K],\ [G_P P_V; V], \qquad
        h + G_A\,\mathrm{bn}(LN(h + x))

    so LoRA's gate takes the place of :math:`\alpha / r`. That is four gates of :math:`d + 1`
    parameters a layer, as released; the paper has three, one for LoRA's two maps together.

    Source: Mao et al. 2022 (arXiv 2110.07577), and its released code, which ``UniPELTConfig`` of
    ``adapters`` follows. Taught in the chapter on UniPELT.

    Attributes:
        submodules: ``"APL"``, or ``"AP"`` without LoRA.
        gate: Which tokens the gates average over: ``"real"`` ones, or ``"all"`` with padding, as
            released; ``"none"``: no gates (the paper's ablation *NoGate*).
        reduction_factor: Of the adapter.
        prefix_length: Of the prefix.
        reparameterised: Whether a network makes the prefix in training.
        rank: Of LoRA.
        alpha: Of LoRA; has an effect without gates only.
        lora_gate: ``"each"``: query and value have a gate each, as released. ``"shared"``: one gate
            a layer for both, as in the paper.
    """

    name: ClassVar[str] = "unipelt"
    paper: ClassVar[str] = "mao2022unipelt"
    chapter: ClassVar[str] = "methods/unipelt"

    submodules: str = "APL"
    gate: Gating = "real"
    reduction_factor: float = 16
    prefix_length: int = 10
    reparameterised: bool = True
    rank: int = 8
    alpha: float = 2
    lora_gate: LoRAGate = "each"

    def check(self) -> None:
        """Check the settings; those of the parts are checked by the parts."""
        if self.submodules not in SUBMODULES:
            raise SettingsError(
                f"submodules is {self.submodules!r}: choose 'APL' (adapter, prefix, LoRA) or 'AP'."
            )
        self.parts()

    @property
    def _shares(self) -> bool:
        return self.lora_gate == "shared" and self.gate != "none" and "L" in self.submodules

    @property
    def flat(self) -> Self:
        """UniPELT with the prefix itself in place of the network that makes it."""
        return replace(self, reparameterised=False)

    def parts(self) -> tuple[tuple[Method, str], ...]:
        """Return prefix, adapter and LoRA."""
        found: list[Method] = [
            Prefix(
                prefix_length=self.prefix_length,
                reparameterised=self.reparameterised,
                gate=self.gate,
            ),
            Adapter(reduction_factor=self.reduction_factor, gate=self.gate),
        ]
        if "L" in self.submodules:
            found.append(LoRA(rank=self.rank, alpha=self.alpha, gate=self.gate))
        return tuple((method, "") for method in found)

    def attach(self, encoder: Encoder, suffix: str = "") -> None:
        """Attach the parts; the value's LoRA borrows the query's gate if they share one."""
        super().attach(encoder, suffix)
        for layer in encoder.anatomy.layers if self._shares else ():
            loras = [linear_site(s).parts[f"lora{suffix}"] for s in (layer.query, layer.value)]
            query, value = (cast(LoRAPart, part) for part in loras)
            value.borrow_gate(query)

    def counts(self, anatomy: Anatomy) -> Counts:
        """Add up the parts; a shared gate is there once."""
        saved = len(anatomy.layers) * (anatomy.hidden_size + 1) if self._shares else 0
        return super().counts(anatomy) + Counts(-saved, -saved, -saved)

    def to_library(self, library: Library, anatomy: Anatomy, suffix: str = "") -> Foreign | None:
        """Return how ``adapters`` writes it: as a union; None if LoRAs share a gate."""
        if self._shares:
            return None
        return Union(*(m for m, _ in self.parts())).to_library(library, anatomy, suffix)


preset("unipelt", UniPELT())
preset("unipelt-flat", UniPELT(reparameterised=False))
preset("unipelt-ap", UniPELT(submodules="AP"))
preset("unipelt-paper", UniPELT(lora_gate="shared"))
preset("unipelt-nogate", UniPELT(gate="none"))
# He et al. 2022 (arXiv 2110.04366): a prefix in the attention, a scaled parallel adapter beside the
# feed-forward part; sizes as MAMConfig of `adapters`
preset(
    "mam",
    Union(
        Prefix(prefix_length=30, reparameterised=True, bottleneck_size=800),
        Adapter(parallel=True, scale=4.0, reduction_factor=2, init="mam"),
    ),
)
# the systems of Chen et al. 2024 (arXiv 2405.05493), by their numbers of parameters
preset("pt-unipelt", Union(Prompt(prompt_length=10), UniPELT()))
preset(
    "ia3-prefix-bottleneck",
    Union(
        IA3(outputs=("key", "value", "intermediate"), inputs=(), gate="real"),
        Prefix(prefix_length=10, reparameterised=True, gate="real"),
        Adapter(gate="real"),
    ),
)
preset("unipelt-stack3", Stack(UniPELT(), UniPELT(), UniPELT()))
