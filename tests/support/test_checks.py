"""The checks can say no, and a method is held to what it declares."""

from __future__ import annotations

import copy
import warnings
from typing import ClassVar

import pytest
import torch

import peftlab as pl
from peftlab.errors import DataError, SettingsError, UnknownNameError
from peftlab.methods.base import Part
from peftlab.methods.composition import Union
from peftlab.methods.sites import linear_site
from peftlab.support import checks
from peftlab.training.batches import collate, groups


class OverPadding(Part):
    """Adds the mean over all positions, padding included, and no tensor of its own."""

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return y + y.mean(1, keepdim=True)


class Breaking(Part):
    """Asks for a number in the middle of the forward pass: no single graph."""

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return y * 2 if float(y.detach().sum()) > 0 else y * 3


class Infinite(Part):
    """Gives gradients that are not finite where y is zero, which here is everywhere."""

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return y + (y - y).abs().sqrt()


class Drawing(Part):
    """Draws a tensor that nothing stores."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("noise", torch.randn(()), persistent=False)

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return y * self.noise


class Counting(Part):
    """Does something else each time it is called, so that recomputing is not the same."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        return y * self.calls


@pytest.fixture
def batch(make_encoder, toy_task, rows):
    return collate(toy_task.encode(rows, make_encoder().tokenizer, 64), 0)


def test_matrix(make_encoder, toy_task, batch):
    model = pl.model(make_encoder(), toy_task, pl.Adapter())
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    found = checks.support(model, batch)
    assert found.pop("merge").startswith("no: The method 'adapter' cannot be merged")
    assert set(found.values()) == {"yes"}
    assert all(torch.equal(t, before[name]) for name, t in model.state_dict().items())


@pytest.mark.parametrize(
    ("part", "check", "reason"),
    [
        (OverPadding, "padding", "differ"),
        (Breaking, "compile", "one whole graph"),
        (OverPadding, "merge", "cannot be folded"),
        (Infinite, "fp32", "not finite"),
        (Infinite, "bf16", "not finite"),
        (Drawing, "save", "differ"),
        (Drawing, "several", "differ"),
        (Counting, "checkpointing", "differ"),
    ],
)
def test_faults_are_found(make_encoder, toy_task, batch, part, check, reason):
    model = pl.model(make_encoder(), toy_task, pl.LoRA())
    site = linear_site(model.encoder.anatomy.layers[0].query)
    site.add(site.parts, "fault", part())
    found = checks.support(model, batch)[check]
    assert found.startswith("no: ")
    assert reason in found


#: Two rows of each kind of task, of different lengths.
KINDS = {
    "tagging": [
        {"tokens": ["the", "red", "dog", "sees"], "tags": ["O", "O", "B-X", "O"]},
        {"tokens": ["a", "cat"], "tags": ["O", "B-X"]},
    ],
    "regression": [
        {"text": "the film is good .", "label": 0.5},
        {"text": "a bad book", "label": 2.0},
    ],
    "choice": [
        {"premise": "the dog", "choice1": "is old", "choice2": "sees the cat .", "label": 0},
        {"premise": "a small town", "choice1": "is not new .", "choice2": "sings", "label": 1},
    ],
}


@pytest.fixture
def two(make_encoder, toy_task):
    """Return a function from a kind to a model of two tasks, and a batch of each by its name."""

    def make(kind):
        other = pl.task({"train": KINDS[kind], "dev": KINDS[kind]}, kind, name="other")
        model = pl.model(make_encoder(), [toy_task, other], pl.LoRA())
        features = model.task.encode(model.task.rows("train"), model.encoder.tokenizer, 64)
        batches = (collate([features[i] for i in rows], 0) for rows in groups(features))
        return model, {batch["task"]: batch for batch in batches}

    return make


@pytest.mark.parametrize("kind", KINDS)
def test_a_model_of_two_tasks(two, kind):
    model, batches = two(kind)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    for name in ("toy", "other"):
        assert checks.support(model, batches[name]) == dict.fromkeys(checks.CHECKS, "yes")
    assert all(torch.equal(t, before[name]) for name, t in model.state_dict().items())
    for check in checks.CHECKS:
        checks.verify(copy.deepcopy(model), batches["other"], check)


def test_of_two_heads_the_one_of_the_batch_is_checked(two):
    model, batches = two("tagging")
    torch.nn.init.constant_(model.head.of("other").out.weight, torch.nan)
    assert checks.support(model, batches["toy"]) == dict.fromkeys(checks.CHECKS, "yes")
    found = checks.support(model, batches["other"])
    assert {reason[:2] for reason in found.values()} == {"no"}
    unnamed = {key: value for key, value in batches["toy"].items() if key != "task"}
    for check in (checks.check_fp32, checks.check_padding, checks.check_several):
        with pytest.raises(DataError, match="does not say of which task it is"):
            check(model, unnamed)


def test_faults_are_found_under_several_heads(two):
    model, batches = two("choice")
    site = linear_site(model.encoder.anatomy.layers[0].query)
    site.add(site.parts, "fault", OverPadding())
    for batch in batches.values():
        found = checks.support(model, batch)
        assert "differ" in found["padding"]
        assert "cannot be folded" in found["merge"]


def test_checkpointing_is_checked_without_a_warning(make_encoder, model_type, toy_task, batch):
    model = pl.model(make_encoder(model_type), toy_task, pl.LoRA())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        checks.check_checkpointing(model, batch)
    assert all(layer.module.gradient_checkpointing for layer in model.encoder.anatomy.layers)


class Honest(pl.LoRA):
    """LoRA that says that padding and compiling are beyond it."""

    cannot: ClassVar = {"padding": "it looks at padding", "compile": "it asks for a number"}


def test_a_declared_no_must_be_true(make_encoder, toy_task, batch):
    model = pl.model(make_encoder(), toy_task, Honest())
    with pytest.raises(checks.Unsupported, match="declares that 'padding' cannot work"):
        checks.verify(model, batch, "padding")
    site = linear_site(model.encoder.anatomy.layers[0].query)
    site.add(site.parts, "over", OverPadding())
    site.add(site.parts, "breaking", Breaking())
    checks.verify(model, batch, "padding")
    checks.verify(model, batch, "compile")
    checks.verify(model, batch, "bf16")


def test_a_declared_no_needs_a_clear_error(make_encoder, toy_task, batch, monkeypatch):
    def crash(model, batch):
        raise ZeroDivisionError

    monkeypatch.setitem(checks.CHECKS, "padding", crash)
    with pytest.raises(ZeroDivisionError):
        checks.verify(pl.model(make_encoder(), toy_task, Honest()), batch, "padding")


def test_a_declared_no_may_change_no_weight(make_encoder, toy_task, batch, monkeypatch):
    def late(model, batch):
        with torch.no_grad():
            next(model.parameters()).add_(1)
        raise SettingsError("Too late.")

    monkeypatch.setitem(checks.CHECKS, "padding", late)
    with pytest.raises(checks.Unsupported, match="after weights were changed"):
        checks.verify(pl.model(make_encoder(), toy_task, Honest()), batch, "padding")


def test_what_is_not_declared_must_work(make_encoder, toy_task, batch):
    model = pl.model(make_encoder(), toy_task, pl.LoRA())
    site = linear_site(model.encoder.anatomy.layers[0].query)
    site.add(site.parts, "over", OverPadding())
    with pytest.raises(checks.Unsupported, match="differ"):
        checks.verify(model, batch, "padding")


def test_declared():
    assert set(checks.declared(pl.Adapter())) == {"merge"}
    assert checks.declared(pl.LoRA()) == {}
    assert set(checks.declared(pl.Full())) == {"merge", "several"}
    assert set(checks.declared(Union(pl.LoRA(), pl.Full()))) == {"merge", "several"}
    assert set(checks.declared(Honest())) == {"padding", "compile"}

    class Typo(pl.LoRA):
        cannot: ClassVar = {"padding2": "no such check"}

    with pytest.raises(UnknownNameError, match="did you mean 'padding'"):
        checks.declared(Typo())
