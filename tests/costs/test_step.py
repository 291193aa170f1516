"""A step as something to be timed: many models on one backbone, and what a step does."""

from __future__ import annotations

import re

import pytest
import torch

import peftlab as pl
from peftlab import methods
from peftlab.costs import Pass, build, random_batch
from peftlab.timing.marks import Marks


@pytest.fixture
def encoder(make_encoder):
    return make_encoder("bert")


def tensors(encoder):
    return {name: p.clone() for name, p in encoder.backbone.named_parameters()}


@pytest.mark.parametrize("name", ["full", "bitfit", "layernorm", "lora-8", "unipelt", "prompt-10"])
def test_models_share_what_is_frozen_and_own_what_trains(encoder, name):
    before = tensors(encoder)
    shared = {id(p) for p in encoder.backbone.parameters()}
    model = build(encoder, name)
    assert not any(p.requires_grad for p in encoder.backbone.parameters())
    trained = {id(p) for _, p in model.trainable_parameters()}
    assert not trained & shared
    kept = shared & {id(p) for p in model.backbone.parameters()}
    copied = sum(p.requires_grad for n, p in model.backbone.named_parameters() if n in before)
    assert len(kept) == len(before) - copied
    expected = method_counts(model)
    assert pl.summary(model).trainable == expected
    Pass(model, random_batch(encoder, 2, 8))()
    assert all(torch.equal(p, before[n]) for n, p in encoder.backbone.named_parameters())


def method_counts(model):
    return model.method.counts(model.encoder.anatomy).trainable


def test_models_on_one_backbone_do_not_disturb_each_other(encoder):
    batch = random_batch(encoder, 2, 8)
    alone = Pass(build(encoder, "pfeiffer-16"), batch).infer()
    first, second = build(encoder, "pfeiffer-16"), build(encoder, "full")
    assert torch.equal(Pass(first, batch).infer(), alone)
    with torch.no_grad():
        for _, parameter in second.trainable_parameters():
            parameter.add_(1)
    assert torch.equal(Pass(first, batch).infer(), alone)
    assert not torch.equal(Pass(second, batch).infer(), alone)


def test_a_batch_has_no_padding_and_comes_from_its_seed(encoder):
    one, same, other = (random_batch(encoder, 3, 7, seed) for seed in (0, 0, 1))
    assert one["input_ids"].shape == (3, 7)
    assert one["attention_mask"].all()
    assert torch.equal(one["input_ids"], same["input_ids"])
    assert not torch.equal(one["input_ids"], other["input_ids"])
    assert one["input_ids"].max() < encoder.anatomy.vocab_size


def test_a_step_makes_optimiser_state_and_moves_next_to_nothing(encoder):
    run = Pass(build(encoder, "lora-8"), random_batch(encoder, 2, 8))
    before = [p.clone() for p in run.trained]
    run()
    assert len(run.optimiser.state) == len(run.trained)
    assert all(p.grad is None for p in run.trained)
    for parameter, old in zip(run.trained, before, strict=True):
        assert (parameter - old).abs().max() < 1e-9


def test_a_step_to_be_compared_leaves_its_gradients(encoder):
    run = Pass(build(encoder, "lora-8"), random_batch(encoder, 2, 8))
    with run.without_dropout():
        first, gradients = run.step(), [p.grad.clone() for p in run.trained]
        assert run.step() == first
    for parameter, gradient in zip(run.trained, gradients, strict=True):
        assert torch.allclose(parameter.grad, gradient, atol=1e-6)
    assert not first.requires_grad
    assert run.forward() != first  # dropout is on again


def test_the_phases_of_a_step_add_up(encoder):
    run = Pass(build(encoder, "full"), random_batch(encoder, 2, 8))
    run.marks = Marks(torch.device("cpu"))
    for _ in range(3):
        run()
    seconds = run.marks.seconds()
    assert list(seconds) == ["forward", "backward", "optimiser"]
    assert all(len(values) == 3 and min(values) > 0 for values in seconds.values())
    moments = [when for _, when in run.marks._moments]
    within = sum(map(sum, seconds.values()))
    between = sum(moments[i + 4] - moments[i + 3] for i in (0, 4))
    assert within + between == pytest.approx(moments[-1] - moments[0])


@pytest.mark.parametrize(
    ("name", "lowest"),
    [
        ("lora-8", r"encoder\.layer\.0\.attention\.self\.(query|value)"),
        ("full", r"embeddings\.LayerNorm"),
        ("adapterdrop", r"encoder\.layer\.1\."),
    ],
)
def test_the_activation_gradient_ends_at_the_lowest_trained_tensor(encoder, name, lowest):
    run = Pass(build(encoder, name), random_batch(encoder, 2, 8))
    run.activation()
    names = {id(p): n for n, p in run.model.backbone.named_parameters()}
    assert re.match(lowest, names[id(run._lowest)])
    assert all(p.grad is None for p in run.trained)


def test_fusion_s_penalty_is_part_of_the_step(encoder):
    run = Pass(build(encoder, "adapterfusion"), random_batch(encoder, 2, 8))
    with torch.no_grad():
        for name, parameter in run.model.trainable_parameters():
            if "value" in name:
                parameter.add_(1)
    torch.manual_seed(0)
    whole = run.forward()
    torch.manual_seed(0)
    assert whole > run.model(run.batch).loss + 1e-3


def test_every_preset_makes_a_step(encoder):
    batch = random_batch(encoder, 2, 8)
    for name in methods.presets():
        Pass(build(encoder, name), batch)()
