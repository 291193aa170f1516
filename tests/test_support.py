"""The support matrix can say no: checks fail where something does not hold."""

from __future__ import annotations

import pytest
import torch

import peftlab as pl
from peftlab import support
from peftlab.methods.base import Part
from peftlab.methods.sites import linear_site
from peftlab.training.batches import collate


class OverPadding(Part):
    """Adds the mean over all positions, padding included, and no tensor of its own."""

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return y + y.mean(1, keepdim=True)


class Breaking(Part):
    """Asks for a number in the middle of the forward pass: no single graph."""

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return y * 2 if float(y.detach().sum()) > 0 else y * 3


@pytest.fixture
def batch(make_encoder, toy_task, rows):
    return collate(toy_task.encode(rows, make_encoder().tokenizer, 64), 0)


def test_matrix(make_encoder, toy_task, batch):
    model = pl.model(make_encoder(), toy_task, pl.Adapter())
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    found = support.support(model, batch)
    assert found.pop("merge").startswith("no: The method 'adapter' cannot be merged")
    assert set(found.values()) == {"yes"}
    assert all(torch.equal(t, before[name]) for name, t in model.state_dict().items())


@pytest.mark.parametrize(
    ("part", "check", "reason"),
    [(OverPadding, "padding", "differ"), (Breaking, "compile", ""), (OverPadding, "merge", "")],
)
def test_faults_are_found(make_encoder, toy_task, batch, part, check, reason):
    model = pl.model(make_encoder(), toy_task, pl.LoRA())
    site = linear_site(model.encoder.anatomy.layers[0].query)
    site.add(site.parts, "fault", part())
    found = support.support(model, batch)[check]
    assert found.startswith("no: ")
    assert reason in found
