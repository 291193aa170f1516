"""Settings that cannot work are refused with a sentence; the others do what they say."""

from __future__ import annotations

import math
from dataclasses import fields

import pytest
import torch

import peftlab as pl
from peftlab import methods
from peftlab.errors import SettingsError, UnknownNameError
from peftlab.methods import sites
from peftlab.methods.lora import LoRAPart


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: pl.LoRA(rank=0), "rank is 0"),
        (lambda: pl.LoRA(rank=2.5), "rank is 2.5"),
        (lambda: pl.LoRA(alpha=0), "alpha is 0"),
        (lambda: pl.LoRA(alpha=math.inf), "alpha is inf"),
        (
            lambda: methods.get({"name": "lora", "alpha": "16"}),
            "alpha is '16' in the method 'lora'",
        ),
        (lambda: pl.LoRA(targets=()), "targets is"),
        (lambda: pl.LoRA(targets="query"), "give a tuple"),
        (lambda: pl.LoRA(targets=("query", "query")), "twice"),
        (lambda: pl.LoRA(dropout=1.0), "dropout is 1.0"),
        (lambda: pl.TopLayers(layers=0), "head-only"),
    ],
)
def test_settings_that_cannot_work(make, words):
    with pytest.raises(SettingsError, match=words):
        make()


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: pl.LoRA(targets=("querry",)), "did you mean 'query'"),
        (lambda: pl.Adapter(activation="rellu"), "did you mean 'relu'"),
    ],
)
def test_unknown_names(make, words):
    with pytest.raises(UnknownNameError, match=words):
        make()


#: Values of a wrong type, by what a field is declared to be; nothing can be an object().
WRONG = {
    "int": [1.5, "1", True, None],
    "float": ["1", True, None, (1.0,)],
    "bool": [1, "yes", None],
    "str": [1, None, ("relu",)],
    "int | None": [1.5, "1", True],
    "str | None": [1, True],
    "tuple[int, ...]": [1, [1], (1.5,), (True,), ("1",), None],
    "tuple[int, ...] | None": [1, [1], (1.5,), (True,), ("1",)],
    "tuple[str, ...]": ["query", ["query"], (1,), None],
    "tuple[Method, ...]": [3, "lora", ("lora",), [pl.LoRA()], (pl.LoRA(), None)],
    "Scale": [True, None, "much", (1.0,)],
    "Adapter": [None, "pfeiffer-16", pl.LoRA()],
}


@pytest.mark.parametrize(
    ("cls", "field", "value"),
    [
        pytest.param(cls, field.name, value, id=f"{name}-{field.name}-{value!r}")
        for name, cls in methods.classes().items()
        for field in fields(cls)
        for value in [{}, object, *WRONG.get(str(field.type), [1, None, "no such choice"])]
    ],
)
def test_a_value_of_a_wrong_type_is_named(cls, field, value):
    """In one sentence that says which setting it is, what came and what is wanted."""
    sentence = rf"^{field} is .* in the method '{cls.name}': give [^.]+\.$"
    with pytest.raises(SettingsError, match=sentence) as direct:
        cls(**{field: value})
    assert f" is {value!r} in " in str(direct.value)
    if not isinstance(value, list):  # which plain settings have for a tuple
        with pytest.raises(SettingsError) as plain:
            methods.get({"name": cls.name, field: value})
        assert str(plain.value) == str(direct.value)


def test_whole_numbers_are_numbers():
    method = pl.Adapter(reduction_factor=8, dropout=0, scale=4)
    assert method.settings() == {
        **pl.Adapter().settings(),
        "reduction_factor": 8,
        "dropout": 0,
        "scale": 4,
    }
    assert type(method.reduction_factor) is int


@pytest.mark.parametrize(
    ("method", "words"),
    [
        (pl.TopLayers(layers=4), "has 3"),
        (pl.Adapter(leave_out=(3,)), "layer 3"),
        (pl.LoRA(leave_out=(1, 1)), "at most once"),
        (pl.LoRA(leave_out=(0, 1, 2)), "all 3 layers"),
    ],
)
def test_settings_that_do_not_fit_the_encoder(make_encoder, toy_task, method, words):
    with pytest.raises(SettingsError, match=words):
        pl.model(make_encoder(), toy_task, method)


@pytest.mark.parametrize("method", [pl.Adapter(leave_out=(0, 2)), pl.LoRA(leave_out=(0, 2))])
def test_leave_out(make_encoder, toy_task, method):
    model = pl.model(make_encoder(), toy_task, method)
    paths = [path for path, _ in sites.parts(model.backbone)]
    assert paths
    assert all(path.startswith("encoder.layer.1.") for path in paths)
    assert pl.summary(model).trainable == method.counts(model.encoder.anatomy).trainable


def test_two_methods_at_one_encoder_need_two_encoders(make_encoder, toy_task):
    encoder = make_encoder()
    pl.model(encoder, toy_task, pl.LoRA())
    with pytest.raises(SettingsError, match="carries a method already"):
        pl.model(encoder, toy_task, pl.Adapter())


def test_lora_equation():
    torch.manual_seed(0)
    part = LoRAPart(d_in=6, d_out=4, rank=2, scale=1.5, dropout=0.0)
    with torch.no_grad():
        part.B.normal_()
    x, y = torch.randn(3, 6), torch.randn(3, 4)
    assert torch.allclose(part(x, y), y + 1.5 * x @ part.A.T @ part.B.T)


def test_lora_initialisation():
    part = LoRAPart(d_in=768, d_out=768, rank=64, scale=1.0, dropout=0.0)
    bound = 1 / math.sqrt(768)
    assert not part.B.any()
    assert 0.99 * bound < part.A.abs().max() <= bound
    assert part.A.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.02)


def test_lora_dropout_is_on_its_input_and_only_in_training():
    part = LoRAPart(d_in=50, d_out=4, rank=2, scale=1.0, dropout=0.5)
    with torch.no_grad():
        part.B.normal_()
    x, y = torch.ones(2, 50), torch.zeros(2, 4)
    assert not torch.allclose(part(x, y)[0], part(x, y)[1])
    part.eval()
    assert torch.allclose(part(x, y)[0], part(x, y)[1])
