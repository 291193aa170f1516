"""LoRA: a low-rank matrix beside a frozen weight matrix, which can be added into it after training.

Its place is any linear map of a layer; the rank can differ from layer to layer. With a gate it is
the LoRA of UniPELT.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Self

from peftlab.encoders import LINEARS
from peftlab.errors import SettingsError
from peftlab.methods.base import Counts, Foreign, Library, Method
from peftlab.methods.checks import (
    check_leave_out,
    check_names,
    check_positive,
    check_rate,
    check_whole,
)
from peftlab.methods.parts.gates import Gate, Gating
from peftlab.methods.parts.linears import chosen, finds, path, pattern, widths
from peftlab.methods.parts.lora import LoRAPart
from peftlab.methods.registry import preset, register
from peftlab.methods.sites import linear_site

if TYPE_CHECKING:
    from peftlab.encoders import Anatomy, Encoder
    from peftlab.methods.work import Sketch


@register
@dataclass(frozen=True)
class LoRA(Method):
    r"""Low-rank adaptation of linear maps.

    .. math:: y = W x + b + \frac{\alpha}{r} B A\,\mathrm{drop}(x)

    with :math:`A \in R^{r \times d_{in}}`, :math:`B \in R^{d_{out} \times r}`; :math:`W` and
    :math:`b` are frozen. There are :math:`r (d_{in} + d_{out})` parameters a map. After training
    :math:`W + \frac{\alpha}{r} B A` replaces :math:`W`, and nothing is left to compute.

    A starts from U(-1/√d_in, 1/√d_in), as in the released code (the paper says "random Gaussian"),
    and B at 0, so that the encoder is unchanged before training.

    With a gate, as in UniPELT, :math:`G(x)` stands in the place of :math:`α/r`, which then has no
    effect. Every adapted map has a gate of its own, which reads that map's input: it has
    :math:`d_{in} + 1` parameters, so :math:`d_{ff} + 1` at ``output``. A gated LoRA cannot be
    merged, because :math:`G` differs from text to text.

    Source: Hu et al. 2021 (arXiv 2106.09685), section 4.1; released code: ``loralib``. The gate:
    Mao et al. 2022 (arXiv 2110.07577), section 3, and its released code. Taught in the chapter on
    LoRA.

    Attributes:
        rank: :math:`r`.
        alpha: :math:`α`; the low-rank map is scaled by :math:`α/r`.
        targets: Which linear maps of each layer, out of :data:`peftlab.encoders.LINEARS`.
        dropout: On the input of the low-rank map, in training.
        leave_out: Indices of layers that get none, 0 is the lowest.
        ranks: :math:`r` of every layer from low to high, 0 for none, in the place of ``rank`` and
            ``leave_out``. As in `peft`, the scale :math:`α/r` takes the layer's own rank.
        gate: ``"none"``; ``"real"``, averaged over real tokens; or ``"all"``, over padding too, as
            released.
    """

    name: ClassVar[str] = "lora"
    paper: ClassVar[str] = "hu2022lora"
    chapter: ClassVar[str] = "methods/lora"

    rank: int = 8
    alpha: float = 16
    targets: tuple[str, ...] = ("query", "value")
    dropout: float = 0.0
    leave_out: tuple[int, ...] = ()
    ranks: tuple[int, ...] = ()
    gate: Gating = "none"

    def check(self) -> None:
        """Check the settings."""
        check_whole("rank", self.rank)
        check_positive("alpha", self.alpha)
        check_names("targets", self.targets, LINEARS, "linear map in a layer")
        check_rate("dropout", self.dropout)
        if any(rank < 0 for rank in self.ranks):
            raise SettingsError(
                f"ranks is {self.ranks!r}: give a whole number for every layer, 0 for none."
            )
        if self.ranks and not any(self.ranks):
            raise SettingsError(
                f"ranks is {self.ranks!r}: give one layer a rank above 0, or use the method "
                "head-only."
            )
        if self.ranks and self.leave_out:
            raise SettingsError(
                "Both ranks and leave_out are given: put a 0 into ranks for a layer to leave out."
            )

    @property
    def mergeable(self) -> bool:
        """Whether the trained parts fold into the backbone's weights: without a gate."""
        return self.gate == "none"

    def layer_ranks(self, anatomy: Anatomy) -> tuple[int, ...]:
        """Return the rank in every layer from low to high, 0 where there is no LoRA.

        Raises:
            SettingsError: The encoder has another number of layers than ``ranks``, or a layer to
                leave out does not exist.
        """
        layers = len(anatomy.layers)
        if not self.ranks:
            check_leave_out(self.leave_out, anatomy)
            return tuple(0 if i in self.leave_out else self.rank for i in range(layers))
        if len(self.ranks) != layers:
            raise SettingsError(
                f"ranks has {len(self.ranks)} numbers, but the encoder has {layers} layers: give "
                "one number for each, 0 for none."
            )
        return self.ranks

    def attach(self, encoder: Encoder, suffix: str = "") -> None:
        """Add one low-rank map to each target of every layer with a rank.

        Raises:
            SettingsError: The ranks, or the layers to leave out, do not fit the encoder.
        """
        ranks = self.layer_ranks(encoder.anatomy)
        for layer, rank in zip(encoder.anatomy.layers, ranks, strict=True):
            for target in self.targets if rank else ():
                site = linear_site(layer.linears()[target])
                d_out, d_in = site.original.weight.shape
                gate = None
                if self.gate != "none":
                    gate = Gate(encoder, layer, self.gate, width=d_in)
                part = LoRAPart(d_in, d_out, rank, self.alpha / rank, self.dropout, gate)
                site.add(site.parts, self.name + suffix, part)

    def _maps(self, anatomy: Anatomy) -> list[tuple[int, int, int]]:
        """Return rank, d_in and d_out of every adapted map."""
        ranks = [rank for rank in self.layer_ranks(anatomy) if rank]
        return [(rank, *widths(anatomy, target)) for rank in ranks for target in self.targets]

    def counts(self, anatomy: Anatomy) -> Counts:
        """Count r (d_in + d_out) a map, and d_in + 1 for its gate; merged, nothing is added."""
        gated = self.gate != "none"
        n = sum(r * (d_in + d_out) + gated * (d_in + 1) for r, d_in, d_out in self._maps(anatomy))
        return Counts(trainable=n, stored=n, inference=n)

    def products(self, sketch: Sketch) -> None:
        """Draw r·d_in and r·d_out a map, and d_in for its gate; merged, there is nothing."""
        for layer, rank in enumerate(self.layer_ranks(sketch.anatomy)):
            for target in self.targets if rank else ():
                d_in, d_out = widths(sketch.anatomy, target)
                gate = () if self.gate == "none" else (d_in,)
                sketch.add(layer, f"{target}.parts", "x", (rank * d_in, rank * d_out), gate)

    def to_library(self, library: Library, anatomy: Anatomy, suffix: str = "") -> Foreign | None:
        """Return how ``adapters`` or ``peft`` writes it.

        None for ``peft`` with a gate. None for ``adapters`` if the attention's output is a target
        or if layers differ in rank, which it does not have; and if a gate is averaged over real
        tokens, because there the same weights would be averaged over padding too.
        """
        place = f".parts.{self.name}{suffix}."
        ranks = self.layer_ranks(anatomy)
        layers = [i for i, rank in enumerate(ranks) if rank]
        if library == "peft":
            if self.gate != "none":
                return None
            return Foreign(
                {
                    "peft_type": "LORA",
                    "r": self.rank,
                    "lora_alpha": self.alpha,
                    "lora_dropout": self.dropout,
                    "target_modules": pattern(layers, self.targets),
                    "rank_pattern": {
                        rf"layer\.{i}\..*": ranks[i] for i in layers if ranks[i] != self.rank
                    },
                    "bias": "none",
                },
                {f"{place}A": ".lora_A.weight", f"{place}B": ".lora_B.weight"},
            )
        found = {ranks[i] for i in layers}
        if "attention_output" in self.targets or len(found) > 1 or self.gate == "real":
            return None
        attention = [t[0] for t in ("query", "key", "value") if t in self.targets]
        config = {
            "architecture": "lora",
            "selfattn_lora": bool(attention),
            "intermediate_lora": "intermediate" in self.targets,
            "output_lora": "output" in self.targets,
            "attn_matrices": attention,
            "leave_out": [i for i, rank in enumerate(ranks) if not rank],
            "r": found.pop(),
            "alpha": self.alpha,
            "dropout": self.dropout,
            "composition_mode": "add",
            "use_gating": self.gate == "all",
            "use_dora": False,
        }
        names = {f"{place}A": ".loras.{name}.lora_A", f"{place}B": ".loras.{name}.lora_B"}
        return Foreign(config, names | {f"{place}gate.linear.": ".loras.{name}.gate."})

    @classmethod
    def from_library(
        cls, library: Library, config: Mapping[str, Any], anatomy: Anatomy
    ) -> Self | None:
        """Read the settings of a LoRA of ``adapters`` or ``peft``.

        Raises:
            SettingsError: The maps of a layer differ in rank, or maps differ in alpha.
        """
        if library == "peft" and config.get("peft_type") == "LORA":
            return cls(
                rank=config["r"],
                alpha=config["lora_alpha"],
                dropout=config.get("lora_dropout", 0.0),
                **_peft_places(config, anatomy),
            )
        if (
            library == "adapters"
            and config.get("architecture") == "lora"
            and config.get("composition_mode", "add") == "add"
        ):
            return cls(
                rank=config["r"],
                alpha=config["alpha"],
                dropout=config.get("dropout", 0.0),
                targets=adapters_targets(config),
                leave_out=tuple(config.get("leave_out", ())),
                gate="all" if config.get("use_gating") else "none",
            )
        return None


def adapters_targets(config: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the linear maps that a LoRA or IA3 configuration of `adapters` speaks of."""
    short = config.get("attn_matrices", ["q", "v"]) if config.get("selfattn_lora", True) else []
    attention = [target for target in ("query", "key", "value") if target[0] in short]
    return (*attention, *(t for t in ("intermediate", "output") if config.get(f"{t}_lora")))


def _peft_places(config: Mapping[str, Any], anatomy: Anatomy) -> dict[str, Any]:
    """Return the settings that say where a LoRA of `peft` stands, and with which ranks."""
    layers = range(len(anatomy.layers))
    kept = config.get("layers_to_transform")
    kept = layers if kept is None else [kept] if isinstance(kept, int) else kept
    places = [(i, t) for i in kept for t in LINEARS if finds(config["target_modules"], path(i, t))]
    found: dict[int, set[int]] = {i: set() for i in layers}
    for i, target in places:
        found[i].add(chosen(config.get("rank_pattern"), path(i, target), config["r"]))
        alpha = chosen(config.get("alpha_pattern"), path(i, target), config["lora_alpha"])
        if alpha != config["lora_alpha"]:
            raise SettingsError(
                f"alpha_pattern gives {path(i, target)} the alpha {alpha}, but here all maps have "
                "one: merge it in peft, or train again"
            )
    for i, ranks in found.items():
        if len(ranks) > 1:
            raise SettingsError(
                f"rank_pattern gives the maps of layer {i} the ranks "
                f"{', '.join(map(str, sorted(ranks)))}, but here a layer has one: merge it in "
                "peft, or train again"
            )
    targets = tuple(t for t in LINEARS if any(t == target for _, target in places))
    by_layer = tuple(ranks.pop() if ranks else 0 for ranks in found.values())
    if set(by_layer) - {0} == {config["r"]}:
        return {"targets": targets, "leave_out": tuple(i for i in layers if not by_layer[i])}
    return {"targets": targets, "ranks": by_layer}


preset("lora-8", LoRA(rank=8, alpha=16))
preset("lora-8-all", LoRA(rank=8, alpha=16, targets=LINEARS))
