"""Masked language modelling: what is hidden, what it scores, its head, and that it trains."""

from __future__ import annotations

import math
import random
from typing import Any

import numpy as np
import pytest
import torch

import peftlab as pl
from peftlab.encoders import language_model_head, load_encoder
from peftlab.errors import DataError, SettingsError
from peftlab.tasks.decoder import LanguageModelHead
from peftlab.tasks.heads import IGNORED
from peftlab.training import TrainSettings, fit
from peftlab.training.batches import collate, varied

from ..conftest import WORDS, tiny_config, tiny_tokenizer

DRAW = random.Random(3)
TEXTS = [" ".join(DRAW.choices(WORDS[:-1], k=DRAW.randint(3, 40))) for _ in range(36)]
SETTINGS = TrainSettings(
    learning_rate=3e-3,
    epochs=3,
    batch_size=8,
    max_length=24,
    precision="fp32",
    checkpoint_seconds=0,
)


def language(texts: list[str] = TEXTS, **options: Any) -> Any:
    rows = [{"text": text} for text in texts]
    splits = {"train": rows, "dev": rows[:12], "test": rows[12:24]}
    return pl.task(splits, kind="language-model", **({"name": "text"} | options))


def encoded(task: Any, model_type: str, max_length: int = 24) -> list[dict[str, Any]]:
    return task.encode(task.rows("train"), tiny_tokenizer(model_type), max_length)


# --- what is hidden -------------------------------------------------------------------------------


@pytest.mark.parametrize("packed", [False, True])
def test_nothing_is_lost_and_only_pieces_are_hidden(model_type, packed):
    tokenizer = tiny_tokenizer(model_type)
    features = encoded(language(packed=packed), model_type)
    special = set(tokenizer.all_special_ids)
    seen: dict[int, list[int]] = {}
    for feature in features:
        ids, original, labels = (feature[k] for k in ("input_ids", "original", "labels"))
        assert len(ids) == len(original) == len(labels) <= 24
        assert [original[0], original[-1]] == [tokenizer.cls_token_id, tokenizer.sep_token_id]
        assert ("token_type_ids" in feature) == (model_type == "bert")
        for shown, piece, label in zip(ids, original, labels, strict=True):
            assert label in (IGNORED, piece)
            assert shown == piece or label == piece
            assert label not in special
        for piece, owner in zip(original[1:-1], feature["owners"], strict=True):
            if not (packed and piece == tokenizer.sep_token_id):
                seen.setdefault(owner, []).append(piece)
    plain = tokenizer(TEXTS, add_special_tokens=False)["input_ids"]
    assert [seen[i] for i in range(len(TEXTS))] == plain
    if packed:
        assert all(len(feature["input_ids"]) == 24 for feature in features[:-1])


def test_the_shares_are_those_of_bert():
    texts = [" ".join(DRAW.choices(WORDS[:-1], k=60)) for _ in range(500)]
    features = encoded(language(texts), "bert", 64)
    ids, original, labels = (
        np.concatenate([f[key] for f in features]) for key in ("input_ids", "original", "labels")
    )
    hidden = labels != IGNORED
    assert 0.14 < hidden.sum() / (60 * 500) < 0.16
    masked = (ids == tiny_tokenizer("bert").mask_token_id)[hidden].mean()
    same = (ids == original)[hidden].mean()
    words = len(WORDS)
    assert masked == pytest.approx(0.8, abs=0.02)
    assert same == pytest.approx(0.1 + 0.1 / words, abs=0.015)


def test_short_texts_are_not_hidden_more_in_training():
    feature = encoded(language([" ".join(WORDS[:5])] * 3), "bert")[0]
    labels = [varied(feature, 0, step, 0)["labels"] for step in range(2000)]
    pieces = len(feature["original"]) - 2
    hidden = sum(label != IGNORED for each in labels for label in each)
    assert hidden / (2000 * pieces) == pytest.approx(0.15, abs=0.015)


def test_a_scored_model_sees_the_same_every_time(model_type):
    task = language()
    short, again, long = (encoded(task, model_type, n) for n in (24, 24, 64))

    def hidden(features: Any) -> list[list[int]]:
        rows: dict[int, list[int]] = {}
        for feature in features:
            rows.setdefault(feature["row"], []).extend(feature["labels"][1:-1])
        return list(rows.values())

    assert [f["input_ids"] for f in short] == [f["input_ids"] for f in again]
    assert hidden(short) == hidden(long), "how texts are cut does not change what is hidden"
    assert all(any(label != IGNORED for label in row) for row in hidden(short))


def test_training_hides_something_else_in_every_step():
    feature = encoded(language(), "bert")[0]
    before = dict(feature)
    one, same, step, row, seed = (
        varied(feature, *key) for key in ((0, 1, 2), (0, 1, 2), (0, 2, 2), (0, 1, 3), (1, 1, 2))
    )
    assert one == same
    assert "targets" not in one
    for other in (step, row, seed):
        assert other["labels"] != one["labels"]
        assert other["original"] == one["original"]
    assert feature == before
    assert any(label != IGNORED for label in one["labels"])


# --- scores ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("packed", [False, True])
def test_scores_equal_the_definition(make_encoder, model_type, packed):
    metrics = ("log_likelihood", "accuracy", "loss", "perplexity")
    task = language(packed=packed, metrics=metrics)
    model = pl.model(make_encoder(model_type), task, "lora-8")
    found = pl.evaluate(model, task, "train", max_length=24, precision="fp32")
    likelihoods: list[float] = []
    right: dict[int, list[bool]] = {i: [] for i in range(len(TEXTS))}
    for feature in encoded(task, model_type):
        batch = collate([feature], model.encoder.tokenizer.pad_token_id)
        inputs = {k: v for k, v in batch.items() if k not in ("labels", "targets")}
        with torch.no_grad():
            logits = model(inputs).logits[0]
        for at, label in enumerate(feature["labels"]):
            if label != IGNORED:
                likelihoods.append(float(logits[at].log_softmax(-1)[label]))
                right[feature["owners"][at - 1]].append(int(logits[at].argmax()) == label)
    loss = -sum(likelihoods) / len(likelihoods)
    assert found.metrics["loss"] == pytest.approx(loss, rel=1e-5)
    assert found.metrics["log_likelihood"] == -found.metrics["loss"]
    assert found.metrics["perplexity"] == pytest.approx(math.exp(loss), rel=1e-5)
    every = [hit for row in right.values() for hit in row]
    assert found.metrics["accuracy"] == pytest.approx(sum(every) / len(every))
    assert found.example_scores == pytest.approx([sum(row) / len(row) for row in right.values()])
    assert task.main_metric == "log_likelihood"


def test_the_loss_is_that_of_all_logits(make_encoder, model_type):
    task = language()
    model = pl.model(make_encoder(model_type), task, "lora-8")
    batch = collate(encoded(task, model_type)[:6], model.encoder.tokenizer.pad_token_id)
    with torch.no_grad():
        loss = model(batch).loss
        whole = model({k: v for k, v in batch.items() if k not in ("labels", "targets")}).logits
    wanted = torch.nn.functional.cross_entropy(whole.flatten(0, 1), batch["labels"].flatten())
    assert torch.allclose(loss, wanted, atol=1e-5)


def test_pieces_are_compared_in_full_precision_under_autocast(make_encoder, model_type):
    # rounded logits are often equal, and who ties with the best counts as right
    model = pl.model(make_encoder(model_type), language(), "lora-8").eval()
    hidden = torch.randn(2, 5, model.encoder.anatomy.hidden_size)
    batch = {"targets": torch.full((2, 5), 7)}
    with torch.no_grad():
        full = model.head(hidden, batch)
        with torch.autocast("cpu", torch.bfloat16):
            short = model.head(hidden, batch)
    assert torch.equal(full, short)


# --- the head -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pretrained_folder(tmp_path_factory):
    """Return a function from a model type to an encoder that was saved with its head."""
    from transformers import AutoModelForMaskedLM

    made: dict[str, Any] = {}

    def folder(model_type: str) -> Any:
        if model_type not in made:
            made[model_type] = tmp_path_factory.mktemp(f"masked-{model_type}")
            torch.manual_seed(1)
            model = AutoModelForMaskedLM.from_config(tiny_config(model_type))
            with torch.no_grad():
                for parameter in model.parameters():
                    parameter.add_(0.1 * torch.randn_like(parameter))
            model.save_pretrained(made[model_type])
            tiny_tokenizer(model_type).save_pretrained(made[model_type])
        return made[model_type]

    return folder


def test_a_pretrained_head_is_taken_over(pretrained_folder, model_type):
    from transformers import AutoModelForMaskedLM

    folder = pretrained_folder(model_type)
    task = language()
    model = pl.model(str(folder), task, pl.Adapter(init="zero"))
    theirs = AutoModelForMaskedLM.from_pretrained(folder).eval()
    batch = collate(encoded(task, model_type)[:6], model.encoder.tokenizer.pad_token_id)
    inputs = {k: v for k, v in batch.items() if k not in ("labels", "targets")}
    with torch.no_grad():
        difference = model(inputs).logits - theirs(**inputs).logits
    assert difference.abs().max() <= 1e-5
    assert not any(p.requires_grad for p in model.head.parameters())
    assert all(name.startswith("backbone.") for name, _ in model.trainable_parameters())
    trained = pl.model(str(folder), language(train_head=True), "lora-8")
    assert all(p.requires_grad for p in trained.head.parameters())


def test_something_must_train(pretrained_folder):
    model = pl.model(str(pretrained_folder("bert")), language(), "head-only")
    with pytest.raises(SettingsError, match="Nothing of the model trains"):
        fit(model, language(), SETTINGS)


def test_a_fresh_head(make_encoder, pretrained_folder, model_type):
    task = language()
    model = pl.model(make_encoder(model_type), task, "lora-8")
    head: Any = model.head
    words = model.backbone.get_parameter("embeddings.word_embeddings.weight")
    v, d = words.shape
    assert set(head.state_dict()) == {
        *("bias", "dense.weight", "dense.bias", "norm.weight", "norm.bias")
    }
    assert pl.summary(model).head == d * d + d + 2 * d + v
    assert all(p.requires_grad for p in head.parameters())
    assert not any(
        p.requires_grad
        for p in pl.model(
            make_encoder(model_type), language(train_head=False), "lora-8"
        ).head.parameters()
    )
    with torch.no_grad():
        logits = head.logits(torch.randn(50, d))
    assert 0.3 < logits.std() < 3
    assert language_model_head(model.encoder) is None
    drawn = load_encoder(str(pretrained_folder(model_type)), random_weights=True)
    assert language_model_head(drawn) is None


def test_words_of_its_own_are_no_head_to_take_over(pretrained_folder, tmp_path):
    from transformers import AutoModelForMaskedLM

    theirs = AutoModelForMaskedLM.from_pretrained(pretrained_folder("bert"))
    theirs.config.tie_word_embeddings = False
    theirs.save_pretrained(tmp_path)
    tiny_tokenizer("bert").save_pretrained(tmp_path)
    assert language_model_head(load_encoder(str(tmp_path))) is None


def test_the_words_train_only_with_the_encoder(make_encoder, model_type):
    task = language()
    for method, trains in (("lora-8", False), ("full", True)):
        model = pl.model(make_encoder(model_type), task, method)
        words = model.backbone.get_parameter("embeddings.word_embeddings.weight")
        batch = collate(encoded(task, model_type)[:6], model.encoder.tokenizer.pad_token_id)
        model(batch).loss.backward()
        assert (words.grad is not None) == trains
        if trains:  # pieces that are in no text get gradients too: every logit has one
            absent = sorted(set(range(len(words))) - set(batch["input_ids"].flatten().tolist()))
            assert words.grad[absent].abs().sum() > 0
        assert sum(p is words for _, p in model.trainable_parameters()) == trains


def test_a_checkpoint_has_the_head_but_not_the_words(make_encoder, model_type, tmp_path):
    task = language()
    model = pl.model(make_encoder(model_type), task, "lora-8")
    fit(model, task, SETTINGS)
    loaded = pl.load(model.save(tmp_path), encoder=make_encoder(model_type), task=task)
    scores = [pl.evaluate(m, task, max_length=24, precision="fp32") for m in (model, loaded)]
    assert scores[0] == scores[1]
    stored = model.save(tmp_path).joinpath("model.safetensors").stat().st_size
    counts = pl.summary(model)
    assert stored < 4 * (counts.stored + counts.head) + 20_000


def test_a_head_without_an_encoder_says_what_to_do():
    with pytest.raises(SettingsError, match="call bind"):
        LanguageModelHead(8).logits(torch.zeros(2, 8))


# --- training -------------------------------------------------------------------------------------


class Killed(BaseException):
    """Stands for a SIGKILL."""


@pytest.mark.parametrize("packed", [False, True])
def test_a_killed_run_goes_on_exactly(make_encoder, tmp_path, packed):
    task = language(packed=packed)

    def make() -> Any:
        return pl.model(make_encoder("bert"), task, "madx-language")

    whole = fit(make(), task, SETTINGS)

    def kill(step: int) -> None:
        if step == 7:
            raise Killed

    with pytest.raises(Killed):
        fit(make(), task, SETTINGS, folder=tmp_path, key="a", on_step=kill)
    torch.manual_seed(99)  # a new process starts with another random state
    resumed = fit(make(), task, SETTINGS, folder=tmp_path, key="a")
    assert resumed.losses == whole.losses
    assert resumed.evaluations == whole.evaluations
    assert (
        whole.losses != fit(make(), task, TrainSettings(**SETTINGS.as_dict() | {"seed": 1})).losses
    )


def test_accumulation_changes_no_loss(make_encoder):
    task = language()

    def losses(accumulation: int) -> list[float]:
        model = pl.model(make_encoder("bert"), task, "lora-8")
        for module in model.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
            if hasattr(module, "dropout_prob"):
                module.dropout_prob = 0.0
        settings = SETTINGS.as_dict() | {"accumulation": accumulation, "epochs": 1}
        return fit(model, task, TrainSettings(**settings)).losses

    assert losses(1) == pytest.approx(losses(4), rel=1e-4)


def test_it_learns_beside_another_task_and_on_another_text(make_encoder, toy_task):
    text = language(["the old dog sees the small cat and walks ."] * 30)
    model = pl.model(make_encoder("roberta"), [text, toy_task], "lora-8")
    record = pl.train(model, settings=SETTINGS, epochs=6, transfer=[])
    assert record.metrics["text"]["accuracy"] > 0.6
    assert set(record.metrics["test"]) == {
        "mean",
        *(f"text {name}" for name in text.metrics),
        *(f"toy {name}" for name in toy_task.metrics),
    }
    other = pl.evaluate(model, language(["not a fine town"], name="text"), "train", max_length=24)
    assert other.metrics["loss"] > record.metrics["text"]["loss"]


# --- what cannot be -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mask_rate": 0}, "mask_rate is 0: give a share"),
        ({"mask_rate": 1.5}, "mask_rate is 1.5: give a share"),
        ({"metrics": ("loss",)}, "put accuracy or log_likelihood before it"),
        ({"head_layers": 2}, "leave it out"),
    ],
)
def test_bad_settings(options, message):
    with pytest.raises(SettingsError, match=message):
        language(**options)


def test_an_empty_text_is_named():
    with pytest.raises(DataError, match="Row 2 of the split 'train': the field 'text' is empty"):
        language(["a dog", " "]).rows("train")


def test_a_tokenizer_without_a_mask(roberta):
    with pytest.raises(SettingsError, match="no mask token"):
        language().encode(language().rows("dev"), roberta, 24)


def test_a_text_without_a_known_piece(bert):
    task = language(["7 8", "9"])
    features = task.encode(task.rows("train"), tiny_tokenizer("bert"), 24)
    logits = [np.zeros((len(f["input_ids"]), 2)) for f in features]
    with pytest.raises(DataError, match="No piece of 'text' can be hidden"):
        task.evaluate(task.rows("train"), features, logits)
