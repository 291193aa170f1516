"""BitFit and LayerNorm tuning: which of the encoder's own vectors train."""

from __future__ import annotations

import pytest
import torch

import peftlab as pl
from peftlab.errors import CheckpointError, MergeError, SettingsError, UnknownNameError
from peftlab.methods.vectors import BIASES, NORMS, modules
from tests.methods.parity import check_peft_reads, check_we_read_peft, own_states, trained


def training(encoder, method) -> dict[str, int]:
    """Return the names and sizes of what a method makes trainable."""
    encoder.backbone.requires_grad_(False)
    method.attach(encoder)
    return {n: p.numel() for n, p in encoder.backbone.named_parameters() if p.requires_grad}


@pytest.mark.parametrize(
    ("name", "method", "trainable"),
    [
        ("xlm-roberta-base", pl.BitFit(), 102_144),
        ("bert-base-uncased", pl.BitFit(), 102_144),
        ("bert-base-uncased", pl.BitFit(terms=("query", "intermediate")), 12 * (768 + 3072)),
        ("bert-large", pl.BitFit(), 24 * (7 * 1024 + 4096) + 1024),
        ("xlm-roberta-base", pl.LayerNormTuning(), 25 * 2 * 768),
        ("bert-base-uncased", pl.LayerNormTuning(norms=("embeddings",)), 2 * 768),
        ("roberta-base", pl.LayerNormTuning(norms=("attention_layernorm",)), 12 * 2 * 768),
    ],
    ids=str,
)
def test_published_totals(meta_encoder, name, method, trainable):
    encoder = meta_encoder(name)
    counts = method.counts(encoder.anatomy)
    assert sum(training(encoder, method).values()) == trainable
    assert (counts.trainable, counts.stored, counts.inference) == (trainable, trainable, 0)


def test_bitfit_is_every_bias(make_encoder, model_type):
    encoder = make_encoder(model_type)
    every = {name for name, _ in encoder.backbone.named_parameters() if name.endswith(".bias")}
    assert training(encoder, pl.BitFit()).keys() == every


def test_layernorm_tuning_is_every_layernorm(make_encoder, model_type):
    encoder = make_encoder(model_type)
    norms = [
        name for name, m in encoder.backbone.named_modules() if isinstance(m, torch.nn.LayerNorm)
    ]
    every = {f"{name}.{vector}" for name in norms for vector in ("weight", "bias")}
    assert training(encoder, pl.LayerNormTuning()).keys() == every


@pytest.mark.parametrize("term", BIASES)
def test_one_term_alone(make_encoder, term):
    encoder = make_encoder()
    method = pl.BitFit(terms=(term,))
    found = training(encoder, method)
    assert len(found) == (1 if term == "embeddings" else len(encoder.anatomy.layers))
    assert sum(found.values()) == method.counts(encoder.anatomy).trainable


def test_they_find_the_vectors_inside_sites(make_encoder):
    """What other methods put around a module does not hide it."""
    encoder = make_encoder()
    bare = {name: id(module.bias) for name, module in modules(encoder.anatomy)}
    pl.Adapter().attach(encoder)
    pl.LoRA(targets=("query", "output"), gate="real").attach(encoder)
    assert {name: id(module.bias) for name, module in modules(encoder.anatomy)} == bare


@pytest.mark.parametrize(
    ("make", "words", "error"),
    [
        (lambda: pl.BitFit(terms=()), "terms is", SettingsError),
        (lambda: pl.BitFit(terms=("key", "key")), "twice", SettingsError),
        (lambda: pl.BitFit(terms=("keys",)), "did you mean 'key'", UnknownNameError),
        (lambda: pl.LayerNormTuning(norms="embeddings"), "give a tuple", SettingsError),
        (lambda: pl.LayerNormTuning(norms=("output",)), "output_layernorm", UnknownNameError),
    ],
)
def test_settings_that_cannot_work(make, words, error):
    with pytest.raises(error, match=words):
        make()


@pytest.mark.parametrize("method", [pl.BitFit(), pl.LayerNormTuning()], ids=["bitfit", "layernorm"])
def test_there_is_nothing_to_merge_or_to_take_out(
    make_encoder, toy_task, inputs, model_type, method
):
    bare = make_encoder(model_type)
    model = trained(make_encoder, model_type, toy_task, method)
    assert [n for n, _ in model.backbone.named_modules()] == [
        n for n, _ in bare.backbone.named_modules()
    ]
    assert not torch.equal(own_states(model, inputs), bare.backbone(**inputs).last_hidden_state)
    with pytest.raises(MergeError, match="cannot be merged"):
        model.merge()
    assert pl.summary(model).lowest_trained_layer == -1


@pytest.mark.parametrize(
    "method",
    [pl.LayerNormTuning(), *(pl.LayerNormTuning(norms=(norm,)) for norm in NORMS)],
    ids=str,
)
def test_peft_reads_what_we_write(
    make_encoder, model_type, toy_task, inputs, tmp_path, method, record_property
):
    model = trained(make_encoder, model_type, toy_task, method)
    theirs = make_encoder(model_type).backbone

    def rename(name: str) -> str:
        return "base_model.model." + name.replace("_layers.", "_layers.default.")

    check_peft_reads(model, theirs, inputs, tmp_path, record_property, rename)
    assert pl.load(tmp_path, encoder=make_encoder(model_type), task=toy_task).method == method


@pytest.mark.parametrize("safe", [True, False], ids=["safetensors", "bin"])
@pytest.mark.parametrize(
    ("asked", "norms"),
    [
        (["LayerNorm"], NORMS),
        (["attention.output.LayerNorm", "embeddings.LayerNorm"], NORMS[:2]),
        (r".*layer\.\d+\.output\.LayerNorm", NORMS[2:]),
    ],
    ids=str,
)
def test_we_read_what_peft_writes(
    make_encoder, model_type, toy_task, inputs, tmp_path, asked, norms, safe
):
    theirs, encoder = make_encoder(model_type).backbone, make_encoder(model_type)
    settings = {"target_modules": asked}
    model = check_we_read_peft(
        theirs, encoder, toy_task, inputs, tmp_path, "LNTuningConfig", settings, safe
    )
    assert model.method == pl.LayerNormTuning(norms=norms)


@pytest.mark.parametrize(
    ("method", "library"),
    [(pl.BitFit(), "adapters"), (pl.BitFit(), "peft"), (pl.LayerNormTuning(), "adapters")],
    ids=str,
)
def test_what_a_library_does_not_have(make_encoder, toy_task, tmp_path, method, library):
    model = pl.model(make_encoder(), toy_task, method)
    with pytest.raises(CheckpointError, match="cannot hold"):
        model.save(tmp_path / "x", format=library)
