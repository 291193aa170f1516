"""What a step is: its rows, its noise, its products, its size; and what comes after which step."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
import torch

from peftlab.training import TrainSettings, batches, fit, loop
from peftlab.training.mixture import Mixture

Make = Callable[..., Any]
SETTINGS = TrainSettings(
    learning_rate=5e-3, epochs=3, batch_size=8, max_length=32, precision="fp32"
)


def test_the_seed_decides_rows_masks_and_dropout_each_by_itself(
    make_model: Make, words_task: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    orders: list[list[int]] = []
    keys: list[int] = []
    step, varied = loop._Run._step, batches.varied

    def noted(run: Any, rows: list[int]) -> None:
        orders.append(rows)
        step(run, rows)

    def keyed(feature: Any, *key: int) -> Any:
        keys.append(key[0])
        return varied(feature, *key)

    monkeypatch.setattr(loop._Run, "_step", noted)
    monkeypatch.setattr(batches, "varied", keyed)

    def losses(seed: int) -> list[float]:
        settings = dataclasses.replace(SETTINGS, seed=seed, max_steps=2)
        return fit(make_model(), words_task, settings).losses

    losses(3)
    losses(4)
    assert orders[:2] != orders[2:]
    assert set(keys) == {3, 4}

    def same(mixture: Mixture, epoch: int) -> list[list[int]]:
        return batches.plan(mixture.lengths, 8, 0, epoch)

    monkeypatch.setattr(Mixture, "epoch", same)  # one model, the same rows: dropout is left
    assert losses(3) != losses(4)


def test_evaluations_and_the_end_come_where_they_were_asked(
    make_model: Make, words_task: Any
) -> None:
    settings = dataclasses.replace(SETTINGS, evaluate_every=5, max_steps=13)  # an epoch has 8
    found = fit(make_model(), words_task, settings)
    asked = [(step, step / 8) for step in (5, 10, 13)]
    assert [(each["step"], each["epoch"]) for each in found.evaluations] == asked
    assert len(found.losses) == 13
    end = loop.learning_rate(12, 13, settings)
    assert found.rates[-1] == end < 0.2 * settings.learning_rate, "the schedule ends there too"


@pytest.mark.parametrize("limit", [1e-3, 0.0])
def test_gradients_are_scaled_down_to_the_norm(
    make_model: Make, words_task: Any, monkeypatch: pytest.MonkeyPatch, limit: float
) -> None:
    norms: list[float] = []
    step = torch.optim.AdamW.step

    def noted(self: torch.optim.AdamW, *args: Any) -> Any:
        gradients = [p.grad.norm() for group in self.param_groups for p in group["params"]]
        norms.append(float(torch.stack(gradients).norm()))
        return step(self, *args)

    monkeypatch.setattr(torch.optim.AdamW, "step", noted)
    settings = dataclasses.replace(SETTINGS, max_grad_norm=limit, max_steps=3)
    fit(make_model(), words_task, settings)
    assert len(norms) == 3
    if limit:
        assert norms == pytest.approx([limit] * 3, rel=1e-2)
    else:
        assert min(norms) > 1e-2


@pytest.mark.parametrize(
    ("precision", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16)]
)
def test_products_have_the_format_that_is_recorded(
    make_model: Make, words_task: Any, precision: Any, dtype: torch.dtype
) -> None:
    model = make_model()
    seen: set[torch.dtype] = set()
    dense = model.backbone.encoder.layer[0].intermediate.dense
    dense.register_forward_hook(lambda module, given, out: seen.add(out.dtype))
    settings = dataclasses.replace(SETTINGS, precision=precision, max_steps=2)
    found = fit(model, words_task, settings)
    assert seen == {dtype}
    assert found.precision == precision
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
