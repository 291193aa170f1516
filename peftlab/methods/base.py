"""What a method is: frozen settings that know how to attach themselves to an encoder.

A method adds *parts* (small modules) to an encoder, or makes weights of the backbone trainable, or
both. It knows no data, no head and no training. The places where parts can go are in
:mod:`peftlab.methods.sites`; the list of all methods is in :mod:`peftlab.methods.registry`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, ClassVar

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


@dataclass(frozen=True)
class Method(ABC):
    """Settings of one method; a subclass is one method of the registry.

    Class attributes:
        name: The name in the registry.
        paper: Citation key of its source in the book's bibliography.
        chapter: The page of the book that teaches it.
        mergeable: Whether trained parts fold into the backbone's weights.
        starts_at_zero: Whether the published initialisation leaves the encoder's output unchanged.
    """

    name: ClassVar[str]
    paper: ClassVar[str]
    chapter: ClassVar[str]
    mergeable: ClassVar[bool] = False
    starts_at_zero: ClassVar[bool] = True

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
