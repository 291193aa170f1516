"""AdapterDrop: which layers have adapters in a step, and what runs backward below them."""

from __future__ import annotations

import warnings
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
import torch

import peftlab as pl
from peftlab.errors import CheckpointError, SettingsError
from peftlab.methods import sites
from peftlab.methods.adapterdrop import Dropping
from peftlab.training.batches import collate
from peftlab.training.loop import optimiser_for
from tests.methods.parity import (
    assert_equal,
    check_adapters_reads,
    loaded_by_adapters,
    own_states,
    trained,
)

PLACEMENTS = [pl.Adapter(), pl.Adapter(placement="houlsby"), pl.Adapter(placement="bapna")]


@pytest.fixture
def batch(make_encoder, toy_task, rows) -> dict[str, Any]:
    tokenizer: Any = make_encoder().tokenizer
    return collate(toy_task.encode(rows, tokenizer, 64), tokenizer.pad_token_id)


@pytest.fixture
def robust(make_encoder, toy_task) -> Any:
    """Return a function that builds a model whose adapters have left their start."""

    def make(adapter: pl.Adapter = PLACEMENTS[0], model_type: str = "bert", **settings: Any) -> Any:
        method = pl.RobustAdapterDrop(adapter, **settings)
        return trained(make_encoder, model_type, toy_task, method)

    return make


def drop(model: Any, n: int) -> None:
    """Let the next training steps drop n layers."""
    (hook,) = model.backbone._forward_pre_hooks.values()
    hook.__self__.most = n
    torch.manual_seed(next(s for s in range(999) if drawn(s, n + 1) == n))


def drawn(seed: int, below: int) -> int:
    return int(torch.randint(below, (), generator=torch.Generator().manual_seed(seed)))


def layer_of(name: str) -> int:
    return int(name.split("encoder.layer.")[1].split(".")[0])


def met(model: Any) -> Counter[int]:
    """Count, by layer, the adapters that a forward pass meets from now on."""
    found: Counter[int] = Counter()
    for path, part in sites.parts(model.backbone):
        here = [layer_of(path)]
        part.register_forward_hook(lambda *_, here=here: found.update(here))
    return found


# Fixed


@pytest.mark.parametrize(
    ("name", "dropped", "layers"),
    [
        ("bert-base-uncased", None, 7),
        ("bert-large-uncased", None, 14),
        ("bert-base-uncased", 11, 1),
        ("bert-base-uncased", 0, 12),
    ],
)
def test_how_many_layers_keep_adapters(meta_encoder, name, dropped, layers):
    encoder = meta_encoder(name)
    method = pl.AdapterDrop(dropped=dropped)
    encoder.backbone.requires_grad_(False)
    method.attach(encoder)
    trains = {layer_of(n) for n, p in encoder.backbone.named_parameters() if p.requires_grad}
    depth = len(encoder.anatomy.layers)
    assert trains == set(range(depth - layers, depth))
    a_layer = pl.Adapter().counts(encoder.anatomy).trainable // depth
    assert method.counts(encoder.anatomy).trainable == layers * a_layer


@pytest.mark.parametrize("adapter", PLACEMENTS, ids=str)
def test_fixed_is_the_adapter_with_layers_left_out(make_encoder, toy_task, inputs, adapter):
    model = pl.model(make_encoder(), toy_task, pl.AdapterDrop(adapter, dropped=2))
    same = replace(adapter, leave_out=(0, 1))
    other = pl.model(make_encoder(), toy_task, same)
    assert torch.equal(own_states(model, inputs), own_states(other, inputs))


# What runs backward


def backward_layers(model: Any, batch: dict[str, Any]) -> tuple[set[int], set[int]]:
    """Run a training step; return the layers with a graph, and those that a gradient reached."""
    with_graph, reached = set(), set()
    for i, layer in enumerate(model.backbone.encoder.layer):

        def note(_: Any, args: Any, out: Any, i: int = i) -> None:
            states = out[0] if isinstance(out, tuple) else out
            if states.grad_fn is not None:
                with_graph.add(i)

        layer.register_forward_hook(note)
        layer.register_full_backward_pre_hook(lambda *_, i=i: reached.add(i))
    model.train()
    with warnings.catch_warnings():  # where nothing below needs a gradient, torch says so
        warnings.simplefilter("ignore", UserWarning)
        model(batch).loss.backward()
    return with_graph, reached


@pytest.mark.parametrize("adapter", PLACEMENTS, ids=str)
@pytest.mark.parametrize("n", [0, 1, 2])
def test_nothing_runs_backward_below_the_lowest_adapter(
    make_encoder, toy_task, batch, robust, adapter, n
):
    upper = set(range(n, 3))
    fixed = pl.model(make_encoder(), toy_task, pl.AdapterDrop(adapter, dropped=n))
    assert backward_layers(fixed, batch) == (upper, upper)
    model = robust(adapter)
    drop(model, n)
    assert backward_layers(model, batch) == (upper, upper)
    for name, parameter in model.backbone.named_parameters():
        if parameter.requires_grad:
            assert (parameter.grad is not None) == (layer_of(name) >= n)


def test_a_step_that_passes_adapters_by_leaves_them_alone(robust, batch):
    """Neither weight decay nor momentum of AdamW moves what got no gradient."""
    model = robust().train()
    optimiser = optimiser_for(model, pl.TrainSettings(learning_rate=1e-2, weight_decay=0.1))

    def step(n: int) -> set[int]:
        """Do a training step that drops n layers; return the layers whose adapters moved."""
        before = {name: p.clone() for name, p in model.backbone.named_parameters()}
        drop(model, n)
        model(batch).loss.backward()
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        now = dict(model.backbone.named_parameters())
        return {layer_of(name) for name in before if not torch.equal(before[name], now[name])}

    assert [step(n) for n in (0, 2, 1, 0)] == [{0, 1, 2}, {2}, {1, 2}, {0, 1, 2}]
    steps: dict[int, set[float]] = {0: set(), 1: set(), 2: set()}
    for name, parameter in model.backbone.named_parameters():
        if parameter.requires_grad:
            steps[layer_of(name)].add(float(optimiser.state[parameter]["step"]))
    assert steps == {0: {2}, 1: {3}, 2: {4}}


# The draw


@pytest.mark.parametrize(("draw", "possible"), [("released", 11), ("paper", 12)])
def test_every_number_is_as_likely(draw, possible, meta_encoder):
    """Twelve layers: 0 … 10 as in the released code, 0 … 11 as in the paper."""
    encoder = meta_encoder("bert-base-uncased")
    pl.RobustAdapterDrop(draw=draw).attach(encoder)
    (hook,) = encoder.backbone._forward_pre_hooks.values()
    dropping: Dropping = hook.__self__
    encoder.backbone.train()
    torch.manual_seed(0)
    found = Counter()
    for _ in range(100 * possible):
        dropping.decide(encoder.backbone, (), {})
        active = [all(part.active for part in parts) for parts in dropping.layers]
        assert active == sorted(active)  # the lowest ones are off
        found[active.count(False)] += 1
    assert set(found) == set(range(possible))
    chi_square = sum((n - 100) ** 2 / 100 for n in found.values())
    assert chi_square < 30  # 0.1 % of fair draws are above


def test_one_draw_is_for_all_layers_and_places(robust, batch):
    model = robust(pl.Adapter(placement="houlsby"), draw="paper").train()
    found = met(model)
    passes = set()
    for seed in range(20):
        torch.manual_seed(seed)
        found.clear()
        model(batch)
        n = drawn(seed, 3)
        assert found == dict.fromkeys(range(n, 3), 2)
        passes.add(n)
    assert passes == {0, 1, 2}


def test_the_draw_repeats_with_the_seed(robust, batch):
    model = robust(draw="paper").train()
    losses = []
    for _ in range(2):
        torch.manual_seed(3)
        losses.append([model(batch).loss.item() for _ in range(6)])
    assert losses[0] == losses[1]
    assert len(set(losses[0])) > 1


@pytest.mark.parametrize("n", [0, 1, 2])
def test_gradient_checkpointing_meets_the_same_adapters(robust, batch, n):
    model = robust(pl.Adapter(placement="houlsby")).train()
    model.backbone.config.use_cache = False
    enable = getattr(model.backbone, "activation_checkpointing_enable", None)
    enable = enable or model.backbone.gradient_checkpointing_enable
    found, gradients = met(model), []
    for _ in range(2):
        found.clear()
        drop(model, n)
        model(batch).loss.backward()
        gradients.append({name: p.grad for name, p in model.trainable_parameters()})
        model.zero_grad(set_to_none=True)
        enable({"use_reentrant": False})
    assert found == dict.fromkeys(range(n, 3), 4)  # two places, each computed twice
    for name, gradient in gradients[0].items():
        assert (gradient is None) == (gradients[1][name] is None)
        assert gradient is None or (gradient - gradients[1][name]).abs().max() <= 1e-6


# Evaluation


@pytest.mark.parametrize("n", [0, 1, 2])
def test_evaluation_drops_what_was_asked(robust, make_encoder, toy_task, batch, inputs, n):
    model = robust(dropped=n)
    drop(model, 2)
    model.train()(batch)  # the draw of a training step does not stay
    model.eval()
    fixed = pl.model(make_encoder(), toy_task, pl.AdapterDrop(dropped=n))
    state = model.method_state()
    with torch.no_grad():
        for name, tensor in fixed.method_state().items():
            tensor.copy_(state[name])
    assert torch.equal(own_states(model, inputs), own_states(fixed, inputs))


def test_what_chance_has_trained_is_stored_as_plain_adapters(
    robust, make_encoder, toy_task, inputs, tmp_path
):
    model = robust()
    loaded = pl.load(model.save(tmp_path), encoder=make_encoder(), task=toy_task)
    assert loaded.method == pl.Adapter()
    assert torch.equal(own_states(loaded, inputs), own_states(model, inputs))
    kept = robust(dropped=1)
    loaded = pl.load(kept.save(tmp_path), encoder=make_encoder(), task=toy_task)
    assert loaded.method == kept.method
    assert torch.equal(own_states(loaded, inputs), own_states(kept, inputs))


def test_flat_it_is_plain_adapters_in_training_too(robust, batch):
    model = robust()
    model.train()
    torch.manual_seed(0)
    for _ in range(6):
        model(batch)  # the last draw may leave adapters passed by
    model.flatten()
    for _ in range(6):
        model.zero_grad(set_to_none=True)
        model(batch).loss.backward()
        assert all(p.grad is not None for _, p in model.trainable_parameters())


def test_training_learns(robust, toy_task):
    model = robust()
    before = {name: tensor.clone() for name, tensor in model.method_state().items()}
    settings = {"learning_rate": 1e-3, "epochs": 5, "batch_size": 2, "max_length": 64}
    record = pl.train(model, **settings, show_progress=False)
    moved = {layer_of(n) for n, t in model.method_state().items() if not torch.equal(t, before[n])}
    assert moved == {0, 1, 2}
    assert record.parameters.trainable == sum(t.numel() for t in before.values())


# Settings


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: pl.AdapterDrop(dropped=-1), "dropped is -1"),
        (lambda: pl.AdapterDrop(dropped=0.5), "dropped is 0.5"),
        (lambda: pl.RobustAdapterDrop(dropped=-1), "dropped is -1"),
        (lambda: pl.RobustAdapterDrop(draw="mine"), "'released', 'paper'"),
        (lambda: pl.AdapterDrop(pl.LoRA()), "give Adapter"),
        (lambda: pl.RobustAdapterDrop(pl.LoRA()), "give Adapter"),
    ],
)
def test_settings_that_cannot_work(make, words):
    with pytest.raises(SettingsError, match=words):
        make()


@pytest.mark.parametrize(
    "method",
    [
        pl.AdapterDrop(dropped=3),
        pl.RobustAdapterDrop(dropped=3),
        pl.AdapterDrop(pl.Adapter(leave_out=(2,)), dropped=2),
    ],
    ids=str,
)
def test_one_layer_must_keep_its_adapter(make_encoder, toy_task, method):
    with pytest.raises(SettingsError, match="the encoder has 3 layers"):
        pl.model(make_encoder(), toy_task, method)


# The same in `adapters`


@pytest.mark.parametrize("n", [0, 1, 2])
@pytest.mark.parametrize("adapter", PLACEMENTS, ids=str)
def test_skipping_layers_in_adapters(
    robust, make_encoder, model_type, inputs, tmp_path, adapter, n, record_property
):
    """`adapters` drops layers when it activates an adapter (skip_layers)."""
    robust(adapter, model_type).save(tmp_path, format="adapters")
    theirs = loaded_by_adapters(make_encoder(model_type).backbone, tmp_path)
    theirs.set_active_adapters("default", skip_layers=list(range(n)))
    ours = robust(adapter, model_type, dropped=n)
    with pytest.MonkeyPatch.context() as patch:  # the files of `adapters` cannot say dropped=n
        patch.setattr(type(ours.method), "to_library", lambda _, *args: adapter.to_library(*args))
        assert_equal(ours, theirs, inputs, "adapters", lambda name: name, record_property)


@pytest.mark.parametrize("adapter", PLACEMENTS, ids=str)
def test_leaving_layers_out_in_adapters(
    make_encoder, model_type, toy_task, inputs, tmp_path, adapter, record_property
):
    model = trained(make_encoder, model_type, toy_task, pl.AdapterDrop(adapter, dropped=2))
    check_adapters_reads(
        model, make_encoder(model_type).backbone, inputs, tmp_path, record_property
    )
    loaded = pl.load(tmp_path, encoder=make_encoder(model_type), task=toy_task)
    assert loaded.method == model.method.upper(model.encoder.anatomy)
    assert torch.equal(own_states(loaded, inputs), own_states(model, inputs))


def test_adapters_cannot_store_how_many_are_dropped(robust, tmp_path):
    with pytest.raises(CheckpointError, match="cannot hold"):
        robust(dropped=1).save(tmp_path, format="adapters")
