"""Records for tests, made from known numbers."""

from __future__ import annotations

import random
from typing import Any

import numpy as np

from peftlab.results.records.costs import Candidate, CostRecord, CostSettings, Flops
from peftlab.results.records.run import (
    CurvePoint,
    EvaluationPoint,
    Parameters,
    Record,
    RunSettings,
    Sizes,
    Tokens,
)


def settings(
    label: str = "full", task: str = "toy", seed: int = 0, rate: float | None = 1e-3, **more: Any
) -> RunSettings:
    training: dict[str, Any] = {"seed": seed}
    if rate is not None:
        training["learning_rate"] = rate
    more.setdefault("encoder", "tiny")
    return RunSettings(
        task=task, method={"name": label}, method_label=label, training=training, **more
    )


def record(
    label: str = "full",
    task: str = "toy",
    seed: int = 0,
    rate: float | None = 1e-3,
    *,
    accuracy: float = 0.8,
    dev: float | None = None,
    rows: int = 200,
    trainable: int = 1000,
    stored: int | None = None,
    inference: int = 0,
    transfer: dict[str, float] | None = None,
    **more: Any,
) -> Record:
    """A good run whose example scores have exactly the given accuracy on ``rows`` rows."""
    asked = settings(label, task, seed, rate, **more)
    random = np.random.default_rng([seed, len(label)])
    scores = np.zeros(rows)
    scores[: round(accuracy * rows)] = 1
    random.shuffle(scores)
    metrics = {
        "dev": {"accuracy": accuracy if dev is None else dev},
        "test": {"accuracy": float(scores.mean())},
    }
    metrics |= {name: {"accuracy": value} for name, value in (transfer or {}).items()}
    steps = range(1, 4) if rate is not None else range(0)
    return Record(
        id=asked.id,
        experiment="made",
        settings=asked,
        sizes=Sizes(train=100, dev=50, test=rows),
        parameters=Parameters(
            trainable=trainable,
            stored=trainable if stored is None else stored,
            inference=inference,
            head=10,
            backbone=5000,
        ),
        metrics=metrics,
        main_metric="accuracy",
        example_scores={"test": scores.tolist()},
        curve=[CurvePoint(step=s, loss=1 / s, learning_rate=rate or 0.0) for s in steps],
        evaluations=[
            EvaluationPoint(step=s, epoch=s / 3, metrics={"accuracy": 0.5 + s / 10}) for s in steps
        ],
        seconds={"load": 0.5, "train": 2.0, "test": 0.5, "total": 3.0},
        tokens=Tokens(real=10, padded=12),
        device="cpu",
        precision="fp32",
        machine={"cpu": "a processor", "gpu": None},
    )


def grid() -> list[Record]:
    """Two tasks, a control, two methods, two rates at seed 0, and two more seeds at the better."""
    made = []
    for task in ("one", "two"):
        made.append(record("majority", task, rate=None, accuracy=0.5, trainable=0))
        for label, accuracy, count in (("full", 0.9, 5000), ("lora", 0.8, 100)):
            made.append(record(label, task, 0, 1e-4, accuracy=0.6, trainable=count))
            made += [
                record(label, task, seed, 1e-3, accuracy=accuracy + seed / 100, trainable=count)
                for seed in (0, 1, 2)
            ]
    return made


#: Methods of the made records of cost, and how long a step of each takes.
METHODS = ("full", "slow", "lora", "tie", "full again")
SPEED = {"full": 1.0, "slow": 1.3, "lora": 0.7, "tie": 1.0, "full again": 1.0}


def candidate(label: str, size: float, timed: bool = True) -> Candidate:
    ms = size * SPEED[label]
    noise = random.Random(label)
    samples = [ms * noise.gauss(1, 0.02) / 1000 for _ in range(12)]
    return Candidate(
        parameters=Parameters(trainable=10, stored=10, inference=0, head=2, backbone=100),
        flops=Flops(
            counted_forward=int(100 * size),
            counted_backward=int(200 * size * SPEED[label]),
            forward=int(100 * size),
            activation_gradient=int(100 * size * SPEED[label]),
            weight_gradient=int(100 * size * SPEED[label]),
            hugging_face=600,
        ),
        seconds=samples if timed else [],
        warmup=[0.1] if timed else [],
        phases={"forward": [0.3 * ms], "backward": [0.6 * ms], "optimiser": [0.1 * ms]},
        activation=[0.5 * ms],
        memory={
            "weights": 10**6,
            "gradients": 2 * 10**6,
            "optimiser": 10**6,
            "activations": 10**6,
            "total": 5 * 10**6,
        },
    )


def cost_record(
    batch: int = 8, timed: bool = True, encoder: str = "bert-base", **more: Any
) -> CostRecord:
    """A measured cell whose ratios are known."""
    settings = CostSettings(
        encoder=encoder,
        batch=batch,
        length=32,
        methods={label: {"name": "full"} for label in METHODS},
        processor="a processor",
        **more,
    )
    return CostRecord(
        id=settings.id,
        settings=settings,
        candidates={label: candidate(label, batch, timed) for label in METHODS},
    )


#: Validation losses at steps 10, 20, 30: by method and seed.
CURVES = {
    "full": [[0.6, 0.4, 0.5], [0.6, 0.5, 0.3], [0.6, 0.45, 0.5]],
    "slow": [[0.6, 0.5, 0.46], [0.6, 0.5, 0.47], [0.6, 0.5, 0.44]],
    "lora": [[0.3, 0.5, 0.6], [0.6, 0.3, 0.4], [0.6, 0.6, 0.6]],
}


def curve_run(
    label: str, seed: int, losses: list[float], scores: list[float] | None = None
) -> Record:
    """A run with these validation losses, one an epoch; scores are 1 − loss unless given."""
    scores = scores or [1 - loss for loss in losses]
    points = [
        EvaluationPoint(step=10 * n, epoch=n, metrics={"loss": loss, "accuracy": score})
        for n, (loss, score) in enumerate(zip(losses, scores, strict=True), start=1)
    ]
    made = record(label, seed=seed)  # of 100 train rows
    training = {**made.settings.training, "batch_size": 10}
    settings = made.settings.model_copy(update={"training": training})
    return made.replaced(evaluations=points, settings=settings)


def curve_runs() -> list[Record]:
    return [curve_run(label, n, c) for label, seeds in CURVES.items() for n, c in enumerate(seeds)]


def curve_cost() -> CostRecord:
    """What a step costs; methods are found by their settings, not by their labels."""
    made = cost_record()
    settings = made.settings.model_copy(
        update={"methods": {label: {"name": label} for label in METHODS}}
    )
    return CostRecord(id=settings.id, settings=settings, candidates=made.candidates)
