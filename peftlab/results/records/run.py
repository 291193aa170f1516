"""What is written down about one run: one record, one JSON file.

A record says what was asked for (settings), what came out (metrics, curve, seconds) and where
(machine, versions, commit). It is checked when it is made and when it is read. This file knows
neither training nor where records are kept; that is :mod:`peftlab.results.records.store`.
"""

from __future__ import annotations

import hashlib
import json
import math
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    JsonValue,
    NonNegativeFloat,
    NonNegativeInt,
    ValidationError,
    field_serializer,
    model_validator,
)

from peftlab.errors import PeftlabError, RecordError, SettingsError
from peftlab.files import read_toml

Status = Literal["ok", "failed", "oom"]
Metrics = dict[str, float]
RunId = Annotated[str, Field(pattern=r"^[0-9a-f]{12}$")]

# These change how or under which name a run is done, not what comes out of it. A training setting
# that is added later must be left out of the id at the value that earlier runs had.
NOT_IN_ID = {"encoder_fingerprint", "method_label"}
NOT_IN_ID_OF_TRAINING = {"checkpoint_seconds"}


class Strict(BaseModel):
    """Base of all parts of a record: no unknown keys, no conversions, no NaN, no changes."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)

    @classmethod
    def from_toml(cls, file: str | Path) -> Self:
        """Read and check a file that people write.

        Raises:
            SettingsError: The file is missing, no TOML, or says something that cannot be run; the
                sentence names file and key.
        """
        data = read_toml(file)
        try:
            return cls.model_validate(data)
        except ValidationError as error:
            raise SettingsError(f"In the file {file}, {sentence(error)}; correct it.") from None
        except PeftlabError as error:
            raise type(error)(f"In the file {file}: {error}") from None


def named(entry: Any) -> Any:
    """Let a plain name stand where a table would only say ``name``."""
    return {"name": entry} if isinstance(entry, str) else entry


#: A method in a file that people write: the name of a preset, or a table of settings.
Entry = Annotated[dict[str, Any], BeforeValidator(named)]


class RunSettings(Strict):
    """What decides a run. Equal settings are the same run and have the same id.

    Attributes:
        encoder: Hub id, folder or ``pocket``.
        encoder_fingerprint: sha256 of the weights as loaded; not part of the id, so that an id
            can be computed before anything is loaded.
        random_weights: Whether the encoder's weights were drawn, not loaded (a control).
        task: Name of the task trained on.
        task_options: How it was opened, beyond its name (kind and fields of a user's own data), and
            ``draws``, how rows were drawn where ``limits`` does not say it; of several tasks that
            were learnt together ``of``, their names, with ``temperature`` and their ``limits`` and
            ``options`` by name where there are some.
        limits: Rows asked for by split; a split that is missing here is used whole.
        model_options: What the model was built with beyond the usual: ``attention``, ``pooling``,
            ``dropout``, and ``seed`` where it is not the training's; of a model that was trained
            before ``after``, the ids of those runs; of one with several heads ``heads``, unless
            they are those of the tasks trained on, ``added``, name and seed of later heads, and
            ``old_test_rows``, to how many the test splits of old tasks are limited; of one that is
            a mean of those runs ``averaged``, their weights; and digests of weights that other
            checkpoints gave it: ``language``, ``task_adapter``, ``loaded``. In an experiment
            ``uses``, the ids of the runs that it was built from, and ``control`` where other layers
            were taken than the selected ones.
        method: Name and settings, as :meth:`peftlab.methods.base.Method.settings` gives them.
        method_label: What the table calls the method; not part of the id.
        training: Every field of :class:`peftlab.training.TrainSettings` (empty but for the seed
            where nothing is trained).
        transfer: Tasks that the trained model was evaluated on too.
    """

    encoder: str
    encoder_fingerprint: str = ""
    random_weights: bool = False
    task: str
    task_options: dict[str, JsonValue] = {}
    limits: dict[Literal["train", "dev", "test"], NonNegativeInt] = {}
    model_options: dict[str, JsonValue] = {}
    method: dict[str, JsonValue]
    method_label: str = ""
    training: dict[str, JsonValue]
    transfer: list[str] = []

    @property
    def id(self) -> str:
        """First 12 hex digits of the sha256 of the settings as canonical JSON.

        What has its default here is left out, so that a new field changes no older id.
        """
        chosen = self.model_dump(mode="json", exclude=NOT_IN_ID, exclude_defaults=True)
        chosen["training"] = {
            k: v for k, v in chosen["training"].items() if k not in NOT_IN_ID_OF_TRAINING
        }
        text = json.dumps(chosen, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    @property
    def members(self) -> list[str]:
        """The names of the tasks that were learnt together; empty for one task."""
        of = self.task_options.get("of", [])
        assert isinstance(of, list)
        return [str(each["name"]) if isinstance(each, dict) else str(each) for each in of]

    @property
    def seed(self) -> int:
        """The seed of initial weights, row order and dropout."""
        return int(str(self.training["seed"]))

    @property
    def trains_nothing(self) -> bool:
        """Whether it is a control without a learning rate, whose seed means nothing."""
        return self.learning_rate is None

    @property
    def learning_rate(self) -> float | None:
        """The peak learning rate; None where nothing is trained."""
        rate = self.training.get("learning_rate")
        return float(rate) if isinstance(rate, int | float) else None


class Sizes(Strict):
    """Rows that each split really had."""

    train: NonNegativeInt
    dev: NonNegativeInt
    test: NonNegativeInt


class Parameters(Strict):
    """Numbers of parameters, as :class:`peftlab.models.Summary` counts them; the head apart."""

    trainable: NonNegativeInt
    stored: NonNegativeInt
    inference: NonNegativeInt
    head: NonNegativeInt
    backbone: NonNegativeInt


class CurvePoint(Strict):
    """Training loss (mean over the step's rows) and learning rate of one optimiser step."""

    step: NonNegativeInt
    loss: float
    learning_rate: NonNegativeFloat


class EvaluationPoint(Strict):
    """Metrics on the development split after a step."""

    step: NonNegativeInt
    epoch: NonNegativeFloat
    metrics: Metrics


class Layers(Strict):
    """Layers with adapters, as the switches of a trained model chose them, or a control to that.

    Attributes:
        chosen: Their indices, 0 is the lowest.
        shares: Of every layer the probability of its adapter, softmax(π)₁ of the switch's logits π;
            None for a layer without a switch.
    """

    chosen: list[NonNegativeInt]
    shares: list[Annotated[float, Field(ge=0, le=1)] | None]


class LearnedActivation(Strict):
    r"""A rational activation after training, :math:`R(x) = P(x)/Q(x)`.

    See :class:`peftlab.methods.parts.rational.Rational` for the equation.

    Attributes:
        layer: That it stands in, 0 is the lowest.
        version: Of the denominator.
        numerator: :math:`a_0 … a_5`.
        denominator: :math:`b_1 … b_4`.
        given: 1st, 50th and 99th percentile of the numbers that it was given on development rows.
    """

    layer: NonNegativeInt
    version: Literal["A", "B"]
    numerator: list[float]
    denominator: list[float]
    given: list[float]


class Tokens(Strict):
    """Tokens that the training steps saw: ``real`` ones, and ``padded`` ones with padding."""

    real: NonNegativeInt
    padded: NonNegativeInt


class TrainingFlops(Strict):
    """FLOPs of all training steps of a run, by two conventions.

    Attributes:
        closed_form: What the matrix products of forward and backward pass are, frozen parts as such
            (:func:`peftlab.training.workload.total`); None for a head of the reader's own.
        hugging_face: By the convention of ``Trainer``'s ``total_flos``, which does not know what is
            frozen (:func:`peftlab.timing.flops.hf_total_flos`).
    """

    closed_form: NonNegativeInt | None
    hugging_face: NonNegativeInt


class Git(Strict):
    """The commit that peftlab ran from and whether files differed from it; None if not in git."""

    commit: str | None = None
    dirty: bool | None = None


def now() -> datetime:
    """Return the time in UTC, without fractions of a second."""
    return datetime.now(UTC).replace(microsecond=0)


class Kept(Strict):
    """What is kept as one JSON file, ``<experiment>/<id>.json``.

    Attributes:
        id: Decided by what was asked for.
        experiment: Name of the experiment file, "" for what was done on its own.
    """

    id: RunId
    experiment: str = ""

    def to_json(self) -> str:
        """Write the record as JSON, one top-level key a line."""
        data = self.model_dump(mode="json")
        lines = (
            f"{json.dumps(key)}: {json.dumps(value, ensure_ascii=False, allow_nan=False)}"
            for key, value in data.items()
        )
        return "{\n" + ",\n".join(lines) + "\n}\n"

    @classmethod
    def from_json(cls, text: str | bytes, source: str = "record") -> Self:
        """Read and check a record.

        Args:
            text: The JSON.
            source: What to call it in the error, usually the file name.

        Raises:
            RecordError: It is not JSON, or not a record.
        """
        try:
            return cls.model_validate_json(text)
        except ValidationError as error:
            raise RecordError(
                f"{source} is damaged or no record: {sentence(error)}; restore it from version "
                "control, or delete it and run its experiment again."
            ) from None


class Record(Kept):
    """One run.

    Attributes:
        schema_version: Of this class.
        id: ``settings.id``.
        experiment: Name of the experiment file, "" for a run on its own.
        created: When the run ended (UTC).
        status: ``"ok"``, ``"failed"`` or ``"oom"`` (out of memory).
        error: One sentence where the status is not ok, else None.
        settings, sizes, parameters: See their classes.
        metrics: Split (``"dev"``, ``"test"``), name of a transfer task, or of one of several tasks
            that were learnt together (on its test split) → metric → value.
        main_metric: The metric that selects and is reported; higher is better.
        example_scores: As ``metrics``, one score a row, in row order; for paired statistics.
        curve: One point an optimiser step (or thinned).
        evaluations: One point an evaluation on the development split.
        best_step: The step whose weights were kept.
        layers: Of a run of the method ``adaptable``, what its switches chose; of one that was built
            from such a run, the layers that it had and the shares of that one. Only in experiments.
        activations: Learned ones, from the lowest layer to the highest. Only in experiments.
        earlier: Whether the run is only there for others to build on: no table of results has it.
        seconds: Phase → seconds, and ``"total"``, which they add up to.
        tokens: Seen in training.
        flops: Of its training; None in records that are older than the count.
        device: ``"cpu"`` or ``"cuda"``.
        precision: ``"fp32"`` or ``"bf16"``: what ``"auto"`` became.
        machine: See :func:`peftlab.timing.machine.describe`.
        versions: Package → version.
        git: See :class:`Git`.
    """

    schema_version: Literal[1] = 1
    id: RunId
    experiment: str = ""
    created: AwareDatetime = Field(default_factory=now)
    status: Status = "ok"
    error: str | None = None
    settings: RunSettings
    sizes: Sizes | None = None
    parameters: Parameters | None = None
    metrics: dict[str, Metrics] = {}
    main_metric: str = ""
    example_scores: dict[str, list[float]] = {}
    curve: list[CurvePoint] = []
    evaluations: list[EvaluationPoint] = []
    best_step: NonNegativeInt | None = None
    layers: Layers | None = None
    activations: list[LearnedActivation] = []
    earlier: bool = False
    seconds: dict[str, NonNegativeFloat] = {}
    tokens: Tokens | None = None
    flops: TrainingFlops | None = None
    device: Literal["cpu", "cuda", "mps"] | None = None
    precision: Literal["fp32", "bf16"] | None = None
    machine: dict[str, JsonValue] = {}
    versions: dict[str, str] = {}
    git: Git = Git()

    @field_serializer("example_scores")
    def _short(self, scores: dict[str, list[float]]) -> dict[str, list[float | int]]:
        """Write whole numbers as such: most scores are 0 or 1."""
        return {k: [int(x) if x.is_integer() else x for x in v] for k, v in scores.items()}

    @model_validator(mode="after")
    def _agrees(self) -> Record:
        """Check what the fields must say about each other."""
        if self.id != self.settings.id:
            raise ValueError(f"the id {self.id} is not that of the settings, {self.settings.id}")
        if self.status == "ok":
            if self.error is not None:
                raise ValueError("a run with status ok has no error")
            if self.sizes is None:
                raise ValueError("a run with status ok has sizes")
            if self.main_metric not in self.metrics.get("test", {}):
                raise ValueError(f"metrics.test has no main metric {self.main_metric!r}")
        elif not self.error:
            raise ValueError(f"a run with status {self.status} says why in error")
        if self.seconds:
            if "total" not in self.seconds:
                raise ValueError("seconds has no total")
            total = self.seconds["total"]
            phases = math.fsum(s for name, s in self.seconds.items() if name != "total")
            if abs(phases - total) > 0.01 + 0.01 * total:
                raise ValueError(f"the phases add up to {phases:.3f} s, the total is {total:.3f} s")
        return self

    def score(self, split: str = "test") -> float:
        """Return the main metric on a split or transfer task.

        Raises:
            RecordError: The run has no such score.
        """
        try:
            return self.metrics[split][self.main_metric]
        except KeyError:
            raise RecordError(
                f"Record {self.id} (status {self.status}) has no {self.main_metric or 'score'} "
                f"on {split!r}: use one of {sorted(self.metrics) or 'none'}."
            ) from None

    def replaced(self, **changes: Any) -> Record:
        """Return a copy with other fields, checked anew; a change of settings renews the id."""
        fields = {name: getattr(self, name) for name in type(self).model_fields} | changes
        fields["id"] = fields["settings"].id
        return type(self)(**fields)


def sentence(error: ValidationError) -> str:
    """Put one fault of a pydantic error into words: an unknown key rather than what it left out."""
    faults = error.errors(include_url=False, include_context=False)
    fault = next((f for f in faults if f["type"] == "extra_forbidden"), faults[0])
    where = ".".join(str(part) for part in fault["loc"])
    if fault["type"] == "extra_forbidden":
        return f"{where} is no known key"
    what = fault["msg"].removeprefix("Value error, ")
    return f"{where}: {what}" if where else what
