"""Compacter: the Kronecker formula by hand, counts, sharing, and parity with `adapters`."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

import peftlab as pl
from peftlab import methods
from peftlab.errors import CheckpointError, SettingsError
from peftlab.methods import sites
from peftlab.methods.compacter import PHM, CompacterPart, Rule
from peftlab.support import checks
from peftlab.training.batches import collate
from tests.methods.parity import (
    check_adapters_reads,
    check_we_read_adapters,
    note,
    own_states,
    shaken,
    trained,
)

METHODS = [
    pl.Compacter(),
    pl.Compacter(placement="pfeiffer"),
    pl.Compacter(reduction_factor=8, phm_dim=2, rank=3, activation="relu", leave_out=(0,)),
    pl.Compacter(placement="pfeiffer", reduction_factor=10.5, phm_dim=4, leave_out=(1,)),
]


def weight(phm: PHM) -> torch.Tensor:
    """H [d_in, d_out], formed with torch's Kronecker product."""
    rule = phm.rule.module.weight
    return sum(torch.kron(rule[i], phm.left[i] @ phm.right[i]) for i in range(len(rule)))


def random_phm(d_in: int, d_out: int, n: int, rank: int) -> tuple[PHM, Rule]:
    torch.manual_seed(0)
    rule = Rule(n)
    phm = PHM(d_in, d_out, rank, rule)
    with torch.no_grad():
        for parameter in (*phm.parameters(), rule.weight):
            parameter.normal_()
    return phm.double(), rule.double()


@pytest.mark.parametrize("rank", [1, 3])
@pytest.mark.parametrize("n", [1, 2, 4])
@pytest.mark.parametrize(("d_in", "d_out"), [(24, 8), (8, 24)])
def test_a_map_is_the_sum_of_kronecker_products(d_in, d_out, n, rank):
    phm, rule = random_phm(d_in, d_out, n, rank)
    x = torch.randn(3, 5, d_in, dtype=torch.float64)
    y, wanted = phm(x), x @ weight(phm) + phm.bias
    assert torch.allclose(y, wanted, rtol=1e-10, atol=1e-10)
    of = [*phm.parameters(), rule.weight]
    pairs = zip(
        torch.autograd.grad(y.sin().sum(), of),
        torch.autograd.grad(wanted.sin().sum(), of),
        strict=True,
    )
    assert all(torch.allclose(a, b, rtol=1e-8, atol=1e-8) for a, b in pairs)


@pytest.mark.parametrize("placement", ["houlsby", "pfeiffer"])
def test_where_the_bottleneck_reads(placement):
    settings = pl.Compacter(placement=placement)
    part = CompacterPart(64, 4, settings, Rule(4), owns=True)
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in part.parameters():
            parameter.normal_()
    h, x, norm = torch.randn(2, 3, 64), torch.randn(2, 3, 64), torch.nn.LayerNorm(64)
    z = h if placement == "houlsby" else norm(h + x)
    middle = torch.nn.functional.gelu(z @ weight(part.down) + part.down.bias)
    wanted = h + middle @ weight(part.up) + part.up.bias
    assert torch.allclose(part(h, x, norm), wanted, rtol=1e-4, atol=1e-3)


def test_dropout_is_on_the_bottleneck_and_only_in_training():
    torch.manual_seed(0)
    part = CompacterPart(64, 4, pl.Compacter(dropout=0.5), Rule(4), owns=True)
    with torch.no_grad():
        for parameter in part.parameters():
            parameter.normal_()
    h, x, norm = torch.zeros(2, 3, 64), torch.randn(2, 3, 64), torch.nn.LayerNorm(64)
    whole, kept = part.eval()(h, x, norm), part.train()(h, x, norm)
    zero = kept == 0
    assert 0.3 < zero.float().mean() < 0.7
    assert torch.allclose(kept[~zero], 2 * whole[~zero], rtol=1e-4)


def test_it_costs_less_than_the_formed_matrix():
    phm, _ = random_phm(768, 24, 4, 1)
    x = torch.randn(10, 768, dtype=torch.float64)
    with FlopCounterMode(display=False) as counter:
        phm(x)
    assert counter.get_total_flops() == 10 * 6_464 < 10 * 2 * 768 * 24


@pytest.mark.parametrize("placement", ["houlsby", "pfeiffer"])
@pytest.mark.parametrize("leave_out", [(), (0,)])
def test_the_lowest_bottleneck_owns_the_shared_matrices(
    make_encoder, toy_task, placement, leave_out
):
    method = pl.Compacter(placement=placement, leave_out=leave_out)
    model = pl.model(make_encoder(), toy_task, method)
    names = [name for name in model.method_state() if "rule" in name]
    block = "attention.output" if placement == "houlsby" else "output"
    assert names == [f"encoder.layer.{len(leave_out)}.{block}.before.compacter.rule.weight"]
    for one in (model, copy.deepcopy(model)):
        parts = [part for _, part in sites.parts(one.backbone)]
        shared = {id(phm.rule.module) for part in parts for phm in (part.down, part.up)}
        assert shared == {id(parts[0].rule)}


@pytest.mark.parametrize(
    ("method", "encoder", "trainable"),
    [
        ("compacter", "bert-base-uncased", 57_088),
        ("compacter", "xlm-roberta-base", 57_088),
        ("compacter++", "roberta-base", 28_576),
    ],
)
def test_published_numbers(meta_encoder, method, encoder, trainable):
    encoder, method = meta_encoder(encoder), methods.get(method)
    encoder.backbone.requires_grad_(False)
    method.attach(encoder)
    found = sum(p.numel() for p in encoder.backbone.parameters() if p.requires_grad)
    assert found == trainable == method.counts(encoder.anatomy).trainable


def test_start():
    """Shared matrices from N(0, 0.0001²), thin ones Xavier-normal each by itself, biases 0."""
    torch.manual_seed(0)
    rule = Rule(16)
    phm = PHM(1600, 800, 5, rule)
    assert rule.weight.std().item() == pytest.approx(1e-4, rel=0.1)
    assert phm.left.std().item() == pytest.approx((2 / (100 + 5)) ** 0.5, rel=0.1)
    assert phm.right.std().item() == pytest.approx((2 / (50 + 5)) ** 0.5, rel=0.1)
    assert not phm.bias.any()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"phm_dim": 0}, "phm_dim is 0"),
        ({"rank": 1.5}, "rank is 1.5"),
        ({"reduction_factor": -1}, "reduction_factor is -1"),
        ({"placement": "bapna"}, "placement is 'bapna'"),
        ({"dropout": 1.0}, "dropout is 1.0"),
    ],
)
def test_settings_that_cannot_work(settings, words):
    with pytest.raises(SettingsError, match=words):
        pl.Compacter(**settings)


@pytest.mark.parametrize(
    "settings",
    [{"phm_dim": 3}, {"reduction_factor": 64}, {"reduction_factor": 1000, "phm_dim": 1}],
    ids=str,
)
def test_widths_that_cannot_be_divided(make_encoder, toy_task, settings):
    with pytest.raises(SettingsError, match="must divide the encoder's width 128"):
        pl.model(make_encoder(), toy_task, pl.Compacter(**settings))


# The same in `adapters`


@pytest.mark.parametrize("method", METHODS, ids=str)
def test_adapters_reads_what_we_write(
    make_encoder, model_type, toy_task, inputs, tmp_path, method, record_property
):
    model = trained(make_encoder, model_type, toy_task, method)
    check_adapters_reads(
        model, make_encoder(model_type).backbone, inputs, tmp_path, record_property
    )


SETTINGS = [
    ("CompacterConfig", {}),
    ("CompacterPlusPlusConfig", {"leave_out": [1]}),
    ("CompacterConfig", {"phm_dim": 2, "phm_rank": 2, "reduction_factor": 16}),
]


def with_heads(backbone: Any) -> Any:
    """A model of `adapters` with heads: a bare encoder would not save the shared matrices."""
    adapters = pytest.importorskip("adapters")
    model = adapters.AutoAdapterModel.from_config(backbone.config)
    model.base_model.load_state_dict(backbone.state_dict(), strict=False)
    return model


@pytest.mark.parametrize("safe", [True, False], ids=["safetensors", "bin"])
@pytest.mark.parametrize(("config", "settings"), SETTINGS, ids=str)
def test_we_read_what_adapters_writes(
    make_encoder, model_type, toy_task, inputs, tmp_path, config, settings, safe, record_property
):
    theirs, encoder = with_heads(make_encoder(model_type).backbone), make_encoder(model_type)
    model = check_we_read_adapters(
        theirs, encoder, toy_task, inputs, tmp_path, config, settings, safe
    )
    differences = own_states(model, inputs) - own_states_of(theirs.base_model, inputs)
    note(record_property, "compacter", "adapters", states=float(differences.abs().max()))


def test_a_bare_encoder_of_adapters_loses_the_shared_matrices(
    make_encoder, toy_task, tmp_path, record_property
):
    """What `adapters` has saved cannot be read back by anyone: it says nothing, we refuse it."""
    adapters = pytest.importorskip("adapters")
    inputs = make_encoder("bert").tokenizer(["the old dog"], return_tensors="pt")
    theirs = make_encoder("bert").backbone
    adapters.init(theirs)
    theirs.add_adapter("one", config="compacter")
    theirs.train_adapter("one")
    wanted = shaken(theirs, inputs)
    theirs.save_adapter(str(tmp_path), "one", use_safetensors=True)
    again = make_encoder("bert").backbone
    adapters.init(again)
    again.load_adapter(str(tmp_path), use_safetensors=True, set_active=True)
    difference = float((own_states_of(again, inputs) - wanted).abs().max())
    assert difference > 0.1
    with pytest.raises(CheckpointError, match="rule"):
        pl.load(tmp_path, encoder=make_encoder("bert"), task=toy_task)
    fails = "A bare encoder saves no shared matrices, so that the reloaded adapter is another one."
    note(record_property, "compacter", "adapters", fails=fails, differs=difference)

    model = trained(make_encoder, "bert", toy_task, pl.Compacter())
    model.save(tmp_path / "ours")
    ours = pl.load(tmp_path / "ours", encoder=make_encoder("bert"), task=toy_task)
    assert torch.equal(own_states(ours, inputs), own_states(model, inputs))


def own_states_of(backbone: Any, inputs: Any) -> torch.Tensor:
    with torch.no_grad():
        return backbone.eval()(**inputs).last_hidden_state


def test_adapters_cannot_be_compiled(make_encoder, model_type, toy_task, rows, record_property):
    """`adapters` cannot compile its Compacter, even in pieces; ours is one graph."""
    adapters = pytest.importorskip("adapters")
    from torch._dynamo.exc import TorchDynamoException

    encoder = make_encoder(model_type)
    inputs = dict(encoder.tokenizer(["the old dog"], return_tensors="pt"))
    theirs = encoder.backbone
    adapters.init(theirs)
    for name in ("seq_bn", "compacter"):
        theirs.add_adapter(name, config=name, set_active=True)
        theirs.eval()
        states = own_states_of(theirs, inputs)
        torch.compiler.reset()
        compiled = torch.compile(theirs, backend="eager")
        if name == "seq_bn":  # so it is not the encoder or the library as such
            assert torch.allclose(own_states_of(compiled, inputs), states, atol=1e-6)
        else:
            with pytest.raises(TorchDynamoException, match=r"torch.Size\(\)") as caught:
                own_states_of(compiled, inputs)
    fails = f"torch.compile raises {type(caught.value).__name__}."
    note(record_property, "compacter", "adapters", fails=fails)

    model = trained(make_encoder, model_type, toy_task, pl.Compacter())
    features = toy_task.encode(rows, model.encoder.tokenizer, 64)
    checks.check_compile(model, collate(features, model.encoder.tokenizer.pad_token_id))


@pytest.mark.parametrize(
    "settings",
    [
        {"shared_phm_rule": False},
        {"factorized_phm_rule": True},
        {"factorized_phm_W": False},
        {"phm_bias": False},
        {"scaling": 2.0},
    ],
    ids=str,
)
def test_other_forms_are_refused(make_encoder, toy_task, tmp_path, settings):
    adapters = pytest.importorskip("adapters")
    theirs = with_heads(make_encoder("bert").backbone)
    theirs.add_adapter("one", config=adapters.CompacterConfig(**settings))
    theirs.save_adapter(str(tmp_path), "one", use_safetensors=True)
    with pytest.raises(CheckpointError, match=next(iter(settings))):
        pl.load(tmp_path, encoder=make_encoder("bert"), task=toy_task)


def test_what_the_others_do_not_have(make_encoder, toy_task, tmp_path):
    model = pl.model(make_encoder(), toy_task, "compacter")
    with pytest.raises(CheckpointError, match="peft cannot hold"):
        model.save(tmp_path, format="peft")
    rational = pl.model(make_encoder(), toy_task, pl.Compacter(activation="rational:one"))
    with pytest.raises(CheckpointError, match="adapters cannot hold"):
        rational.save(tmp_path, format="adapters")
