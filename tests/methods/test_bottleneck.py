"""Bottleneck adapters: formulas by hand, starts, counts, settings, and parity with `adapters`."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

import peftlab as pl
from peftlab import methods
from peftlab.errors import CheckpointError, SettingsError, UnknownNameError
from peftlab.methods import sites
from peftlab.methods.parts.activations import ACTIVATIONS
from peftlab.methods.parts.bottleneck import BapnaPart, HoulsbyPart, ParallelPart, PfeifferPart
from peftlab.support import checks
from peftlab.training.batches import collate
from tests.methods.parity import (
    check_adapters_reads,
    check_we_read_adapters,
    loaded_by_adapters,
    note,
    own_states,
    trained,
)

PARTS = {"pfeiffer": PfeifferPart, "houlsby": HoulsbyPart, "bapna": BapnaPart}


# What it computes


def by_hand(part: Any, z: Tensor) -> Tensor:
    """Return s (W_up f(W_down z + b_down) + b_up)."""
    middle = part.activation(z @ part.down.weight.T + part.down.bias)
    scale = 1 if part.scale is None else part.scale
    return scale * (middle @ part.up.weight.T + part.up.bias)


def drawn(part: Any) -> tuple[Any, Tensor, Tensor, nn.LayerNorm]:
    """Give every weight of a part a random value; return it, h, x and the layer's norm."""
    torch.manual_seed(0)
    norm = nn.LayerNorm(8)
    with torch.no_grad():
        for parameter in (*part.parameters(), *norm.parameters()):
            parameter.normal_()
    return part, torch.randn(2, 5, 8), torch.randn(2, 5, 8), norm


@pytest.mark.parametrize("scale", [1.0, 4.0, "learned", "channel"])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_equations(activation, scale):
    settings = {"activation": activation, "scale": scale}
    part, h, x, norm = drawn(PfeifferPart(8, 3, **settings))
    assert torch.allclose(part(h, x, norm), h + by_hand(part, norm(h + x)), atol=1e-5)
    part, h, x, norm = drawn(HoulsbyPart(8, 3, **settings))
    assert torch.allclose(part(h, x, norm), h + by_hand(part, h), atol=1e-5)
    part, h, x, norm = drawn(ParallelPart(8, 3, **settings))
    assert torch.allclose(part(h, x, norm), h + by_hand(part, x), atol=1e-5)
    part, z, _, _ = drawn(BapnaPart(8, 3, **settings))
    before = (z - z.mean(-1, keepdim=True)) / (z.var(-1, correction=0, keepdim=True) + 1e-5).sqrt()
    before = before * part.norm.weight + part.norm.bias
    assert torch.allclose(part(z), z + by_hand(part, before), atol=1e-5)


@pytest.mark.parametrize("kind", [HoulsbyPart, PfeifferPart, ParallelPart])
def test_dropout_is_on_the_bottleneck_and_only_in_training(kind):
    part, h, x, norm = drawn(kind(8, 3, dropout=0.5))
    whole = part.eval()(h, x, norm) - h
    kept = part.train()(h, x, norm) - h
    zero = kept.abs() < 1e-6
    assert 0.2 < zero.float().mean() < 0.8
    assert torch.allclose(kept[~zero], 2 * whole[~zero], atol=1e-4)


@pytest.mark.parametrize("placement", PARTS)
def test_a_gate_multiplies_the_bottleneck_alone(placement):
    """The gate reads z before any LayerNorm of the adapter's own."""

    class Recording(nn.Module):
        def forward(self, z: Tensor) -> Tensor:
            self.seen = z
            return torch.full((2, 1, 1), 0.25)

    gate = Recording()
    part, h, x, norm = drawn(PARTS[placement](8, 3, gate=gate))
    open_part = PARTS[placement](8, 3)
    open_part.load_state_dict(part.state_dict())
    args = (h,) if placement == "bapna" else (h, x, norm)
    assert torch.allclose(part(*args) - h, 0.25 * (open_part(*args) - h), atol=1e-6)
    assert torch.equal(gate.seen, norm(h + x) if placement == "pfeiffer" else h)


@pytest.mark.parametrize(
    ("method", "places"),
    [
        (pl.Adapter(), {"output.before"}),
        (pl.Adapter(placement="houlsby"), {"attention.output.before", "output.before"}),
        (
            pl.Adapter(placement="houlsby", parallel=True),
            {"attention.output.before", "output.before"},
        ),
        (pl.Adapter(parallel=True), {"output.before"}),
        (pl.Adapter(placement="bapna"), {"output.after"}),
    ],
    ids=str,
)
def test_places(make_encoder, toy_task, method, places):
    model = pl.model(make_encoder(), toy_task, method)
    found = [path for path, _ in sites.parts(model.backbone)]
    assert set(found) == {
        f"encoder.layer.{i}.{place}.adapter" for i in range(3) for place in places
    }
    for _, part in sites.parts(model.backbone):
        assert type(part) is (ParallelPart if method.parallel else PARTS[method.placement])


def test_a_whole_layer_by_hand(make_encoder, toy_task, inputs, model_type):
    """The last layer of an encoder with Houlsby's parallel adapters, from its sublayers."""
    method = methods.get({"name": "houlsby-parallel", "leave_out": [0, 1], "gate": "real"})
    model = trained(make_encoder, model_type, toy_task, method)
    layer: Any = model.backbone.encoder.layer[2]
    seen: dict[str, Any] = {}
    for name, module in (("x", layer), ("attention", layer.attention.self)):
        module.register_forward_hook(
            lambda _, args, out, name=name: seen.update({name: args[0], f"{name} out": out})
        )
    wanted = own_states(model, inputs)
    real = inputs["attention_mask"].unsqueeze(-1).float()

    def closed(site: Any, raw: Tensor, x: Tensor) -> Tensor:
        part, block = site.before["adapter"], site.original
        gates = torch.sigmoid(x @ part.gate.linear.weight.T + part.gate.linear.bias)
        gate = (gates * real).sum(1, keepdim=True) / real.sum(1, keepdim=True)
        return block.LayerNorm(block.dense(raw) + gate * by_hand(part, x) + x)

    with torch.no_grad():
        a = closed(layer.attention.output, seen["attention out"][0], seen["x"])
        y = closed(layer.output, layer.intermediate(a), a)
    assert ((y - wanted) * real).abs().max() <= 1e-5


@pytest.mark.parametrize("check", [check for check in checks.CHECKS if check != "merge"])
def test_support_of_gates_and_learned_scales(make_encoder, toy_task, rows, check):
    method = pl.Adapter(placement="bapna", scale="channel", gate="real", activation="rational:one")
    model = trained(make_encoder, "bert", toy_task, method)
    tokenizer: Any = model.encoder.tokenizer
    batch = collate(toy_task.encode(rows, tokenizer, 64), tokenizer.pad_token_id)
    checks.CHECKS[check](model, batch)


# How it starts


def test_initialisations():
    def part(init: str) -> PfeifferPart:
        torch.manual_seed(0)
        return PfeifferPart(768, 48, init=init)

    for linear in (part("bert").down, part("bert").up):
        assert linear.weight.std().item() == pytest.approx(0.02, rel=0.02)
        assert linear.weight.abs().max() > 0.06
        assert not linear.bias.any()
    for linear in (part("houlsby").down, part("houlsby").up):
        assert 0.0199 < linear.weight.abs().max() <= 0.02
        # a normal distribution cut at two standard deviations has 0.88 of its deviation
        assert linear.weight.std().item() == pytest.approx(0.0088, rel=0.02)
    zero, mam = part("zero"), part("mam")
    assert zero.down.weight.std().item() == pytest.approx(0.02, rel=0.02)
    assert 0.99 / 768**0.5 < mam.down.weight.abs().max() <= 1 / 768**0.5
    for start in (zero, mam):
        assert not start.up.weight.any()
        assert not start.up.bias.any()
        assert not start.down.bias.any()


# How large it is


@pytest.mark.parametrize(
    ("name", "method", "trainable"),
    [
        ("bert-base-uncased", "houlsby-16", 1_789_056),
        ("roberta-base", "houlsby-16", 1_789_056),
        ("bert-base-uncased", "houlsby-parallel", 1_789_056),
        ("bert-base-uncased", "pfeiffer-parallel", 894_528),
        ("bert-large-uncased", "pfeiffer-16", 3_171_840),
        ("bert-base-uncased", "parallel-scaled", 12 * (2 * 768 * 384 + 384 + 768)),
        ("bert-base-uncased", {"name": "pfeiffer-16", "gate": "real"}, 894_528 + 12 * 769),
        ("bert-base-uncased", {"name": "pfeiffer-16", "placement": "bapna"}, 894_528 + 24 * 768),
        ("bert-base-uncased", {"name": "pfeiffer-16", "scale": "channel"}, 894_528 + 12 * 768),
        ("bert-base-uncased", {"name": "houlsby-16", "scale": "learned"}, 1_789_056 + 24),
        (
            "bert-base-uncased",
            {"name": "pfeiffer-16", "activation": "rational:one"},
            894_528 + 12 * 10,
        ),
    ],
    ids=str,
)
def test_published_numbers(meta_encoder, name, method, trainable):
    encoder, method = meta_encoder(name), methods.get(method)
    encoder.backbone.requires_grad_(False)
    method.attach(encoder)
    found = sum(p.numel() for p in encoder.backbone.parameters() if p.requires_grad)
    assert found == trainable == method.counts(encoder.anatomy).trainable


@pytest.mark.parametrize("placement", PARTS)
def test_flops_with_a_gate(make_encoder, toy_task, placement):
    method = pl.Adapter(placement=placement, gate="real", scale="channel")
    counted = []
    for backbone in (make_encoder().backbone, pl.model(make_encoder(), toy_task, method).backbone):
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            backbone(input_ids=torch.randint(5, 20, (2, 9)))
        counted.append(counter.get_total_flops())
    assert counted[1] - counted[0] == 2 * method.flops(make_encoder().anatomy, 9)


# Settings


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"reduction_factor": 0}, "reduction_factor is 0"),
        ({"reduction_factor": {"1": 2}}, "reduction_factor is"),
        ({"reduction_factor": float("nan")}, "reduction_factor is nan"),
        ({"bottleneck_size": 0}, "bottleneck_size is 0"),
        ({"bottleneck_size": 5.5}, "bottleneck_size is 5.5"),
        ({"dropout": -0.1}, "dropout is -0.1"),
        ({"init": "xavier"}, "bert, zero, houlsby, mam"),
        ({"placement": "before"}, "'pfeiffer', 'houlsby', 'bapna'"),
        ({"placement": "bapna", "parallel": True}, "parallel=False"),
        ({"scale": 0}, "scale is 0"),
        ({"scale": float("nan")}, "scale is nan"),
        ({"scale": "much"}, "a number or one of 'learned', 'channel'"),
        ({"gate": "sometimes"}, "gate is 'sometimes'"),
    ],
    ids=str,
)
def test_settings_that_cannot_work(settings, words):
    with pytest.raises(SettingsError, match=words):
        pl.Adapter(**settings)


@pytest.mark.parametrize("name", ["rellu", "rational:on"])
def test_unknown_activations(name):
    with pytest.raises(UnknownNameError, match="did you mean"):
        pl.Adapter(activation=name)


def test_a_bottleneck_must_have_a_width(make_encoder, toy_task):
    assert pl.Adapter(reduction_factor=128).size(128) == 1
    assert pl.Adapter(reduction_factor=1000, bottleneck_size=5).size(128) == 5
    too_narrow = pl.Adapter(reduction_factor=129)
    with pytest.raises(SettingsError, match="is 129, but the encoder is only 128 wide"):
        pl.model(make_encoder(), toy_task, too_narrow)
    with pytest.raises(SettingsError, match="only 128 wide"):
        too_narrow.counts(make_encoder().anatomy)


# The same in `adapters`

FAMILY = [
    *(pl.Adapter(activation=a) for a in ("leakyrelu", "mish", "linear")),
    pl.Adapter(placement="houlsby", activation="swish"),
    pl.Adapter(placement="houlsby", leave_out=(1,), bottleneck_size=5),
    pl.Adapter(placement="houlsby", parallel=True, activation="swish"),
    pl.Adapter(parallel=True),
    pl.Adapter(parallel=True, reduction_factor=2, scale=4.0, init="mam"),
    pl.Adapter(parallel=True, scale="learned"),
    pl.Adapter(scale="channel", init="houlsby"),
    pl.Adapter(placement="bapna"),
    pl.Adapter(placement="bapna", gate="all", scale="learned"),
    pl.Adapter(gate="all"),
    pl.Adapter(placement="houlsby", gate="all"),
    pl.Adapter(parallel=True, gate="all", scale=2),
]


@pytest.mark.parametrize("method", FAMILY, ids=str)
def test_adapters_reads_what_we_write(
    make_encoder, model_type, toy_task, inputs, tmp_path, method, record_property
):
    model = trained(make_encoder, model_type, toy_task, method)
    check_adapters_reads(
        model, make_encoder(model_type).backbone, inputs, tmp_path, record_property
    )


def alone(inputs: dict[str, Any], row: int) -> dict[str, Any]:
    """Return one text without padding."""
    length = int(inputs["attention_mask"][row].sum())
    return {name: tensor[row : row + 1, :length] for name, tensor in inputs.items()}


@pytest.mark.parametrize("placement", ["pfeiffer", "houlsby"])
def test_a_gate_over_real_tokens(
    make_encoder, model_type, toy_task, inputs, tmp_path, placement, record_property
):
    """Without padding it is the library's; with padding the library's gate is another one."""
    method = pl.Adapter(placement=placement, gate="real")
    model = trained(make_encoder, model_type, toy_task, method)
    with pytest.raises(CheckpointError, match="cannot hold"):
        model.save(tmp_path, format="adapters")
    released = trained(make_encoder, model_type, toy_task, replace(method, gate="all"))
    released.save(tmp_path, format="adapters")
    theirs = loaded_by_adapters(make_encoder(model_type).backbone, tmp_path)
    one = alone(inputs, 1)
    length = one["input_ids"].shape[1]
    with torch.no_grad():
        by_itself = theirs(**one).last_hidden_state[0]
        together = theirs(**inputs).last_hidden_state[1, :length]
    assert (own_states(model, inputs)[1, :length] - by_itself).abs().max() <= 1e-5
    differs = float((together - by_itself).abs().max())
    assert differs > 1e-3
    words = "A gated adapter averages its gate over padding: a text's states depend on its batch."
    note(record_property, "adapter", "adapters", fails=words, differs=differs)


@pytest.mark.parametrize("safe", [True, False], ids=["safetensors", "bin"])
@pytest.mark.parametrize(
    ("config", "settings", "method"),
    [
        ("DoubleSeqBnConfig", {}, methods.get("houlsby-16")),
        ("DoubleSeqBnConfig", {"is_parallel": True}, methods.get("houlsby-parallel")),
        ("SeqBnConfig", {"is_parallel": True, "leave_out": [2]}, None),
        ("ParBnConfig", {}, None),
        ("ParBnConfig", {"scaling": "channel", "non_linearity": "gelu"}, None),
        ("SeqBnConfig", {"use_gating": True, "reduction_factor": 5}, None),
    ],
    ids=str,
)
def test_we_read_what_adapters_writes(
    make_encoder, model_type, toy_task, inputs, tmp_path, config, settings, method, safe
):
    theirs, encoder = make_encoder(model_type).backbone, make_encoder(model_type)
    model = check_we_read_adapters(
        theirs, encoder, toy_task, inputs, tmp_path, config, settings, safe
    )
    assert method is None or model.method == method


BAPNA = {
    "mh_adapter": False,
    "output_adapter": True,
    "reduction_factor": 16,
    "non_linearity": "relu",
    "ln_before": True,
    "original_ln_before": True,
    "original_ln_after": False,
    "residual_before_ln": False,
}


def test_bapna_in_adapters(make_encoder, model_type, toy_task, inputs, tmp_path, record_property):
    """It computes the same there, and cannot be saved as safetensors."""
    theirs, encoder = make_encoder(model_type).backbone, make_encoder(model_type)
    model = check_we_read_adapters(theirs, encoder, toy_task, inputs, tmp_path, "BnConfig", BAPNA)
    assert model.method == pl.Adapter(placement="bapna")
    with pytest.raises(RuntimeError, match="share memory"):
        theirs.save_adapter(str(tmp_path / "safe"), "mine", use_safetensors=True)
    words = "An adapter with a LayerNorm of its own (ln_before) cannot be saved as safetensors."
    note(record_property, "adapter", "adapters", fails=words)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"ln_after": True}, "sets ln_after"),
        ({"residual_before_ln": "post_add"}, "sets residual_before_ln"),
        ({"original_ln_before": False}, "sets original_ln_before"),
        ({"original_ln_after": False}, "sets original_ln_after"),
        ({"mh_adapter": True}, "sets original_ln_before"),
        ({"output_adapter": False}, "sets output_adapter"),
        ({"ln_before": True}, "sets original_ln_after"),
        ({"reduction_factor": {"default": 16}}, "cannot be read"),
        ({"non_linearity": "relu6"}, "relu6"),
    ],
    ids=str,
)
def test_what_adapters_has_besides_is_refused(make_encoder, toy_task, tmp_path, changes, words):
    adapters = pytest.importorskip("adapters")
    theirs = make_encoder().backbone
    adapters.init(theirs)
    theirs.add_adapter("mine", config=adapters.SeqBnConfig(**changes))
    theirs.save_adapter(str(tmp_path), "mine")
    with pytest.raises((CheckpointError, UnknownNameError), match=words):
        pl.load(tmp_path, encoder=make_encoder(), task=toy_task)


def test_rational_activations_are_not_in_adapters(make_encoder, toy_task, tmp_path):
    model = pl.model(make_encoder(), toy_task, pl.Adapter(activation="rational:one"))
    with pytest.raises(CheckpointError, match="cannot hold"):
        model.save(tmp_path, format="adapters")
