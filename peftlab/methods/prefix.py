"""Prefix tuning: trained keys and values that every token of a layer also sees.

Plain (*flat*), or made in training by a small network that is thrown away afterwards. Vectors that
stand before the tokens of the whole encoder, instead of inside each layer, are prompt tuning.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Self

import torch
import torch.nn.functional as F
from torch import Tensor

from peftlab.methods.base import Counts, Foreign, Lent, Library, Method, Tensors
from peftlab.methods.checks import check_leave_out, check_positive, check_rate, check_whole
from peftlab.methods.parts.gates import Gate, Gating
from peftlab.methods.parts.prefix import PrefixPart, ReparameterisedPart, Trunk
from peftlab.methods.registry import preset, register
from peftlab.methods.sites import attention_site, shift_positions
from peftlab.methods.work import States

if TYPE_CHECKING:
    from peftlab.encoders import Anatomy, Encoder
    from peftlab.methods.work import Sketch, Tape

#: Where `adapters` keeps the prefixes of all layers; under each layer there is an alias of it.
POOL = re.compile(r"(?:^|\.)prefix_tuning(?:\.pool)?\.prefix_tunings\.[^.]+\.self_prefix\.(.+)")


@register
@dataclass(frozen=True)
class Prefix(Method):
    r"""Prefix tuning: each layer has p trained keys and values that every token also sees.

    With the queries, keys and values :math:`Q, K, V` [batch, heads, length, d/heads] of a layer,

    .. math::

        \mathrm{softmax}\left(\frac{Q\,[P_K; K]^\top}{\sqrt{d_{head}}}\right) [P_V; V],
        \qquad P_K, P_V \in R^{p \times d}

    that is 2pd parameters a layer. The prefix has no positions and is never masked; the tokens keep
    theirs. It takes part in the softmax from the start, whatever its values, so the encoder's
    output is not unchanged before training.

    *Reparameterised*, one network makes the prefixes of all N layers in training, from a trained
    vector :math:`e_j \in R^d` of each position j:

    .. math:: (k_j, v_j)_l = W_{2,l}\,\tanh(W_1 e_j + b_1) + b_{2,l}, \quad j = 1, \ldots, p

    with the rows :math:`k_j` of :math:`P_K` and :math:`v_j` of :math:`P_V`,
    :math:`W_1 \in R^{m \times d}` and :math:`W_{2,l} \in R^{2d \times m}`, together
    pd + dm + m + 2Nd (m + 1) parameters. Afterwards only its output is stored and served, which is
    the flat prefix.

    Source: Li & Liang 2021 (arXiv 2101.00190), section 4; the released code and ``adapters``
    (``PrefixTuningConfig``) put the prefix where it is here. The gate is of Mao et al. 2022,
    UniPELT (arXiv 2110.07577). Taught in the chapter on prefix and prompt tuning.

    Attributes:
        prefix_length: p.
        reparameterised: Whether the network makes the prefix.
        bottleneck_size: Its width m.
        init_std: Of the normal distribution that a flat prefix starts from. 1, as in ``adapters``
            and ``peft``, is about the size of real keys. The network starts as in ``adapters``:
            E from N(0, 1), the linear maps as PyTorch's.
        dropout: On the prefix, for each text apart, in training.
        gate: Multiplies a layer's prefix by a number that its input gives; see
            :class:`peftlab.methods.parts.gates.Gate`. ``"none"``, ``"real"`` or ``"all"``.
        shift_positions: Count the tokens' positions from p on, as ``peft`` does; the encoder then
            takes p tokens less. ``adapters`` and the papers' encoders count from 0.
        leave_out: Indices of layers that get none, 0 is the lowest.
    """

    name: ClassVar[str] = "prefix"
    paper: ClassVar[str] = "li2021prefix"
    chapter: ClassVar[str] = "methods/prefix-and-prompt"

    prefix_length: int = 30
    reparameterised: bool = False
    bottleneck_size: int = 512
    init_std: float = 1.0
    dropout: float = 0.0
    gate: Gating = "none"
    shift_positions: bool = False
    leave_out: tuple[int, ...] = ()

    def check(self) -> None:
        """Check the settings."""
        check_whole("prefix_length", self.prefix_length)
        check_whole("bottleneck_size", self.bottleneck_size)
        check_positive("init_std", self.init_std)
        check_rate("dropout", self.dropout)

    @property
    def starts_at_zero(self) -> bool:
        """Whether the encoder's output is unchanged before training; never."""
        return False

    @property
    def flat(self) -> Prefix:
        """The prefix without the network that made it."""
        return replace(self, reparameterised=False)

    def attach(self, encoder: Encoder, suffix: str = "") -> None:
        """Add one prefix to the self-attention of every layer but those left out.

        Raises:
            SettingsError: A layer to leave out does not exist, or shifted positions leave none for
                the tokens.
        """
        p, d = self.prefix_length, encoder.anatomy.hidden_size
        check_leave_out(self.leave_out, encoder.anatomy)
        if self.shift_positions:
            shift_positions(encoder, p)
        trunk: Trunk | Lent[Trunk]
        if self.reparameterised:
            trunk = Trunk(p, d, self.bottleneck_size)
        for layer in encoder.anatomy.layers:
            if layer.index in self.leave_out:
                continue
            gate = None if self.gate == "none" else Gate(encoder, layer, self.gate)
            if self.reparameterised:
                part: PrefixPart = ReparameterisedPart(trunk, d, self.dropout, gate)
                trunk = trunk if isinstance(trunk, Lent) else Lent(trunk)
            else:
                keys, values = self.init_std * torch.randn(2, p, d)
                part = PrefixPart(keys, values, self.dropout, gate)
            site = attention_site(encoder, layer)
            site.add(site.prefixes, self.name + suffix, part)

    def counts(self, anatomy: Anatomy) -> Counts:
        """Count 2pd a layer, in training pd + dm + m and 2d (m + 1) a layer if reparameterised."""
        p, d, m = self.prefix_length, anatomy.hidden_size, self.bottleneck_size
        layers = len(self._layers(anatomy))
        gates = 0 if self.gate == "none" else layers * (d + 1)
        n = gates + layers * 2 * p * d
        trained = gates + p * d + d * m + m + layers * 2 * d * (m + 1)
        return Counts(trainable=trained if self.reparameterised else n, stored=n, inference=n)

    def products(self, sketch: Sketch) -> None:
        """Draw p keys and values a layer, with pdm + 2pmd to make them, and d for a gate."""
        p, d, m = self.prefix_length, sketch.anatomy.hidden_size, self.bottleneck_size

        def part(tape: Tape, at: Mapping[str, States]) -> States:
            prefix = States(texts=1, length=p, needs=True)
            if self.reparameterised:
                prefix = tape.linear(tape.linear(prefix, d * m), m * 2 * d)
            if self.gate != "none":
                tape.linear(at["x"], d)
            return prefix

        for layer in self._layers(sketch.anatomy):
            sketch.parts[layer, "prefixes"].append(part)

    def to_library(self, library: Library, anatomy: Anatomy, suffix: str = "") -> Foreign | None:
        """Return how ``adapters`` or ``peft`` writes it.

        None for ``adapters`` with shifted positions or a gate over real tokens, and for ``peft``
        without shifted positions or with a gate, dropout or a layer left out.
        """
        label = f"{self.name}{suffix}."
        places = [
            f"encoder.layer.{i}.attention.self.prefixes.{label}" for i in self._layers(anatomy)
        ]
        if library == "adapters":
            return self._for_adapters(places, label)
        return self._for_peft(places, anatomy)

    def _for_adapters(self, places: list[str], label: str) -> Foreign | None:
        if self.shift_positions or self.gate == "real":
            return None

        def pack(ours: Tensors) -> Tensors:
            rest, prefix = _join(ours, places)
            name = "prefix_tuning.prefix_tunings.{name}.self_prefix.control_trans"
            return rest | {name: prefix.flatten()}

        def unpack(theirs: Tensors) -> Tensors:
            pool = {m[1]: t for name, t in theirs.items() if (m := POOL.search(name))}
            rest = {name: t for name, t in theirs.items() if not POOL.search(name)}
            return rest | _separate(_computed(pool, self.prefix_length), places)

        config = {
            "architecture": "prefix_tuning",
            "flat": not self.reparameterised,
            "prefix_length": self.prefix_length,
            "bottleneck_size": self.bottleneck_size,
            "non_linearity": "tanh",
            "dropout": self.dropout,
            "use_gating": self.gate != "none",
            "shared_gating": True,
            "leave_out": list(self.leave_out),
        }
        names = {f".prefixes.{label}gate.linear.": ".prefix_tuning.prefix_gates.{name}."}
        return Foreign(config, names, pack, unpack)

    def _for_peft(self, places: list[str], anatomy: Anatomy) -> Foreign | None:
        if not self.shift_positions or self.gate != "none" or self.dropout or self.leave_out:
            return None

        def pack(ours: Tensors) -> Tensors:
            rest, prefix = _join(ours, places)
            return rest | {"prompt_embeddings": prefix}

        def unpack(theirs: Tensors) -> Tensors:
            rest = dict(theirs)
            return rest | _separate(rest.pop("prompt_embeddings"), places)

        config = {
            "peft_type": "PREFIX_TUNING",
            "task_type": "FEATURE_EXTRACTION",
            "num_virtual_tokens": self.prefix_length,
            "token_dim": anatomy.hidden_size,
            "num_transformer_submodules": 1,
            "num_attention_heads": anatomy.num_heads,
            "num_layers": len(anatomy.layers),
            "prefix_projection": False,
        }
        return Foreign(config, {}, pack, unpack)

    @classmethod
    def from_library(
        cls, library: Library, config: Mapping[str, Any], anatomy: Anatomy
    ) -> Self | None:
        """Read the settings of a prefix of ``adapters`` or ``peft``."""
        if library == "peft" and config.get("peft_type") == "PREFIX_TUNING":
            return cls(prefix_length=config["num_virtual_tokens"], shift_positions=True)
        if library == "adapters" and config.get("architecture") == "prefix_tuning":
            return cls(
                prefix_length=config["prefix_length"],
                reparameterised=not config.get("flat", False),
                bottleneck_size=config.get("bottleneck_size", 512),
                dropout=config.get("dropout", 0.0),
                gate="all" if config.get("use_gating", False) else "none",
                leave_out=tuple(config.get("leave_out", ())),
            )
        return None

    def _layers(self, anatomy: Anatomy) -> list[int]:
        return [layer.index for layer in anatomy.layers if layer.index not in self.leave_out]


def _join(ours: Tensors, places: list[str]) -> tuple[Tensors, Tensor]:
    """Put the prefixes of all layers into one tensor [p, 2nd]: keys, values, keys, and so on."""
    rest, found = dict(ours), []
    for place in places:
        for kind in ("keys", "values"):
            found.append(rest.pop(next(key for key in ours if key.endswith(place + kind))))
    return rest, torch.cat(found, 1)


def _separate(prefix: Tensor, places: list[str]) -> Tensors:
    """Take that one tensor apart again."""
    names = [place + kind for place in places for kind in ("keys", "values")]
    return dict(zip(names, prefix.chunk(len(names), 1), strict=False))


def _computed(pool: Tensors, p: int) -> Tensor:
    """Return the prefix [p, 2nd] that `adapters` stores or, from its network, computes."""
    if "wte.weight" not in pool:
        return pool["control_trans"].view(p, -1)
    maps = [(pool[f"control_trans.{i}.weight"], pool[f"control_trans.{i}.bias"]) for i in (0, 2)]
    return F.linear(torch.tanh(F.linear(pool["wte.weight"], *maps[0])), *maps[1])


preset("prefix-30", Prefix(prefix_length=30))
preset("prefix-30-mlp", Prefix(prefix_length=30, reparameterised=True))
