"""Every preset on a GPU: the checks of the support matrix, and the same logits as on a CPU."""

from __future__ import annotations

import copy

import pytest
import torch

import peftlab as pl
from peftlab import methods
from peftlab.support import checks
from peftlab.training.batches import collate, to_device

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU"),
]
GPU = torch.device("cuda")


@pytest.fixture
def model(make_encoder, toy_task, request):
    built = pl.model(make_encoder("bert"), toy_task, request.param, seed=1)
    torch.manual_seed(5)
    with torch.no_grad():
        for _, parameter in built.trainable_parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return built


@pytest.fixture
def batch(make_encoder, toy_task, rows):
    tokenizer = make_encoder("bert").tokenizer
    return collate(toy_task.encode(rows, tokenizer, 64), tokenizer.pad_token_id)


presets = pytest.mark.parametrize("model", methods.presets(), indirect=True)


@presets
@pytest.mark.parametrize("check", checks.CHECKS)
def test_support(model, batch, check):
    checks.verify(model.to(GPU), to_device(batch, GPU), check)


@presets
def test_logits_are_those_of_a_cpu(model, batch):
    there = copy.deepcopy(model).to(GPU)
    with torch.no_grad():
        difference = there(to_device(batch, GPU)).logits.cpu() - model(batch).logits
    assert difference.abs().max() <= 1e-4
