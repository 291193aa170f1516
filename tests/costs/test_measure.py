"""A cell measured on a tiny encoder: everything is in the record, and what cannot be is said."""

from __future__ import annotations

import pytest
import torch

from peftlab.costs import CostExperiment, Rounds, Sweep, measure, ways
from peftlab.costs import measure as measuring
from peftlab.costs.step import Pass, build, random_batch
from peftlab.encoders import load_encoder
from peftlab.errors import OutOfMemoryError, SettingsError, TimingError
from peftlab.results.comparison.cost_table import MEMORY, PARTS, cost_table, parts, text
from peftlab.results.records.costs import Candidate, CostRecord, CostSettings
from peftlab.results.records.store import cost_store
from peftlab.timing import NoisyTiming, energy, quiet

QUICK = Rounds(warmup=1, min_rounds=3, min_seconds=0, parts=2)
METHODS = {"full": {"name": "full"}, "lora": {"name": "lora"}, "full again": {"name": "full"}}


@pytest.fixture
def settings(tiny_folder):
    def make(**changes):
        base = {"encoder": str(tiny_folder("bert")), "batch": 2, "length": 8, "methods": METHODS}
        return CostSettings(**(base | changes))

    return make


pytestmark = pytest.mark.filterwarnings("ignore::peftlab.timing.NoisyTiming")


@pytest.fixture(autouse=True)
def busy(monkeypatch):
    """Let a tenth of the cores be busy, without a look at them; return a way to change that."""

    def change(share):
        monkeypatch.setattr(quiet, "cores_busy", lambda: share)

    change(0.1)
    return change


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
    assert record.machine["cores_busy"] == 0.1
    assert record.joules == {}  # nobody asked
    table = cost_table([record])
    assert list(table["method"]) == list(METHODS)
    assert {f"{part}_ms" for part in PARTS} | {f"{m}_mb" for m in MEMORY} <= set(table.columns)
    assert table["ratio"].iloc[0] == 1
    seconds = sorted(full.seconds)[1]
    reached = full.flops.total / seconds / (1e12 * record.ceilings["tflops"]["fp32"])
    assert table["share"].iloc[0] == pytest.approx(reached)
    assert len(text(record).splitlines()) == 4


def test_an_inference_cell_has_merged_methods(settings):
    methods = METHODS | {"lora merged": {"name": "lora"}, "mlp": {"name": "prefix"}}
    record = measure(settings(mode="inference", methods=methods), QUICK)
    flops = {label: c.flops.total for label, c in record.candidates.items()}
    assert flops["lora merged"] == flops["full"] < flops["lora"]
    assert all(c.phases == {} and c.memory == {} for c in record.candidates.values())
    assert "gradient" not in text(record)


@pytest.mark.parametrize(("mode", "window"), [("train", None), ("inference", 0.0)])
def test_each_forward_pass_is_a_sample_of_its_own(settings, monkeypatch, mode, window):
    asked = []
    timed = measure.__globals__["cost"]

    def noted(*given, **options):
        asked.append(options.get("window_seconds"))
        return timed(*given, **options)

    monkeypatch.setitem(measure.__globals__, "cost", noted)
    record = measure(settings(mode=mode), QUICK)
    assert asked[0] == window
    assert mode == "train" or {each.calls for each in record.candidates.values()} == {1}


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


@pytest.mark.parametrize("mode", ["train", "inference"])
def test_a_compiled_method_stands_beside_the_eager_one(settings, monkeypatch, mode):
    monkeypatch.setitem(ways.OPTIONS, "backend", "eager")
    methods = METHODS | {"lora compiled": {"name": "lora"}}
    record = measure(settings(mode=mode, methods=methods), QUICK)
    eager, compiled = record.candidates["lora"], record.candidates["lora compiled"]
    assert len(compiled.seconds) == 3
    assert compiled.flops == eager.flops
    assert compiled.phases == compiled.memory == {}
    assert "lora compiled" in text(record)


@pytest.mark.slow
@pytest.mark.timeout(1800)  # a C++ compiler runs for every kernel
def test_the_compiler_of_torch_is_measured(settings):
    methods = METHODS | {"lora compiled": {"name": "lora"}}
    assert measure(settings(methods=methods), QUICK).candidates["lora compiled"].seconds


def test_a_compiled_method_with_another_result_is_recorded_without_a_time(settings, monkeypatch):
    def doubled(graph, inputs):
        return lambda *given: tuple(2 * out for out in graph(*given))

    monkeypatch.setitem(ways.OPTIONS, "backend", doubled)
    methods = METHODS | {"lora compiled": {"name": "lora"}}
    record = measure(settings(methods=methods), QUICK)
    assert "of the compiled code differs" in record.errors["lora compiled"]
    assert record.candidates["lora"].seconds


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("mode", ["train", "inference"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_graphs_and_compiled_code_on_a_gpu(settings, mode, precision):
    methods = METHODS | {f"{name} graphed": {"name": name} for name in ("full", "lora", "adapter")}
    methods |= {"lora compiled": {"name": "lora"}}
    record = measure(settings(mode=mode, precision=precision, methods=methods, device="cuda"))
    assert not record.errors
    graphed = record.candidates["lora graphed"]
    assert min(graphed.seconds) < min(record.candidates["lora"].seconds)  # so small a model waits


def test_every_method_has_its_own_energy(settings, monkeypatch):
    def of_call(call, seconds, device):
        call()
        assert device == "cpu"
        return 100 * seconds, ""

    monkeypatch.setattr(energy, "of_call", of_call)
    record = measure(settings(), QUICK.model_copy(update={"energy": True}))
    for candidate in record.candidates.values():
        assert candidate.joules == pytest.approx(100 * sorted(candidate.seconds)[1])
    assert list(cost_table([record])["joules"]) == [c.joules for c in record.candidates.values()]
    assert record.joules == {}


def test_why_there_is_no_energy_is_said(settings):
    record = measure(settings(), QUICK.model_copy(update={"energy": True}))
    assert "'cpu' is not measured" in record.joules["reason"]
    assert all(candidate.joules is None for candidate in record.candidates.values())


def test_other_programs_on_the_cores_are_warned_of_and_recorded(settings, busy):
    busy(0.62)
    with pytest.warns(NoisyTiming, match="Other programs use 62 % of this machine's cores"):
        record = measure(settings(), QUICK)
    assert record.machine["cores_busy"] == 0.62


def test_emulated_bf16_is_refused(settings, monkeypatch):
    monkeypatch.setitem(measuring.__globals__, "has_bf16", lambda device: False)
    with pytest.raises(SettingsError, match="an old one has no instructions for bf16 matrices"):
        measure(settings(precision="bf16", processor="an old one"), QUICK)


def test_the_largest_batch_of_a_cpu_comes_from_the_line(settings):
    methods = {"full": {"name": "full"}, "lora": {"name": "lora"}}
    asked = settings(mode="capacity", batch=8, length=16, budget_gb=0.5, methods=methods)
    record = measure(asked)
    assert CostRecord.from_json(record.to_json()) == record
    full, lora = record.candidates["full"].largest, record.candidates["lora"].largest
    assert full.searched is None  # a CPU's memory cannot be bounded
    assert 100 < full.line < lora.line
    assert list(cost_table([record])["largest_batch_line"]) == [full.line, lora.line]
    assert text(record).splitlines()[1].split() == ["full", "-", str(full.line)]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("name", ["full", "lora"])
def test_search_and_line_agree_on_a_gpu(name):
    asked = CostSettings(
        encoder="minilm-l6",
        mode="capacity",
        batch=16,
        length=128,
        methods={"full": {"name": name}},
        device="cuda",
        budget_gb=4.0,
    )
    found = measure(asked).candidates["full"].largest
    assert found.line == pytest.approx(found.searched, rel=0.1)


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


def test_a_cell_with_an_error_is_measured_again_if_asked(tiny_folder, tmp_path):
    planned, store = experiment(tiny_folder("bert"), cells=[(1, 8)]), cost_store(tmp_path)
    Sweep(planned, store, report=len).work()
    again = Sweep(planned, store, report=len, retry=True)
    assert again.pending() == []  # nothing is wrong
    (record,) = store.load_all("small")
    failed = record.candidates | {"full again": Candidate(error="memory was full")}
    store.save(record.model_copy(update={"candidates": failed}), overwrite=True)
    assert Sweep(planned, store, report=len).pending() == []
    assert again.work() == 1
    assert not store.load_all("small")[0].errors


def test_methods_that_do_not_fit_beside_each_other_are_said(settings, monkeypatch):
    def full_memory(self):
        raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 1 GiB.\nmore")

    monkeypatch.setattr(Pass, "__call__", full_memory)
    with pytest.raises(OutOfMemoryError, match=r"2 × 8 tokens \(CUDA out of memory.*GiB\.\);"):
        measure(settings(), QUICK)


@pytest.mark.parametrize("error", [OutOfMemoryError, TimingError])
def test_a_cell_that_cannot_be_measured_is_said_and_the_others_are(
    tiny_folder, tmp_path, monkeypatch, error
):
    from peftlab.costs import sweep as module

    def small(settings, *rest):
        if settings.batch == 1:
            raise error("The baseline 'full' cannot be measured.")
        return measure(settings, *rest)

    monkeypatch.setattr(module, "measure", small)
    said = []
    sweep = Sweep(experiment(tiny_folder("bert")), cost_store(tmp_path), said.append)
    assert sweep.work() == 1
    assert "The baseline 'full' cannot be measured." in said[0]
    assert [r.settings.batch for r in cost_store(tmp_path).load_all("small")] == [2]


def test_methods_beside_a_graph_attend_without_a_mask(tiny_folder, monkeypatch):
    """As eagerly, where a library makes one because it cannot look while a graph is captured."""
    seen = []
    attend = torch.nn.functional.scaled_dot_product_attention

    def spy(*given, attn_mask=None, **more):
        seen.append(attn_mask)
        return attend(*given, attn_mask=attn_mask, **more)

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", spy)
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
    encoder = load_encoder(str(tiny_folder("bert")))
    for name in ("full", "lora-8", "prefix-30"):
        model = build(encoder, name)
        Pass(model, ways.unmasked(model, random_batch(encoder, 2, 8))).infer()
    assert seen and all(mask is None for mask in seen)


def test_two_measurements_at_once_are_refused(tiny_folder, tmp_path):
    from filelock import FileLock

    sweep = Sweep(experiment(tiny_folder("bert")), cost_store(tmp_path))
    sweep.store.folder.mkdir(parents=True)
    with FileLock(sweep.store.folder / ".measuring.lock"):  # noqa: SIM117
        with pytest.raises(SettingsError, match="disturb each other"):
            sweep.work()
