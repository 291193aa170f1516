"""IA3: where the vectors stand, what they fold into, and the same in `adapters` and `peft`."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch.utils.flop_counter import FlopCounterMode

import peftlab as pl
from peftlab.encoders import LINEARS
from peftlab.errors import CheckpointError, MergeError, SettingsError, UnknownNameError
from peftlab.methods.ia3 import InputScaling, OutputScaling
from peftlab.methods.parts.gates import Gate
from peftlab.support import checks
from peftlab.training.batches import collate
from tests.methods.parity import (
    check_adapters_reads,
    check_peft_reads,
    check_we_read_adapters,
    check_we_read_peft,
    loaded_by_adapters,
    note,
    own_states,
    trained,
)

PAPER = pl.IA3()
BEFORE = pl.IA3(outputs=("key", "value", "intermediate"), inputs=())
GATED = pl.IA3(outputs=("key", "value", "intermediate"), inputs=(), gate="real")
#: By suffix, `peft` would find the attention's output.dense too.
LAST = r".*layer\.\d+\.output\.dense"
THREE = r".*\.(key|value)|" + LAST


@pytest.fixture
def batch(make_encoder, model_type, toy_task, rows):
    tokenizer = make_encoder(model_type).tokenizer
    return collate(toy_task.encode(rows, tokenizer, 64), tokenizer.pad_token_id)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: pl.IA3(outputs=(), inputs=()), "both empty"),
        (lambda: pl.IA3(outputs="key"), "give a tuple"),
        (lambda: pl.IA3(outputs=("key", "key")), "twice"),
        (lambda: pl.IA3(outputs=("output",)), "'output' is in outputs and in inputs"),
        (lambda: pl.IA3(gate="mean"), "gate is 'mean'"),
    ],
)
def test_settings_that_cannot_work(make, words):
    with pytest.raises(SettingsError, match=words):
        make()


def test_unknown_maps():
    with pytest.raises(UnknownNameError, match="did you mean 'value'"):
        pl.IA3(outputs=("values",))


def test_layers_that_do_not_exist(make_encoder, toy_task):
    with pytest.raises(SettingsError, match="layer 3"):
        pl.model(make_encoder(), toy_task, pl.IA3(leave_out=(3,)))


def test_published_totals(meta_encoder):
    anatomy = meta_encoder("roberta-base").anatomy
    vectors = 12 * (768 + 768 + 3072)
    assert PAPER.counts(anatomy).trainable == vectors == 55_296
    assert BEFORE.counts(anatomy).trainable == vectors
    assert GATED.counts(anatomy).trainable == vectors + 36 * 769
    after = pl.IA3(gate="real").counts(anatomy).trainable
    assert after == vectors + 12 * (769 + 769 + 3073)
    assert pl.IA3(leave_out=(0, 1, 2)).counts(anatomy).trainable == vectors * 3 // 4


@pytest.mark.parametrize("method", [PAPER, BEFORE], ids=["after", "before"])
def test_equation(make_encoder, toy_task, inputs, model_type, method):
    """One layer, written out: keys, values, and the feed-forward part's inner states."""
    model = trained(make_encoder, model_type, toy_task, method)
    layer, states = model.encoder.anatomy.layers[0].module, {}
    for name in ("self", "output"):
        module = getattr(layer.attention, name) if name == "self" else layer.output
        module.register_forward_hook(
            lambda module, args, out, name=name: states.update({name: (args, out)})
        )
    own_states(model, inputs)
    stored = {n: t for n, t in model.method_state().items() if n.startswith("encoder.layer.0.")}
    l_k, l_v, l_ff = (
        next(t for n, t in stored.items() if f".{place}." in n)
        for place in ("key", "value", "output" if method is PAPER else "intermediate")
    )
    attention = layer.attention.self
    (x, *_), (gathered, *_) = states["self"]

    def heads(y):
        return y.unflatten(-1, (attention.num_attention_heads, -1)).transpose(1, 2)

    def linear(site, x):
        return F.linear(x, site.weight, site.bias)

    q, k = linear(attention.query, x), linear(attention.key.original, x) * l_k
    v = linear(attention.value.original, x) * l_v
    scores = heads(q) @ heads(k).mT / heads(q).shape[-1] ** 0.5
    scores = scores.masked_fill(inputs["attention_mask"][:, None, None] == 0, -torch.inf)
    wanted = (scores.softmax(-1) @ heads(v)).transpose(1, 2).flatten(2)
    assert torch.allclose(gathered, wanted, atol=1e-5)

    (inner, residual), out = states["output"]
    block = layer.output
    if method is PAPER:
        h = linear(block.dense.original, inner * l_ff)
    else:
        before = linear(layer.intermediate.dense.original, residual) * l_ff
        h = linear(block.dense, F.gelu(before))
    assert torch.allclose(out, block.LayerNorm(h + residual), atol=1e-5)


def test_before_and_after_the_activation_differ(make_encoder, toy_task, inputs, model_type):
    """The same vectors in the two places give other states: GELU is not homogeneous."""
    models = [trained(make_encoder, model_type, toy_task, m) for m in (PAPER, BEFORE)]
    vectors = [list(m.method_state().values()) for m in models]
    with torch.no_grad():
        for source, copy in zip(*(sorted(v, key=len) for v in vectors), strict=True):
            copy.copy_(source)
    after, before = (own_states(m, inputs) for m in models)
    assert (after - before).abs().max() > 1e-3


def test_gated_equation(make_encoder):
    encoder = make_encoder()
    gate = Gate(encoder, encoder.anatomy.layers[0], "real", width=6)
    gate.padding.real = torch.tensor([[True, True, False]])
    x, y = torch.randn(1, 3, 6), torch.randn(1, 3, 4)
    g = sum(torch.sigmoid(x[0, t] @ gate.linear.weight[0]) for t in range(2)) / 2
    part = OutputScaling(4, gate)
    torch.nn.init.normal_(part.scale)
    assert torch.allclose(part(x, y), y * part.scale * g, atol=1e-6)
    part = InputScaling(6, gate)
    torch.nn.init.normal_(part.scale)
    assert torch.allclose(part(x), x * part.scale * g, atol=1e-6)


@pytest.mark.parametrize("method", [GATED, pl.IA3(gate="real")], ids=["before", "after"])
@pytest.mark.parametrize("check", checks.CHECKS)
def test_gated_support(make_encoder, model_type, toy_task, batch, method, check):
    checks.verify(trained(make_encoder, model_type, toy_task, method), batch, check)


def test_gated_halves_at_the_start_and_cannot_be_merged(make_encoder, toy_task, inputs, model_type):
    model = pl.model(make_encoder(model_type), toy_task, GATED)
    assert not GATED.starts_at_zero
    bare = make_encoder(model_type).backbone(**inputs).last_hidden_state
    assert (own_states(model, inputs) - bare).abs().max() > 0.1
    part = model.encoder.anatomy.layers[0].key.get().parts["ia3"]
    y = torch.ones(2, 3, 128)
    part.gate.padding.real = None
    assert torch.allclose(part(torch.randn(2, 3, 128), y), y / 2, atol=0.1)
    with pytest.raises(MergeError, match="cannot be merged"):
        model.merge()


@pytest.mark.parametrize("method", [GATED, pl.IA3(gate="real", leave_out=(1,))])
def test_gated_flops(make_encoder, toy_task, method):
    bare, model = make_encoder(), pl.model(make_encoder(), toy_task, method)
    counted = []
    for backbone in (bare.backbone, model.backbone):
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            backbone(input_ids=torch.randint(5, 20, (2, 9)))
        counted.append(counter.get_total_flops())
    assert counted[1] - counted[0] == 2 * method.flops(bare.anatomy, 9)


def test_folding_scales_rows_and_bias_or_columns():
    torch.manual_seed(0)
    weight, bias, x = torch.randn(4, 6), torch.randn(4), torch.randn(3, 6)
    for part in (OutputScaling(4), InputScaling(6)):
        torch.nn.init.normal_(part.scale)
        if isinstance(part, OutputScaling):
            wanted = part(x, F.linear(x, weight, bias))
        else:
            wanted = F.linear(part(x), weight, bias)
        assert torch.allclose(F.linear(x, *part.folded(weight, bias)), wanted, atol=1e-6)
        assert part.folded(weight, None)[1] is None


@pytest.mark.parametrize("method", [pl.IA3(outputs=LINEARS, inputs=()), pl.IA3((), LINEARS)])
def test_every_map_can_be_scaled_and_merged(make_encoder, model_type, toy_task, batch, method):
    checks.check_merge(trained(make_encoder, model_type, toy_task, method), batch)


@pytest.mark.parametrize(
    "method",
    [
        BEFORE,
        pl.IA3(outputs=("query", "output"), inputs=(), leave_out=(0,)),
        pl.IA3(outputs=("key", "value", "intermediate"), inputs=(), gate="all"),
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
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"use_gating": True},
        {"attn_matrices": ["q"], "intermediate_lora": False, "output_lora": True, "leave_out": [1]},
    ],
    ids=str,
)
def test_we_read_what_adapters_writes(
    make_encoder, model_type, toy_task, inputs, tmp_path, settings, safe
):
    theirs, encoder = make_encoder(model_type).backbone, make_encoder(model_type)
    check_we_read_adapters(theirs, encoder, toy_task, inputs, tmp_path, "IA3Config", settings, safe)


@pytest.mark.parametrize(
    "method",
    [
        PAPER,
        pl.IA3(outputs=("query", "attention_output"), leave_out=(1,)),
        pl.IA3(outputs=("intermediate", "output"), inputs=("attention_output", "value")),
        pl.IA3(outputs=("value",), inputs=()),
    ],
    ids=str,
)
def test_peft_reads_what_we_write(
    make_encoder, model_type, toy_task, inputs, tmp_path, method, record_property
):
    model = trained(make_encoder, model_type, toy_task, method)
    theirs = make_encoder(model_type).backbone

    def rename(name: str) -> str:
        return f"base_model.model.{name}.default"

    check_peft_reads(model, theirs, inputs, tmp_path, record_property, rename)
    again = pl.load(tmp_path, encoder=make_encoder(model_type), task=toy_task)
    assert torch.equal(own_states(again, inputs), own_states(model, inputs))


@pytest.mark.parametrize("safe", [True, False], ids=["safetensors", "bin"])
@pytest.mark.parametrize(
    ("settings", "method"),
    [
        ({"target_modules": THREE, "feedforward_modules": LAST}, PAPER),
        (
            {
                "target_modules": ["key", "value", "output.dense"],
                "feedforward_modules": ["output.dense"],
            },
            pl.IA3(inputs=("attention_output", "output")),
        ),
        (
            {"target_modules": r".*layer\.[02]\.attention\.self\.query", "feedforward_modules": []},
            pl.IA3(("query",), (), leave_out=(1,)),
        ),
    ],
    ids=["paper", "default", "query"],
)
def test_we_read_what_peft_writes(
    make_encoder, model_type, toy_task, inputs, tmp_path, settings, method, safe
):
    theirs, encoder = make_encoder(model_type).backbone, make_encoder(model_type)
    model = check_we_read_peft(
        theirs, encoder, toy_task, inputs, tmp_path, "IA3Config", settings, safe
    )
    assert model.method == method


def test_merging_in_adapters_forgets_the_bias(
    make_encoder, model_type, toy_task, inputs, tmp_path, record_property
):
    """The reference fails: it scales W and not b. Ours merges to what it was."""
    model = trained(make_encoder, model_type, toy_task, BEFORE)
    unmerged = own_states(model, inputs)
    model.save(tmp_path, format="adapters")
    theirs = loaded_by_adapters(make_encoder(model_type).backbone, tmp_path)
    with torch.no_grad():
        assert (theirs(**inputs).last_hidden_state - unmerged).abs().max() <= 1e-5
        theirs.merge_adapter("default")
        wrong = float((theirs(**inputs).last_hidden_state - unmerged).abs().max())
        assert wrong > 1e-2
        for layer in theirs.encoder.layer:  # with the bias scaled by hand it is right
            for linear in (layer.attention.self.key, layer.attention.self.value):
                linear.bias *= linear.loras["default"].lora_B[:, 0]
            linear = layer.intermediate.dense
            linear.bias *= linear.loras["default"].lora_B[:, 0]
        assert (theirs(**inputs).last_hidden_state - unmerged).abs().max() <= 1e-5
    fails = "merge_adapter scales the weight and not the bias, so the merged model is another one."
    note(record_property, "ia3", "adapters", fails=fails, differs=wrong)
    assert (own_states(model.merge(), inputs) - unmerged).abs().max() <= 1e-5


@pytest.mark.parametrize(
    ("method", "library"),
    [
        (PAPER, "adapters"),
        (pl.IA3(("attention_output",), ()), "adapters"),
        (GATED, "adapters"),
        (GATED, "peft"),
    ],
    ids=str,
)
def test_what_a_library_does_not_have(make_encoder, toy_task, tmp_path, method, library):
    model = pl.model(make_encoder(), toy_task, method)
    with pytest.raises(CheckpointError, match="cannot hold"):
        model.save(tmp_path / "x", format=library)
