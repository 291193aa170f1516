"""The FLOPs of a whole run: the closed form says what an operator counter sees."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest
from torch import Tensor

import peftlab as pl
from peftlab.tasks.heads import ClassificationHead, Head
from peftlab.timing.flops import _Counter, hf_total_flos
from peftlab.training import TrainSettings, fit, loop

from ..conftest import WORDS

SETTINGS = TrainSettings(
    learning_rate=1e-3, epochs=2, batch_size=8, max_length=24, precision="fp32"
)
DRAW = random.Random(3)
TEXTS = [{"text": " ".join(DRAW.choices(WORDS, k=DRAW.randint(3, 30)))} for _ in range(20)]


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """What an operator counter sees of every training step; it sees no evaluation."""
    found: list[int] = []
    step = loop._Run._backward

    def counting(*args: Any, **options: Any) -> Tensor:
        with _Counter() as counter:
            result = step(*args, **options)
        found.append(counter.total)
        return result

    monkeypatch.setattr(loop._Run, "_backward", counting)
    return found


def language(**options: Any) -> Any:
    splits = {"train": TEXTS, "dev": TEXTS[:4], "test": TEXTS[4:8]}
    return pl.task(splits, kind="language-model", name="texts", **options)


@pytest.mark.parametrize("method", ["full", "lora-8", "unipelt", "head-only"])
def test_a_classifier(make_model: Callable[..., Any], words_task: Any, seen: list[int], method):
    assert fit(make_model(method), words_task, SETTINGS).flops == sum(seen)


@pytest.mark.parametrize("options", [{}, {"train_head": True}])
@pytest.mark.parametrize("method", ["full", "lora-8", "madx-language"])
def test_a_language_model_maps_only_hidden_pieces(make_encoder, seen, method, options) -> None:
    task = language(**options)
    model = pl.model(make_encoder("bert"), task, method)
    assert fit(model, task, SETTINGS).flops == sum(seen)


def test_several_tasks_and_parts_of_batches(make_encoder, words_task: Any, seen: list[int]) -> None:
    splits = {s: words_task.rows(s)[:12] for s in ("train", "dev", "test")}
    tasks = [words_task, pl.task(splits, "classification", name="a task of few rows")]
    model = pl.model(make_encoder("bert"), tasks, "pfeiffer-16")
    settings = TrainSettings(**SETTINGS.as_dict() | {"accumulation": 2})
    assert fit(model, tasks, settings).flops == sum(seen)


def test_a_killed_run_counts_every_step_once(make_model, words_task: Any, tmp_path) -> None:
    class Killed(BaseException):
        pass

    def kill(step: int) -> None:
        if step == 5:
            raise Killed

    settings = TrainSettings(**SETTINGS.as_dict() | {"checkpoint_seconds": 0})
    with pytest.raises(Killed):
        fit(make_model(), words_task, settings, folder=tmp_path, on_step=kill)
    again = fit(make_model(), words_task, settings, folder=tmp_path)
    assert again.flops == fit(make_model(), words_task, settings).flops


def test_a_record_has_both_conventions(make_model, words_task: Any) -> None:
    for method in ("full", "lora-8"):
        model = make_model(method)
        record = pl.train(model, words_task, SETTINGS)
        assert record.flops is not None and record.tokens is not None
        assert record.flops.hugging_face == hf_total_flos(model, record.tokens.padded)
    # by the closed form LoRA is cheaper than full fine-tuning, by the other convention dearer
    full, lora = (pl.train(make_model(m), words_task, SETTINGS).flops for m in ("full", "lora-8"))
    assert lora.closed_form < full.closed_form
    assert lora.hugging_face > full.hugging_face


def test_a_head_without_a_closed_form_is_no_number(
    make_model, words_task: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ClassificationHead, "products", Head.products)
    record = pl.train(make_model(), words_task, SETTINGS)
    assert record.flops is not None and record.flops.closed_form is None
