"""The focused form of Adaptable Adapters: fresh rational adapters in the layers that were selected.

What was selected is a small record in a JSON file, read from a model whose switches were trained.
The controls, random and topmost layers of the same number, come from the same record.
"""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

from peftlab.errors import CheckpointError, PeftlabError, SettingsError
from peftlab.files import replacing
from peftlab.methods.adaptable import Adaptable, SwitchedPart
from peftlab.methods.base import Counts, Method
from peftlab.methods.bottleneck import Adapter
from peftlab.methods.registry import get, preset, register

if TYPE_CHECKING:
    from peftlab.encoders import Anatomy, Encoder
    from peftlab.methods.work import Sketch
    from peftlab.models import Model

#: The method that picks layers, without any setting.
SWITCHED = Adaptable()
#: What the focused form takes over from it.
SHARED = ("activation", "reduction_factor", "bottleneck_size", "init")


@register
@dataclass(frozen=True)
class AdaptableFocused(Method):
    r"""The focused form: Pfeiffer adapters with a rational activation, in selected layers only.

    It is :class:`peftlab.methods.bottleneck.Adapter` with ``activation="rational:one"`` and all
    other layers left out; there is no switch, and a layer without adapter is the pretrained one.
    There are 2dm + m + d + 10 parameters in each selected layer.

    The layers differ from task to task: they come from a :class:`Selection`. Without one there is
    nothing to go by, and the upper half of the layers (rounded up) stands in; it is half of them
    because the paper says that the method has "about 50 %" of the standard adapter's parameters.

    Source: Moosavi et al. 2022 (arXiv 2205.01549) and its released code. Taught in the chapter on
    Adaptable Adapters.

    Attributes:
        layers: Indices of the layers with an adapter, 0 is the lowest; None is the upper half.
        activation: ``"relu"`` and others are controls.
        reduction_factor: :math:`d / m`; the bottleneck is :math:`m = \lfloor d/r \rfloor` wide.
        bottleneck_size: :math:`m` itself; if given, ``reduction_factor`` is not used.
        init: See :class:`peftlab.methods.bottleneck.Adapter`.
    """

    name: ClassVar[str] = "adaptable-focused"
    paper: ClassVar[str] = "moosavi2022adaptable"
    chapter: ClassVar[str] = "methods/adaptable-adapters"

    layers: tuple[int, ...] | None = None
    activation: str = "rational:one"
    reduction_factor: float = 16
    bottleneck_size: int | None = None
    init: str = "bert"

    def check(self) -> None:
        """Check the settings."""
        self._adapter(())
        layers = self.layers
        if layers is not None and (not layers or len(set(layers)) < len(layers)):
            raise SettingsError(
                f"layers is {layers}: name one layer or more, each once, or give None for the "
                "upper half."
            )

    def _adapter(self, leave_out: tuple[int, ...]) -> Adapter:
        return Adapter(
            reduction_factor=self.reduction_factor,
            bottleneck_size=self.bottleneck_size,
            activation=self.activation,
            init=self.init,
            leave_out=leave_out,
        )

    def adapter(self, anatomy: Anatomy) -> Adapter:
        """Return the plain adapter that this is in an encoder.

        Raises:
            SettingsError: A layer does not exist.
        """
        there = range(len(anatomy.layers))
        layers = there[len(there) // 2 :] if self.layers is None else self.layers
        for layer in layers:
            if layer not in there:
                raise SettingsError(
                    f"layers names layer {layer!r}: the encoder has layers 0 to {there[-1]}."
                )
        return self._adapter(tuple(i for i in there if i not in layers))

    @property
    def starts_at_zero(self) -> bool:
        """Whether the encoder's output is unchanged before training."""
        return self._adapter(()).starts_at_zero

    def attach(self, encoder: Encoder, suffix: str = "") -> None:
        """Add one bottleneck to the closing block of every selected layer.

        Raises:
            SettingsError: A layer does not exist.
        """
        self.adapter(encoder.anatomy).attach(encoder, suffix)

    def counts(self, anatomy: Anatomy) -> Counts:
        """Count 2dm + m + d + 10 for each selected layer."""
        return self.adapter(anatomy).counts(anatomy)

    def products(self, sketch: Sketch) -> None:
        """Draw the adapters of the selected layers."""
        self.adapter(sketch.anatomy).products(sketch)


@dataclass(frozen=True)
class Selection:
    """Which layers the switches of a trained model have selected.

    Attributes:
        logits: For each layer of the encoder those of skipping and of the adapter; None for a layer
            that had no switch.
        task: What the switches were trained on.
        encoder: The encoder's name.
        seed: Of the model.
        method: The method that the switches were made by. The focused form and the controls have
            its adapters: the same width, activation and initialisation.
    """

    logits: tuple[tuple[float, float] | None, ...]
    task: str
    encoder: str
    seed: int
    method: Adaptable = SWITCHED

    @classmethod
    def of(cls, model: Model) -> Self:
        """Read the switches of a model.

        Args:
            model: Trained with :class:`peftlab.methods.adaptable.Adaptable`; as everywhere, its
                weights are those of the best step on the development split.

        Raises:
            SettingsError: It has no switches.
        """
        logits: list[tuple[float, float] | None] = []
        method = None
        for layer in model.encoder.anatomy.layers:
            parts = [m for m in layer.module.modules() if isinstance(m, SwitchedPart)]
            if parts:
                method = parts[0].settings
                skip, adapter = parts[0].logits.tolist()
            logits.append((skip, adapter) if parts else None)
        if method is None:
            raise SettingsError(
                f"The model's method {model.method.name!r} has no switches to read: train one with "
                "the method 'adaptable'."
            )
        return cls(tuple(logits), model.task.name, model.encoder.name, model.seed, method)

    @property
    def layers(self) -> tuple[int, ...]:
        """The selected layers: those whose adapter has the greater logit."""
        return tuple(i for i, pair in enumerate(self.logits) if pair and pair[1] > pair[0])

    def save(self, path: str | Path) -> Path:
        """Write the record as a JSON file, with the layers in it for people to read."""
        path = Path(path)
        with replacing(path) as temporary:
            record = {"layers": self.layers} | asdict(self) | {"method": self.method.settings()}
            text = json.dumps(record, indent=2)
            temporary.write_text(text + "\n", encoding="utf-8")
        return path

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read a record.

        Raises:
            CheckpointError: The file is no such record, or its layers are not those of its logits.
        """
        try:
            found: Mapping[str, Any] = json.loads(Path(path).read_text(encoding="utf-8"))
            logits = tuple(
                None if pair is None else (float(pair[0]), float(pair[1]))
                for pair in found["logits"]
            )
            method = get(found["method"])
            if not isinstance(method, Adaptable):
                raise ValueError(f"it is of the method {method.name!r}")
            read = cls(logits, found["task"], found["encoder"], found["seed"], method)
            same = tuple(found["layers"]) == read.layers
        except (OSError, ValueError, KeyError, TypeError, IndexError, PeftlabError) as error:
            raise CheckpointError(f"{path} is no record of selected layers ({error!r}).") from error
        if not same:
            raise CheckpointError(
                f"The layers in {path} are not those that its logits select: write the record with "
                "Selection.save."
            )
        return read

    def focused(self, **changes: Any) -> AdaptableFocused:
        """Return the focused form in the selected layers.

        Args:
            **changes: Other settings, such as ``activation="relu"`` for a control.

        Raises:
            SettingsError: No layer was selected.
        """
        return self._adapters(self.layers, changes)

    def random(self, seed: int, **changes: Any) -> AdaptableFocused:
        """Return a control: as many layers, drawn by a seed of their own, and not the same set.

        Where all layers were selected, or none, there is no other set.
        """
        numbers = random.Random(seed)
        drawn = self.layers
        while drawn == self.layers and 0 < len(drawn) < len(self.logits):
            drawn = tuple(sorted(numbers.sample(range(len(self.logits)), len(self.layers))))
        return self._adapters(drawn, changes)

    def top(self, **changes: Any) -> AdaptableFocused:
        """Return a control: as many layers, the topmost ones."""
        there = range(len(self.logits))
        return self._adapters(tuple(there[len(there) - len(self.layers) :]), changes)

    def _adapters(self, layers: tuple[int, ...], changes: dict[str, Any]) -> AdaptableFocused:
        """Return fresh adapters like the switched ones, with some settings changed."""
        own = {name: getattr(self.method, name) for name in SHARED}
        if "reduction_factor" in changes:
            own["bottleneck_size"] = None  # which would win
        return AdaptableFocused(layers=layers, **own | changes)


preset("adaptable-focused", AdaptableFocused())
