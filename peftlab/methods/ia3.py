"""IA3: trained vectors that scale what flows through linear maps, and can be folded into them.

Nothing is added to a layer but multiplications of single numbers; no map is learned.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Any, ClassVar, Self

import torch
from torch import Tensor, nn

from peftlab.encoders import LINEARS
from peftlab.errors import SettingsError
from peftlab.methods.base import Counts, Foreign, Library, Method, Part, Tensors
from peftlab.methods.checks import check_leave_out, check_names
from peftlab.methods.lora import adapters_targets
from peftlab.methods.parts.gates import Gate, Gating
from peftlab.methods.parts.linears import PATHS, finds, path, pattern, widths
from peftlab.methods.registry import preset, register
from peftlab.methods.sites import linear_site

if TYPE_CHECKING:
    from peftlab.encoders import Anatomy, Encoder
    from peftlab.methods.work import Sketch


class Scaling(Part):
    r"""A vector :math:`l` that scales, element by element; with a gate, :math:`G(x)\,l`."""

    def __init__(self, size: int, gate: Gate | None = None) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(size))
        self.gate = gate

    def scaled(self, values: Tensor, x: Tensor) -> Tensor:
        """Scale values [..., size]; x [batch, length, d_in] is what a gate reads."""
        scale = self.scale if self.gate is None else self.scale * self.gate(x)
        # the product is rounded, not the vector: half types have few numbers near 1
        return (values * scale).to(values.dtype)


class OutputScaling(Scaling):
    r"""Scales the output of a linear map: :math:`l \odot (W x + b)`."""

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """Scale y [..., d_out]."""
        return self.scaled(y, x)

    def folded(self, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Scale the rows of the weight, and the bias."""
        scale = self.scale.to(weight.dtype)
        return weight * scale.unsqueeze(1), None if bias is None else bias * scale


class InputScaling(Scaling):
    r"""Scales the input of a linear map: :math:`W (l \odot x) + b`."""

    def forward(self, x: Tensor) -> Tensor:
        """Scale x [..., d_in]."""
        return self.scaled(x, x)

    def folded(self, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Scale the columns of the weight; the bias stays."""
        return weight * self.scale.to(weight.dtype), bias


@register
@dataclass(frozen=True)
class IA3(Method):
    r"""Infused adapter by inhibiting and amplifying inner activations.

    .. math::

        \mathrm{softmax}\left(\frac{Q (l_k \odot K)^\top}{\sqrt{d_{head}}}\right) (l_v \odot V),
        \qquad W_2 \left(l_{ff} \odot f(W_1 x + b_1)\right) + b_2

    with :math:`l_k, l_v \in R^d` and :math:`l_{ff} \in R^{d_{ff}}` in every layer, so
    :math:`2d + d_{ff}` parameters a layer. All start at 1, so that the encoder is unchanged before
    training. Afterwards they scale rows (and the bias) or columns of the weights, and nothing is
    left to compute.

    :math:`l_{ff}` stands after the activation :math:`f`, as in the paper and in `peft`: it scales
    the input of the layer's last map. `adapters` scales the output of the map before the
    activation, :math:`f(l_{ff} \odot (W_1 x + b_1))`, which is another function unless :math:`f` is
    homogeneous; that is ``IA3(outputs=("key", "value", "intermediate"), inputs=())``, the preset
    ``ia3-before``.

    With a gate, as in `adapters`, the vector is :math:`G(x)\,l`; :math:`x` is the input of the map
    at which it stands, so a gate has :math:`d_{in} + 1` parameters (:math:`d_{ff} + 1` at
    ``output``). As released this is not the identity before training: :math:`G` starts near 1/2,
    and halves what it scales. It cannot be merged.

    Source: Liu et al. 2022 (arXiv 2205.05638), section 3.3. Taught in the chapter on IA3, BitFit
    and LayerNorm tuning.

    Attributes:
        outputs: Linear maps whose output is scaled, out of :data:`peftlab.encoders.LINEARS`.
        inputs: Linear maps whose input is scaled.
        leave_out: Indices of layers that get none, 0 is the lowest.
        gate: ``"none"``; ``"real"``, averaged over real tokens; or ``"all"``, over padding too, as
            released.
    """

    name: ClassVar[str] = "ia3"
    paper: ClassVar[str] = "liu2022ia3"
    chapter: ClassVar[str] = "methods/ia3-bitfit-layernorm"

    outputs: tuple[str, ...] = ("key", "value")
    inputs: tuple[str, ...] = ("output",)
    leave_out: tuple[int, ...] = ()
    gate: Gating = "none"

    def check(self) -> None:
        """Check the settings."""
        for setting, targets in (("outputs", self.outputs), ("inputs", self.inputs)):
            if targets:
                check_names(setting, targets, LINEARS, "linear map in a layer")
        if not (self.outputs or self.inputs):
            raise SettingsError(
                "outputs and inputs are both empty: name a linear map to scale, out of "
                f"{', '.join(LINEARS)}."
            )
        if both := set(self.outputs) & set(self.inputs):
            raise SettingsError(
                f"The linear map {min(both)!r} is in outputs and in inputs: scale one of them."
            )

    @property
    def mergeable(self) -> bool:
        """Whether the trained parts fold into the backbone's weights: without a gate."""
        return self.gate == "none"

    @property
    def starts_at_zero(self) -> bool:
        """Whether the encoder's output is unchanged before training: without a gate."""
        return self.gate == "none"

    def attach(self, encoder: Encoder, suffix: str = "") -> None:
        """Add one vector to each map in every layer but those left out.

        Raises:
            SettingsError: A layer to leave out does not exist.
        """
        check_leave_out(self.leave_out, encoder.anatomy)
        for layer in encoder.anatomy.layers:
            for target in () if layer.index in self.leave_out else self.outputs + self.inputs:
                site = linear_site(layer.linears()[target])
                d_out, d_in = site.original.weight.shape
                gate = None
                if self.gate != "none":
                    gate = Gate(encoder, layer, self.gate, width=d_in)
                if target in self.outputs:
                    site.add(site.parts, self.name + suffix, OutputScaling(d_out, gate))
                else:
                    site.add(site.inputs, self.name + suffix, InputScaling(d_in, gate))

    def counts(self, anatomy: Anatomy) -> Counts:
        """Count the width of what is scaled, and d_in + 1 a gate; merged, nothing is added."""
        sizes = [widths(anatomy, target)[1] for target in self.outputs]
        sizes += [widths(anatomy, target)[0] for target in self.inputs]
        if self.gate != "none":
            sizes += [widths(anatomy, target)[0] + 1 for target in self.outputs + self.inputs]
        n = (len(anatomy.layers) - len(self.leave_out)) * sum(sizes)
        return Counts(trainable=n, stored=n, inference=n)

    def products(self, sketch: Sketch) -> None:
        """Draw the vectors, which multiply no matrices, and d_in for a gate."""
        for layer, target in product(range(len(sketch.anatomy.layers)), self.outputs + self.inputs):
            if layer not in self.leave_out:
                place = "parts" if target in self.outputs else "inputs"
                gate = () if self.gate == "none" else (widths(sketch.anatomy, target)[0],)
                sketch.add(layer, f"{target}.{place}", "x", (0,), gate)

    def to_library(self, library: Library, anatomy: Anatomy, suffix: str = "") -> Foreign | None:
        """Return how ``adapters`` or ``peft`` writes it.

        None for ``peft`` with a gate. None for ``adapters`` if an input or the attention's output
        is scaled, which it does not have; and if a gate is averaged over real tokens, because there
        the same weights would be averaged over padding too.
        """
        label = f"{self.name}{suffix}"
        if library == "peft":
            if self.gate != "none":
                return None
            layers = [x.index for x in anatomy.layers if x.index not in self.leave_out]
            config: dict[str, Any] = {
                "peft_type": "IA3",
                "target_modules": pattern(layers, self.outputs + self.inputs),
                "feedforward_modules": pattern(layers, self.inputs) if self.inputs else [],
            }
            names = {  # in the order of LINEARS, for output.dense ends attention.output.dense too
                f".{PATHS[target]}.{kind}.{label}.scale": f".{PATHS[target]}.ia3_l"
                for target in LINEARS
                for kind, targets in (("parts", self.outputs), ("inputs", self.inputs))
                if target in targets
            }
            rows = re.compile(
                "|".join(rf"\.\d+\.{re.escape(PATHS[t])}\.ia3_l$" for t in self.inputs)
            )

            def lay_out(name: str, tensor: Tensor) -> Tensor:
                return tensor.unsqueeze(0 if self.inputs and rows.search(name) else 1)

            return Foreign(config, names, *_layout(".ia3_l", lay_out))
        if self.inputs or "attention_output" in self.outputs or self.gate == "real":
            return None
        place = f".parts.{label}."
        attention = [t[0] for t in ("query", "key", "value") if t in self.outputs]
        config = {
            "architecture": "lora",
            "selfattn_lora": bool(attention),
            "intermediate_lora": "intermediate" in self.outputs,
            "output_lora": "output" in self.outputs,
            "attn_matrices": attention,
            "leave_out": list(self.leave_out),
            "r": 1,
            "alpha": 1,
            "composition_mode": "scale",
            "init_weights": "ia3",
            "use_gating": self.gate == "all",
        }
        names = {f"{place}scale": ".loras.{name}.lora_B"}
        names[f"{place}gate.linear."] = ".loras.{name}.gate."
        return Foreign(config, names, *_layout(".lora_B", lambda _, tensor: tensor.unsqueeze(1)))

    @classmethod
    def from_library(
        cls, library: Library, config: Mapping[str, Any], anatomy: Anatomy
    ) -> Self | None:
        """Read the settings of an IA3 of ``adapters`` or ``peft``."""
        if library == "peft" and config.get("peft_type") == "IA3":
            layers = range(len(anatomy.layers))
            before = config.get("feedforward_modules") or []
            found = [
                (i, target, finds(before, path(i, target)))
                for i in layers
                for target in LINEARS
                if finds(config["target_modules"], path(i, target))
            ]
            return cls(
                outputs=tuple(t for t in LINEARS if (t, False) in {f[1:] for f in found}),
                inputs=tuple(t for t in LINEARS if (t, True) in {f[1:] for f in found}),
                leave_out=tuple(i for i in layers if all(i != layer for layer, *_ in found)),
            )
        if (
            library == "adapters"
            and config.get("architecture") == "lora"
            and config.get("composition_mode") == "scale"
        ):
            return cls(
                outputs=adapters_targets(config),
                inputs=(),
                leave_out=tuple(config.get("leave_out", ())),
                gate="all" if config.get("use_gating") else "none",
            )
        return None


def _layout(end: str, lay_out: Any) -> tuple[Any, Any]:
    """Return pack and unpack for vectors that another library keeps as matrices of one column."""

    def pack(tensors: Tensors) -> Tensors:
        return {n: lay_out(n, t) if n.endswith(end) else t for n, t in tensors.items()}

    def unpack(tensors: Tensors) -> Tensors:
        return {n: t.flatten() if n.endswith(end) else t for n, t in tensors.items()}

    return pack, unpack


preset("ia3", IA3())
preset("ia3-before", IA3(outputs=("key", "value", "intermediate"), inputs=()))
