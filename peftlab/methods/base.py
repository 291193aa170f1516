"""What a method is: frozen settings that know how to attach themselves to an encoder.

A method adds *parts* (small modules) to an encoder, or makes weights of the backbone trainable, or
both. It knows no data, no head and no training. The places where parts can go are in
:mod:`peftlab.methods.sites`; the list of all methods is in :mod:`peftlab.methods.registry`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Literal, Self, TypeVar

from torch import Tensor, nn

from peftlab.methods.checks import check_types
from peftlab.methods.work import Sketch, work

if TYPE_CHECKING:
    from peftlab.encoders import Anatomy, Encoder

M = TypeVar("M", bound=nn.Module)


class Part(nn.Module):
    """A module that a method adds to the encoder. All its tensors belong to the method.

    Attributes:
        rates: Own peak learning rates, by the names of the part's parameters; the others train at
            the run's rate.
        active: Whether a block's output passes through it (see :class:`OutputSite`).
    """

    rates: Mapping[str, float] = MappingProxyType({})
    active: bool = True

    def flat(self) -> Part:
        """Return the part as it is stored and served.

        Another one than the part itself only where training takes a detour, such as a network that
        makes a prefix.
        """
        return self

    def penalty(self) -> Tensor | None:
        """Return a scalar that is added to the training loss, or None."""
        return None

    def folded(self, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Return the weight and bias of the linear map that does this part's work too.

        They keep the type that they come in. Only parts of mergeable methods have one.
        """
        raise TypeError(f"{type(self).__name__} cannot be folded into a linear map")


class Lent(Generic[M]):
    """A reference to a module that another part owns: it is saved and counted there, once."""

    def __init__(self, module: M) -> None:
        self.module = module


@dataclass(frozen=True)
class Counts:
    """Numbers of parameters of a method, without the head.

    Attributes:
        trainable: Get gradients and optimiser state.
        stored: Must be saved to have the trained method back.
        inference: Are added to the encoder's own when the model is served (unmerged).
    """

    trainable: int
    stored: int
    inference: int

    def __add__(self, other: Counts) -> Counts:
        """Add the counts of two methods."""
        return Counts(
            self.trainable + other.trainable,
            self.stored + other.stored,
            self.inference + other.inference,
        )


Library = Literal["adapters", "peft"]
Tensors = dict[str, Tensor]


def _same(tensors: Tensors) -> Tensors:
    return tensors


@dataclass(frozen=True)
class Foreign:
    """How another library writes a method into a checkpoint.

    Attributes:
        config: The settings under the other library's names.
        names: Pieces of our tensors' paths and what stands there instead; ``{name}`` is the name
            that the other library gives the adapter.
        pack: Where it lays tensors out in another way: ours, renamed, → theirs.
        unpack: The reverse, before the names are changed back.
    """

    config: dict[str, Any]
    names: dict[str, str]
    pack: Callable[[Tensors], Tensors] = _same
    unpack: Callable[[Tensors], Tensors] = _same


@dataclass(frozen=True)
class Method(ABC):
    """Settings of one method; a subclass is one method of the registry.

    The dropout of the frozen backbone stays on in training, as it does in the released code of
    all methods here.

    Class attributes:
        name: The name in the registry.
        paper: Citation key of its source in the book's bibliography.
        chapter: The page of the book that teaches it.
        cannot: What does not work with it: a check of :mod:`peftlab.support` → the reason.
    """

    name: ClassVar[str]
    paper: ClassVar[str]
    chapter: ClassVar[str]
    cannot: ClassVar[Mapping[str, str]] = MappingProxyType({})

    def __post_init__(self) -> None:
        """Check the types of the settings, then their values."""
        check_types(self)
        self.check()

    def check(self) -> None:
        """Raise a SettingsError if a setting has a value that cannot work.

        Their types, and the choices of a ``Literal``, have been checked.
        """
        return

    @property
    def mergeable(self) -> bool:
        """Whether the trained parts fold into the backbone's weights."""
        return False

    @property
    def starts_at_zero(self) -> bool:
        """Whether the encoder's output is unchanged before training."""
        return True

    @property
    def partial(self) -> bool:
        """Whether a training step may leave some of its parameters without a gradient."""
        return False

    @property
    def extra_tokens(self) -> int:
        """How many vectors the method puts before the tokens, for the whole encoder to work on."""
        return 0

    @property
    def flat(self) -> Method:
        """The method as it is stored and served; see :meth:`Part.flat`."""
        return self

    @abstractmethod
    def attach(self, encoder: Encoder, suffix: str = "") -> None:
        """Add the method's parts to a frozen encoder and mark what trains.

        Args:
            encoder: Its backbone arrives with every parameter frozen. The current torch random
                state decides the initial weights.
            suffix: Is appended to the method's name in the labels of its parts, so that a method
                can be there more than once.
        """

    @abstractmethod
    def counts(self, anatomy: Anatomy) -> Counts:
        """Return the closed form of the parameter counts, without building anything."""

    @abstractmethod
    def products(self, sketch: Sketch) -> None:
        """Draw into a sketch what the method multiplies, and which of the encoder's tensors train.

        From it come the FLOPs of a step, forward and backward: :func:`peftlab.methods.work.work`.
        """

    def draws(self, anatomy: Anatomy) -> Sequence[Method]:
        """Return what a training step can be, each as likely: several only if chance decides."""
        return (self,)

    def flops(self, anatomy: Anatomy, length: int) -> int:
        """Return what the unmerged method adds to the forward pass of one text, in closed form.

        Args:
            anatomy: Of the encoder.
            length: Tokens of the text.

        Returns:
            FLOPs of matrix products (2 × multiply-accumulates), in evaluation mode, flat; sums and
            functions of single numbers are not counted.
        """
        own, bare = (
            work(anatomy, method, 1, length, training=False).forward for method in (self, None)
        )
        return own - bare

    def settings(self) -> dict[str, Any]:
        """Return name and settings as plain JSON types; :func:`peftlab.methods.get` reads them."""
        return {"name": self.name} | {f.name: _plain(getattr(self, f.name)) for f in fields(self)}

    def to_library(self, library: Library, anatomy: Anatomy, suffix: str = "") -> Foreign | None:
        """Return how ``adapters`` or ``peft`` writes this method; None where it cannot."""
        return None

    @classmethod
    def from_library(
        cls, library: Library, config: Mapping[str, Any], anatomy: Anatomy
    ) -> Self | None:
        """Return the method that a configuration of ``adapters`` or ``peft`` speaks of.

        None if it is another method's. What this does not look at is checked by
        :mod:`peftlab.checkpoints.foreign`: it compares the configuration with
        :meth:`to_library`.
        """
        return None


def _plain(value: Any) -> Any:
    """Return a setting as plain JSON types."""
    if isinstance(value, Method):
        return value.settings()
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return value
