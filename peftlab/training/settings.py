"""How a model is trained: every knob of the loop, in one frozen object.

The settings are written into each record, so that two runs with equal settings are the same run.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

from peftlab.errors import SettingsError

Precision = Literal["auto", "fp32", "bf16"]


@dataclass(frozen=True)
class TrainSettings:
    """Settings of one training run.

    Attributes:
        learning_rate: Peak rate of AdamW, reached after the warm-up.
        epochs: Passes over the training rows.
        batch_size: Rows an optimiser step (spread over ``accumulation`` passes).
        accumulation: Forward-backward passes an optimiser step.
        warmup_ratio: Share of all steps in which the rate rises linearly from 0.
        schedule: After the warm-up the rate falls ``"linear"`` to 0, or stays ``"constant"``.
        weight_decay: Decoupled decay of AdamW; biases and LayerNorm weights have none.
        max_grad_norm: Gradients are scaled down to this norm; 0 switches that off.
        max_length: Longest input in tokens.
        precision: ``"bf16"`` autocast, ``"fp32"``, or ``"auto"``: bf16 where the processor has
            instructions for it.
        evaluate_every: Steps between evaluations on the development split; 0 means every epoch.
        patience: Evaluations without a better score until training stops; 0 never stops early.
        patience_above: They count only once a score was above this; None: always. Without it,
            patience ends a run that has not begun to learn.
        keep_best: End with the weights of the best evaluation, not the last.
        max_steps: Stop after that many optimiser steps; 0 means no limit.
        seed: Decides the order of the rows and the dropout.
        checkpoint_seconds: Least time between two checkpoints; 0 writes one every step.
    """

    learning_rate: float = 1e-3
    epochs: int = 5
    batch_size: int = 16
    accumulation: int = 1
    warmup_ratio: float = 0.1
    schedule: Literal["linear", "constant"] = "linear"
    weight_decay: float = 0.01
    max_grad_norm: float = 1.0
    max_length: int = 128
    precision: Precision = "auto"
    evaluate_every: int = 0
    patience: int = 0
    patience_above: float | None = None
    keep_best: bool = True
    max_steps: int = 0
    seed: int = 0
    checkpoint_seconds: float = 60.0

    def __post_init__(self) -> None:
        """Refuse values that cannot work."""
        kinds: dict[str, Any] = {"int": int, "float": (int, float), "bool": bool}
        kinds["float | None"] = (int, float, type(None))
        for f in fields(self):
            value = getattr(self, f.name)
            kind = kinds.get(str(f.type), str)
            if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
                raise self._wrong(f.name)
            if isinstance(value, float) and not math.isfinite(value):
                raise self._wrong(f.name)
        checks = {
            "learning_rate": self.learning_rate > 0,
            "epochs": self.epochs >= 1,
            "batch_size": self.batch_size >= 1,
            "accumulation": 1 <= self.accumulation <= self.batch_size,
            "warmup_ratio": 0 <= self.warmup_ratio <= 1,
            "schedule": self.schedule in ("linear", "constant"),
            "weight_decay": self.weight_decay >= 0,
            "max_grad_norm": self.max_grad_norm >= 0,
            "max_length": self.max_length >= 4,
            "precision": self.precision in ("auto", "fp32", "bf16"),
            "evaluate_every": self.evaluate_every >= 0,
            "patience": self.patience >= 0,
            "patience_above": self.patience_above is None or self.patience > 0,
            "max_steps": self.max_steps >= 0,
            "seed": self.seed >= 0,
            "checkpoint_seconds": self.checkpoint_seconds >= 0,
        }
        for name, good in checks.items():
            if not good:
                raise self._wrong(name)

    def _wrong(self, name: str) -> SettingsError:
        return SettingsError(
            f"The training setting {name} is {getattr(self, name)!r}, which cannot work; "
            "see TrainSettings for what it may be."
        )

    def as_dict(self) -> dict[str, Any]:
        """Return the settings as plain JSON types; what is None is left out."""
        return {name: value for name, value in asdict(self).items() if value is not None}
