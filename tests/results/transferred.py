"""Made records of models that were trained in English and tested in other languages."""

from __future__ import annotations

from typing import Any

import numpy as np

from peftlab.results.records.run import Parameters, Record, Sizes, Tokens
from tests.results.made import settings

ROWS = 200
#: Shares of right rows: at home, and in a near and a far language.
SHARES = {"majority": (0.25, 0.25, 0.25), "full": (0.8, 0.7, 0.4), "lora": (0.8, 0.6, 0.3)}


def transferred(
    label: str,
    seed: int = 0,
    shares: tuple[float, float, float] | None = None,
    *,
    task: str = "sib200/eng_Latn",
    others: tuple[str, str] = ("sib200/deu_Latn", "sib200/rus_Cyrl"),
    rows: int = ROWS,
    rate: float | None = 1e-3,
    trained: int = 0,
    stored: int = 100,
    **more: Any,
) -> Record:
    """A run whose example scores have exactly the given shares; rows are as hard in all seeds."""
    asked = settings(label, task, seed, rate, transfer=list(others), **more)
    scores = {}
    for name, share in zip(("test", *others), shares or SHARES[label], strict=True):
        right = np.zeros(rows)
        right[: round(share * rows)] = 1
        scores[name] = np.roll(right, 3 * seed).tolist()
    return Record(
        id=asked.id,
        experiment="made",
        settings=asked,
        sizes=Sizes(train=700, dev=99, test=rows),
        parameters=Parameters(
            trainable=trained, stored=stored, inference=0, head=10, backbone=5000
        ),
        metrics={"dev": {"accuracy": 0.5}}
        | {name: {"accuracy": float(np.mean(each))} for name, each in scores.items()},
        main_metric="accuracy",
        example_scores=scores,
        seconds={"train": 2.0, "validation": 1.0, "transfer": 5.0, "total": 8.0},
        tokens=Tokens(real=1000 + seed, padded=1200),
        machine={"cpu": "a processor"},
    )


def language_run(code: str, stored: int = 500, seed: int = 0) -> Record:
    """The earlier run of a language adapter: texts, no transfer."""
    asked = settings("madx-language", f"bible/{code}", seed)
    return Record(
        id=asked.id,
        experiment="made",
        settings=asked,
        sizes=Sizes(train=3000, dev=10, test=10),
        parameters=Parameters(trainable=stored, stored=stored, inference=0, head=0, backbone=5000),
        metrics={"dev": {"accuracy": 0.2}, "test": {"accuracy": 0.2}},
        main_metric="accuracy",
        example_scores={"test": [0.2] * 10},
        seconds={"train": 20.0, "total": 20.0},
        tokens=Tokens(real=90_000, padded=90_000),
    )


def experiment() -> list[Record]:
    """A control, two methods and MAD-X: two rates at the first of three seeds."""
    made = [transferred("majority", rate=None)]
    english, german, russian = (language_run(code) for code in ("en", "de", "ru"))
    uses = {"language": english.id, "languages": {"deu_Latn": german.id, "rus_Cyrl": russian.id}}
    for label, more in (
        ("full", {"stored": 5000}),
        ("lora", {}),
        ("madx", {"stored": 600, "shares": (0.8, 0.7, 0.5), "model_options": {"uses": uses}}),
    ):
        made.append(transferred(label, 0, rate=1e-5, **more).replaced(metrics=_poor(label, more)))
        made += [transferred(label, seed, **more) for seed in (0, 1, 2)]
    return [*made, english, german, russian]


def joint(seed: int = 0) -> Record:
    """A model of two tasks at once: its main metric is the mean, each task has its own."""
    run = transferred(
        "full",
        seed,
        (0.8, 0.7, 0.4),
        task="both",
        task_options={"of": ["sib200/eng_Latn", "xsid/en"]},
    )
    metrics = dict(run.metrics)
    home = metrics.pop("test")
    metrics |= {
        "dev": {"mean": 0.5},
        "test": {"mean": 0.7, "sib200/eng_Latn accuracy": home["accuracy"]},
        "sib200/eng_Latn": home,
        "xsid/en": {"accuracy": 0.6},
    }
    scores = dict(run.example_scores)
    scores["sib200/eng_Latn"] = scores.pop("test")
    return run.replaced(metrics=metrics, main_metric="mean", example_scores=scores)


def _poor(label: str, more: dict[str, Any]) -> dict[str, dict[str, float]]:
    run = transferred(label, 0, rate=1e-5, **more)
    return {name: {"accuracy": value["accuracy"] / 2} for name, value in run.metrics.items()}
