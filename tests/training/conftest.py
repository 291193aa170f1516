"""A task that a tiny encoder can learn, long enough to be interrupted."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest

import peftlab as pl
from peftlab.models import Model


@pytest.fixture(scope="session")
def words_task() -> Any:
    """Sentences that are good or bad by one word; 60 to train, 20 to select, 20 to report."""
    draw = random.Random(5)

    def row() -> dict[str, str]:
        label = draw.choice(("good", "bad"))
        words = draw.choices(("the", "old", "dog", "sees", "a", "house", "and", "walks"), k=7)
        words[draw.randrange(7)] = label
        return {
            "text": " ".join(words[: max(draw.randint(4, 7), words.index(label) + 1)]),
            "label": label,
        }

    splits = {"train": 60, "dev": 20, "test": 20}
    rows = {split: [row() for _ in range(size)] for split, size in splits.items()}
    return pl.task(rows, kind="classification", name="words")


@pytest.fixture
def make_model(make_encoder: Callable[..., Any], words_task: Any) -> Callable[..., Model]:
    """Return a function that builds a tiny model for the task."""

    def make(method: Any = "lora-8", seed: int = 0, family: str = "bert") -> Model:
        return pl.model(make_encoder(family), words_task, method, seed=seed)

    return make
