"""Bottleneck adapters: small feed-forward networks inside the layers of a frozen encoder.

One class does the arithmetic that all bottleneck adapters share; a subclass says where it stands.
Here is the sequential adapter of Pfeiffer et al., one a layer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Self, cast

from torch import Tensor, nn

from peftlab.errors import SettingsError, unknown
from peftlab.methods.base import Counts, Foreign, Library, Method, Part
from peftlab.methods.checks import check_leave_out, check_rate
from peftlab.methods.registry import preset, register
from peftlab.methods.sites import output_site

if TYPE_CHECKING:
    from peftlab.encoders import Anatomy, Encoder

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "gelu": nn.GELU,
    "gelu_new": partial(nn.GELU, approximate="tanh"),
    "silu": nn.SiLU,
    "swish": nn.SiLU,
    "tanh": nn.Tanh,
}
INITS = ("bert", "zero")


class Bottleneck(Part):
    r"""The arithmetic of a bottleneck adapter without its residual connection.

    :math:`\mathrm{bn}(z) = \mathrm{drop}(W_{up}\,f(W_{down} z + b_{down}) + b_{up})` with
    :math:`W_{down} \in R^{m \times d}` and :math:`W_{up} \in R^{d \times m}`.
    """

    def __init__(self, d: int, m: int, activation: str, dropout: float, init: str) -> None:
        super().__init__()
        self.down = nn.Linear(d, m)
        self.activation = ACTIVATIONS[activation]()
        self.up = nn.Linear(m, d)
        self.dropout = nn.Dropout(dropout)
        for linear in (self.down, self.up):
            nn.init.normal_(linear.weight, std=0.02)
            nn.init.zeros_(linear.bias)
        if init == "zero":
            nn.init.zeros_(self.up.weight)

    def transform(self, z: Tensor) -> Tensor:
        """Map z [..., d] to bn(z) [..., d]."""
        return cast(Tensor, self.dropout(self.up(self.activation(self.down(z)))))


class PfeifferPart(Bottleneck):
    """A bottleneck between a block's result and the block's LayerNorm."""

    def forward(self, h: Tensor, x: Tensor, norm: nn.Module) -> Tensor:
        """Return h + bn(LN(h + x)).

        Args:
            h: Result of the feed-forward part [batch, length, d].
            x: Its input, the residual [batch, length, d].
            norm: The block's own LayerNorm, which :class:`OutputSite` applies again afterwards.
        """
        return h + self.transform(norm(h + x))


@register
@dataclass(frozen=True)
class Adapter(Method):
    r"""The adapter of Pfeiffer et al.: one bottleneck a layer, after the feed-forward part.

    With :math:`h` the result of a layer's feed-forward part, :math:`x` its input, and LN the
    pretrained (frozen) LayerNorm, all [batch, length, d]:

    .. math::

        z = LN(h + x), \qquad
        h' = h + W_{up}\,f(W_{down} z + b_{down}) + b_{up}, \qquad
        y = LN(h' + x)

    so the adapter's own residual is taken before LN, and LN is used twice. There are
    :math:`2dm + m + d` parameters a layer.

    Source: Pfeiffer et al. 2021, AdapterFusion (arXiv 2005.00247), section 3.2.1 and appendix A;
    the released code is ``SeqBnConfig`` of ``adapters``. Taught in the chapter on the bottleneck
    adapter.

    Attributes:
        reduction_factor: :math:`d / m`; the bottleneck is :math:`m = \lfloor d/r \rfloor` wide, 1
            at least.
        bottleneck_size: :math:`m` itself; if given, ``reduction_factor`` is not used.
        activation: :math:`f`, one of :data:`ACTIVATIONS`.
        dropout: On the bottleneck's result, in training. The released code has none.
        init: ``"bert"``, as released: both weights from N(0, 0.02²), biases 0, so that the
            encoder's output changes a little (*near* identity). ``"zero"``: :math:`W_{up} = 0`, so
            that it does not change at all.
        leave_out: Indices of layers that get no adapter, 0 is the lowest.
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

    def __post_init__(self) -> None:
        """Check the settings."""
        if not isinstance(self.reduction_factor, int | float) or self.reduction_factor <= 0:
            raise SettingsError(
                f"reduction_factor is {self.reduction_factor!r}: give a number above 0, such as 16."
            )
        if self.bottleneck_size is not None and self.bottleneck_size < 1:
            raise SettingsError(f"bottleneck_size is {self.bottleneck_size}: give 1 or more.")
        if self.activation not in ACTIVATIONS:
            raise unknown("activation", self.activation, ACTIVATIONS)
        if self.init not in INITS:
            raise SettingsError(f"init is {self.init!r}: choose one of {', '.join(INITS)}.")
        check_rate("dropout", self.dropout)

    @property
    def starts_at_zero(self) -> bool:
        """Whether the encoder's output is unchanged before training."""
        return self.init == "zero"

    def size(self, d: int) -> int:
        """Return the width m of the bottleneck in an encoder of width d."""
        return self.bottleneck_size or max(1, int(d // self.reduction_factor))

    def attach(self, encoder: Encoder, suffix: str = "") -> None:
        """Add one bottleneck to the closing block of every layer but those left out.

        Raises:
            SettingsError: A layer to leave out does not exist.
        """
        d = encoder.anatomy.hidden_size
        check_leave_out(self.leave_out, encoder.anatomy)
        for layer in encoder.anatomy.layers:
            if layer.index not in self.leave_out:
                site = output_site(layer.output)
                part = PfeifferPart(d, self.size(d), self.activation, self.dropout, self.init)
                site.add(site.before, self.name + suffix, part)

    def counts(self, anatomy: Anatomy) -> Counts:
        """Count 2dm + m + d a layer."""
        d, m = anatomy.hidden_size, self.size(anatomy.hidden_size)
        n = (len(anatomy.layers) - len(self.leave_out)) * (2 * d * m + m + d)
        return Counts(trainable=n, stored=n, inference=n)

    def flops(self, anatomy: Anatomy, length: int) -> int:
        """Count 4dm a layer and token."""
        d, m = anatomy.hidden_size, self.size(anatomy.hidden_size)
        return (len(anatomy.layers) - len(self.leave_out)) * 4 * d * m * length

    def to_library(self, library: Library, anatomy: Anatomy, suffix: str = "") -> Foreign | None:
        """Return how ``adapters`` writes it; ``peft`` has no bottleneck adapter."""
        if library == "peft":
            return None
        d, factor = anatomy.hidden_size, self.reduction_factor
        if self.bottleneck_size is not None:
            m = self.bottleneck_size
            # the library divides and rounds down; the half keeps it clear of the next integer
            factor = d // m if d % m == 0 else d / (m + 0.5)
        config = {
            "architecture": None,
            "mh_adapter": False,
            "output_adapter": True,
            "reduction_factor": factor,
            "non_linearity": self.activation,
            "original_ln_before": True,
            "original_ln_after": True,
            "residual_before_ln": True,
            "adapter_residual_before_ln": False,
            "ln_before": False,
            "ln_after": False,
            "is_parallel": False,
            "scaling": 1.0,
            "dropout": self.dropout,
            "leave_out": list(self.leave_out),
            "phm_layer": False,
        }
        names = {
            f".before.{self.name}{suffix}.down.": ".adapters.{name}.adapter_down.0.",
            f".before.{self.name}{suffix}.up.": ".adapters.{name}.adapter_up.",
        }
        return Foreign(config, names)

    @classmethod
    def from_library(
        cls, library: Library, config: Mapping[str, Any], anatomy: Anatomy
    ) -> Self | None:
        """Read the settings of a sequential adapter of ``adapters``."""
        if library != "adapters" or "reduction_factor" not in config:
            return None
        return cls(
            reduction_factor=config["reduction_factor"],
            activation=config.get("non_linearity", "relu"),
            dropout=config.get("dropout", 0.0),
            leave_out=tuple(config.get("leave_out", ())),
        )


preset("pfeiffer-16", Adapter(reduction_factor=16))
