"""MAD-X: adapters that know a language, and adapters for a task stacked on them.

Both are made of bottleneck and invertible adapters; nothing is computed here. A language is learnt
on a task of :mod:`peftlab.tasks.language`, and loaded and swapped by
:mod:`peftlab.checkpoints.languages`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Self

from peftlab.methods.base import Counts, Foreign, Library, Method
from peftlab.methods.bottleneck import PFEIFFER, Adapter
from peftlab.methods.composition import Composed
from peftlab.methods.invertible import Invertible
from peftlab.methods.registry import register

if TYPE_CHECKING:
    from peftlab.encoders import Anatomy, Encoder
    from peftlab.methods.work import Sketch

#: What is appended to the label of a task adapter, which stands on a language adapter.
ON_TOP = "-task"

HALF = Adapter(reduction_factor=2)
COUPLING = Invertible()


@register
@dataclass(frozen=True)
class LanguageAdapter(Composed):
    r"""The language adapter of MAD-X: a bottleneck in every layer and an invertible adapter.

    It is trained by masked language modelling on texts in one language, with a frozen encoder; the
    invertible part is undone before the words are decoded. With reduction factors of 2 it has
    :math:`N(d^2 + 3d/2) + d^2/2 + 3d/2` parameters in N layers of even width d.

    Source: Pfeiffer et al. 2020, MAD-X (arXiv 2005.00052), sections on language adapters and
    invertible adapters; the released code is ``SeqBnInvConfig(reduction_factor=2)`` of
    ``adapters``. Taught in the chapter on language adapters.

    Attributes:
        adapter: The bottlenecks.
        invertible: The invertible adapter.
    """

    name: ClassVar[str] = "madx-language"
    paper: ClassVar[str] = "pfeiffer2020madx"
    chapter: ClassVar[str] = "crosslingual/language-adapters"

    adapter: Adapter = HALF
    invertible: Invertible = COUPLING

    def parts(self) -> tuple[tuple[Method, str], ...]:
        """Return the two members under their own names."""
        return (self.adapter, ""), (self.invertible, "")

    def to_library(self, library: Library, anatomy: Anatomy, suffix: str = "") -> Foreign | None:
        """Return how ``adapters`` writes it; None if the two nonlinearities differ."""
        adapter = self.adapter.to_library(library, anatomy, suffix)
        invertible = self.invertible.to_library(library, anatomy, suffix)
        if adapter is None or invertible is None:
            return None
        if self.adapter.activation != self.invertible.activation:
            return None
        keys = ("inv_adapter", "inv_adapter_reduction_factor")
        config = adapter.config | {key: invertible.config[key] for key in keys}
        return Foreign(config, adapter.names | invertible.names, adapter.pack, adapter.unpack)

    @classmethod
    def from_library(
        cls, library: Library, config: Mapping[str, Any], anatomy: Anatomy
    ) -> Self | None:
        """Read an adapter of ``adapters`` that has bottlenecks and an invertible part."""
        if not config.get("inv_adapter"):
            return None
        adapter = Adapter.from_library(library, {**config, "inv_adapter": None}, anatomy)
        bare = {**config, "mh_adapter": False, "output_adapter": False}
        invertible = Invertible.from_library(library, bare, anatomy)
        if adapter is None or invertible is None or bare == config:
            return None
        return cls(adapter, invertible)


LANGUAGE = LanguageAdapter()


@register
@dataclass(frozen=True)
class TaskAdapter(Composed):
    r"""The task adapter of MAD-X: it stands on a language adapter, and alone is trained.

    In every layer the language adapter works first and the task adapter on what it leaves:

    .. math::

        h_1 = h + bn_L(LN(h + x)), \qquad h_2 = h_1 + bn_T(LN(h_1 + x)), \qquad y = LN(h_2 + x)

    with :math:`h`, :math:`x` and :math:`bn` as in :class:`peftlab.Adapter`. The language adapter
    and its invertible part are frozen. :func:`peftlab.swap_language` puts a trained one in, and for
    another language another one; without that its weights are random. Stored are both adapters.

    Source: Pfeiffer et al. 2020, MAD-X (arXiv 2005.00052), section on task adapters; the released
    code is ``Stack(language, task)`` of ``adapters``. Taught in the chapter on language adapters.

    Attributes:
        language: The language adapter below; a plain :class:`peftlab.Adapter` has no invertible
            part.
        task: The adapter that is trained.
    """

    name: ClassVar[str] = "madx-task"
    paper: ClassVar[str] = "pfeiffer2020madx"
    chapter: ClassVar[str] = "crosslingual/language-adapters"

    language: LanguageAdapter | Adapter = LANGUAGE
    task: Adapter = PFEIFFER

    def parts(self) -> tuple[tuple[Method, str], ...]:
        """Return the language adapter and what stands on it."""
        return (self.language, ""), (self.task, ON_TOP)

    def attach(self, encoder: Encoder, suffix: str = "") -> None:
        """Attach both and freeze the language adapter."""
        before = {id(p) for p in encoder.backbone.parameters()}
        self.language.attach(encoder, suffix)
        for parameter in encoder.backbone.parameters():
            if id(parameter) not in before:
                parameter.requires_grad_(False)
        self.task.attach(encoder, ON_TOP + suffix)

    def products(self, sketch: Sketch) -> None:
        """Draw both; the language adapter is frozen."""
        self.language.products(sketch.frozen())
        self.task.products(sketch)

    def counts(self, anatomy: Anatomy) -> Counts:
        """Count both; only the task adapter trains."""
        both = super().counts(anatomy)
        return Counts(self.task.counts(anatomy).trainable, both.stored, both.inference)
