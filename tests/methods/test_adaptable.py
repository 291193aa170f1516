"""Adaptable Adapters: the switch against its formula, the selection, and the focused form."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch

import peftlab as pl
from peftlab import methods
from peftlab.errors import CheckpointError, SettingsError, UnknownNameError
from peftlab.methods.adaptable import SwitchedPart
from peftlab.methods.focused import Selection
from peftlab.methods.parts.rational import Rational
from peftlab.training.loop import optimiser_for

D, M = 16, 4


def part_of(**settings):
    torch.manual_seed(0)
    part = SwitchedPart(D, M, pl.Adaptable(**settings))
    with torch.no_grad():
        for parameter in part.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return part


@pytest.fixture
def block():
    """What a part is called with: h, x [3, 5, d] and the block's LayerNorm."""
    torch.manual_seed(1)
    norm = torch.nn.LayerNorm(D)
    torch.nn.init.normal_(norm.weight)
    torch.nn.init.normal_(norm.bias)
    return torch.randn(3, 5, D), torch.randn(3, 5, D), norm


def branches(part, h, x, norm):
    """The released code's two branches: skip (with its identity adapter) and adapter."""
    z = norm(h + x)
    hidden = part.activation(torch.nn.functional.linear(z, part.down.weight, part.down.bias))
    adapted = torch.nn.functional.linear(hidden, part.up.weight, part.up.bias)
    return z + h, adapted + h


@pytest.mark.parametrize("skip", ["none", "identity"])
@pytest.mark.parametrize("logits", [(0.1, 0.2), (0.2, 0.1), (0.5, 0.5)])
def test_evaluation_takes_the_greater_logit(block, skip, logits):
    part = part_of(skip=skip).eval()
    with torch.no_grad():
        part.logits.copy_(torch.tensor(logits))
        released, adapted = branches(part, *block)
        skipped = released if skip == "identity" else block[0]
        wanted = adapted if logits[1] > logits[0] else skipped
        assert torch.allclose(part(*block), wanted, atol=1e-6)


@pytest.mark.parametrize("skip", ["none", "identity"])
@pytest.mark.parametrize(
    ("strategy", "shape"), [("global", (3, 1, 1)), ("token", (3, 5, 1)), ("number", (3, 5, D))]
)
def test_training_mixes_the_branches(block, skip, strategy, shape):
    part = part_of(skip=skip, strategy=strategy).train()
    torch.manual_seed(7)
    mixed = part(*block)
    torch.manual_seed(7)
    gumbel = -torch.empty(*shape, 2).exponential_().log()
    w = torch.softmax((gumbel + part.logits) / 0.1, -1)
    released, adapted = branches(part, *block)
    skipped = released if skip == "identity" else block[0]
    wanted = w[..., 0] * skipped + w[..., 1] * adapted
    assert torch.allclose(mixed, wanted, atol=1e-5)
    torch.manual_seed(8)
    assert not torch.allclose(mixed, part(*block), atol=1e-3), "it draws anew"


def test_the_share_follows_the_logits():
    """P(adapter drawn) is the softmax of the logits, whatever the temperature."""
    part = part_of(temperature=1e-3)
    with torch.no_grad():
        part.logits.copy_(torch.tensor([0.0, 1.0]))
        share = part.share(torch.empty(20_000, 1, D))
    assert share.shape == (20_000, 1, 1)
    assert abs((share > 0.5).float().mean() - torch.sigmoid(torch.tensor(1.0))) < 0.015


def test_logits_get_a_gradient(block):
    part = part_of(temperature=1.0).train()
    part(*block).square().sum().backward()
    assert part.logits.grad.any()
    assert part.logits.grad.sum().abs() < 1e-4 * part.logits.grad.abs().sum()


def test_released_skip_is_not_the_pretrained_layer(make_encoder, toy_task, inputs):
    bare = make_encoder("bert").backbone
    models = {
        skip: pl.model(make_encoder("bert"), toy_task, pl.Adaptable(skip=skip))
        for skip in ("none", "identity")
    }
    wanted = bare(**inputs).last_hidden_state
    states = {skip: m.backbone(**inputs).last_hidden_state for skip, m in models.items()}
    assert torch.equal(states["none"], wanted)
    assert (states["identity"] - wanted).abs().max() > 0.1


@pytest.mark.parametrize("model_type", ["bert"])
def test_rates(make_encoder, model_type, toy_task):
    model = pl.model(make_encoder(model_type), toy_task, pl.Adaptable(rational_rate=0.02))
    groups = optimiser_for(model, pl.TrainSettings(learning_rate=1e-4)).param_groups
    peaks = {id(p): group.get("peak") for group in groups for p in group["params"]}
    for name, parameter in model.trainable_parameters():
        wanted = 0.05 if name.endswith("logits") else 0.02 if ".activation." in name else None
        assert peaks[id(parameter)] == wanted


@pytest.mark.parametrize(
    ("method", "encoder", "trainable"),
    [
        ("adaptable", "bert-large-uncased", 24 * (132_160 + 10 + 2)),
        ("adaptable-focused", "bert-large-uncased", 12 * (132_160 + 10)),
        (
            {"name": "adaptable-focused", "layers": list(range(13))},
            "bert-large-uncased",
            1_718_080 + 13 * 10,
        ),
        ("adaptable", "bert-base-uncased", 894_528 + 12 * 12),
        ("adaptable-focused", "bert-base-uncased", 894_528 // 2 + 6 * 10),
    ],
    ids=str,
)
def test_published_numbers(meta_encoder, method, encoder, trainable):
    encoder, method = meta_encoder(encoder), methods.get(method)
    encoder.backbone.requires_grad_(False)
    method.attach(encoder)
    found = sum(p.numel() for p in encoder.backbone.parameters() if p.requires_grad)
    assert found == trainable == method.counts(encoder.anatomy).trainable


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: pl.Adaptable(skip="released"), "'none', 'identity'"),
        (lambda: pl.Adaptable(strategy="text"), "'global', 'token', 'number'"),
        (lambda: pl.Adaptable(temperature=0), "temperature is 0"),
        (lambda: pl.Adaptable(switch_rate=-1.0), "switch_rate is -1"),
        (lambda: pl.Adaptable(rational_rate=float("nan")), "rational_rate is nan"),
        (lambda: pl.Adaptable(reduction_factor=0), "reduction_factor is 0"),
        (lambda: pl.AdaptableFocused(layers=()), "name one layer or more"),
        (lambda: pl.AdaptableFocused(layers=(1, 1)), "each once"),
        (lambda: pl.AdaptableFocused(init="xavier"), "init is 'xavier'"),
    ],
)
def test_settings_that_cannot_work(make, words):
    with pytest.raises(SettingsError, match=words):
        make()


def test_unknown_activation():
    with pytest.raises(UnknownNameError, match="did you mean 'rational:one'"):
        pl.Adaptable(activation="rational:on")


def test_layers_that_do_not_exist(make_encoder, toy_task):
    with pytest.raises(SettingsError, match="layer 3: the encoder has layers 0 to 2"):
        pl.model(make_encoder(), toy_task, pl.AdaptableFocused(layers=(0, 3)))


@pytest.fixture
def switched(make_encoder, toy_task):
    """A model in which layers 0 and 2 are selected."""
    model = pl.model(make_encoder(), toy_task, "adaptable", seed=5)
    with torch.no_grad():
        for layer in (0, 2):
            model.encoder.anatomy.layers[layer].output.get().before["adaptable"].logits[1] += 0.25
    return model


def test_selection(switched, tmp_path):
    selection = Selection.of(switched)
    assert selection.layers == (0, 2)
    assert selection.logits == ((0.5, 0.75), (0.5, 0.5), (0.5, 0.75))
    assert (selection.task, selection.seed) == ("toy", 5)
    assert selection.method == pl.Adaptable()
    assert Selection.load(selection.save(tmp_path / "selection.json")) == selection
    assert json.loads((tmp_path / "selection.json").read_text())["layers"] == [0, 2]


def test_reading_a_selection_changes_nothing(make_encoder, toy_task):
    model = pl.model(make_encoder(), toy_task, pl.Adaptable(leave_out=(1,)))
    before = [name for name, _ in model.named_modules()]
    assert Selection.of(model).logits[1] is None
    assert [name for name, _ in model.named_modules()] == before


def test_focused_form_and_controls(switched):
    selection = Selection.of(switched)
    assert selection.focused() == pl.AdaptableFocused(layers=(0, 2))
    assert selection.focused(activation="relu").activation == "relu"
    assert selection.top().layers == (1, 2)
    drawn = {selection.random(seed).layers for seed in range(30)}
    assert drawn == {(0, 1), (1, 2)}  # never the selected ones
    whole = replace(selection, logits=((0.0, 1.0),) * 3)
    assert whole.random(0).layers == (0, 1, 2)  # there is no other set
    assert selection.random(3) == selection.random(3)


@pytest.mark.parametrize(
    "settings",
    [
        {"reduction_factor": 8},
        {"bottleneck_size": 5},
        {"activation": "rational:gelu", "init": "zero"},
        {"activation": "relu", "leave_out": (1,)},
    ],
    ids=str,
)
def test_the_focused_form_has_the_adapters_that_were_switched(
    make_encoder, toy_task, tmp_path, settings
):
    method = pl.Adaptable(**settings)
    model = pl.model(make_encoder(), toy_task, pl.Union(pl.LoRA(), method))
    with torch.no_grad():
        model.encoder.anatomy.layers[0].output.get().before["adaptable"].logits[1] += 1
    read = Selection.load(Selection.of(model).save(tmp_path / "selection.json"))
    for form in (read.focused(), read.random(0), read.top()):
        wanted = method.alone()
        found = form.adapter(model.encoder.anatomy)
        assert len(form.layers) == 1
        for name in ("reduction_factor", "bottleneck_size", "activation", "init"):
            assert getattr(found, name) == getattr(wanted, name)
    changed = read.focused(reduction_factor=4, activation="tanh")
    assert changed == pl.AdaptableFocused(
        layers=(0,), reduction_factor=4, activation="tanh", init=method.init
    )


def test_focused_is_a_plain_adapter(make_encoder, toy_task, inputs):
    focused = pl.model(make_encoder(), toy_task, pl.AdaptableFocused(layers=(0, 2)))
    plain = pl.Adapter(activation="rational:one", leave_out=(1,))
    model = pl.model(make_encoder(), toy_task, plain)
    assert torch.equal(
        focused.backbone(**inputs).last_hidden_state, model.backbone(**inputs).last_hidden_state
    )
    assert sum(isinstance(m, Rational) for m in focused.modules()) == 2


def test_without_a_selection_the_upper_half(make_encoder, toy_task):
    assert pl.AdaptableFocused().adapter(make_encoder().anatomy).leave_out == (0,)


def test_no_layer_selected(make_encoder, toy_task):
    selection = Selection.of(pl.model(make_encoder(), toy_task, "adaptable"))
    assert selection.layers == ()
    with pytest.raises(SettingsError, match="name one layer or more"):
        selection.focused()


def test_a_model_without_switches(make_encoder, toy_task):
    with pytest.raises(SettingsError, match="no switches"):
        Selection.of(pl.model(make_encoder(), toy_task, "pfeiffer-16"))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda d: d.pop("logits"), "no record of selected layers"),
        (lambda d: d.update(layers=[1]), "not those that its logits select"),
        (lambda d: d.update(logits=[[1]]), "no record of selected layers"),
        (lambda d: d.pop("method"), "no record of selected layers"),
        (lambda d: d.update(method={"name": "lora"}), "it is of the method 'lora'"),
        (lambda d: d.update(method={"name": "adaptable", "init": 3}), "init is 3"),
    ],
)
def test_a_damaged_record(switched, tmp_path, change, words):
    path = Selection.of(switched).save(tmp_path / "selection.json")
    record = json.loads(path.read_text())
    change(record)
    path.write_text(json.dumps(record))
    with pytest.raises(CheckpointError, match=words):
        Selection.load(path)
    with pytest.raises(CheckpointError, match="no record"):
        Selection.load(tmp_path / "missing.json")


def test_a_selection_can_be_learned(make_encoder, rows):
    """The switches move in training, and the best step's are what a selection reads."""
    task = pl.task({"train": rows, "dev": rows, "test": rows}, kind="classification", name="toy")
    model = pl.model(make_encoder(), task, pl.Adaptable())
    pl.train(
        model,
        settings=pl.TrainSettings(learning_rate=3e-3, epochs=4, batch_size=2, max_length=32),
        show_progress=False,
    )
    moved = [abs(a - b) for a, b in Selection.of(model).logits]
    assert min(moved) > 1e-3
