"""The contract of every method (DESIGN: what right means), over the whole registry.

A new method or preset is tested here as soon as its file exists.
"""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

import peftlab as pl
from peftlab import methods
from peftlab.methods import sites
from peftlab.support import checks
from peftlab.training.batches import collate

NAMES = methods.presets() | methods.defaults()
METHODS = {  # each once, and by its shortest name
    method: min((name for name, same in NAMES.items() if same == method), key=len)
    for method in NAMES.values()
}


@pytest.fixture(params=METHODS, ids=METHODS.get)
def method(request: pytest.FixtureRequest) -> methods.Method:
    return request.param


@pytest.fixture
def model(encoder, toy_task, method):
    """A freshly built model."""
    return pl.model(encoder, toy_task, method, seed=1)


@pytest.fixture
def batch(encoder, toy_task, rows) -> dict[str, Any]:
    features = toy_task.encode(rows, encoder.tokenizer, 64)
    return collate(features, encoder.tokenizer.pad_token_id)


def shake(model: Any) -> Any:
    """Move every trained weight, as training would, so that no part is a zero by its start."""
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(5)
        for _, parameter in model.trainable_parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def hidden(backbone: Any, batch: dict[str, Any]) -> torch.Tensor:
    inputs = {k: v for k, v in batch.items() if k != "labels"}
    with torch.no_grad():
        return backbone(**inputs).last_hidden_state


def tree(module: torch.nn.Module) -> list[tuple[str, type]]:
    return [(name, type(child)) for name, child in module.named_modules()]


def snapshot(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def test_start(make_encoder, model_type, toy_task, method, batch):
    """Zero-init methods leave the output bitwise as it is; the others are only near it.

    What stands before the tokens is not even near: it takes its share of every softmax.
    """
    bare = hidden(make_encoder(model_type).backbone, batch)
    built = pl.model(make_encoder(model_type), toy_task, method)
    difference = (hidden(built.backbone, batch) - bare).abs().max()
    if method.starts_at_zero:
        assert difference == 0
    else:
        places = {kind for path, _ in sites.parts(built.backbone) for kind in path.split(".")}
        near = places.isdisjoint({"prefixes", "prompts", "words"})
        assert 0 < difference < (0.5 if near else math.inf)


def test_only_the_declared_train(model, method, batch):
    """As many numbers as declared get gradients and change; every other one stays as it is."""
    shake(model).train()
    before = snapshot(model)
    optimiser = torch.optim.AdamW(
        [p for _, p in model.trainable_parameters()], lr=1e-2, weight_decay=0.1
    )
    with_gradient: set[str] = set()
    torch.manual_seed(0)
    for _ in range(12 if method.partial else 1):
        optimiser.zero_grad(set_to_none=True)
        model(batch).loss.backward()
        with_gradient |= {name for name, p in model.named_parameters() if p.grad is not None}
        optimiser.step()
    sizes = {name: p.numel() for name, p in model.named_parameters()}
    changed = {n for n, t in model.state_dict().items() if not torch.equal(t, before[n])}
    assert changed == with_gradient
    declared = method.counts(model.encoder.anatomy).trainable
    assert sum(sizes[n] for n in changed if not n.startswith("head.")) == declared
    assert {n for n in changed if n.startswith("head.")} == {n for n in sizes if "head." in n}


def test_counts_are_the_closed_form(model, method):
    counts, summary = method.counts(model.encoder.anatomy), pl.summary(model)
    assert (summary.trainable, summary.stored, summary.inference) == (
        counts.trainable,
        counts.stored,
        counts.inference,
    )
    assert counts.stored == sum(t.numel() for t in model.method_state().values())


def test_flops_are_the_closed_form(make_encoder, model_type, toy_task, method):
    # written out, because torch does not count its fused attention on a CPU
    bare, other = (make_encoder(model_type, attention="eager") for _ in range(2))
    built = pl.model(other, toy_task, method)
    built.flatten()
    ids = torch.randint(5, 20, (2, 9))
    counted = []
    built.requires_grad_(False)  # the counter cannot take modules whose input is a parameter
    for backbone in (bare.backbone, built.backbone):
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            backbone(input_ids=ids)
        counted.append(counter.get_total_flops())
    assert counted[1] - counted[0] == 2 * method.flops(bare.anatomy, 9)


def test_removing_the_sites_restores_the_encoder(make_encoder, model_type, toy_task, method):
    bare = make_encoder(model_type).backbone
    built = pl.model(make_encoder(model_type), toy_task, method)
    sites.remove(built.encoder)
    assert tree(built.backbone) == tree(bare)


def test_one_seed_is_one_model(make_encoder, model_type, toy_task, method):
    torch.manual_seed(11)
    state = torch.get_rng_state()
    one = snapshot(pl.model(make_encoder(model_type), toy_task, method, seed=3))
    assert torch.equal(torch.get_rng_state(), state), "the caller's random state was changed"
    torch.manual_seed(12)
    two = snapshot(pl.model(make_encoder(model_type), toy_task, method, seed=3))
    other = snapshot(pl.model(make_encoder(model_type), toy_task, method, seed=4))
    assert one.keys() == two.keys()
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert any(not torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize(
    ("check", "attention"),
    [
        *((check, "sdpa") for check in checks.CHECKS),
        *((check, "eager") for check in checks.CHECKS if check != "compile"),  # it is slow
    ],
)
def test_support(make_encoder, model_type, toy_task, method, batch, check, attention):
    """Every check of the support matrix on both kernels, or a clear no where it is declared."""
    model = pl.model(make_encoder(model_type, attention=attention), toy_task, method)
    shake(model)
    checks.verify(model, batch, check)


@pytest.mark.parametrize("dtype", checks.MERGE_TOLERANCE, ids=str)
@pytest.mark.parametrize("method", [m for m in METHODS if m.mergeable], ids=METHODS.get)
def test_merge_and_back(make_encoder, model_type, toy_task, method, batch, dtype):
    bare = make_encoder(model_type)
    model = shake(pl.model(make_encoder(model_type), toy_task, method)).to(dtype)
    unmerged, unmerged_tree = snapshot(model), tree(model)
    checks.check_merge(model, batch)
    assert model.merged
    assert tree(model.backbone) == tree(bare.backbone)
    merged = snapshot(model)
    assert any(
        not torch.equal(merged[f"backbone.{name}"], tensor.to(dtype))
        for name, tensor in bare.backbone.state_dict().items()
    )
    model.merge()
    assert all(torch.equal(tensor, merged[name]) for name, tensor in model.state_dict().items())
    model.unmerge()
    assert not model.merged
    assert tree(model) == unmerged_tree
    assert all(torch.equal(tensor, unmerged[name]) for name, tensor in model.state_dict().items())


def test_settings_make_the_same_method(method):
    assert methods.get(method.settings()) == method


def test_full_fine_tuning_of_several_tasks_has_a_name_of_its_own():
    """Equal settings under two names: tables list both, and each test runs once."""
    assert methods.get("multitask") == methods.get("full") == pl.Full()
    assert {"full", "multitask"} <= methods.catalogue().keys()
    assert METHODS[pl.Full()] == "full"
