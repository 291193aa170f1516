"""What a trained model's rational activations have become, as a record keeps it."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import peftlab as pl
from peftlab.experiments import Experiment
from peftlab.experiments.activations import ROWS, learned_activations
from peftlab.experiments.execute import Executor
from peftlab.methods.focused import AdaptableFocused
from peftlab.results.records.run import Record

TASK = pl.task("pocket/topic").limit(train=16, dev=80, test=8)


@pytest.fixture(scope="module")
def model() -> pl.Model:
    made = pl.model("pocket", TASK, AdaptableFocused(layers=(0, 2)), seed=0)
    for i, part in enumerate(rational(made)):
        torch.nn.init.normal_(part.numerator, generator=torch.Generator().manual_seed(i))
    return made


def rational(model: pl.Model) -> list[Any]:
    return [m for m in model.modules() if type(m).__name__ == "Rational"]


def test_coefficients_and_layers_are_those_of_the_model(model: pl.Model) -> None:
    found = learned_activations(model, TASK, 32)
    assert [each.layer for each in found] == [0, 2]
    for each, part in zip(found, rational(model), strict=True):
        assert each.version == part.version == "A"
        assert each.numerator == part.numerator.tolist()
        assert each.denominator == part.denominator.tolist()
    assert found[0].numerator != found[1].numerator


def test_percentiles_are_of_unpadded_development_rows(model: pl.Model) -> None:
    seen: list[torch.Tensor] = []
    hook = rational(model)[0].register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    tokenizer = model.encoder.tokenizer
    model.eval()
    with torch.no_grad():
        for row in TASK.rows("dev")[:ROWS]:
            batch = TASK.encode([row], tokenizer, 32)[0]
            model({name: torch.tensor([value]) for name, value in batch.items()})
    hook.remove()
    values = torch.cat([each.ravel() for each in seen]).float()
    wanted = torch.quantile(values, torch.tensor([0.01, 0.5, 0.99]), interpolation="nearest")
    found = learned_activations(model, TASK, 32)[0]
    assert found.given == pytest.approx(wanted.tolist(), abs=1e-4)
    assert found.given == sorted(found.given)


def test_the_model_is_left_as_it_was(model: pl.Model) -> None:
    for mode in (True, False):
        model.train(mode)
        learned_activations(model, TASK, 32)
        assert model.training is mode
    assert not any(part._forward_pre_hooks for part in rational(model))


def test_without_rational_activations_there_is_nothing() -> None:
    assert learned_activations(pl.model("pocket", TASK, "pfeiffer-16", seed=0), TASK, 32) == []


def test_a_run_records_them(tmp_path: Any) -> None:
    experiment = Experiment.model_validate(
        {
            "name": "learned",
            "question": "What does it become?",
            "encoder": "pocket",
            "tasks": [{"name": "pocket/topic", "train": 16, "dev": 8, "test": 8}],
            "methods": {"adaptable": "adaptable", "pfeiffer-16": "pfeiffer-16"},
            "settings": {"max_steps": 2, "batch_size": 8, "max_length": 32},
            "tuning": {"learning_rates": [1e-3]},
            "seeds": [0],
        }
    )
    learned, plain = (
        Executor()(cell.tuning_runs()[0], tmp_path / cell.label, lambda run: tmp_path / run)
        for cell in experiment.cells()
    )
    assert plain.activations == []
    assert [each.layer for each in learned.activations] == [0, 1, 2, 3]
    start = [1.0, 0.0, 0.0, 0.0, 0.0, 0.0]
    assert all(each.numerator != start for each in learned.activations)  # they have moved
    assert Record.from_json(learned.to_json()) == learned
