"""LoRA: a low-rank matrix beside a frozen weight matrix, which can be added into it after training.

Only plain LoRA is here. Its place is any linear map of a layer.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from peftlab.encoders import LINEARS
from peftlab.errors import SettingsError, unknown
from peftlab.methods.base import Counts, Foreign, Library, Method, Part
from peftlab.methods.checks import check_leave_out, check_rate
from peftlab.methods.registry import preset, register
from peftlab.methods.sites import linear_site

if TYPE_CHECKING:
    from peftlab.encoders import Anatomy, Encoder

#: The linear maps of a layer as `peft` finds them: by the path inside the layer.
PATHS = {
    "query": "attention.self.query",
    "key": "attention.self.key",
    "value": "attention.self.value",
    "attention_output": "attention.output.dense",
    "intermediate": "intermediate.dense",
    "output": "output.dense",
}


class LoRAPart(Part):
    r"""A low-rank map beside a linear one: :math:`y + s\,B A\,\mathrm{drop}(x)`."""

    def __init__(self, d_in: int, d_out: int, rank: int, scale: float, dropout: float) -> None:
        super().__init__()
        self.scale = scale
        self.dropout = nn.Dropout(dropout)
        self.A = nn.Parameter(torch.empty(rank, d_in))
        self.B = nn.Parameter(torch.zeros(d_out, rank))
        nn.init.kaiming_uniform_(self.A, a=math.sqrt(5))

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """Add the low-rank map of x [..., d_in] to y [..., d_out]."""
        return y + self.scale * F.linear(F.linear(self.dropout(x), self.A), self.B)

    def folded(self, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Return W + s·BA; the bias stays."""
        return weight + self.scale * (self.B.float() @ self.A.float()), bias


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

    Source: Hu et al. 2021 (arXiv 2106.09685), section 4.1; released code: ``loralib``. Taught in
    the chapter on LoRA.

    Attributes:
        rank: :math:`r`.
        alpha: :math:`α`; the low-rank map is scaled by :math:`α/r`.
        targets: Which linear maps of each layer, out of :data:`peftlab.encoders.LINEARS`.
        dropout: On the input of the low-rank map, in training.
        leave_out: Indices of layers that get none, 0 is the lowest.
    """

    name: ClassVar[str] = "lora"
    paper: ClassVar[str] = "hu2022lora"
    chapter: ClassVar[str] = "methods/lora"

    rank: int = 8
    alpha: float = 16
    targets: tuple[str, ...] = ("query", "value")
    dropout: float = 0.0
    leave_out: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        """Check the settings."""
        if not isinstance(self.rank, int) or self.rank < 1:
            raise SettingsError(f"rank is {self.rank!r}: give a whole number of 1 or more.")
        if not self.alpha > 0:
            raise SettingsError(f"alpha is {self.alpha!r}: give a number above 0.")
        if not self.targets or isinstance(self.targets, str):
            raise SettingsError(
                f"targets is {self.targets!r}: give a tuple with one or more of "
                f"{', '.join(LINEARS)}."
            )
        for target in self.targets:
            if target not in LINEARS:
                raise unknown("linear map in a layer", target, LINEARS)
        if len(set(self.targets)) < len(self.targets):
            raise SettingsError(f"targets names a linear map twice: {', '.join(self.targets)}.")
        check_rate("dropout", self.dropout)

    @property
    def mergeable(self) -> bool:
        """Whether the trained parts fold into the backbone's weights."""
        return True

    def attach(self, encoder: Encoder, suffix: str = "") -> None:
        """Add one low-rank map to each target of every layer but those left out.

        Raises:
            SettingsError: A layer to leave out does not exist.
        """
        check_leave_out(self.leave_out, encoder.anatomy)
        for layer in encoder.anatomy.layers:
            if layer.index not in self.leave_out:
                for target in self.targets:
                    site = linear_site(layer.linears()[target])
                    d_out, d_in = site.original.weight.shape
                    scale = self.alpha / self.rank
                    part = LoRAPart(d_in, d_out, self.rank, scale, self.dropout)
                    site.add(site.parts, self.name + suffix, part)

    def counts(self, anatomy: Anatomy) -> Counts:
        """Count r (d_in + d_out) a map; merged, nothing is added at inference."""
        d, wide = anatomy.hidden_size, anatomy.intermediate_size
        ends = {
            target: d + (wide if target in ("intermediate", "output") else d) for target in LINEARS
        }
        layers = len(anatomy.layers) - len(self.leave_out)
        n = layers * self.rank * sum(ends[target] for target in self.targets)
        return Counts(trainable=n, stored=n, inference=n)

    def flops(self, anatomy: Anatomy, length: int) -> int:
        """Count 2 r (d_in + d_out) a map and token; merged, nothing is left of it."""
        return 2 * length * self.counts(anatomy).inference

    def to_library(self, library: Library, anatomy: Anatomy, suffix: str = "") -> Foreign | None:
        """Return how ``adapters`` or ``peft`` writes it.

        None for ``adapters`` if the attention's output is a target: there it has no LoRA.
        """
        place = f".parts.{self.name}{suffix}."
        if library == "peft":
            return Foreign(
                {
                    "peft_type": "LORA",
                    "r": self.rank,
                    "lora_alpha": self.alpha,
                    "lora_dropout": self.dropout,
                    "target_modules": self._pattern(anatomy),
                    "bias": "none",
                },
                {f"{place}A": ".lora_A.weight", f"{place}B": ".lora_B.weight"},
            )
        if "attention_output" in self.targets:
            return None
        attention = [t[0] for t in ("query", "key", "value") if t in self.targets]
        return Foreign(
            {
                "architecture": "lora",
                "selfattn_lora": bool(attention),
                "intermediate_lora": "intermediate" in self.targets,
                "output_lora": "output" in self.targets,
                "attn_matrices": attention,
                "leave_out": list(self.leave_out),
                "r": self.rank,
                "alpha": self.alpha,
                "dropout": self.dropout,
                "composition_mode": "add",
                "use_gating": False,
                "use_dora": False,
            },
            {f"{place}A": ".loras.{name}.lora_A", f"{place}B": ".loras.{name}.lora_B"},
        )

    @classmethod
    def from_library(
        cls, library: Library, config: Mapping[str, Any], anatomy: Anatomy
    ) -> Self | None:
        """Read the settings of a LoRA of ``adapters`` or ``peft``."""
        if library == "peft" and config.get("peft_type") == "LORA":
            layers = range(len(anatomy.layers))
            kept = config.get("layers_to_transform")
            kept = layers if kept is None else [kept] if isinstance(kept, int) else kept
            found = [
                (i, target)
                for i in kept
                for target in LINEARS
                if _peft_finds(config["target_modules"], f"encoder.layer.{i}.{PATHS[target]}")
            ]
            return cls(
                rank=config["r"],
                alpha=config["lora_alpha"],
                dropout=config.get("lora_dropout", 0.0),
                targets=tuple(t for t in LINEARS if any(t == target for _, target in found)),
                leave_out=tuple(i for i in layers if all(i != layer for layer, _ in found)),
            )
        if library == "adapters" and config.get("architecture") == "lora":
            short = config.get("attn_matrices", ["q", "v"])
            attention = config.get("selfattn_lora", True)
            targets = [t for t in ("query", "key", "value") if attention and t[0] in short]
            targets += [t for t in ("intermediate", "output") if config.get(f"{t}_lora")]
            return cls(
                rank=config["r"],
                alpha=config["alpha"],
                dropout=config.get("dropout", 0.0),
                targets=tuple(targets),
                leave_out=tuple(config.get("leave_out", ())),
            )
        return None

    def _pattern(self, anatomy: Anatomy) -> str:
        """Return the pattern by which `peft` finds the targets; a list could not tell them apart.

        In a list, ``output.dense`` would be found at the end of ``attention.output.dense`` too.
        """
        layers = "|".join(str(x.index) for x in anatomy.layers if x.index not in self.leave_out)
        paths = "|".join(re.escape(PATHS[target]) for target in self.targets)
        return rf".*\.layer\.({layers})\.({paths})"


def _peft_finds(asked: str | list[str], path: str) -> bool:
    """Whether `peft` puts a LoRA on the module at a path; its rule for ``target_modules``."""
    if isinstance(asked, str):
        return asked == "all-linear" or re.fullmatch(asked, path) is not None
    return any(path == end or path.endswith(f".{end}") for end in asked)


preset("lora-8", LoRA(rank=8, alpha=16))
preset("lora-8-all", LoRA(rank=8, alpha=16, targets=LINEARS))
