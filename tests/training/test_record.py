"""What a run says of itself: the score that chose, what was computed, how long it took."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import peftlab as pl
from peftlab.timing.phases import Phases
from peftlab.training import TrainSettings, evaluation, fit, loop
from peftlab.training.evaluation import Evaluation
from peftlab.training.loop import Trained
from peftlab.training.run import _curve

Make = Callable[..., Any]
SETTINGS = TrainSettings(
    learning_rate=5e-3,
    epochs=3,
    batch_size=8,
    max_length=32,
    precision="fp32",
    checkpoint_seconds=0,
)


def test_weights_and_dev_score_are_those_of_the_best_evaluation(
    make_model: Make, words_task: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    scores = iter((0.5, 0.9, 0.1))
    seen: list[dict[str, Tensor]] = []

    def scripted(model: Any, *given: Any, **options: Any) -> Evaluation:
        seen.append({name: p.detach().clone() for name, p in model.trainable_parameters()})
        return Evaluation({"accuracy": next(scores)}, [])

    monkeypatch.setattr(loop, "scored", scripted)  # of the development split; test is scored
    model = make_model()
    record = pl.train(model, words_task, SETTINGS)
    assert record.best_step == record.evaluations[1].step
    assert record.metrics["dev"] == {"accuracy": 0.9}
    for name, parameter in model.trainable_parameters():
        assert torch.equal(parameter, seen[1][name])
        assert not torch.equal(parameter, seen[2][name])


def test_a_model_is_scored_on_as_much_of_a_text_as_it_was_trained_on(
    make_model: Make, words_task: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    lengths: list[int] = []
    encode = evaluation.encode

    def noted(model: Any, task: Any, split: str, length: int) -> Any:
        lengths.append(length)
        return encode(model, task, split, length)

    monkeypatch.setattr(evaluation, "encode", noted)
    model = make_model()
    pl.train(model, words_task, SETTINGS, epochs=1, max_length=16)
    pl.evaluate(model, words_task)
    pl.evaluate(model, words_task, max_length=24)
    assert lengths == [16, 16, 24]


def test_tokens_are_those_of_the_batches(
    make_model: Make, words_task: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Any] = []
    note = loop.workload.note

    def noted(progress: Any, model: Any, batch: Any) -> None:
        seen.append(batch)
        note(progress, model, batch)

    monkeypatch.setattr(loop.workload, "note", noted)
    found = fit(make_model(), words_task, SETTINGS).tokens
    assert found["real"] == sum(int(batch["attention_mask"].sum()) for batch in seen)
    assert found["padded"] == sum(batch["input_ids"].numel() for batch in seen) > found["real"]


class Killed(BaseException):
    """Stands for a SIGKILL: nothing in the loop may catch it and tidy up."""


@pytest.mark.parametrize("kills", [1, 2])
def test_the_seconds_of_killed_attempts_count_once(
    make_model: Make, words_task: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kills: int
) -> None:
    save = loop.state.save

    def saved_and_killed(*state: Any) -> None:
        save(*state)
        raise Killed

    for _ in range(kills):  # in each the first step takes 100 s, and nothing comes after it
        ticks = itertools.count(0, 100)
        with monkeypatch.context() as patch, pytest.raises(Killed):
            patch.setattr(loop.state, "save", saved_and_killed)
            slow = Phases(clock=lambda ticks=ticks: float(next(ticks)))
            pl.train(make_model(), words_task, SETTINGS, folder=tmp_path, clock=slow)
    record = pl.train(make_model(), words_task, SETTINGS, folder=tmp_path)
    assert record.seconds["warm-up"] == pytest.approx(100 * kills, abs=10)
    phases = sum(seconds for name, seconds in record.seconds.items() if name != "total")
    assert record.seconds["total"] == pytest.approx(phases)


def test_a_long_curve_is_thinned_to_means_of_blocks() -> None:
    losses = [float(step) for step in range(601)]
    rates = [step / 1000 for step in range(601)]
    made = Trained(SETTINGS, "fp32", losses, rates, [], 0, {}, None, {})
    points = _curve(made)  # three steps a point; the last has one
    assert len(points) == 201
    assert (points[0].step, points[0].loss, points[0].learning_rate) == (3, 1.0, 0.002)
    assert (points[-1].step, points[-1].loss) == (601, 600.0)
    short = dataclasses.replace(made, losses=losses[:7], rates=rates[:7])
    assert [point.loss for point in _curve(short)] == losses[:7]
