"""A cost experiment: which shapes, cells and methods are measured against which baseline.

Its file stands beside those of trainings, with ``kind = "cost"``. This file reads and plans; what
is done is in :mod:`peftlab.costs.sweep`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BeforeValidator,
    Field,
    NonNegativeFloat,
    PositiveFloat,
    PositiveInt,
    model_validator,
)

from peftlab import methods
from peftlab.encoders import SHAPES
from peftlab.errors import SettingsError, unknown
from peftlab.results.records.costs import (
    AGAIN,
    COMPILED,
    FULL,
    GRAPHED,
    MERGED,
    CostSettings,
    Mode,
)
from peftlab.results.records.run import Entry, Strict

KIND = "cost"
#: Ways to run a call beside the eager one → what stands behind the label.
WAYS = {"compiled": COMPILED, "graphed": GRAPHED}

ENDS = (AGAIN, MERGED, COMPILED, GRAPHED)

Pair = Annotated[
    tuple[PositiveInt, PositiveInt],
    BeforeValidator(lambda cell: tuple(cell) if isinstance(cell, list) else cell),
]


class Rounds(Strict):
    """How long is measured; see :func:`peftlab.timing.cost`.

    Attributes:
        parts: Rounds in which a training step is taken apart.
        energy: Whether each method is run by itself afterwards, for some seconds of a GPU's energy
            counter.
    """

    warmup: PositiveInt = 2
    min_rounds: PositiveInt = 10
    min_seconds: NonNegativeFloat = 1.0
    parts: PositiveInt = 5
    energy: bool = False


class CostExperiment(Strict):
    """What a cost experiment file says.

    Attributes:
        name: Of the folder of its records.
        kind: ``"cost"``.
        question: What it is to answer, in a sentence.
        encoders: Names of shapes, or of encoders to be loaded.
        cells: Pairs of batch and length.
        modes: ``"train"``, ``"inference"``, or ``"capacity"``: the largest batch in training.
        methods: Label → preset name or settings.
        variants: ``"compiled"`` (:func:`torch.compile`) or ``"graphed"`` (a CUDA graph) → labels of
            methods that are run so too.
        baseline: The label that ratios are taken against.
        precisions: ``"fp32"``, ``"bf16"`` or both.
        attention: ``"sdpa"`` or ``"eager"``.
        checkpointing: Whether activations are computed again in the backward pass.
        rounds: How long is measured.
        budget_gb: 10⁹ bytes that a step may take, for a capacity.
        device: ``"cpu"``; or ``"meta"``: count FLOPs and parameters, time nothing. By default the
            GPU where there is one, else the CPU.
    """

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]*$")
    kind: Literal["cost"]
    question: str = Field(min_length=1)
    encoders: list[str] = Field(min_length=1)
    cells: list[Pair] = Field(min_length=1)
    modes: list[Mode] = Field(default=["train"], min_length=1)
    methods: dict[str, Entry] = Field(min_length=1)
    variants: dict[Literal["compiled", "graphed"], list[str]] = Field(default={})
    baseline: str = FULL
    precisions: list[Literal["fp32", "bf16"]] = Field(default=["fp32"], min_length=1)
    attention: Literal["sdpa", "eager"] = "sdpa"
    checkpointing: bool = False
    rounds: Rounds = Rounds()
    budget_gb: PositiveFloat = 15.0
    device: Literal["cpu", "meta"] | None = None

    @model_validator(mode="after")
    def _can_run(self) -> CostExperiment:
        """Find mistakes before the first measurement."""
        for encoder in self.encoders:
            if encoder not in SHAPES and not is_name(encoder):
                raise unknown("shape of an encoder", encoder, SHAPES)
        if self.baseline not in self.methods:
            raise unknown("method in this experiment (the baseline)", self.baseline, self.methods)
        for label, entry in self.methods.items():
            methods.get(entry)
            if label.endswith(ENDS):
                raise ValueError(
                    f"methods.{label}: the ends {', '.join(map(repr, ENDS))} are taken"
                )
        for label in (label for labels in self.variants.values() for label in labels):
            if label not in self.methods:
                raise unknown("method in this experiment (of a variant)", label, self.methods)
        if self.device == "meta" and (self.variants or "capacity" in self.modes):
            raise ValueError("device: on 'meta' nothing runs, so drop variants and capacity")
        return self

    def plans(self, device: str, processor: str, threads: int | None) -> Iterator[CostSettings]:
        """Yield the settings of every cell: by encoder, precision, mode, and smallest first.

        Args:
            device: Where it is to run.
            processor: Name of that device.
            threads: That torch uses there; None on a GPU.

        Raises:
            SettingsError: A CUDA graph is asked for, and that device is no GPU.
        """
        if device != "cuda" and "graphed" in self.variants:
            raise SettingsError(
                f"The experiment {self.name!r} asks for CUDA graphs, which {device!r} does not "
                "have: run it on a GPU, or drop variants.graphed."
            )
        for encoder in self.encoders:
            for precision in self.precisions:
                for mode in self.modes:
                    for batch, length in sorted(self.cells, key=lambda cell: cell[0] * cell[1]):
                        yield CostSettings(
                            encoder=encoder,
                            mode=mode,
                            batch=batch,
                            length=length,
                            methods=self._candidates(mode),
                            baseline=self.baseline,
                            precision=precision,
                            attention=self.attention,
                            checkpointing=self.checkpointing,
                            device=device,  # type: ignore[arg-type]  # pydantic checks it
                            processor=processor,
                            threads=threads,
                            budget_gb=self.budget_gb if mode == "capacity" else None,
                        )

    def _candidates(self, mode: Mode) -> dict[str, dict[str, Any]]:
        """Return what is measured in a cell.

        That is the methods; where they are timed, the baseline again and the variants; and for
        inference what can be merged.
        """
        chosen = {label: methods.get(entry) for label, entry in self.methods.items()}
        found = {label: method.settings() for label, method in chosen.items()}
        if mode == "capacity":
            return found
        found[self.baseline + AGAIN] = found[self.baseline]
        if mode == "inference":
            for label, method in chosen.items():
                if method.mergeable:
                    found[label + MERGED] = method.settings()
        for way, labels in self.variants.items():
            found |= {label + WAYS[way]: found[label] for label in labels}
        return found


def is_name(encoder: str) -> bool:
    """Say whether an encoder is to be loaded: a hub id, a folder, or ``pocket``."""
    return "/" in encoder or encoder == "pocket" or Path(encoder).is_dir()
