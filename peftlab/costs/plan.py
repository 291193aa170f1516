"""A cost experiment: which shapes, cells and methods are measured against which baseline.

Its file stands beside those of trainings, with ``kind = "cost"``. This file reads and plans; what
is done is in :mod:`peftlab.costs.sweep`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, NonNegativeFloat, PositiveInt, model_validator

from peftlab import methods
from peftlab.encoders import SHAPES
from peftlab.errors import unknown
from peftlab.results.costs import AGAIN, FULL, MERGED, CostSettings, Mode
from peftlab.results.record import Strict

KIND = "cost"


class Rounds(Strict):
    """How long is measured; see :func:`peftlab.timing.cost`.

    Attributes:
        parts: Rounds in which a training step is taken apart.
    """

    warmup: PositiveInt = 2
    min_rounds: PositiveInt = 10
    min_seconds: NonNegativeFloat = 1.0
    parts: PositiveInt = 5


class CostExperiment(Strict):
    """What a cost experiment file says.

    Attributes:
        name: Of the folder of its records.
        kind: ``"cost"``.
        question: What it is to answer, in a sentence.
        encoders: Names of shapes, or of encoders to be loaded.
        cells: Pairs of batch and length.
        modes: ``"train"``, ``"inference"`` or both.
        methods: Label → preset name or settings.
        baseline: The label that ratios are taken against.
        precisions: ``"fp32"``, ``"bf16"`` or both.
        attention: ``"sdpa"`` or ``"eager"``.
        checkpointing: Whether activations are computed again in the backward pass.
        rounds: How long is measured.
        device: ``"cpu"``; or ``"meta"``: count FLOPs and parameters, time nothing. By default the
            GPU where there is one, else the CPU.
    """

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]*$")
    kind: Literal["cost"]
    question: str = Field(min_length=1)
    encoders: list[str] = Field(min_length=1)
    cells: list[tuple[PositiveInt, PositiveInt]] = Field(min_length=1)
    modes: list[Mode] = Field(default=["train"], min_length=1)
    methods: dict[str, dict[str, Any]] = Field(min_length=1)
    baseline: str = FULL
    precisions: list[Literal["fp32", "bf16"]] = Field(default=["fp32"], min_length=1)
    attention: Literal["sdpa", "eager"] = "sdpa"
    checkpointing: bool = False
    rounds: Rounds = Rounds()
    device: Literal["cpu", "meta"] | None = None

    @model_validator(mode="before")
    @classmethod
    def _short_forms(cls, data: Any) -> Any:
        """Let a plain name stand for a method's table, and lists for pairs."""
        if not isinstance(data, dict):
            return data
        data = dict(data)
        if isinstance(data.get("methods"), dict):
            data["methods"] = {
                label: {"name": entry} if isinstance(entry, str) else entry
                for label, entry in data["methods"].items()
            }
        if isinstance(data.get("cells"), list):
            data["cells"] = [tuple(c) if isinstance(c, list) else c for c in data["cells"]]
        return data

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
            if label.endswith((AGAIN, MERGED)):
                raise ValueError(f"methods.{label}: the ends {AGAIN!r} and {MERGED!r} are taken")
        return self

    def plans(self, device: str, processor: str, threads: int | None) -> Iterator[CostSettings]:
        """Yield the settings of every cell, smallest first.

        Args:
            device: Where it is to run.
            processor: Name of that device.
            threads: That torch uses there; None on a GPU.
        """
        for encoder in self.encoders:
            for mode in self.modes:
                for precision in self.precisions:
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
                        )

    def _candidates(self, mode: Mode) -> dict[str, dict[str, Any]]:
        """Return the methods, with the baseline again and, for inference, what can be merged."""
        chosen = {label: methods.get(entry) for label, entry in self.methods.items()}
        found = {label: method.settings() for label, method in chosen.items()}
        found[self.baseline + AGAIN] = found[self.baseline]
        if mode == "inference":
            for label, method in chosen.items():
                if method.mergeable:
                    found[label + MERGED] = method.settings()
        return found


def is_name(encoder: str) -> bool:
    """Say whether an encoder is to be loaded: a hub id, a folder, or ``pocket``."""
    return "/" in encoder or encoder == "pocket" or Path(encoder).is_dir()
