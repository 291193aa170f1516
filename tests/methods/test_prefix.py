"""Prefix tuning: against the plain formula, `adapters` and `peft`, and flat against its network."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch

import peftlab as pl
from peftlab.errors import CheckpointError, SettingsError
from peftlab.methods import sites
from peftlab.methods.prefix import PrefixPart, ReparameterisedPart
from tests.methods.parity import (
    check_adapters_reads,
    check_peft_reads,
    check_we_read,
    check_we_read_adapters,
    check_we_read_peft,
    loaded_by_adapters,
    note,
    own_states,
    shaken,
    trained,
)

MLP = pl.Prefix(prefix_length=5, reparameterised=True, bottleneck_size=24)
POOL = "prefix_tuning.prefix_tunings.default.self_prefix.control_trans"


def prefixes(model: Any) -> list[Any]:
    return [part for _, part in sites.parts(model.backbone)]


def by_hand(site: Any, part: Any, x: torch.Tensor) -> torch.Tensor:
    """Self-attention over one text x [L, d] with a prefix, head by head, from the formula."""
    attention = site.original
    size = attention.attention_head_size
    q, k, v = (
        x @ linear.weight.T + linear.bias
        for linear in (attention.query, attention.key, attention.value)
    )
    prefix_k, prefix_v = part.vectors()
    if part.gate is not None:
        linear = part.gate.linear
        gate = torch.sigmoid(x @ linear.weight.T + linear.bias).mean()
        prefix_k, prefix_v = gate * prefix_k, gate * prefix_v
    k, v = torch.cat([prefix_k, k]), torch.cat([prefix_v, v])
    heads = []
    for h in range(attention.num_attention_heads):
        own = slice(h * size, (h + 1) * size)
        scores = q[:, own] @ k[:, own].T / size**0.5
        heads.append(scores.softmax(-1) @ v[:, own])
    return torch.cat(heads, -1)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize(
    "method", [pl.Prefix(prefix_length=4), pl.Prefix(prefix_length=4, gate="real"), MLP], ids=str
)
@torch.no_grad()
def test_equation(make_encoder, model_type, toy_task, inputs, method, attention):
    model = pl.model(make_encoder(model_type, attention=attention), toy_task, method)
    found: dict[Any, Any] = {}
    for _, site in sites.find(model.backbone):
        site.register_forward_hook(
            lambda site, args, kwargs, output: found.update({site: (args, kwargs, output[0])}),
            with_kwargs=True,
        )
    own_states(model, inputs)
    assert len(found) == 3
    for site, (args, kwargs, output) in found.items():
        x = args[0] if args else kwargs["hidden_states"]
        (part,) = site.prefixes.values()
        for i, length in enumerate(inputs["attention_mask"].sum(1)):
            wanted = by_hand(site, part, x[i, :length])
            assert torch.allclose(output[i, :length], wanted, atol=1e-5)


def test_network_equation(make_encoder, toy_task):
    """[P_K; P_V] = W2 tanh(W1 E + b1) + b2, one trunk for all layers."""
    model = pl.model(make_encoder(), toy_task, MLP)
    parts = prefixes(model)
    trunk = parts[0].trunk
    assert all(part._trunk() is trunk for part in parts)
    inner = torch.tanh(trunk.embedding @ trunk.linear.weight.T + trunk.linear.bias)
    for part in parts:
        both = inner @ part.linear.weight.T + part.linear.bias
        assert torch.allclose(torch.cat(part.vectors(), 1), both, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "trainable", "stored"),
    [("prefix-30", 552_960, 552_960), ("prefix-30-mlp", 9_872_384, 552_960)],
)
def test_published_numbers(meta_encoder, name, trainable, stored):
    encoder, method = meta_encoder("roberta-base"), pl.methods.get(name)
    encoder.backbone.requires_grad_(False)
    method.attach(encoder)
    parts = [part for _, part in sites.parts(encoder.backbone)]
    assert sum(p.numel() for part in parts for p in part.parameters()) == trainable
    counts = method.counts(encoder.anatomy)
    assert (counts.trainable, counts.stored, counts.inference) == (trainable, stored, stored)
    method.flat.attach(meta_encoder("roberta-base"))
    assert method.flat.counts(encoder.anatomy).trainable == stored


@pytest.mark.parametrize(
    "method",
    [
        pl.Prefix(prefix_length=3, gate="all", leave_out=(1,)),
        pl.Prefix(prefix_length=3, gate="real", reparameterised=True, leave_out=(0,)),
    ],
    ids=str,
)
def test_counts(encoder, toy_task, method):
    model = pl.model(encoder, toy_task, method)
    counts, summary = method.counts(encoder.anatomy), pl.summary(model)
    assert summary.trainable == counts.trainable
    assert summary.stored == summary.inference == counts.stored == counts.inference
    assert len(prefixes(model)) == 2


@pytest.mark.parametrize("gate", ["none", "real"])
def test_flat_is_the_same_bit_for_bit(make_encoder, model_type, toy_task, inputs, tmp_path, gate):
    method = pl.Prefix(prefix_length=5, reparameterised=True, bottleneck_size=24, gate=gate)
    model = trained(make_encoder, model_type, toy_task, method)
    before = own_states(model, inputs)
    assert all(type(part) is ReparameterisedPart for part in prefixes(model))
    model.save(tmp_path)
    loaded = pl.load(tmp_path, task=toy_task)
    model.flatten()
    assert model.method == method.flat == loaded.method
    for each in (model, loaded):
        assert all(type(part) is PrefixPart for part in prefixes(each))
        assert torch.equal(own_states(each, inputs), before)


def test_start(make_encoder, toy_task):
    parts = prefixes(pl.model(make_encoder(), toy_task, pl.Prefix(prefix_length=50)))
    assert parts[0].keys.std().item() == pytest.approx(1, rel=0.05)
    small = pl.Prefix(prefix_length=50, init_std=0.02)
    parts = prefixes(pl.model(make_encoder(), toy_task, small))
    assert parts[0].values.std().item() == pytest.approx(0.02, rel=0.05)
    assert not torch.equal(parts[0].keys, parts[1].keys)


@pytest.mark.parametrize("method", [pl.Prefix(dropout=0.5), pl.Prefix(dropout=0.5, gate="real")])
def test_dropout_is_for_each_text_apart_and_only_in_training(make_encoder, toy_task, method):
    model = pl.model(make_encoder(), toy_task, method)
    part = prefixes(model)[0]
    states = torch.ones(2, 4, 128)
    part.train()
    keys, values = part(states)
    assert not torch.equal(keys[0], keys[1])
    assert not torch.equal(values[0], values[1])
    part.eval()
    keys, _ = part(states)
    assert torch.equal(keys[0], keys[1])


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_attention_weights_contain_the_prefix(
    make_encoder, model_type, toy_task, inputs, attention
):
    method = pl.Prefix(prefix_length=4)
    model = pl.model(make_encoder(model_type, attention=attention), toy_task, method)
    with torch.no_grad():
        output = model.backbone(**inputs, output_attentions=True)
    assert torch.allclose(output.last_hidden_state, own_states(model, inputs), atol=1e-5)
    real = inputs["attention_mask"].bool()
    batch, length = real.shape
    assert len(output.attentions) == 3
    for weights in output.attentions:
        assert weights.shape == (batch, 4, length, 4 + length)
        assert torch.allclose(weights.sum(-1), torch.ones(()), atol=1e-5)
        assert (weights[..., :4] > 0).all()
        hidden = weights[..., 4:].transpose(1, 3)[~real]
        assert hidden.max() < 1e-6


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"prefix_length": 0}, "prefix_length is 0"),
        ({"prefix_length": 2.5}, "prefix_length is 2.5"),
        ({"bottleneck_size": 0}, "bottleneck_size is 0"),
        ({"init_std": 0}, "init_std is 0"),
        ({"dropout": 1}, "dropout is 1"),
        ({"gate": "yes"}, "gate is 'yes'"),
    ],
)
def test_settings_that_cannot_work(settings, words):
    with pytest.raises(SettingsError, match=words):
        pl.Prefix(**settings)


def test_shifted_positions_need_room(make_encoder, toy_task):
    shifted = pl.Prefix(prefix_length=60, shift_positions=True)
    model = pl.model(make_encoder(), toy_task, shifted)
    assert model.encoder.tokenizer.model_max_length == 4
    with pytest.raises(SettingsError, match="62 vectors before the tokens leave no room"):
        pl.model(make_encoder(), toy_task, pl.Prefix(prefix_length=62, shift_positions=True))


# --- the same in adapters

FOR_ADAPTERS = [
    pl.Prefix(prefix_length=7),
    pl.Prefix(prefix_length=3, gate="all", leave_out=(1,)),
    pl.Prefix(prefix_length=3, dropout=0.3, leave_out=(0,)),
]


@pytest.mark.parametrize("method", FOR_ADAPTERS, ids=str)
def test_adapters_reads_what_we_write(
    make_encoder, model_type, toy_task, inputs, tmp_path, method, record_property
):
    model = trained(make_encoder, model_type, toy_task, method)
    check_adapters_reads(
        model, make_encoder(model_type).backbone, inputs, tmp_path, record_property, 100
    )


def test_adapters_has_the_network_too(make_encoder, model_type, toy_task, inputs, record_property):
    """Its gradients are compared by hand: what it writes to a file is read as a flat prefix."""
    adapters = pytest.importorskip("adapters")
    model = trained(make_encoder, model_type, toy_task, MLP)
    theirs = make_encoder(model_type).backbone
    adapters.init(theirs)
    config = adapters.PrefixTuningConfig(prefix_length=5, bottleneck_size=24)
    theirs.add_adapter("default", config=config)
    theirs.train_adapter("default")
    theirs.eval()
    pool = theirs.prefix_tuning.prefix_tunings["default"]["self_prefix"]
    parts = prefixes(model)
    trunk = parts[0].trunk
    pairs = [
        ([trunk.embedding], pool.wte.weight),
        ([trunk.linear.weight], pool.control_trans[0].weight),
        ([trunk.linear.bias], pool.control_trans[0].bias),
        ([part.linear.weight for part in parts], pool.control_trans[2].weight),
        ([part.linear.bias for part in parts], pool.control_trans[2].bias),
    ]
    with torch.no_grad():
        for ours, other in pairs:
            other.copy_(torch.cat(ours))
    weights = torch.linspace(-1, 1, 128)
    states = []
    for backbone in (model.backbone, theirs):
        output = backbone(**inputs).last_hidden_state
        (output * inputs["attention_mask"].unsqueeze(-1) * weights).mean().backward()
        states.append(output.detach())
    of_states = float((states[0] - states[1]).abs().max())
    of_gradients = max(
        float((torch.cat([p.grad for p in ours]) - other.grad).abs().max()) for ours, other in pairs
    )
    assert max(float(other.grad.abs().max()) for _, other in pairs) > 1e-4
    note(record_property, "prefix", "adapters", states=of_states, gradients=of_gradients)
    assert max(of_states, of_gradients) <= 1e-5


@pytest.mark.parametrize(
    "settings",
    [
        {"flat": True, "prefix_length": 6},
        {"bottleneck_size": 24},
        {"bottleneck_size": 24, "use_gating": True, "leave_out": [2]},
        {"flat": True, "use_gating": True, "dropout": 0.1, "cross_prefix": False},
    ],
    ids=str,
)
def test_we_read_what_adapters_writes(
    make_encoder, model_type, toy_task, inputs, tmp_path, settings
):
    theirs, encoder = make_encoder(model_type).backbone, make_encoder(model_type)
    model = check_we_read_adapters(
        theirs, encoder, toy_task, inputs, tmp_path, "PrefixTuningConfig", settings
    )
    assert not model.method.reparameterised


def test_adapters_cannot_save_a_prefix_as_safetensors(make_encoder, tmp_path, record_property):
    adapters = pytest.importorskip("adapters")
    theirs = make_encoder().backbone
    adapters.init(theirs)
    theirs.add_adapter("mine", config=adapters.PrefixTuningConfig(flat=True))
    with pytest.raises(RuntimeError, match="share memory"):
        theirs.save_adapter(str(tmp_path), "mine", use_safetensors=True)
    fails = "saving a prefix as safetensors raises RuntimeError; only the pickled file works"
    note(record_property, "prefix", "adapters", fails=fails)


def test_adapters_loses_an_ejected_prefix_and_we_do_not(
    make_encoder, model_type, toy_task, inputs, tmp_path, record_property
):
    adapters = pytest.importorskip("adapters")
    theirs = make_encoder(model_type).backbone
    adapters.init(theirs)
    theirs.add_adapter("mine", config=adapters.PrefixTuningConfig(bottleneck_size=24))
    theirs.train_adapter("mine")
    wanted = shaken(theirs, inputs)
    theirs.eject_prefix_tuning("mine")
    theirs.save_adapter(str(tmp_path), "mine")
    again = make_encoder(model_type).backbone
    adapters.init(again)
    again.load_adapter(str(tmp_path), set_active=True)
    with torch.no_grad():
        differs = float((again.eval()(**inputs).last_hidden_state - wanted).abs().max())
    assert differs > 0.1
    check_we_read(tmp_path, make_encoder(model_type), toy_task, inputs, wanted)
    fails = "a prefix saved after eject_prefix_tuning is loaded as a random one, without an error"
    note(record_property, "prefix", "adapters", fails=fails, differs=differs)


def test_adapters_drops_the_prefix_where_attention_is_returned(
    make_encoder, model_type, toy_task, inputs, tmp_path, record_property
):
    model = trained(make_encoder, model_type, toy_task, pl.Prefix(prefix_length=4))
    model.save(tmp_path, format="adapters")
    theirs = loaded_by_adapters(make_encoder(model_type).backbone, tmp_path)
    bare, ours = make_encoder(model_type).backbone, model.backbone
    with torch.no_grad():
        wanted = theirs(**inputs).last_hidden_state
        seen = [
            backbone(**inputs, output_attentions=True).last_hidden_state
            for backbone in (theirs, bare, ours)
        ]
    differs = float((seen[0] - wanted).abs().max())
    assert differs > 0.1
    assert torch.allclose(seen[0], seen[1], atol=1e-5)  # as if there were no prefix
    assert torch.allclose(seen[2], wanted, atol=1e-5)
    fails = "under sdpa, output_attentions=True silently computes without the prefix"
    note(record_property, "prefix", "adapters", fails=fails, differs=differs)


@pytest.mark.parametrize(
    ("method", "library"),
    [
        (pl.Prefix(gate="real"), "adapters"),
        (pl.Prefix(shift_positions=True), "adapters"),
        (pl.Prefix(), "peft"),
        (pl.Prefix(shift_positions=True, leave_out=(0,)), "peft"),
        (pl.Prefix(shift_positions=True, gate="all"), "peft"),
    ],
    ids=str,
)
def test_what_a_library_cannot_hold_is_refused(make_encoder, toy_task, tmp_path, method, library):
    with pytest.raises(CheckpointError, match="cannot hold"):
        pl.model(make_encoder(), toy_task, method).save(tmp_path, format=library)


def test_a_damaged_prefix_is_refused(make_encoder, toy_task, tmp_path):
    from safetensors.torch import load_file, save_file

    pl.model(make_encoder(), toy_task, pl.Prefix(prefix_length=6)).save(tmp_path, format="adapters")
    file = tmp_path / "adapter.safetensors"
    whole = load_file(file)[POOL]
    for tensors in ({}, {POOL: whole[:-128].clone()}, {POOL: whole[: len(whole) // 2].clone()}):
        save_file(tensors, file)
        with pytest.raises(CheckpointError, match="damaged"):
            pl.load(tmp_path, encoder=make_encoder(), task=toy_task)


# --- the same in peft


def test_peft_reads_what_we_write(
    make_encoder, model_type, toy_task, inputs, tmp_path, record_property
):
    method = pl.Prefix(prefix_length=4, shift_positions=True)
    model = trained(make_encoder, model_type, toy_task, method)
    theirs = make_encoder(model_type).backbone

    def rename(name: str) -> str:
        return name.replace("prompt_embeddings", "prompt_encoder.default.embedding.weight")

    check_peft_reads(model, theirs, inputs, tmp_path, record_property, rename, 100)


@pytest.mark.parametrize("safe", [True, False], ids=["safetensors", "bin"])
@pytest.mark.parametrize("projection", [False, True], ids=["flat", "projection"])
def test_we_read_what_peft_writes(
    make_encoder, model_type, toy_task, inputs, tmp_path, safe, projection
):
    theirs, encoder = make_encoder(model_type).backbone, make_encoder(model_type)
    settings = {"num_virtual_tokens": 5, "prefix_projection": projection}
    settings |= {"task_type": "FEATURE_EXTRACTION"}
    model = check_we_read_peft(
        theirs, encoder, toy_task, inputs, tmp_path, "PrefixTuningConfig", settings, safe
    )
    assert model.method.shift_positions


def test_peft_cannot_classify_with_a_prefix_on_xlm_roberta(
    tiny_folder, make_encoder, toy_task, record_property
):
    peft = pytest.importorskip("peft")
    from transformers import AutoModelForSequenceClassification, __version__

    if int(__version__.partition(".")[0]) >= 5:
        pytest.skip("it works with transformers 5")
    base = AutoModelForSequenceClassification.from_pretrained(tiny_folder("xlm-roberta"))
    config = peft.PrefixTuningConfig(task_type="SEQ_CLS", num_virtual_tokens=4)
    theirs = peft.get_peft_model(base, config)
    with pytest.raises(TypeError) as error:
        theirs(input_ids=torch.tensor([[0, 7, 8, 2]]), attention_mask=torch.ones(1, 4))
    fails = f"with transformers 4, XLM-RoBERTa cannot classify: TypeError, {error.value}"
    note(record_property, "prefix", "peft", fails=fails)
    shifted = pl.Prefix(prefix_length=4, shift_positions=True)
    model = pl.model(make_encoder("xlm-roberta"), toy_task, shifted)
    batch = {"input_ids": torch.tensor([[0, 7, 8, 2]]), "attention_mask": torch.ones(1, 4)}
    assert model(batch).logits.isfinite().all()


def test_peft_refuses_checkpointing(make_encoder, record_property):
    peft = pytest.importorskip("peft")
    config = peft.PrefixTuningConfig(task_type="FEATURE_EXTRACTION", num_virtual_tokens=4)
    backbone = make_encoder("bert").backbone
    backbone.gradient_checkpointing_enable()
    with pytest.raises(ValueError, match="gradient checkpointing"):
        peft.get_peft_model(backbone, config)
    fails = "gradient checkpointing raises ValueError: the prefix goes through past_key_values"
    note(record_property, "prefix", "peft", fails=fails)


def test_configurations_say_what_they_hold(make_encoder, toy_task, tmp_path):
    pl.model(make_encoder(), toy_task, MLP).save(tmp_path, format="adapters")
    config = json.loads((tmp_path / "adapter_config.json").read_text())["config"]
    assert config["flat"] is True
    assert config["prefix_length"] == 5
