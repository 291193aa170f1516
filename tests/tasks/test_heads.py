"""Heads: shapes, initial weights, and that padding changes nothing."""

from __future__ import annotations

import pytest
import torch

from peftlab.errors import SettingsError, UnknownNameError
from peftlab.tasks.heads import HEADS, build, pool

D = 16


def example(kind: str, padding: int):
    """Two rows (of two choices) with some padding, and their hidden states."""
    generator = torch.Generator().manual_seed(0)
    rows = 4 if kind == "choice" else 2
    mask = torch.ones(rows, 5 + padding, dtype=torch.long)
    mask[:, 5:] = 0
    mask[0, 3:] = 0
    hidden = torch.randn(rows, 5, D, generator=generator)
    junk = 9 * torch.ones(rows, padding, D)
    labels = {
        "classification": torch.tensor([1, 2]),
        "regression": torch.tensor([0.5, 4.0]),
        "tagging": torch.tensor([[-100, 1, 0, -100, -100], [-100, 2, -100, 0, 1]]),
        "qa": torch.tensor([[1, 2], [0, 0]]),
        "choice": torch.tensor([1, 0]),
    }[kind]
    if kind == "tagging":
        labels = torch.nn.functional.pad(labels, (0, padding), value=-100)
    batch = {"attention_mask": mask, "labels": labels, "num_choices": 2}
    return torch.cat([hidden, junk], dim=1), batch


OUTPUTS = {"classification": 3, "regression": 1, "tagging": 3, "qa": 2, "choice": 1}
SHAPES = {
    "classification": (2, 3),
    "regression": (2,),
    "tagging": (2, 5, 3),
    "qa": (2, 5, 2),
    "choice": (2, 2),
}


@pytest.mark.parametrize("pooling", ["cls", "mean"])
@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("kind", HEADS)
def test_shapes_weights_and_padding(kind, layers, pooling):
    torch.manual_seed(1)
    head = HEADS[kind](D, OUTPUTS[kind], pooling=pooling, layers=layers).eval()
    assert (sum(p.numel() for p in head.parameters())) == (layers - 1) * (D * D + D) + (
        D * OUTPUTS[kind] + OUTPUTS[kind]
    )
    assert head.out.bias.eq(0).all()
    assert head.out.weight.std() < 0.05
    hidden, batch = example(kind, padding=0)
    padded, longer = example(kind, padding=4)
    logits, other = head(hidden, batch), head(padded, longer)
    assert logits.shape == SHAPES[kind]
    if kind in ("tagging", "qa"):
        other = other[:, :5]
    torch.testing.assert_close(logits, other, atol=1e-6, rtol=0)
    torch.testing.assert_close(
        head.loss(logits, batch), head.loss(head(padded, longer), longer), atol=1e-6, rtol=0
    )


@pytest.mark.parametrize("kind", HEADS)
def test_a_head_is_rebuilt_from_its_settings(kind):
    head = HEADS[kind](D, OUTPUTS[kind], pooling="mean", layers=2)
    again = build(head.settings)
    again.load_state_dict(head.state_dict())
    assert again.settings == head.settings
    hidden, batch = example(kind, 0)
    assert torch.equal(head.eval()(hidden, batch), again.eval()(hidden, batch))


def test_mean_pooling_is_the_mean_of_the_real_tokens():
    hidden = torch.tensor([[[1.0], [3.0], [100.0]]])
    assert pool(hidden, torch.tensor([[1, 1, 0]]), "mean").item() == 2
    assert pool(hidden, torch.tensor([[1, 1, 0]]), "cls").item() == 1


def test_losses_against_the_formulas():
    hidden, batch = example("qa", 2)
    head = HEADS["qa"](D, 2).eval()
    logits = head(hidden, batch)
    expected = []
    for row, length in enumerate((3, 5)):
        for side in (0, 1):
            p = logits[row, :length, side].log_softmax(0)
            expected.append(-p[batch["labels"][row, side]])
    torch.testing.assert_close(head.loss(logits, batch), torch.stack(expected).mean())
    tags = HEADS["tagging"](D, 3)
    unlabelled = torch.full((1, 4), -100)
    assert tags.loss(torch.randn(1, 4, 3), {"labels": unlabelled}).item() == 0


def test_dropout_works_in_training_only():
    head = HEADS["classification"](D, 3, dropout=0.5)
    hidden, batch = example("classification", 0)
    assert not torch.equal(head.train()(hidden, batch), head(hidden, batch))
    assert torch.equal(head.eval()(hidden, batch), head(hidden, batch))


def test_bad_settings():
    with pytest.raises(SettingsError, match="pooling is 'max': choose one of cls, mean"):
        HEADS["classification"](D, 2, pooling="max")
    with pytest.raises(SettingsError, match="head_layers is 3"):
        HEADS["classification"](D, 2, layers=3)
    with pytest.raises(UnknownNameError, match="no kind of head 'tags': did you mean"):
        build({"kind": "tags"})
