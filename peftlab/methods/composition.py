"""Several methods as one: side by side, or one on top of another.

A composition has no mathematics of its own. What its members do at one place of the encoder they do
one after the other, in the order in which they are named.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import TYPE_CHECKING, Any, ClassVar, Self

from peftlab.errors import SettingsError
from peftlab.methods.base import Counts, Foreign, Library, Method, Tensors
from peftlab.methods.registry import classes, register

if TYPE_CHECKING:
    from peftlab.encoders import Anatomy, Encoder
    from peftlab.methods.work import Sketch


class Composed(Method):
    """A method that is made of others; a subclass says of which."""

    @abstractmethod
    def parts(self) -> tuple[tuple[Method, str], ...]:
        """Return the members, each with the suffix of its labels."""

    @property
    def mergeable(self) -> bool:
        """Whether all members fold into the backbone's weights."""
        return all(method.mergeable for method, _ in self.parts())

    @property
    def starts_at_zero(self) -> bool:
        """Whether no member changes the encoder's output before training."""
        return all(method.starts_at_zero for method, _ in self.parts())

    @property
    def partial(self) -> bool:
        """Whether a training step may leave some of a member's parameters without a gradient."""
        return any(method.partial for method, _ in self.parts())

    def attach(self, encoder: Encoder, suffix: str = "") -> None:
        """Attach every member."""
        for method, own in self.parts():
            method.attach(encoder, own + suffix)

    def counts(self, anatomy: Anatomy) -> Counts:
        """Add up the members' counts."""
        return sum((m.counts(anatomy) for m, _ in self.parts()), Counts(0, 0, 0))

    def products(self, sketch: Sketch) -> None:
        """Draw every member, in their order."""
        for method, _ in self.parts():
            method.products(sketch)

    @property
    def extra_tokens(self) -> int:
        """How many vectors the members put before the tokens."""
        return sum(method.extra_tokens for method, _ in self.parts())


@dataclass(frozen=True, init=False)
class Members(Composed):
    """A composition whose members are given.

    Attributes:
        members: The methods.
    """

    members: tuple[Method, ...] = field()

    def __init__(self, *methods: Method, members: tuple[Method, ...] = ()) -> None:
        """Take the methods one by one, as in ``Union(a, b)``, or as ``members=(a, b)``.

        Raises:
            SettingsError: There is none, or something is not a method.
        """
        together = (*methods, *members) if isinstance(members, tuple) else members
        object.__setattr__(self, "members", together)
        self.__post_init__()

    def check(self) -> None:
        """Check that there is a member."""
        if not self.members:
            raise SettingsError(f"A {self.name} needs methods: {type(self).__name__}(a, b).")

    def draws(self, anatomy: Anatomy) -> Sequence[Method]:
        """Return the compositions of what the members' steps can be."""
        return [type(self)(*drawn) for drawn in product(*(m.draws(anatomy) for m in self.members))]

    @property
    def flat(self) -> Self:
        """The same composition of flat members."""
        return type(self)(*(member.flat for member in self.members))


@register
@dataclass(frozen=True, init=False)
class Union(Members):
    r"""Different methods in one encoder, such as LoRA, a prefix and an adapter.

    Each sees the encoder with the others in it. Two members that would stand at the same place
    under one name are refused: that is a :class:`Stack`. A union is saved, merged and counted as
    one method. ``ConfigUnion`` of ``adapters`` is the same.

    Source: Mao et al. 2022, UniPELT (arXiv 2110.07577), for the idea of joining methods. Taught in
    the chapter on UniPELT.
    """

    name: ClassVar[str] = "union"
    paper: ClassVar[str] = "mao2022unipelt"
    chapter: ClassVar[str] = "methods/unipelt"

    def parts(self) -> tuple[tuple[Method, str], ...]:
        """Return the members under their own names."""
        return tuple((member, "") for member in self.members)

    def to_library(self, library: Library, anatomy: Anatomy, suffix: str = "") -> Foreign | None:
        """Return how ``adapters`` writes it.

        None if it lacks one of the members, or if two are of one kind to it, as LoRA and IA3 are:
        it keeps them under one name, so that one would overwrite the other.
        """
        written = [m.to_library(library, anatomy, suffix) for m in self.members]
        if library != "adapters" or None in written:
            return None
        found = [each for each in written if each is not None]
        # unions in it are laid open, for those of theirs hold no other
        configs = [
            config for each in found for config in each.config.get("configs", (each.config,))
        ]
        kinds = [config["architecture"] for config in configs]
        if len(set(kinds)) < len(kinds):
            return None

        def pack(tensors: Tensors) -> Tensors:
            for each in found:
                tensors = each.pack(tensors)
            return tensors

        def unpack(tensors: Tensors) -> Tensors:
            for each in reversed(found):
                tensors = each.unpack(tensors)
            return tensors

        names = {ours: theirs for each in found for ours, theirs in each.names.items()}
        config = {"architecture": "union", "configs": configs}
        return Foreign(config, names, pack, unpack)

    @classmethod
    def from_library(
        cls, library: Library, config: Mapping[str, Any], anatomy: Anatomy
    ) -> Self | None:
        """Read a union of ``adapters``; None if one of its members is unknown."""
        if library != "adapters" or config.get("architecture") != "union":
            return None
        members = []
        for each in config["configs"]:
            found = (c.from_library(library, each, anatomy) for c in classes().values())
            member = next((m for m in found if m is not None), None)
            if member is None:
                return None
            members.append(member)
        return cls(*members)


@register
@dataclass(frozen=True, init=False)
class Stack(Members):
    r"""Methods one on top of another: each works on what the one before it has left.

    Of adapters at one place, each reads the output of the one below; LoRA's updates add up;
    vectors of IA3 multiply; prefixes and prompts stand side by side. ``adapters`` does the same for
    adapters in sequence, prefixes and IA3. Its stacked LoRAs are nested instead of summed, and of
    parallel adapters it computes the last one only.

    Source: Pfeiffer et al. 2020, MAD-X (arXiv 2005.00052), for stacked adapters. Taught in the
    chapter on UniPELT.
    """

    name: ClassVar[str] = "stack"
    paper: ClassVar[str] = "pfeiffer2020madx"
    chapter: ClassVar[str] = "methods/unipelt"

    def parts(self) -> tuple[tuple[Method, str], ...]:
        """Return the members, numbered from the second on; a stack in a stack is more of it."""
        numbered = enumerate(self._storeys(), start=1)
        return tuple((m, f"-{i}" if i > 1 else "") for i, m in numbered)

    def _storeys(self) -> Iterator[Method]:
        for member in self.members:
            yield from member._storeys() if isinstance(member, Stack) else (member,)
