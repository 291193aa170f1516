"""The places where parts stand: what is given back, what is followed, what is counted."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import peftlab as pl
from peftlab.errors import SettingsError
from peftlab.methods import sites


@pytest.mark.parametrize(
    "method",
    [
        pl.Prompt(prompt_length=20, place="before"),
        pl.Prefix(prefix_length=20, shift_positions=True),
        pl.Union(pl.Prompt(prompt_length=12, place="before"), pl.Prefix(8, shift_positions=True)),
    ],
    ids=str,
)
def test_removing_gives_the_positions_back(encoder, method):
    tokenizer: Any = encoder.tokenizer
    for own in (64, 64, 50, 30):  # what the tokenizer takes by itself
        tokenizer.model_max_length = own
        for _ in range(4):
            method.attach(encoder)
            assert encoder.reserved == 20
            assert tokenizer.model_max_length == min(own, 44)
            sites.remove(encoder)
            assert encoder.reserved == 0
            assert tokenizer.model_max_length == own


def test_a_twin_has_positions_of_its_own(encoder):
    twin = encoder.twin()
    pl.Prompt(prompt_length=20, place="before").attach(twin)
    assert (twin.reserved, twin.tokenizer.model_max_length) == (20, 44)
    assert (encoder.reserved, encoder.tokenizer.model_max_length) == (0, 64)
    assert twin.backbone.config is encoder.backbone.config
    assert twin.tokenizer("the dog")["input_ids"] == encoder.tokenizer("the dog")["input_ids"]


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_attention_follows_the_configuration(make_encoder, model_type, inputs, attention):
    """At every call, and with the masks that transformers then makes."""
    encoder = make_encoder(model_type, attention=attention)
    pl.Prefix(prefix_length=3).attach(encoder)
    site = encoder.anatomy.layers[1].attention.get()
    gathered: list[Any] = []
    site.register_forward_hook(lambda module, args, output: gathered.append(output[1]))
    states = []
    with torch.no_grad():
        for kernel in ("sdpa", "eager", "sdpa"):
            encoder.backbone.config._attn_implementation = kernel
            states.append(encoder.backbone(**inputs).last_hidden_state)
    assert [weights is None for weights in gathered] == [True, False, True]
    for other in states[1:]:
        assert (states[0] - other).abs().max() <= 1e-5


@pytest.mark.parametrize("method", [pl.Prefix(3), pl.Adapter(gate="real")], ids=str)
def test_attention_that_is_not_here_is_refused(make_encoder, method):
    encoder = make_encoder("bert")
    method.attach(encoder)
    site = encoder.anatomy.layers[0].attention.get()
    site.config._attn_implementation = "flash_attention_2"
    with pytest.raises(SettingsError, match="attention is 'flash_attention_2'"):
        site(torch.zeros(1, 2, 128))


def test_masked_heads_are_not_ignored(make_encoder, model_type, inputs):
    """A prefix refuses them; without one they are the original's matter."""
    head_mask = torch.tensor([[0.0, 1.0, 1.0, 1.0]]).repeat(3, 1)
    encoder = make_encoder(model_type, attention="eager")
    with torch.no_grad():
        masked = encoder.backbone(**inputs, head_mask=head_mask).last_hidden_state
        pl.Adapter(gate="real", init="zero").attach(encoder)
        assert torch.equal(
            encoder.backbone(**inputs, head_mask=head_mask).last_hidden_state, masked
        )
        pl.Prefix(3).attach(encoder)
        with pytest.raises(SettingsError, match="head_mask does not work with prefixes"):
            encoder.backbone(**inputs, head_mask=head_mask)


@pytest.mark.parametrize("freeze", [False, True])
@pytest.mark.parametrize("prompt", [pl.Prompt(), pl.Prompt(place="before"), pl.Invertible()])
@pytest.mark.parametrize("first", [True, False])
def test_full_fine_tuning_beside_parts(make_encoder, model_type, toy_task, freeze, prompt, first):
    """Its numbers are the bare encoder's, and it leaves the parts alone."""
    full, encoder = pl.Full(freeze_embeddings=freeze), make_encoder(model_type)
    bare = full.counts(encoder.anatomy)
    assert bare.trainable == sum(
        p.numel()
        for name, p in encoder.backbone.named_parameters()
        if not (freeze and name.startswith("embeddings."))
    )
    union = pl.Union(prompt, full) if first else pl.Union(full, prompt)
    wanted = union.counts(encoder.anatomy)
    assert wanted.trainable == bare.trainable + prompt.counts(encoder.anatomy).trainable
    model = pl.model(encoder, toy_task, union)
    assert full.counts(encoder.anatomy) == bare
    found = pl.summary(model)
    assert (found.trainable, found.stored) == (wanted.trainable, wanted.stored)


@pytest.mark.parametrize("method", [pl.Full(), pl.TopLayers(layers=3)], ids=str)
def test_frozen_parts_stay_frozen(make_encoder, method):
    """The members of a fusion do not train because the encoder's own weights do."""
    encoder = make_encoder("bert")
    encoder.backbone.requires_grad_(False)
    union = pl.Union(pl.AdapterFusion(members=2), method)
    union.attach(encoder)
    found = sum(p.numel() for p in encoder.backbone.parameters() if p.requires_grad)
    assert found == union.counts(encoder.anatomy).trainable
