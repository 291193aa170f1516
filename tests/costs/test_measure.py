"""A cell measured on a tiny encoder: everything is in the record, and what cannot be is said."""

from __future__ import annotations

import pytest
import torch

from peftlab.costs import CostExperiment, Rounds, Sweep, measure
from peftlab.costs import measure as measuring
from peftlab.errors import OutOfMemoryError, SettingsError
from peftlab.results.cost_table import MEMORY, PARTS, cost_table, parts, text
from peftlab.results.costs import CostRecord, CostSettings
from peftlab.results.store import cost_store

QUICK = Rounds(warmup=1, min_rounds=3, min_seconds=0, parts=2)
METHODS = {"full": {"name": "full"}, "lora": {"name": "lora"}, "full again": {"name": "full"}}


@pytest.fixture
def settings(tiny_folder):
    def make(**changes):
        base = {"encoder": str(tiny_folder("bert")), "batch": 2, "length": 8, "methods": METHODS}
        return CostSettings(**(base | changes))

    return make


pytestmark = pytest.mark.filterwarnings("ignore::peftlab.timing.NoisyTiming")


def test_a_training_cell(settings):
    record = measure(settings(), QUICK, "small")
    assert CostRecord.from_json(record.to_json()) == record
    for candidate in record.candidates.values():
        assert len(candidate.seconds) == 3
        assert candidate.flops.total == sum(
            (
                candidate.flops.forward,
                candidate.flops.activation_gradient,
                candidate.flops.weight_gradient,
            )
        )
        assert set(candidate.phases) == {"forward", "backward", "optimiser"}
        assert all(len(seconds) == 2 for seconds in candidate.phases.values())
        assert len(candidate.activation) == 2
        assert set(parts(candidate)) == set(PARTS)
        assert candidate.memory["weights"] > 0
    full, lora = record.candidates["full"], record.candidates["lora"]
    assert lora.flops.total < full.flops.total
    assert lora.flops.hugging_face > full.flops.hugging_face  # the convention, not a count
    assert lora.memory["gradients"] < full.memory["gradients"]
    assert record.ceilings
    assert record.machine["load_average"] >= 0
    table = cost_table([record])
    assert list(table["method"]) == list(METHODS)
    assert {f"{part}_ms" for part in PARTS} | {f"{m}_mb" for m in MEMORY} <= set(table.columns)
    assert table["ratio"].iloc[0] == 1
    assert len(text(record).splitlines()) == 4


def test_an_inference_cell_has_merged_methods(settings):
    methods = METHODS | {"lora merged": {"name": "lora"}, "mlp": {"name": "prefix"}}
    record = measure(settings(mode="inference", methods=methods), QUICK)
    flops = {label: c.flops.total for label, c in record.candidates.items()}
    assert flops["lora merged"] == flops["full"] < flops["lora"]
    assert all(c.phases == {} and c.memory == {} for c in record.candidates.values())
    assert "gradient" not in text(record)


def test_on_the_meta_device_flops_are_counted_and_nothing_is_timed():
    record = measure(
        CostSettings(encoder="minilm-l6", batch=2, length=16, methods=METHODS, device="meta")
    )
    assert all(c.flops.total > 0 and not c.seconds for c in record.candidates.values())
    assert record.candidates["lora"].parameters.trainable == 6 * 2 * 2 * 8 * 384
    assert cost_table([record])["flop_ratio"].iloc[0] == 1
    text(record)


def test_recomputing_activations_keeps_fewer(settings):
    kept = measure(settings(), QUICK).candidates["full"].memory["activations"]
    again = measure(settings(checkpointing=True), QUICK).candidates["full"].memory["activations"]
    assert again < 0.7 * kept


def test_what_does_not_fit_is_recorded_and_the_others_are_measured(settings, monkeypatch):
    def full_memory(encoder, entry, seed, **options):
        if entry["name"] == "lora":
            raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 1 GiB.\nmore")
        return build(encoder, entry, seed, **options)

    build = measuring.__globals__["build"]
    monkeypatch.setitem(measuring.__globals__, "build", full_memory)
    record = measure(settings(), QUICK)
    assert record.candidates["lora"].error == "CUDA out of memory. Tried to allocate 1 GiB."
    assert record.candidates["full"].seconds
    assert "Tried to allocate" in text(record)
    with pytest.raises(OutOfMemoryError, match="smaller cell"):
        measure(settings(baseline="lora"), QUICK)


def experiment(folder, **changes):
    return CostExperiment(
        **{
            "name": "small",
            "kind": "cost",
            "question": "?",
            "encoders": [str(folder)],
            "cells": [(1, 8), (2, 8)],
            "methods": {"full": {"name": "full"}},
            "rounds": QUICK,
        }
        | changes
    )


def test_a_sweep_measures_each_cell_once(tiny_folder, tmp_path):
    said = []
    sweep = Sweep(experiment(tiny_folder("bert")), cost_store(tmp_path), said.append)
    assert sweep.work(limit=1) == 1
    assert [plan.batch for plan in sweep.pending()] == [2]
    assert sweep.work() == 1
    assert sweep.work() == 0
    assert len(said) == 2
    records = cost_store(tmp_path).load_all("small")
    assert {r.settings.batch for r in records} == {1, 2}
    assert {r.experiment for r in records} == {"small"}


def test_two_measurements_at_once_are_refused(tiny_folder, tmp_path):
    from filelock import FileLock

    sweep = Sweep(experiment(tiny_folder("bert")), cost_store(tmp_path))
    sweep.store.folder.mkdir(parents=True)
    with FileLock(sweep.store.folder / ".measuring.lock"):  # noqa: SIM117
        with pytest.raises(SettingsError, match="disturb each other"):
            sweep.work()
