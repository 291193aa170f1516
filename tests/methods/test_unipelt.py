"""Compositions: UniPELT and its relatives, Union and Stack, against the formula and `adapters`."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import peftlab as pl
from peftlab import methods
from peftlab.encoders import shapes
from peftlab.errors import CheckpointError, MergeError, SettingsError
from peftlab.methods import sites
from tests.methods.parity import (
    check_adapters_reads,
    check_we_read_adapters,
    loaded_by_adapters,
    note,
    own_states,
    trained,
)

GATED = pl.Adapter(gate="all")
FLAT = [
    pl.UniPELT(reparameterised=False, gate="all"),
    pl.UniPELT(reparameterised=False, gate="all", submodules="AP", prefix_length=3),
    pl.UniPELT(reparameterised=False, gate="none", rank=4, alpha=16),
    pl.Union(pl.Prefix(prefix_length=5), pl.Adapter(parallel=True, scale=4.0, init="mam")),
    pl.Union(
        pl.IA3(outputs=("key", "value", "intermediate"), inputs=(), gate="all"),
        pl.Prefix(prefix_length=4, gate="all"),
        GATED,
    ),
]


@pytest.mark.parametrize("method", FLAT, ids=str)
def test_adapters_reads_what_we_write(
    make_encoder, model_type, toy_task, inputs, tmp_path, method, record_property
):
    model = trained(make_encoder, model_type, toy_task, method)
    check_adapters_reads(
        model, make_encoder(model_type).backbone, inputs, tmp_path, record_property
    )


def test_adapters_reads_the_prompt_before_unipelt(make_encoder, model_type, toy_task, tmp_path):
    """A union in a union is laid open; theirs returns the states of the prompt, behind CLS."""
    method = pl.Union(pl.Prompt(prompt_length=4), FLAT[0])
    model = trained(make_encoder, model_type, toy_task, method)
    model.save(tmp_path, format="adapters")
    theirs = loaded_by_adapters(make_encoder(model_type).backbone, tmp_path)
    inputs = dict(model.encoder.tokenizer("the film is good .", return_tensors="pt"))
    states = own_states(model, inputs)
    with torch.no_grad():
        found = theirs(**inputs).last_hidden_state
    assert (torch.cat([found[:, :1], found[:, 5:]], 1) - states).abs().max() <= 1e-5
    read = pl.load(tmp_path, encoder=make_encoder(model_type), task=toy_task)
    assert torch.equal(own_states(read, inputs), states)


@pytest.mark.parametrize(
    "members",
    [
        (pl.LoRA(), pl.IA3(outputs=("value",), inputs=())),
        (pl.LoRA(targets=("query",)), pl.IA3(outputs=("key",), inputs=())),
        (pl.Adapter(), pl.Compacter(reduction_factor=16, placement="pfeiffer")),
        (pl.UniPELT(gate="all"), pl.IA3(outputs=("key",), inputs=())),
    ],
    ids=str,
)
def test_two_of_what_is_one_kind_to_adapters_are_refused(make_encoder, toy_task, tmp_path, members):
    """They would be written under one name; nothing is written then."""
    model = pl.model(make_encoder("bert"), toy_task, pl.Union(*members))
    with pytest.raises(CheckpointError, match="cannot hold"):
        model.save(tmp_path / "union", format="adapters")
    assert not (tmp_path / "union").exists()


def test_a_union_of_theirs_with_two_of_a_kind_is_refused(make_encoder, toy_task, tmp_path):
    adapters = pytest.importorskip("adapters")
    theirs = make_encoder("bert").backbone
    adapters.init(theirs)
    two = (adapters.SeqBnConfig(leave_out=[0]), adapters.SeqBnConfig(leave_out=[1, 2]))
    theirs.add_adapter("mine", config=adapters.ConfigUnion(*two))
    theirs.save_adapter(str(tmp_path), "mine")
    with pytest.raises(CheckpointError, match="joins methods of one kind"):
        pl.load(tmp_path, encoder=make_encoder("bert"), task=toy_task)


@pytest.mark.parametrize("config", ["UniPELTConfig", "MAMConfig"])
def test_we_read_what_adapters_writes(make_encoder, model_type, toy_task, inputs, tmp_path, config):
    theirs, encoder = make_encoder(model_type).backbone, make_encoder(model_type)
    check_we_read_adapters(theirs, encoder, toy_task, inputs, tmp_path, config, {})


def test_released_gates_see_padding_and_ours_do_not(
    make_encoder, toy_task, inputs, tmp_path, record_property
):
    """A text alone, and in a batch with longer ones: theirs differ, ours do not."""
    model = trained(make_encoder, "bert", toy_task, pl.UniPELT(reparameterised=False, gate="all"))
    model.save(tmp_path, format="adapters")
    theirs = loaded_by_adapters(make_encoder("bert").backbone, tmp_path)
    length = int(inputs["attention_mask"][1].sum())
    alone = {name: tensor[1:2, :length] for name, tensor in inputs.items()}
    ours = pl.model(make_encoder("bert"), toy_task, pl.UniPELT(reparameterised=False, gate="real"))
    with torch.no_grad():
        for name, tensor in ours.method_state().items():
            tensor.copy_(model.method_state()[name])

    def moved(backbone: Any) -> float:
        with torch.no_grad():
            together = backbone(**inputs).last_hidden_state[1, :length]
            return float((backbone(**alone).last_hidden_state[0] - together).abs().max())

    assert moved(ours.backbone) <= 1e-5 < 1e-3 < moved(theirs)
    with torch.no_grad():
        same = theirs(**alone).last_hidden_state - ours.backbone(**alone).last_hidden_state
    assert same.abs().max() <= 1e-5
    note(
        record_property,
        "unipelt",
        "adapters",
        fails="The gates average over padding, so a text's states depend on its batch.",
        differs=moved(theirs),
    )


@pytest.mark.parametrize(
    ("preset", "trainable"),
    [
        ("unipelt", 11_083_376),
        ("unipelt-flat", 1_410_672),
        ("pt-unipelt", 11_091_056),
        ("ia3-prefix-bottleneck", 10_852_988),
        ("unipelt-stack3", 33_250_128),
        ("mam", 22_493_984),
    ],
)
def test_published_totals(preset, trainable):
    encoder = shapes.shape("roberta-base")
    method = methods.get(preset)
    encoder.backbone.requires_grad_(False)
    method.attach(encoder)
    found = sum(p.numel() for p in encoder.backbone.parameters() if p.requires_grad)
    assert found == method.counts(encoder.anatomy).trainable == trainable


def test_there_are_four_gates_a_layer():
    encoder = shapes.shape("bert-base")
    gated = pl.UniPELT().counts(encoder.anatomy).trainable
    without = pl.UniPELT(gate="none").counts(encoder.anatomy).trainable
    assert gated - without == 48 * 769


def test_the_papers_variant_has_three_gates_a_layer(make_encoder, toy_task, inputs):
    """Query and value read one input, so a shared gate is two gates with equal weights."""
    shared = trained(make_encoder, "bert", toy_task, pl.UniPELT(lora_gate="shared"))
    anatomy = shared.encoder.anatomy
    each, one = pl.UniPELT().counts(anatomy), pl.UniPELT(lora_gate="shared").counts(anatomy)
    assert each.trainable - one.trainable == 3 * (128 + 1)
    assert sum(p.numel() for p in shared.backbone.parameters() if p.requires_grad) == one.trainable
    two = pl.model(make_encoder("bert"), toy_task, pl.UniPELT(reparameterised=False))
    with torch.no_grad():
        state = shared.method_state()
        for name, tensor in two.method_state().items():
            tensor.copy_(state[name.replace(".value.parts.lora.gate", ".query.parts.lora.gate")])
    assert (own_states(two, inputs) - own_states(shared, inputs)).abs().max() <= 1e-6
    with pytest.raises(CheckpointError, match="cannot hold"):
        shared.save("nowhere", format="adapters")


def test_a_stack_of_adapters_works_in_sequence(make_encoder, toy_task, inputs):
    """The upper adapter reads what the lower one left: s' = s + bn(LN(s + x))."""
    model = trained(make_encoder, "bert", toy_task, pl.Stack(pl.Adapter(), pl.Adapter()))
    layer = model.encoder.anatomy.layers[0]
    site: Any = layer.output.get()
    assert list(site.before) == ["adapter", "adapter-2"]
    h, x = torch.randn(2, 5, 128), torch.randn(2, 5, 128)
    norm = site.original.LayerNorm
    s = h
    for part in site.before.values():
        z = norm(s + x)
        s = s + part.up(torch.relu(part.down(z)))
    wanted = norm(s + x)
    site.original.dense = torch.nn.Identity()
    assert torch.allclose(site(h, x), wanted, atol=1e-6)


def test_stacked_loras_add_up_and_merge(make_encoder, toy_task, inputs):
    stack = pl.Stack(pl.LoRA(rank=2), pl.LoRA(rank=3, targets=("query", "key")))
    model = trained(make_encoder, "bert", toy_task, stack)
    model.backbone.double()  # in 32 bits the large updates round differently on every processor
    before = own_states(model, inputs)
    model.merge()
    assert not list(sites.find(model.backbone))
    assert (own_states(model, inputs) - before).abs().max() <= 1e-12
    with pytest.raises(MergeError, match="cannot be merged"):
        trained(make_encoder, "bert", toy_task, "unipelt-flat").merge()


def test_adapters_nests_stacked_loras(make_encoder, toy_task, inputs, record_property):
    """There the second LoRA reads the first one's update: an untrained first one silences it."""
    adapters = pytest.importorskip("adapters")
    theirs = make_encoder("bert").backbone
    adapters.init(theirs)
    for name in "ab":
        theirs.add_adapter(name, config=adapters.LoRAConfig(r=4))
    theirs.eval()
    bare = own_states(pl.model(make_encoder("bert"), toy_task, "head-only"), inputs)
    with torch.no_grad():
        for name, parameter in theirs.named_parameters():
            if ".loras.b." in name:
                parameter.add_(0.2 * torch.randn_like(parameter))
        theirs.set_active_adapters("b")
        alone = theirs(**inputs).last_hidden_state
        theirs.set_active_adapters(adapters.composition.Stack("a", "b"))
        stacked = theirs(**inputs).last_hidden_state
    lost = float((alone - bare).abs().max())
    assert (stacked - bare).abs().max() <= 1e-6 < 1e-2 < lost
    note(
        record_property,
        "stack",
        "adapters",
        fails="Stacked LoRAs are nested: with an untrained one below, a trained one has no effect.",
        differs=lost,
    )


def test_adapters_runs_only_the_last_of_stacked_parallel_adapters(
    make_encoder, model_type, toy_task, inputs, tmp_path, record_property
):
    """Two adapters beside one sublayer are one that is twice as wide; there the first is lost."""
    adapters = pytest.importorskip("adapters")
    method = pl.Adapter(parallel=True, bottleneck_size=8)
    stack = trained(make_encoder, model_type, toy_task, pl.Stack(method, method))
    theirs = make_encoder(model_type).backbone
    adapters.init(theirs)
    storeys: list[dict[str, Any]] = []
    for name, suffix in (("a", ""), ("b", "-2")):
        single = pl.model(make_encoder(model_type), toy_task, method)
        storeys.append(single.method_state())
        for path, tensor in storeys[-1].items():
            tensor.copy_(stack.method_state()[path.replace(".adapter.", f".adapter{suffix}.")])
        single.save(tmp_path / name, format="adapters")
        theirs.load_adapter(str(tmp_path / name), load_as=name, use_safetensors=True)
    wide = pl.model(
        make_encoder(model_type), toy_task, pl.Adapter(parallel=True, bottleneck_size=16)
    )
    for path, tensor in wide.method_state().items():
        one, two = (storey[path] for storey in storeys)
        if path.endswith("up.bias"):
            tensor.copy_(one + two)
        else:
            tensor.copy_(torch.cat([one, two], dim=int(path.endswith("up.weight"))))
    wanted = own_states(wide, inputs)
    assert (own_states(stack, inputs) - wanted).abs().max() <= 1e-5
    found = {}
    with torch.no_grad():
        for active in (adapters.composition.Stack("a", "b"), "b"):
            theirs.set_active_adapters(active)
            found[str(active)] = theirs.eval()(**inputs).last_hidden_state
    stacked, last = found.values()
    assert torch.equal(stacked, last)
    differs = float((stacked - wanted).abs().max())
    assert differs > 1e-2
    fails = "Of several parallel adapters in a Stack only the last one runs, without an error."
    note(record_property, "stack", "adapters", fails=fails, differs=differs)


def test_a_composition_is_rebuilt_from_its_settings():
    method = pl.Union(pl.Prompt(), pl.Stack(pl.UniPELT(), pl.UniPELT(rank=4)))
    assert methods.get(method.settings()) == method
    assert method.flat != method
    assert method.flat.flat == method.flat


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: pl.Union(), "needs methods"),
        (lambda: pl.Stack("lora"), "methods such as LoRA"),
        (lambda: pl.UniPELT(submodules="PL"), "'APL'"),
        (lambda: pl.UniPELT(gate="some"), "gate is 'some'"),
        (lambda: pl.UniPELT(lora_gate="both"), "lora_gate is 'both'"),
        (lambda: pl.UniPELT(rank=0), "rank is 0"),
        (lambda: pl.UniPELT(prefix_length=0), "prefix_length"),
    ],
    ids=range(7),
)
def test_bad_settings(make, words):
    with pytest.raises(SettingsError, match=words):
        make()


def test_a_stack_in_a_stack_is_one_stack(make_encoder, toy_task):
    nested = pl.Stack(pl.Stack(pl.Adapter(), pl.LoRA()), pl.Stack(pl.Stack(pl.Adapter())))
    plain = pl.Stack(pl.Adapter(), pl.LoRA(), pl.Adapter())
    found, wanted = (
        pl.model(make_encoder("bert"), toy_task, method).state_dict() for method in (nested, plain)
    )
    assert found.keys() == wanted.keys()
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)


def test_two_of_a_kind_need_a_stack(make_encoder, toy_task):
    with pytest.raises(SettingsError, match="put them into a Stack"):
        pl.model(make_encoder("bert"), toy_task, pl.Union(pl.LoRA(), pl.LoRA(rank=2)))
