"""Invertible adapters: the coupling, its inverse, its size, and the same in `adapters`."""

from __future__ import annotations

import pytest
import torch

import peftlab as pl
from peftlab.errors import SettingsError
from peftlab.methods.invertible import Coupling
from tests.methods.parity import (
    check_adapters_reads,
    check_we_read_adapters,
    trained,
)

METHODS = [
    pl.Invertible(),
    pl.Invertible(reduction_factor=4, activation="swish"),
    pl.Invertible(reduction_factor=64),
]


def coupling(d: int, dtype: torch.dtype) -> Coupling:
    """A coupling whose networks are far from zero."""
    torch.manual_seed(0)
    part = Coupling(*pl.Invertible().sizes(d), "relu").to(dtype)
    with torch.no_grad():
        for parameter in part.parameters():
            parameter.copy_(torch.randn_like(parameter) / 3)
    return part


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-4)])
@pytest.mark.parametrize("d", [64, 65])
def test_the_inverse_undoes_the_map(d, dtype, tolerance):
    part, x = coupling(d, dtype), torch.randn(3, 7, d, dtype=dtype)
    y = part(x)
    assert (y - x).abs().max() > 1
    assert (part.inverse(y) - x).abs().max() <= tolerance
    assert (part(part.inverse(x)) - x).abs().max() <= tolerance


def test_the_map_is_the_formula():
    part, x = coupling(8, torch.float64), torch.randn(2, 3, 8, dtype=torch.float64)
    weights = dict(part.named_parameters())

    def network(name, z):
        inner = (z @ weights[f"{name}.0.weight"].T + weights[f"{name}.0.bias"]).clamp(min=0)
        return inner @ weights[f"{name}.2.weight"].T + weights[f"{name}.2.bias"]

    y1 = x[..., :4] + network("F", x[..., 4:])
    y2 = x[..., 4:] + network("G", y1)
    assert torch.allclose(part(x), torch.cat([y1, y2], -1), atol=1e-14)


def test_it_stands_behind_the_embeddings(make_encoder, model_type, toy_task, inputs):
    model = trained(make_encoder, model_type, toy_task, pl.Invertible())
    bare = make_encoder(model_type).backbone
    ids = inputs["input_ids"]
    part = model.backbone.embeddings.states["invertible"]
    expected = part(bare.embeddings(input_ids=ids))
    assert torch.equal(model.backbone.embeddings(input_ids=ids), expected)


@pytest.mark.parametrize(("name", "parameters"), [("bert-base", 296_064), ("bert-large", 525_824)])
def test_the_closed_form(meta_encoder, name, parameters):
    encoder = meta_encoder(name)
    encoder.backbone.requires_grad_(False)
    pl.Invertible().attach(encoder)
    d = encoder.anatomy.hidden_size
    assert parameters == d * d // 2 + 3 * d // 2
    assert sum(p.numel() for p in encoder.backbone.parameters() if p.requires_grad) == parameters
    assert pl.Invertible().counts(encoder.anatomy).trainable == parameters


@pytest.mark.parametrize("factor", [0, -1, "2", 100])
def test_a_size_that_cannot_be(make_encoder, toy_task, factor):
    with pytest.raises(SettingsError, match="reduction_factor is"):
        pl.model(make_encoder("bert"), toy_task, {"name": "invertible", "reduction_factor": factor})


@pytest.mark.parametrize("method", METHODS, ids=str)
def test_adapters_reads_what_we_write(
    make_encoder, model_type, toy_task, inputs, tmp_path, method, record_property
):
    model = trained(make_encoder, model_type, toy_task, method)
    check_adapters_reads(
        model, make_encoder(model_type).backbone, inputs, tmp_path, record_property
    )


@pytest.mark.parametrize("safe", [True, False], ids=["safetensors", "bin"])
def test_we_read_what_adapters_writes(make_encoder, model_type, toy_task, inputs, tmp_path, safe):
    theirs, encoder = make_encoder(model_type).backbone, make_encoder(model_type)
    settings = {"output_adapter": False, "inv_adapter_reduction_factor": 4}
    model = check_we_read_adapters(
        theirs, encoder, toy_task, inputs, tmp_path, "SeqBnInvConfig", settings, safe
    )
    assert model.method == pl.Invertible(reduction_factor=4)
