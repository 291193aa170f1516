"""Encoders of known shape: their sizes, and the sizes of methods on them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import pytest

import peftlab as pl
from peftlab import methods
from peftlab.encoders import shapes
from peftlab.errors import UnknownNameError
from peftlab.methods import registry, sites, sizes


@pytest.mark.parametrize(
    ("name", "parameters", "length"),
    [
        ("bert-base", 108_891_648, 512),
        ("roberta-base", 124_055_040, 512),
        ("xlm-roberta-base", 277_453_056, 512),
        ("bert-large", 334_092_288, 512),
    ],
)
def test_shape(name, parameters, length):
    encoder = shapes.shape(name)
    assert sum(p.numel() for p in encoder.backbone.parameters()) == parameters
    assert encoder.anatomy.max_length == length
    assert all(p.is_meta for p in encoder.backbone.parameters())
    assert shapes.shape(name).backbone is not encoder.backbone


def test_an_unknown_shape_is_one_sentence():
    with pytest.raises(UnknownNameError, match="did you mean 'bert-large'"):
        shapes.shape("bert-larg")


def test_the_shape_is_that_of_the_family_s_default_configuration():
    """Transformers' own defaults for BERT are those of bert-base-uncased."""
    from transformers import BertConfig

    theirs, ours = BertConfig(), shapes.shape("bert-base").backbone.config
    for key in shapes.SHAPES["bert-base"][1]:
        assert getattr(theirs, key) == getattr(ours, key)


@pytest.fixture
def registered(monkeypatch):
    """A registry that a test can add to."""
    monkeypatch.setattr(registry, "_methods", methods.classes())
    monkeypatch.setattr(registry, "_presets", methods.presets())


def test_every_method_is_sized_once(registered):
    methods.preset("lora-again", pl.LoRA(rank=3))
    found, left_out = sizes.sizes("bert-base")
    assert left_out == {}
    assert [size.method for size in found] == list(methods.catalogue())
    by_name = {size.method: size for size in found}
    assert by_name["lora-again"].trainable == 12 * 2 * 3 * 2 * 768
    assert by_name["lora-8"] == sizes.Size("lora-8", "bert-base", *[294_912] * 3, 589_824.0, True)
    assert "lora" not in by_name  # it is lora-8


def test_a_method_that_does_not_fit_is_left_out_with_the_reason(registered):
    methods.preset("top-13", pl.TopLayers(layers=13))
    found, left_out = sizes.sizes("bert-base")
    assert "has 12" in left_out["top-13"]
    assert "top-13" not in {size.method for size in found}
    found, left_out = sizes.sizes("bert-large")
    assert left_out == {}
    assert "top-13" in {size.method for size in found}


def test_a_method_without_plain_settings_is_listed_by_its_presets(registered):
    @methods.register
    @dataclass(frozen=True)
    class Needy(pl.LoRA):
        name: ClassVar[str] = "needy"

        def __post_init__(self) -> None:
            """Check nothing."""

    methods.preset("needy-2", Needy(rank=2))
    listed = methods.catalogue()
    assert listed["needy-2"].rank == 2
    assert listed["needy"] == Needy()


def test_attaching_leaves_nothing_behind(monkeypatch):
    encoder = shapes.shape("bert-base")
    monkeypatch.setattr(sizes, "shape", lambda name: encoder)
    sizes.sizes("bert-base")
    assert next(sites.find(encoder.backbone), None) is None
