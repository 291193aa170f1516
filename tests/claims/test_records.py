"""Checks that look up costs, or one model for several tasks, on records whose answer is known."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from peftlab.claims import Evidence
from peftlab.claims import measures as m
from peftlab.claims.checks import Cell
from peftlab.claims.evidence import Place
from peftlab.claims.priced import StepRatio
from peftlab.claims.trained import Joint, RunRatio
from peftlab.errors import RecordError, SettingsError, UnknownNameError
from peftlab.results.records.costs import CostRecord
from peftlab.results.records.store import cost_store
from tests.claims.made import COST, EXPERIMENT
from tests.results.made import SPEED, candidate, curve_cost, curve_run, record

LORA = {"what": "x", "methods": ["lora-8"], "claimed": {"below": 1}}


def book(folder: Path, **files: str) -> Evidence:
    """Write experiment files and return what there is for them."""
    (folder / "experiments").mkdir()
    for name, text in files.items():
        (folder / "experiments" / f"{name}.toml").write_text(text)
    return Evidence(folder / "experiments", folder / "results")


@pytest.mark.parametrize(("mode", "expected"), [("train", 0.7), ("inference", 1.3)])
def test_a_step_is_the_methods_over_the_rivals_in_its_mode(
    tmp_path: Path, mode: str, expected: float
) -> None:
    evidence = book(tmp_path, price=COST)
    like = {"train": "lora", "inference": "slow"}  # in inference it is as slow as the slow one
    for plan in evidence.measured("price").plans("cpu", "a processor", 1):  # type: ignore[attr-defined]
        if plan.batch == 1:
            found = {
                label: candidate(like[plan.mode] if label.startswith("lora") else "full", 8)
                for label in plan.methods
            }
            made = CostRecord(id=plan.id, experiment="price", settings=plan, candidates=found)
            cost_store(tmp_path / "results").save(made)
    check = StepRatio.model_validate(
        LORA | {"measure": "step ratio", "experiment": "price", "mode": mode}
    )
    check.verify(evidence)
    one, two = check.cells(evidence)
    assert not evidence.complete("price"), (
        "two cells of two modes are planned, and one of each done"
    )
    assert one.estimate is not None
    assert one.estimate.value == pytest.approx(expected, rel=0.05)
    assert one.judgement == ("reproduced" if expected < 1 else "not reproduced")
    assert two.estimate is None
    assert "2 × 8" in two.name
    some = check.model_copy(update={"encoders": ["minilm-l6"]})
    assert list(some.cells(evidence)) == [one, two]
    with pytest.raises(UnknownNameError, match="no encoder in the experiment 'price' 'bert-base'"):
        check.model_copy(update={"encoders": ["bert-base"]}).verify(evidence)


def test_what_does_not_fit_has_no_cell_and_stops_no_other(tmp_path: Path) -> None:
    evidence = book(tmp_path, price=COST)
    (plan, *_) = evidence.measured("price").plans("cpu", "a processor", 1)
    found = {label: candidate("full", 8) for label in plan.methods}
    broken = {"seconds": [], "error": "does not fit into the memory"}
    found["lora-8"] = found["lora-8"].model_copy(update=broken)
    made = CostRecord(id=plan.id, experiment="price", settings=plan, candidates=found)
    cost_store(tmp_path / "results").save(made)
    check = StepRatio.model_validate(
        LORA | {"measure": "step ratio", "experiment": "price", "mode": plan.mode}
    )
    assert [cell.estimate for cell in check.cells(evidence)] == [None, None]


def test_a_precision_that_is_not_measured_is_a_cell_without_an_estimate(tmp_path: Path) -> None:
    both = COST.replace(
        "cells = [[1, 8], [2, 8]]", 'cells = [[1, 8]]\nprecisions = ["fp32", "bf16"]'
    )
    evidence = book(tmp_path, price=both)
    for plan in evidence.measured("price").plans("cpu", "a processor", 1):
        if plan.precision == "fp32":
            found = {label: candidate("full", 8) for label in plan.methods}
            made = CostRecord(id=plan.id, experiment="price", settings=plan, candidates=found)
            cost_store(tmp_path / "results").save(made)
    check = StepRatio.model_validate(
        LORA | {"measure": "step ratio", "experiment": "price", "mode": "train"}
    )
    told = {cell.name: cell.estimate is not None for cell in check.cells(evidence)}
    assert told == {
        "minilm-l6, 1 × 8, fp32, lora-8": True,
        "minilm-l6, 1 × 8, bf16, lora-8": False,
    }


class Priced(Evidence):
    """Knows one cell of costs, where a step of LoRA takes 0.7 of one of full fine-tuning."""

    def measured(self, name: str) -> Any:
        class Plan:
            cells = ((8, 32),)

        return Plan

    def costs(self, name: str) -> list[CostRecord]:
        return [curve_cost()]


@pytest.mark.parametrize(("unit", "expected"), [("steps", 1.0), ("seconds", SPEED["lora"])])
def test_a_run_is_its_steps_times_the_price_of_one(unit: str, expected: float) -> None:
    losses = [0.5, 0.4, 0.3]
    ours, theirs = (
        [curve_run(label, seed, losses) for seed in (0, 1)] for label in ("lora", "full")
    )
    check = RunRatio.model_validate(
        LORA
        | {"measure": "run ratio", "experiment": "made", "until": "target", "unit": unit}
        | ({} if unit == "steps" else {"cost": "price"})
    )
    found = check._estimate(Priced("", ""), {}, ours, theirs)
    assert found is not None
    assert found.value == pytest.approx(expected, rel=0.05)
    cell = check._compared(
        Priced("", ""), Place("tiny", "toy", 10), {"lora-8": ours, "full": theirs}, "lora-8"
    )
    runs = {run.id for run in (*ours, *theirs)}
    assert set(cell.records) == runs | (set() if unit == "steps" else {curve_cost().id})


def test_what_trains_nothing_has_no_time_to_a_stop() -> None:
    idle = curve_run("majority", 0, [0.5]).replaced(evaluations=[])
    check = RunRatio.model_validate(
        LORA
        | {"measure": "run ratio", "experiment": "made", "until": "stop", "unit": "steps"}
        | {"waits": ""}
    )
    with pytest.raises(RecordError, match="trained nothing that a rule could stop"):
        check._estimate(Priced("", ""), {}, [idle], [curve_run("full", 0, [0.5])])


class Together(Evidence):
    """Has one model for two tasks, and adapters for each."""

    def groups(self, name: str) -> Any:
        def timed(label: str, task: str, seconds: float, accuracy: float, seed: int) -> Any:
            made = record(label, task, seed, accuracy=accuracy)
            return made.replaced(seconds={"train": seconds, "total": seconds})

        def joint(seed: int) -> Any:
            made = timed("full", "both", 6, 0.8, seed)
            scores = {task: [1.0] * right + [0.0] * (200 - right) for task, right in RIGHT.items()}
            metrics = {task: {"accuracy": right / 200} for task, right in RIGHT.items()}
            return made.replaced(
                metrics={"test": {"mean": 0.8}} | metrics, main_metric="mean", example_scores=scores
            )

        adapters = {"glue/sst2": (4, 0.7), "glue/mrpc": (8, 0.9)}
        found = {
            Place("tiny", task, 10): {"lora-8": [timed("lora-8", task, *what, s) for s in (1, 0)]}
            for task, what in adapters.items()
        }
        return {Place("tiny", "both", 20): {"full": [joint(seed) for seed in (0, 1)]}} | found


RIGHT = {"glue/sst2": 180, "glue/mrpc": 170}
BOTH = EXPERIMENT.replace(
    "tasks = [", 'tasks = [{ name = "both", of = ["glue/sst2", "glue/mrpc"] }, '
)

JOINT: dict[str, Any] = {
    "measure": "joint",
    "what": "x",
    "experiment": "small",
    "joint": "both",
    "methods": ["full"],
    "against": "lora-8",
    "claimed": {"below": 1},
}


def joint_cells(folder: Path, of: str) -> list[Cell]:
    book(folder, small=BOTH)
    evidence = Together(folder / "experiments", folder / "results")
    check = Joint.model_validate(JOINT | {"of": of})
    check.verify(evidence)
    return list(check.cells(evidence))


def test_a_task_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    twice = BOTH.replace("tasks = [", 'tasks = [{ name = "glue/sst2", train = 30 }, ')
    book(tmp_path, small=twice)
    evidence = Evidence(tmp_path / "experiments", tmp_path / "results")
    check = Joint.model_validate(JOINT | {"of": "score"})
    words = r"needs 'glue/sst2' once, but it is there as glue/sst2 \(30 rows\) on tiny, glue/sst2"
    with pytest.raises(SettingsError, match=words):
        check.verify(evidence)


def test_one_model_is_priced_against_all_adapters_together(tmp_path: Path) -> None:
    (cell,) = joint_cells(tmp_path, "seconds")
    assert cell.estimate is not None
    assert cell.estimate.value == pytest.approx(6 / (4 + 8))


def test_one_model_is_scored_against_the_adapter_of_each_task(tmp_path: Path) -> None:
    found = {
        cell.name.split(",")[0]: cell.estimate.value
        for cell in joint_cells(tmp_path, "score")
        if cell.estimate is not None
    }
    assert found == pytest.approx({"glue/sst2": 0.9 - 0.7, "glue/mrpc": 0.85 - 0.9})


def test_runs_without_a_common_seed_are_refused() -> None:
    ours, theirs = [record("full", seed=0)], [record("lora", seed=1)]
    with pytest.raises(RecordError, match="cannot be paired"):
        m.joint_ratio(ours, [theirs])
    with pytest.raises(RecordError, match="cannot be paired"):
        m.size_ratio(ours, theirs, "trainable")
