"""What a method is: frozen settings that know how to attach themselves to an encoder.

A method adds *parts* (small modules) to an encoder, or makes weights of the backbone trainable, or
both. It knows no data, no head and no training. The places where parts can go are in
:mod:`peftlab.methods.sites`; the list of all methods is in :mod:`peftlab.methods.registry`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

from torch import Tensor, nn

if TYPE_CHECKING:
    from peftlab.encoders import Anatomy, Encoder


class Part(nn.Module):
    """A module that a method adds to the encoder. All its tensors belong to the method."""

    def folded(self, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Return the weight and bias (fp32) of the linear map that does this part's work too.

        Only parts of mergeable methods have one.
        """
        raise TypeError(f"{type(self).__name__} cannot be folded into a linear map")


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


Library = Literal["adapters", "peft"]


@dataclass(frozen=True)
class Foreign:
    """How another library writes a method into a checkpoint.

    Attributes:
        config: The settings under the other library's names.
        names: Pieces of our tensors' paths and what stands there instead; ``{name}`` is the name
            that the other library gives the adapter.
    """

    config: dict[str, Any]
    names: dict[str, str]


@dataclass(frozen=True)
class Method(ABC):
    """Settings of one method; a subclass is one method of the registry.

    The dropout of the frozen backbone stays on in training, as it does in the released code of
    all methods here.

    Class attributes:
        name: The name in the registry.
        paper: Citation key of its source in the book's bibliography.
        chapter: The page of the book that teaches it.
    """

    name: ClassVar[str]
    paper: ClassVar[str]
    chapter: ClassVar[str]

    @property
    def mergeable(self) -> bool:
        """Whether the trained parts fold into the backbone's weights."""
        return False

    @property
    def starts_at_zero(self) -> bool:
        """Whether the encoder's output is unchanged before training."""
        return True

    @abstractmethod
    def attach(self, encoder: Encoder) -> None:
        """Add the method's parts to a frozen encoder and mark what trains.

        Args:
            encoder: Its backbone arrives with every parameter frozen. The current torch random
                state decides the initial weights.
        """

    @abstractmethod
    def counts(self, anatomy: Anatomy) -> Counts:
        """Return the closed form of the parameter counts, without building anything."""

    def settings(self) -> dict[str, Any]:
        """Return name and settings as plain JSON types; :func:`peftlab.methods.get` reads them."""
        return {"name": self.name} | {
            key: list(value) if isinstance(value, tuple) else value
            for key, value in asdict(self).items()
        }

    def to_library(self, library: Library, anatomy: Anatomy) -> Foreign | None:
        """Return how ``adapters`` or ``peft`` writes this method; None where it cannot."""
        return None

    @classmethod
    def from_library(
        cls, library: Library, config: Mapping[str, Any], anatomy: Anatomy
    ) -> Self | None:
        """Return the method that a configuration of ``adapters`` or ``peft`` speaks of.

        None if it is another method's. What this does not look at is checked by
        :mod:`peftlab.foreign`, which compares the configuration with :meth:`to_library`.
        """
        return None
