"""Bottleneck adapters: small feed-forward networks inside the layers of a frozen encoder.

One settings class for the whole family: where the networks stand, how wide they are, how they
start. What they compute is in :mod:`peftlab.methods.parts.bottleneck`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

from peftlab.errors import SettingsError
from peftlab.methods.base import Counts, Foreign, Library, Method, Tensors
from peftlab.methods.checks import check_positive, check_rate, check_whole
from peftlab.methods.parts.activations import ACTIVATIONS, activation
from peftlab.methods.parts.bottleneck import (
    INITS,
    BapnaPart,
    Bottleneck,
    HoulsbyPart,
    ParallelPart,
    PfeifferPart,
    Scale,
    places,
)
from peftlab.methods.parts.gates import Gate, Gating
from peftlab.methods.registry import preset, register
from peftlab.methods.sites import output_site

if TYPE_CHECKING:
    from peftlab.encoders import Anatomy, Encoder
    from peftlab.methods.work import Sketch

Placement = Literal["pfeiffer", "houlsby", "bapna"]
PLACEMENTS: dict[Placement, type[Bottleneck]] = {
    "pfeiffer": PfeifferPart,
    "houlsby": HoulsbyPart,
    "bapna": BapnaPart,
}


@register
@dataclass(frozen=True)
class Adapter(Method):
    r"""A bottleneck adapter; by default that of Pfeiffer et al., one a layer.

    With :math:`h` the result of a sublayer (attention or feed-forward part), :math:`x` its input,
    LN the pretrained (frozen) LayerNorm that closes it, all [batch, length, d], and the bottleneck

    .. math:: bn(z) = G(z)\,s\,(W_{up}\,f(W_{down} z + b_{down}) + b_{up})

    the sublayer's output is

    ================ ============================= =====================================
    placement        where                         output
    ================ ============================= =====================================
    ``"pfeiffer"``   after the feed-forward part   LN(h + bn(LN(h + x)) + x)
    ``"houlsby"``    after both sublayers          LN(h + bn(h) + x)
    ``"bapna"``      behind the layer              z + bn(LNb(z)), z = LN(h + x)
    any, parallel    as Pfeiffer's or Houlsby's    LN(h + bn(x) + x)
    ================ ============================= =====================================

    where LNb is a LayerNorm of the adapter's own. There are :math:`2dm + m + d` parameters a
    bottleneck; LNb has :math:`2d` more, a gate :math:`d + 1`, a learned scale 1 or d.

    Source: Pfeiffer et al. 2021, AdapterFusion (arXiv 2005.00247), section 3.2.1 and appendix A;
    Houlsby et al. 2019 (arXiv 1902.00751); Bapna and Firat 2019 (arXiv 1909.08478); the parallel,
    scaled form is of He et al. 2022 (arXiv 2110.04366). The released code of all is ``BnConfig`` of
    ``adapters``; there Houlsby's is ``DoubleSeqBnConfig``, with the LayerNorms frozen. Taught in
    the chapter on bottleneck adapters.

    Attributes:
        reduction_factor: :math:`d / m`; the bottleneck is :math:`m = \lfloor d/r \rfloor` wide.
        bottleneck_size: :math:`m` itself; if given, ``reduction_factor`` is not used.
        activation: :math:`f`, see :func:`peftlab.methods.parts.activations.activation`.
        dropout: On the bottleneck's result, in training. The released code has none.
        init: ``"bert"``, as released: both weights from N(0, 0.02²), so that the encoder's output
            changes a little (*near* identity). ``"houlsby"``: N(0, 0.01²), cut at two standard
            deviations. ``"zero"``: :math:`W_{up} = 0`, so that it does not change at all.
            ``"mam"``, as released with the scaled parallel adapter: :math:`W_{up} = 0` too, and
            :math:`W_{down}` from U(-1/√d, 1/√d). Biases are 0 in all.
        leave_out: Indices of layers that get no adapter, 0 is the lowest.
        placement: Where it stands.
        parallel: Whether it reads the sublayer's input instead of its result.
        scale: :math:`s`: a number, ``"learned"`` (one a bottleneck, from 1) or ``"channel"`` (d of
            them, from 1).
        gate: :math:`G`, see :class:`peftlab.methods.parts.gates.Gate`. It reads :math:`z` (before
            LNb).
    """

    name: ClassVar[str] = "adapter"
    paper: ClassVar[str] = "pfeiffer2021adapterfusion"
    chapter: ClassVar[str] = "methods/bottleneck-adapter"

    reduction_factor: float = 16
    bottleneck_size: int | None = None
    activation: str = "relu"
    dropout: float = 0.0
    init: str = "bert"
    leave_out: tuple[int, ...] = ()
    placement: Placement = "pfeiffer"
    parallel: bool = False
    scale: Scale = 1.0
    gate: Gating = "none"

    def check(self) -> None:
        """Check the settings."""
        check_positive("reduction_factor", self.reduction_factor)
        if self.bottleneck_size is not None:
            check_whole("bottleneck_size", self.bottleneck_size)
        activation(self.activation)
        check_rate("dropout", self.dropout)
        if self.init not in INITS:
            raise SettingsError(f"init is {self.init!r}: choose one of {', '.join(INITS)}.")
        if self.parallel and self.placement == "bapna":
            raise SettingsError(
                "An adapter behind the layer (placement 'bapna') has no sublayer to be parallel "
                "to: choose placement='houlsby' or 'pfeiffer', or parallel=False."
            )
        if not isinstance(self.scale, str) and (self.scale == 0 or not math.isfinite(self.scale)):
            raise SettingsError(
                f"scale is {self.scale!r}: give a number other than 0, 'learned' or 'channel'."
            )

    @property
    def starts_at_zero(self) -> bool:
        """Whether the encoder's output is unchanged before training."""
        return self.init in ("zero", "mam")

    def size(self, d: int) -> int:
        """Return the width m of the bottleneck in an encoder of width d.

        Raises:
            SettingsError: The reduction factor leaves nothing of d.
        """
        m = self.bottleneck_size or int(d // self.reduction_factor)
        if m < 1:
            raise SettingsError(
                f"reduction_factor is {self.reduction_factor}, but the encoder is only {d} wide: "
                f"give {d} or less."
            )
        return m

    def attach(self, encoder: Encoder, suffix: str = "") -> None:
        """Add the bottlenecks to every layer but those left out.

        Raises:
            SettingsError: A layer to leave out does not exist, or the bottleneck has no width.
        """
        d = encoder.anatomy.hidden_size
        part_class = ParallelPart if self.parallel else PLACEMENTS[self.placement]
        for layer, slot in places(encoder.anatomy, self.placement, self.leave_out):
            gate = None if self.gate == "none" else Gate(encoder, layer, self.gate)
            part = part_class(
                d, self.size(d), self.activation, self.dropout, self.init, self.scale, gate
            )
            site = output_site(slot)
            parts = site.after if self.placement == "bapna" else site.before
            site.add(parts, self.name + suffix, part)

    def blocks(self, anatomy: Anatomy) -> list[tuple[int, str]]:
        """Return layer and name of every block with a bottleneck, from low to high.

        Raises:
            SettingsError: A layer to leave out does not exist.
        """
        return [
            (layer.index, "output" if slot is layer.output else "attention_output")
            for layer, slot in places(anatomy, self.placement, self.leave_out)
        ]

    @property
    def reads(self) -> str:
        """What a bottleneck reads, as the table above calls it."""
        return "x" if self.parallel else "h" if self.placement == "houlsby" else "z"

    def bottlenecks(self, anatomy: Anatomy) -> int:
        """Return how many bottlenecks there are in all.

        Raises:
            SettingsError: A layer to leave out does not exist.
        """
        return len(self.blocks(anatomy))

    def counts(self, anatomy: Anatomy) -> Counts:
        """Count 2dm + m + d a bottleneck, and what LNb, gate, scale and activation have."""
        d, m = anatomy.hidden_size, self.size(anatomy.hidden_size)
        one = 2 * d * m + m + d
        one += 2 * d * (self.placement == "bapna") + (d + 1) * (self.gate != "none")
        one += {"learned": 1, "channel": d}.get(str(self.scale), 0)
        one += sum(p.numel() for p in activation(self.activation).parameters())
        n = self.bottlenecks(anatomy) * one
        return Counts(trainable=n, stored=n, inference=n)

    def products(self, sketch: Sketch) -> None:
        """Draw dm and md a bottleneck, with LNb before them, and d for a gate."""
        d, m = sketch.anatomy.hidden_size, self.size(sketch.anatomy.hidden_size)
        bapna = self.placement == "bapna"
        chain = (0, d * m, m * d) if bapna else (d * m, m * d)
        gate = () if self.gate == "none" else (d,)
        for layer, block in self.blocks(sketch.anatomy):
            sketch.add(layer, f"{block}.{'after' if bapna else 'before'}", self.reads, chain, gate)

    def to_library(self, library: Library, anatomy: Anatomy, suffix: str = "") -> Foreign | None:
        """Return how ``adapters`` writes it.

        None for ``peft``, which has no bottleneck adapter, and for what ``adapters`` does not have:
        rational activations, and gates that average over real tokens only.
        """
        if library == "peft" or self.activation not in ACTIVATIONS or self.gate == "real":
            return None
        d, factor = anatomy.hidden_size, self.reduction_factor
        if self.bottleneck_size is not None:
            m = self.bottleneck_size
            # the library divides and rounds down; the half keeps it clear of the next integer
            factor = d // m if d % m == 0 else d / (m + 0.5)
        bapna = self.placement == "bapna"
        config = {
            "architecture": None,
            "mh_adapter": self.placement == "houlsby",
            "output_adapter": True,
            "reduction_factor": factor,
            "non_linearity": self.activation,
            "original_ln_before": self.placement != "houlsby",
            "original_ln_after": not bapna,
            "residual_before_ln": not bapna,
            "adapter_residual_before_ln": False,
            "ln_before": bapna,
            "ln_after": False,
            "is_parallel": self.parallel,
            "scaling": self.scale if isinstance(self.scale, str) else float(self.scale),
            "use_gating": self.gate != "none",
            "dropout": self.dropout,
            "leave_out": list(self.leave_out),
            "phm_layer": False,
        }
        place = f".{'after' if bapna else 'before'}.{self.name}{suffix}"
        theirs = ".adapters.{name}"
        names = {
            f"{place}.norm.": f"{theirs}.adapter_norm_before.",
            f"{place}.down.": f"{theirs}.adapter_down.{int(bapna)}.",
            f"{place}.up.": f"{theirs}.adapter_up.",
            f"{place}.gate.linear.": f"{theirs}.gate.",
            f"{place}.scale": f"{theirs}.scaling",
        }
        return Foreign(config, names, unpack=_without_aliases)

    @classmethod
    def from_library(
        cls, library: Library, config: Mapping[str, Any], anatomy: Anatomy
    ) -> Self | None:
        """Read the settings of a bottleneck adapter of ``adapters``."""
        if library != "adapters" or "reduction_factor" not in config:
            return None
        if config.get("phm_layer") or config.get("inv_adapter"):
            return None
        placement: Placement = "houlsby" if config.get("mh_adapter") else "pfeiffer"
        if config.get("ln_before"):
            placement = "bapna"
        return cls(
            reduction_factor=config["reduction_factor"],
            activation=config.get("non_linearity", "relu"),
            dropout=config.get("dropout", 0.0),
            leave_out=tuple(config.get("leave_out", ())),
            placement=placement,
            parallel=config.get("is_parallel", False),
            scale=config.get("scaling", 1.0),
            gate="all" if config.get("use_gating") else "none",
        )


def _without_aliases(tensors: Tensors) -> Tensors:
    """Leave out the second copies of LNb: to `adapters` it is also the first map down."""
    norms = [name for name in tensors if ".adapter_norm_before." in name]
    second = {name.replace(".adapter_norm_before.", ".adapter_down.0.") for name in norms}
    return {name: tensor for name, tensor in tensors.items() if name not in second}


#: The adapter that other methods are made of, if nothing else is said.
PFEIFFER = Adapter(reduction_factor=16)

preset("pfeiffer-16", PFEIFFER)
preset("houlsby-16", Adapter(placement="houlsby", activation="swish"))
preset("bapna-16", Adapter(placement="bapna"))
preset("pfeiffer-parallel", Adapter(parallel=True))
preset("houlsby-parallel", Adapter(placement="houlsby", activation="swish", parallel=True))
preset("parallel-scaled", Adapter(reduction_factor=2, parallel=True, scale=4.0, init="mam"))
