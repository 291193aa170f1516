"""What is written down about a measurement of cost: one record, one JSON file.

A record holds one *cell*: an encoder, a batch and a length, in training or inference, with every
method that was measured beside the others in one process. All samples are kept. This file knows
neither models nor clocks; who measures is :mod:`peftlab.costs`.
"""

from __future__ import annotations

import hashlib
import json
from typing import Literal

from pydantic import (
    AwareDatetime,
    Field,
    JsonValue,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
)
from pydantic import model_validator as checked

from peftlab.results.records.run import Git, Kept, Parameters, RunId, Strict, now

Mode = Literal["train", "inference", "capacity"]
FULL = "full"
#: Behind the label of the baseline where it is measured a second time: the noise floor.
AGAIN = " again"
#: Behind the label of a method whose parts are folded into the encoder.
MERGED = " merged"
#: Behind the label of a method whose call is run in another way than eagerly.
COMPILED, GRAPHED = " compiled", " graphed"


class CostSettings(Strict):
    """What decides a measurement; equal settings have the same id.

    Attributes:
        encoder: Name of a shape; its weights are random, which changes no cost.
        mode: ``"train"``: one optimiser step. ``"inference"``: one forward pass. ``"capacity"``:
            the largest batch of a training step.
        batch: Texts; of a capacity the smallest batch that is tried.
        length: Tokens of each; none is padding.
        methods: Label → name and settings.
        baseline: The label that ratios are taken against.
        precision: ``"fp32"``, or ``"bf16"`` autocast.
        attention: ``"sdpa"`` or ``"eager"``.
        checkpointing: Whether activations are computed again in the backward pass.
        device: What it ran on; ``"meta"``: nothing was run, only counted.
        processor: The CPU's or GPU's name.
        threads: That torch used on a CPU.
        budget_gb: Of a capacity: 10⁹ bytes that a step may take.
    """

    encoder: str
    mode: Mode = "train"
    batch: PositiveInt
    length: PositiveInt
    methods: dict[str, dict[str, JsonValue]]
    baseline: str = FULL
    precision: Literal["fp32", "bf16"] = "fp32"
    attention: Literal["sdpa", "eager"] = "sdpa"
    checkpointing: bool = False
    device: Literal["cpu", "cuda", "meta"] = "cpu"
    processor: str = ""
    threads: PositiveInt | None = None
    budget_gb: PositiveFloat | None = None

    @property
    def id(self) -> str:
        """First 12 hex digits of the sha256 of the settings; defaults are left out."""
        chosen = self.model_dump(mode="json", exclude_defaults=True)
        text = json.dumps(chosen, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    @property
    def tokens(self) -> int:
        """Tokens of the batch."""
        return self.batch * self.length


class Flops(Strict):
    """FLOPs of one call, counted over a real pass and by the closed form.

    Attributes:
        counted_forward, counted_backward: By torch's counter.
        forward, activation_gradient, weight_gradient: By :mod:`peftlab.methods.work`.
        hugging_face: Of a training step, by the convention of ``Trainer``'s ``total_flos``.
    """

    counted_forward: NonNegativeInt
    counted_backward: NonNegativeInt = 0
    forward: NonNegativeInt
    activation_gradient: NonNegativeInt = 0
    weight_gradient: NonNegativeInt = 0
    hugging_face: NonNegativeInt | None = None

    @property
    def total(self) -> int:
        """Forward and backward, counted: of one step, where steps differ by chance."""
        return self.counted_forward + self.counted_backward

    @property
    def expected(self) -> int:
        """Forward and backward by the closed form: the mean, where steps differ by chance."""
        return self.forward + self.activation_gradient + self.weight_gradient


class Largest(Strict):
    """The largest batch whose training step fits into a budget; 0: not even one row does.

    Attributes:
        searched: By trying; None where memory cannot be bounded, as on a CPU.
        line: By the line through the memory of three batches; None: see ``reason``.
        reason: Why there is no such line.
    """

    searched: NonNegativeInt | None = None
    line: NonNegativeInt | None = None
    reason: str = ""


class Candidate(Strict):
    """What one method cost.

    Attributes:
        parameters: As :class:`peftlab.models.Summary` counts them.
        flops: Of one call.
        seconds: A call, one sample a window; the same index is the same round for all candidates.
        warmup: Seconds of the windows before, in no statistic. Each model has run before those too:
            it was counted and weighed.
        calls: In each window; above 1 a sample is their mean.
        phases: Of a step: ``forward``, ``backward``, ``optimiser`` → seconds, one value a call.
        activation: Seconds of a forward pass with the gradient of the lowest trained tensor alone,
            so without the other weights' gradients.
        memory: Bytes by name; see :class:`peftlab.timing.memory.Memory`.
        busy: Share of a call during which a GPU worked; None where that was not measured.
        joules: Of a call; None where the device does not tell, or was not asked.
        largest: Of a capacity.
        error: Why there is no measurement, as when memory was full.
    """

    parameters: Parameters | None = None
    flops: Flops | None = None
    seconds: list[NonNegativeFloat] = Field(default=[])
    warmup: list[NonNegativeFloat] = Field(default=[])
    calls: PositiveInt = 1
    phases: dict[str, list[NonNegativeFloat]] = Field(default={})
    activation: list[NonNegativeFloat] = Field(default=[])
    memory: dict[str, NonNegativeInt] = Field(default={})
    busy: NonNegativeFloat | None = None
    joules: NonNegativeFloat | None = None
    largest: Largest | None = None
    error: str | None = None


class CostRecord(Kept):
    """One cell, measured.

    Attributes:
        schema_version: Of this class.
        id: ``settings.id``.
        experiment: Name of the experiment file.
        created: When it was measured (UTC).
        settings: See :class:`CostSettings`.
        candidates: Label → what it cost.
        joules: ``reason``: why no candidate has joules. In earlier records those of the whole
            comparison, with its seconds.
        ceilings: What the device reaches at most; see :mod:`peftlab.timing.ceilings`.
        machine: Before the measurement, with ``cores_busy``, the share of the cores that other
            programs used; ``after`` in it: clocks and temperature behind it.
        versions: Package → version.
        git: Commit, and whether files differed.
    """

    schema_version: Literal[1] = 1
    id: RunId
    experiment: str = ""
    created: AwareDatetime = Field(default_factory=now)
    settings: CostSettings
    candidates: dict[str, Candidate]
    joules: dict[str, JsonValue] = Field(default={})
    ceilings: dict[str, JsonValue] = Field(default={})
    machine: dict[str, JsonValue] = Field(default={})
    versions: dict[str, str] = Field(default={})
    git: Git = Git()

    @property
    def errors(self) -> dict[str, str]:
        """Label → why that method was not measured."""
        return {label: c.error for label, c in self.candidates.items() if c.error is not None}

    @checked(mode="after")
    def _agrees(self) -> CostRecord:
        """Check what the fields must say about each other."""
        if self.id != self.settings.id:
            raise ValueError(f"the id {self.id} is not that of the settings, {self.settings.id}")
        if set(self.candidates) != set(self.settings.methods):
            raise ValueError("candidates and settings.methods do not name the same methods")
        if self.settings.baseline not in self.candidates:
            raise ValueError(f"the baseline {self.settings.baseline!r} is no candidate")
        timed = {len(c.seconds) for c in self.candidates.values() if c.error is None}
        if len(timed) > 1:
            raise ValueError("the candidates have different numbers of rounds")
        return self
