"""`torch.compile` with its real backend, forward and backward, dropout off. It is slow."""

from __future__ import annotations

import shutil

import pytest
import torch

import peftlab as pl
from peftlab import methods
from peftlab.training.batches import collate

METHODS = {method: name for name, method in methods.catalogue().items()}

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("g++") is None, reason="inductor needs a C++ compiler"),
]


@pytest.mark.parametrize("method", METHODS, ids=METHODS.get)
def test_inductor_changes_nothing(make_encoder, toy_task, rows, method):
    model = pl.model(make_encoder("bert"), toy_task, method, seed=1, dropout=0.0)
    with torch.no_grad():
        for _, parameter in model.trainable_parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    batch = collate(toy_task.encode(rows, model.encoder.tokenizer, 64), 0)
    names, parameters = zip(*model.trainable_parameters(), strict=True)
    torch.compiler.reset()
    compiled = torch.compile(model, fullgraph=True)
    found = []
    for run in (model, compiled):
        loss = run(batch).loss
        gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
        found.append((loss.detach(), gradients))
    (loss, gradients), (compiled_loss, compiled_gradients) = found
    assert (loss - compiled_loss).abs() <= 1e-5
    for name, one, other in zip(names, gradients, compiled_gradients, strict=True):
        assert (one is None) == (other is None), name
        if one is not None:
            assert (one - other).abs().max() <= 1e-5 * max(1.0, float(one.abs().max())), name
