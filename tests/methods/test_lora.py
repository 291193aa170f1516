"""LoRA with a rank for each layer, and with the gate of UniPELT."""

from __future__ import annotations

import json

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

import peftlab as pl
from peftlab.encoders import LINEARS
from peftlab.errors import CheckpointError, MergeError, SettingsError
from peftlab.methods import sites
from peftlab.methods.lora import LoRAPart
from peftlab.methods.parts.gates import Gate
from peftlab.support import checks
from peftlab.training.batches import collate
from tests.methods.parity import (
    check_adapters_reads,
    check_peft_reads,
    check_we_read_adapters,
    check_we_read_peft,
    own_states,
    trained,
)

GATED = pl.LoRA(rank=4, alpha=2, gate="real")
EVERYWHERE = ("query", "key", "value", "intermediate", "output")


@pytest.fixture
def batch(make_encoder, model_type, toy_task, rows):
    tokenizer = make_encoder(model_type).tokenizer
    return collate(toy_task.encode(rows, tokenizer, 64), tokenizer.pad_token_id)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: pl.LoRA(ranks=(2, -1, 4)), "ranks is"),
        (lambda: pl.LoRA(ranks=(2, 1.5, 4)), "a tuple of whole numbers"),
        (lambda: pl.LoRA(ranks=(0, 0, 0)), "head-only"),
        (lambda: pl.LoRA(ranks=(2, 0, 4), leave_out=(1,)), "put a 0 into ranks"),
        (lambda: pl.LoRA(gate="mean"), "gate is 'mean'"),
    ],
)
def test_settings_that_cannot_work(make, words):
    with pytest.raises(SettingsError, match=words):
        make()


def test_ranks_must_fit_the_encoder(make_encoder, toy_task):
    with pytest.raises(SettingsError, match="ranks has 2 numbers, but the encoder has 3 layers"):
        pl.model(make_encoder(), toy_task, pl.LoRA(ranks=(2, 4)))


def test_ranks(make_encoder, toy_task):
    method = pl.LoRA(alpha=6, ranks=(2, 0, 4))
    model = pl.model(make_encoder(), toy_task, method)
    found = dict(sites.parts(model.backbone))
    assert {path.split(".")[2]: (len(p.A), p.scale) for path, p in found.items()} == {
        "0": (2, 3.0),
        "2": (4, 1.5),
    }
    d = model.encoder.anatomy.hidden_size
    assert pl.summary(model).trainable == method.counts(model.encoder.anatomy).trainable
    assert method.counts(model.encoder.anatomy).trainable == 2 * (2 + 4) * 2 * d


def test_equal_ranks_are_one_rank(make_encoder, toy_task):
    one, each = (
        pl.model(make_encoder(), toy_task, method).state_dict()
        for method in (pl.LoRA(rank=4, leave_out=(1,)), pl.LoRA(ranks=(4, 0, 4)))
    )
    assert one.keys() == each.keys()
    assert all(torch.equal(one[name], each[name]) for name in one)


def test_published_totals(meta_encoder):
    anatomy = meta_encoder("roberta-base").anatomy
    assert pl.LoRA(rank=8).counts(anatomy).trainable == 294_912
    assert pl.LoRA(ranks=(8,) * 12).counts(anatomy).trainable == 294_912
    gates = 24 * 769  # what UniPELT's LoRA has beside its 294,912
    assert pl.LoRA(rank=8, alpha=2, gate="real").counts(anatomy).trainable == 294_912 + gates
    output = pl.LoRA(rank=8, targets=("output",), gate="real")
    assert output.counts(anatomy).trainable == 12 * (8 * (3072 + 768) + 3073)


def test_gated_equation(make_encoder):
    """y + G(x) BA x: the gate stands in the place of alpha / r, averaged over real tokens."""
    encoder = make_encoder()
    gate = Gate(encoder, encoder.anatomy.layers[0], "real", width=6)
    gate.padding.real = torch.tensor([[True, True, False], [True, True, True]])
    torch.manual_seed(0)
    part = LoRAPart(d_in=6, d_out=4, rank=2, scale=50.0, dropout=0.0, gate=gate)
    with torch.no_grad():
        for parameter in part.parameters():
            parameter.normal_()
    x, y = torch.randn(2, 3, 6), torch.randn(2, 3, 4)
    weight, bias = gate.linear.weight[0], gate.linear.bias
    for text, length in enumerate((2, 3)):
        values = [torch.sigmoid(x[text, t] @ weight + bias) for t in range(length)]
        wanted = y[text] + sum(values) / length * (x[text] @ part.A.T @ part.B.T)
        assert torch.allclose(part(x, y)[text], wanted, atol=1e-6)


@pytest.mark.parametrize("method", [GATED, pl.LoRA(targets=LINEARS, ranks=(2, 0, 3), gate="real")])
@pytest.mark.parametrize("check", checks.CHECKS)
def test_gated_support(make_encoder, model_type, toy_task, batch, method, check):
    checks.verify(trained(make_encoder, model_type, toy_task, method), batch, check)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_a_gate_over_padding_is_not_the_default(make_encoder, toy_task, rows, attention):
    encoder = make_encoder(attention=attention)
    batch = collate(toy_task.encode(rows, encoder.tokenizer, 64), encoder.tokenizer.pad_token_id)
    for gate, fails in (("real", False), ("all", True)):
        method = pl.LoRA(rank=4, gate=gate)
        model = trained(lambda _: make_encoder(attention=attention), "", toy_task, method)
        if fails:
            with pytest.raises(checks.Unsupported):
                checks.check_padding(model, batch)
        else:
            checks.check_padding(model, batch)


def test_gated_starts_at_zero_and_cannot_be_merged(make_encoder, toy_task, inputs, model_type):
    bare = make_encoder(model_type)
    model = pl.model(make_encoder(model_type), toy_task, GATED)
    assert GATED.starts_at_zero
    assert torch.equal(own_states(model, inputs), bare.backbone(**inputs).last_hidden_state)
    with pytest.raises(MergeError, match="cannot be merged"):
        model.merge()


@pytest.mark.parametrize("method", [GATED, pl.LoRA(targets=LINEARS, ranks=(2, 0, 3), gate="real")])
def test_gated_flops(make_encoder, toy_task, method):
    bare, model = make_encoder(), pl.model(make_encoder(), toy_task, method)
    counted = []
    for backbone in (bare.backbone, model.backbone):
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            backbone(input_ids=torch.randint(5, 20, (2, 9)))
        counted.append(counter.get_total_flops())
    assert counted[1] - counted[0] == 2 * method.flops(bare.anatomy, 9)


@pytest.mark.parametrize(
    "method",
    [
        pl.LoRA(rank=4, alpha=2, gate="all"),
        pl.LoRA(rank=3, targets=EVERYWHERE, leave_out=(1,), gate="all"),
        pl.LoRA(ranks=(3, 0, 3), alpha=5),
    ],
    ids=str,
)
def test_adapters_reads_what_we_write(
    make_encoder, model_type, toy_task, inputs, tmp_path, method, record_property
):
    model = trained(make_encoder, model_type, toy_task, method)
    check_adapters_reads(
        model, make_encoder(model_type).backbone, inputs, tmp_path, record_property
    )


@pytest.mark.parametrize("safe", [True, False], ids=["safetensors", "bin"])
def test_we_read_a_gated_lora_of_adapters(
    make_encoder, model_type, toy_task, inputs, tmp_path, safe
):
    theirs, encoder = make_encoder(model_type).backbone, make_encoder(model_type)
    settings = {"r": 3, "alpha": 2, "use_gating": True, "output_lora": True}
    model = check_we_read_adapters(
        theirs, encoder, toy_task, inputs, tmp_path, "LoRAConfig", settings, safe
    )
    assert model.method.gate == "all"


@pytest.mark.parametrize(
    "method",
    [
        pl.LoRA(ranks=(2, 8, 4), alpha=6),
        pl.LoRA(ranks=(0, 5, 3), targets=("key", "output")),
    ],
    ids=str,
)
def test_peft_reads_what_we_write(
    make_encoder, model_type, toy_task, inputs, tmp_path, method, record_property
):
    model = trained(make_encoder, model_type, toy_task, method)
    theirs = make_encoder(model_type).backbone

    def rename(name: str) -> str:
        return "base_model.model." + name.replace(".weight", ".default.weight")

    check_peft_reads(model, theirs, inputs, tmp_path, record_property, rename)
    again = pl.load(tmp_path, encoder=make_encoder(model_type), task=toy_task)
    assert again.method == method


@pytest.mark.parametrize("safe", [True, False], ids=["safetensors", "bin"])
@pytest.mark.parametrize(
    ("settings", "ranks"),
    [
        ({"rank_pattern": {r"layer\.1\..*": 2, r"layer\.0\..*": 5}}, (5, 2, 8)),
        ({"rank_pattern": {"2.attention.self.(query|value)": 3}}, (8, 8, 3)),
        ({"rank_pattern": {"query": 4, "value": 4}, "layers_to_transform": [0]}, (4, 0, 0)),
        ({"alpha_pattern": {"query": 8}}, ()),
    ],
    ids=str,
)
def test_we_read_the_ranks_of_peft(
    make_encoder, model_type, toy_task, inputs, tmp_path, settings, ranks, safe
):
    theirs, encoder = make_encoder(model_type).backbone, make_encoder(model_type)
    settings = {"target_modules": ["query", "value"], **settings}
    model = check_we_read_peft(
        theirs, encoder, toy_task, inputs, tmp_path, "LoraConfig", settings, safe
    )
    assert model.method.ranks == ranks


@pytest.mark.parametrize(
    ("pattern", "words"),
    [
        ({"rank_pattern": {"query": 2}}, "rank_pattern gives the maps of layer 0 the ranks 2, 8"),
        ({"alpha_pattern": {"value": 3}}, r"alpha_pattern gives .*value the alpha 3"),
    ],
)
def test_patterns_that_are_not_ours(make_encoder, toy_task, tmp_path, pattern, words):
    pl.model(make_encoder(), toy_task, pl.LoRA()).save(tmp_path, format="peft")
    path = tmp_path / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | pattern))
    with pytest.raises(CheckpointError, match=words):
        pl.load(tmp_path, encoder=make_encoder(), task=toy_task)


@pytest.mark.parametrize(
    ("method", "library"),
    [
        (pl.LoRA(gate="real"), "adapters"),
        (pl.LoRA(gate="all"), "peft"),
        (pl.LoRA(ranks=(1, 2, 3)), "adapters"),
    ],
    ids=str,
)
def test_what_a_library_does_not_have(make_encoder, toy_task, tmp_path, method, library):
    model = pl.model(make_encoder(), toy_task, method)
    with pytest.raises(CheckpointError, match="cannot hold"):
        model.save(tmp_path / "x", format=library)
