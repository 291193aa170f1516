"""Parameter counts on the true shapes: the numbers that papers and libraries print."""

from __future__ import annotations

import pytest
import torch

import peftlab as pl
from peftlab import methods
from peftlab.methods import sites

BASE_LAYERS = 85_054_464


@pytest.mark.parametrize(
    ("name", "method", "trainable"),
    [
        ("roberta-base", "full", 124_055_040),
        ("bert-base-uncased", "full", 108_891_648),
        ("xlm-roberta-base", "full", 277_453_056),
        ("xlm-roberta-base", "full-frozen-embeddings", BASE_LAYERS),
        ("bert-base-uncased", {"name": "top-layers", "layers": 3}, BASE_LAYERS // 4),
        ("roberta-base", "head-only", 0),
        ("roberta-base", "pfeiffer-16", 894_528),
        ("bert-base-uncased", "pfeiffer-16", 894_528),
        ("bert-base-uncased", {"name": "adapter", "bottleneck_size": 48}, 894_528),
        ("bert-base-uncased", {"name": "pfeiffer-16", "leave_out": [0, 1, 2, 3, 4, 5]}, 447_264),
        ("roberta-base", "lora-8", 294_912),
        ("bert-base-uncased", "lora-8", 294_912),
        (
            "xlm-roberta-base",
            {"name": "lora-8", "targets": ["query", "key", "value", "intermediate", "output"]},
            1_179_648,
        ),
    ],
    ids=str,
)
def test_published_numbers(meta_encoder, name, method, trainable):
    encoder, method = meta_encoder(name), methods.get(method)
    encoder.backbone.requires_grad_(False)
    method.attach(encoder)
    found = sum(p.numel() for p in encoder.backbone.parameters() if p.requires_grad)
    assert found == trainable
    assert method.counts(encoder.anatomy).trainable == trainable


def test_parts_take_the_type_of_the_weights(make_encoder, toy_task):
    encoder = make_encoder()
    encoder.backbone.to(torch.bfloat16)
    model = pl.model(encoder, toy_task, pl.LoRA())
    types = {p.dtype for _, part in sites.parts(model.backbone) for p in part.parameters()}
    assert types == {torch.bfloat16}
    batch = {"input_ids": torch.tensor([[2, 7, 3]]), "attention_mask": torch.ones(1, 3)}
    assert model(batch).logits.dtype == torch.bfloat16, "the head too"
