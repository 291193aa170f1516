"""The loop: it learns, repeats itself exactly, survives a kill, and says what went wrong."""

from __future__ import annotations

import dataclasses
import itertools
import math

import numpy as np
import pytest
import torch

import peftlab as pl
from peftlab.errors import (
    CheckpointError,
    DataError,
    NonFiniteLossError,
    OutOfMemoryError,
    SettingsError,
    UnknownNameError,
)
from peftlab.training import TrainSettings, fit, predict
from peftlab.training.loop import learning_rate, optimiser_for
from peftlab.training.precision import cpu_bf16, has_bf16, resolve

SETTINGS = TrainSettings(
    learning_rate=5e-3,
    epochs=3,
    batch_size=8,
    max_length=32,
    precision="fp32",
    checkpoint_seconds=0,
)


class Killed(BaseException):
    """Stands for a SIGKILL: nothing in the loop may catch it and tidy up."""


def test_it_learns(make_model, words_task):
    record = pl.train(make_model("full"), words_task, SETTINGS, epochs=8)
    assert record.metrics["test"]["accuracy"] >= 0.9
    assert record.curve[-1].loss < 0.5 * record.curve[0].loss


def test_two_runs_with_one_seed_are_equal(make_model, words_task):
    torch.manual_seed(1)
    first = fit(make_model(), words_task, SETTINGS)
    torch.manual_seed(2)
    second = fit(make_model(), words_task, SETTINGS)
    assert first.losses == second.losses
    other = fit(
        make_model(seed=1), words_task, pl.TrainSettings(**SETTINGS.as_dict() | {"seed": 1})
    )
    assert other.losses != first.losses


def test_the_callers_random_state_is_left_alone(make_model, words_task):
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    fit(make_model(), words_task, SETTINGS)
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize("stop", [1, 5, 8, 13, 23])
@pytest.mark.parametrize("method", ["full", "lora-8"])
def test_a_killed_run_goes_on_exactly(make_model, words_task, tmp_path, method, stop):
    whole_model = make_model(method)
    whole = fit(whole_model, words_task, SETTINGS)

    def kill(step: int) -> None:
        if step == stop:
            raise Killed

    with pytest.raises(Killed):
        fit(make_model(method), words_task, SETTINGS, folder=tmp_path, key="a", on_step=kill)
    torch.manual_seed(99)  # a new process starts with another random state
    resumed_model = make_model(method)
    done: list[int] = []
    resumed = fit(
        resumed_model, words_task, SETTINGS, folder=tmp_path, key="a", on_step=done.append
    )
    assert done[0] == stop, "the steps before the last checkpoint were done again"
    assert resumed.losses == whole.losses
    assert resumed.evaluations == whole.evaluations
    assert resumed.tokens == whole.tokens
    for (name, a), (_, b) in zip(
        whole_model.state_dict().items(), resumed_model.state_dict().items(), strict=True
    ):
        assert torch.equal(a, b), name


def test_a_checkpoint_of_another_run_is_refused(make_model, words_task, tmp_path):
    with pytest.raises(Killed):
        fit(make_model(), words_task, SETTINGS, folder=tmp_path, key="a", on_step=_kill_at(3))
    with pytest.raises(CheckpointError, match="other settings"):
        fit(make_model(), words_task, SETTINGS, folder=tmp_path, key="b")


def test_a_damaged_checkpoint_is_refused(make_model, words_task, tmp_path):
    with pytest.raises(Killed):
        fit(make_model(), words_task, SETTINGS, folder=tmp_path, key="a", on_step=_kill_at(3))
    (file,) = tmp_path.glob("*.safetensors")
    file.write_bytes(file.read_bytes()[:200])
    with pytest.raises(CheckpointError, match="damaged"):
        fit(make_model(), words_task, SETTINGS, folder=tmp_path, key="a")


def test_a_finished_run_leaves_no_checkpoint(make_model, words_task, tmp_path):
    pl.train(make_model(), words_task, SETTINGS, folder=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_accumulation_changes_no_gradient(make_model, words_task):
    def losses(accumulation: int) -> list[float]:
        model = make_model()
        for module in model.modules():  # dropout draws other masks for other shapes
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
            if hasattr(module, "dropout_prob"):
                module.dropout_prob = 0.0
        settings = {**SETTINGS.as_dict(), "accumulation": accumulation}
        return fit(model, words_task, TrainSettings(**settings)).losses

    assert losses(4) == pytest.approx(losses(1), abs=2e-4)


def test_accumulation_of_tags_is_a_mean_over_tags(make_encoder):
    rows = [{"tokens": ["the"] * n, "tags": (["A", "B"] * n)[:n]} for n in (1, 9, 2, 7)]
    task = pl.task({"train": rows, "dev": rows, "test": rows}, kind="tagging", name="tags")

    def loss(accumulation: int) -> float:
        model = pl.model(make_encoder(), task, "full", seed=3)
        for module in model.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
            if hasattr(module, "dropout_prob"):
                module.dropout_prob = 0.0
        settings = TrainSettings(
            batch_size=4, epochs=1, accumulation=accumulation, max_length=32, precision="fp32"
        )
        return fit(model, task, settings).losses[0]

    assert loss(4) == pytest.approx(loss(1), abs=1e-6)


def test_early_stopping_ends_with_the_best_weights(make_model, words_task):
    model = make_model()
    trained = fit(
        model,
        words_task,
        TrainSettings(learning_rate=1e-9, epochs=9, batch_size=8, patience=2, max_length=32),
    )
    # the score cannot move at that rate: one best evaluation and two without a better one
    assert len(trained.evaluations) == 3
    assert trained.best_step == trained.evaluations[0]["step"]


def test_patience_waits_for_a_score_that_shows_learning(make_model, words_task):
    """Nothing moves at this rate: patience never begins above a score that is not reached."""
    settings = TrainSettings(
        learning_rate=1e-9, epochs=5, batch_size=8, patience=2, patience_above=0.0, max_length=32
    )
    there = fit(make_model(), words_task, settings).evaluations[0]["metrics"]["accuracy"]
    assert 0 < there < 1
    for above, evaluations in ((0.0, 3), (there - 1e-6, 3), (there, 5), (1.0, 5)):
        waiting = dataclasses.replace(settings, patience_above=above)
        assert len(fit(make_model(), words_task, waiting).evaluations) == evaluations
    assert settings.as_dict()["patience_above"] == 0.0
    assert "patience_above" not in SETTINGS.as_dict()


def test_keep_best_restores_the_weights_of_the_best_evaluation(make_model, words_task):
    settings = {**SETTINGS.as_dict(), "learning_rate": 2e-2, "epochs": 6}
    model = make_model("full")
    trained = fit(model, words_task, TrainSettings(**settings))
    best = max(e["metrics"]["accuracy"] for e in trained.evaluations)
    score = pl.evaluate(model, words_task, "dev", precision="fp32", max_length=32).metrics[
        "accuracy"
    ]
    assert score == best


def test_the_rate_warms_up_and_falls():
    settings = TrainSettings(learning_rate=1.0, warmup_ratio=0.2)
    rates = [learning_rate(step, 10, settings) for step in range(10)]
    assert rates[:2] == [0.5, 1.0]
    assert rates[2] == 1.0
    assert rates[-1] == pytest.approx(1 / 8)
    assert all(a >= b for a, b in itertools.pairwise(rates[2:]))
    constant = TrainSettings(learning_rate=1.0, warmup_ratio=0.2, schedule="constant")
    assert learning_rate(9, 10, constant) == 1.0


def test_vectors_have_no_weight_decay(make_model):
    groups = optimiser_for(make_model("full"), SETTINGS).param_groups
    assert all(p.dim() > 1 for p in groups[0]["params"])
    assert groups[0]["weight_decay"] == SETTINGS.weight_decay
    assert all(p.dim() <= 1 for p in groups[1]["params"])
    assert groups[1]["weight_decay"] == 0


def test_phases_add_up(make_model, words_task):
    seconds = pl.train(make_model(), words_task, SETTINGS).seconds
    parts = [s for phase, s in seconds.items() if phase != "total"]
    assert math.fsum(parts) == pytest.approx(seconds["total"], rel=1e-6)
    assert {"tokenise", "warm-up", "train", "validation", "test"} <= set(seconds)


def test_transfer_tasks_are_scored(make_model, words_task):
    record = pl.train(make_model(), words_task, SETTINGS, transfer=[words_task.limit(test=5)])
    assert len(record.example_scores["words"]) == 5
    assert record.settings.transfer == ["words"]


@pytest.mark.parametrize("names", [("words", "words"), ("test",), ("dev",), ("a", "b", "a")])
def test_no_transfer_task_takes_the_place_of_another_score(make_model, words_task, names):
    rows = {split: words_task.rows(split) for split in words_task.splits}
    transfer = [pl.task(rows, kind="classification", name=name) for name in names]
    model = make_model()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(SettingsError, match=f"name '{names[-1]}' of a transfer task is taken"):
        pl.train(model, words_task, SETTINGS, transfer=transfer)
    assert all(torch.equal(t, before[n]) for n, t in model.state_dict().items())


def test_the_model_is_left_as_it_was_trained_after_transfer(make_model, words_task):
    told = []
    other = words_task.limit(test=5)
    pl.train(make_model(), words_task, SETTINGS, transfer=[other], before_transfer=told.append)
    assert told == [other, words_task]


def test_a_killed_run_does_not_go_on_with_other_rows(make_model, words_task, tmp_path):
    rows = {split: list(words_task.rows(split)) for split in words_task.splits}

    def begun():
        return pl.train(
            make_model(),
            pl.task(rows, kind="classification", name="words"),
            SETTINGS,
            folder=tmp_path,
            keep_checkpoint=True,
        )

    begun()
    begun()  # with the same rows it may
    rows["dev"][0] = rows["dev"][0] | {"text": "another text"}
    with pytest.raises(CheckpointError, match="other settings or rows"):
        begun()


def test_the_record_tells_models_apart(make_encoder, words_task):
    def recorded(**options):
        model = pl.model(make_encoder("bert"), words_task, "lora-8", **options)
        return pl.train(model, words_task, SETTINGS, max_steps=1).settings

    usual = recorded()
    assert usual.model_options == {}
    for options in ({"seed": 3}, {"pooling": "mean"}, {"dropout": 0.0}):
        assert recorded(**options).model_options == options
        assert recorded(**options).id != usual.id


def test_an_infinite_loss_stops_with_a_sentence(make_model, words_task):
    model = make_model()
    with torch.no_grad():
        next(model.head.parameters()).fill_(float("nan"))
    with pytest.raises(NonFiniteLossError, match="became nan at step 0 with learning rate 0.005"):
        fit(model, words_task, SETTINGS)


def test_out_of_memory_names_a_batch_that_fits(make_model, words_task):
    model = make_model()
    forward = model.forward

    def small_memory(batch):
        if len(batch["input_ids"]) > 3:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        return forward(batch)

    model.forward = small_memory
    with pytest.raises(OutOfMemoryError, match="2 rows fit: set batch_size=2, or accumulation=4"):
        fit(model, words_task, SETTINGS)


def test_out_of_memory_in_the_optimiser_is_one_too(make_model, words_task, monkeypatch):
    def full(*_, **__):
        raise torch.cuda.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(torch.optim.AdamW, "step", full)
    with pytest.raises(OutOfMemoryError, match="not even one row fits, with"):
        fit(make_model(), words_task, SETTINGS)


def test_scoring_takes_smaller_batches_where_memory_is_short(make_model, words_task):
    model = make_model()
    features = words_task.encode(words_task.rows("test"), model.encoder.tokenizer, 32)
    wanted = predict(model, features)
    forward, most = model.forward, 3

    def small_memory(batch):
        if len(batch["input_ids"]) > most:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        return forward(batch)

    model.forward = small_memory
    found = predict(model, features)
    assert max(abs(a - b).max() for a, b in zip(found.logits, wanted.logits, strict=True)) < 1e-5
    most = 0
    with pytest.raises(OutOfMemoryError, match="single row"):
        predict(model, features)


def test_every_evaluation_has_the_loss_of_the_development_split(make_model, words_task):
    record = pl.train(make_model(), words_task, SETTINGS)
    model, rows = make_model(), words_task.rows("dev")
    fit(model, words_task, SETTINGS)
    features = words_task.encode(rows, model.encoder.tokenizer, SETTINGS.max_length)
    logits = np.stack(predict(model, features).logits)
    right = [row["label"] for row in rows]
    places = [words_task.labels.index(label) for label in right]
    chances = torch.log_softmax(torch.from_numpy(logits), -1)[range(len(rows)), places]
    best = next(e for e in record.evaluations if e.step == record.best_step)
    assert best.metrics["loss"] == pytest.approx(-float(chances.mean()), abs=1e-5)
    assert {"loss", "accuracy"} <= set(record.metrics["test"])
    assert all("loss" in e.metrics for e in record.evaluations)


def test_rows_without_labels_are_predicted_without_a_loss(make_model, words_task):
    model = make_model()
    rows = [{k: v for k, v in row.items() if k != "label"} for row in words_task.rows("test")]
    features = words_task.encode(rows, model.encoder.tokenizer, 32)
    found = predict(model, features)
    assert found.loss is None and len(found.logits) == len(rows)


def test_logits_that_are_not_finite_are_no_prediction(make_model, words_task):
    model = make_model()
    with torch.no_grad():
        next(model.head.parameters()).fill_(float("nan"))
    with pytest.raises(NonFiniteLossError, match="not finite"):
        pl.evaluate(model, words_task, max_length=32)


def test_other_runtime_errors_are_not_hidden(make_model, words_task):
    model = make_model()
    model.forward = _broken
    with pytest.raises(RuntimeError, match="a shape is wrong"):
        fit(model, words_task, SETTINGS)


@pytest.mark.parametrize(
    "wrong",
    [
        {"learning_rate": 0.0},
        {"epochs": 0},
        {"batch_size": 0},
        {"accumulation": 17},
        {"precision": "fp16"},
        {"schedule": "cosine"},
        {"warmup_ratio": 1.5},
        {"learning_rate": "1e-3"},
        {"learning_rate": float("nan")},
        {"weight_decay": float("inf")},
        {"epochs": 2.5},
        {"keep_best": 1},
        {"seed": -1},
        {"patience_above": 0.5},  # without patience
        {"patience_above": "0.5"},
        {"patience_above": float("nan")},
    ],
)
def test_settings_that_cannot_work_are_refused(wrong):
    (name,) = wrong
    with pytest.raises(SettingsError, match=f"training setting {name}"):
        TrainSettings(**wrong)


def test_an_unknown_setting_is_refused(make_model, words_task):
    with pytest.raises(UnknownNameError, match="did you mean 'learning_rate'"):
        pl.train(make_model(), words_task, SETTINGS, lerning_rate=1.0)


def test_a_task_with_other_labels_is_refused(make_model, words_task, toy_task):
    other = pl.task(
        {"train": [{"text": "a", "label": "x"}, {"text": "b", "label": "y"}]},
        kind="classification",
        name="other",
    )
    model = make_model()
    with pytest.raises(DataError, match="label sets differ"):
        pl.evaluate(model, other, "train")
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    for task, transfer in ((other, []), (words_task, [other])):
        with pytest.raises(DataError, match="label sets differ"):
            pl.train(model, task, SETTINGS, transfer=transfer)
    # nothing was trained before that was found out
    assert all(torch.equal(t, before[n]) for n, t in model.state_dict().items())


def test_auto_precision_asks_the_processor():
    cpu = torch.device("cpu")
    assert has_bf16(cpu) == cpu_bf16()
    assert resolve("auto", cpu) == ("bf16" if cpu_bf16() else "fp32")
    assert resolve("fp32", cpu) == "fp32"
    with pytest.raises(SettingsError, match="choose 'auto'"):
        resolve("fp8", cpu)


def test_a_row_scores_alone_as_in_a_batch(make_model, words_task):
    model = make_model("full", family="roberta")
    rows = words_task.rows("test")
    features = words_task.encode(rows, model.encoder.tokenizer, 32)
    together = predict(model, features, batch_size=20)
    alone = predict(model, features, batch_size=1)
    assert max(abs(a - b).max() for a, b in zip(together.logits, alone.logits, strict=True)) < 1e-5
    assert together.loss == pytest.approx(alone.loss, rel=1e-5)


def _kill_at(stop: int):
    def kill(step: int) -> None:
        if step == stop:
            raise Killed

    return kill


def _broken(batch):
    raise RuntimeError("a shape is wrong")
