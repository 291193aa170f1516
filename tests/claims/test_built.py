"""Checks of runs that build on earlier ones, on made records whose answer is known."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from peftlab import experiments
from peftlab.claims import Finding, findings
from peftlab.claims import chains as m
from peftlab.claims.region import Region
from peftlab.errors import PeftlabError, RecordError
from peftlab.results.records.run import Layers, Record, RunSettings
from peftlab.results.records.store import Store
from tests.claims.made import CLAIMS, made, read, write
from tests.results.made import record

EXPERIMENT = """
name = "small"
question = "What does one task more cost?"
encoder = "tiny"
seeds = [0, 1, 2]
tuning = { learning_rates = [1e-3] }
tasks = [
    { name = "glue/sst2", train = 10 },
    { name = "glue/mrpc", train = 10, without = ["continue", "fused"] },
    { name = "half", of = ["glue/sst2", { name = "glue/cola", share = 0.5 }], \
without = ["alone", "fused", "switched"] },
]

[methods]
alone = "pfeiffer-16"
continue = "full"
fused = "adapterfusion"
switched = "adaptable"

[earlier]
old = { task = "glue/cola", method = "full", learning_rate = 1e-3 }
other = { task = "glue/cola", method = "pfeiffer-16", learning_rate = 1e-2 }
new = { task = "glue/sst2", method = "pfeiffer-16", learning_rate = 1e-2 }

[uses]
continue = { start = "old", keep_heads = true }
fused = { fuse = ["other", "new"] }
"""
#: What a planned run is recorded with.
Made = Callable[[RunSettings], Record]


def score(run: RunSettings) -> float:
    """Accuracy on the new task."""
    return {"alone": 0.7, "continue": 0.8}.get(run.method_label, 0.6)


def seconds(run: RunSettings) -> float:
    if run.task == "glue/cola":
        return 100.0
    # the adapter that is fused, on the new task, has the label of its preset
    return {"alone": 4.0, "continue": 2.0, "fused": 3.0}.get(run.method_label, 5.0)


def usual(run: RunSettings) -> Record:
    """Nothing is forgotten but on the new task alone; earlier runs take 100 s or 5 s."""
    chosen = {"glue/sst2": [0, 1], "glue/mrpc": [0, run.seed]}.get(run.task, [0])
    one = made(run, score(run)).replaced(
        seconds={"train": seconds(run), "total": seconds(run)},
        layers=Layers(chosen=sorted({*chosen}), shares=[0.5] * 4),
    )
    old = {"old": 0.5, "glue/sst2": 0.3, "half": 0.5}.get(
        "old" if run.task == "glue/cola" else run.task, 0.0
    )
    # row by row: the same rows are right before and after
    right = [1.0] * round(100 * old) + [0.0] * (100 - round(100 * old))
    parts = {"glue/cola": {"mcc": old, "accuracy": old}}
    if run.task == "half":
        parts["glue/sst2"] = one.metrics["test"]
    return one.replaced(
        metrics=one.metrics | parts,
        example_scores=one.example_scores
        | {"glue/cola": right, "glue/sst2": one.example_scores["test"]},
    )


def fill(folder: Path, make: Made = usual, leave_out: str = "") -> None:
    """Save a record of every planned run and every earlier one, but for some by label or task."""
    store: Store[Record] = Store(folder / "results")
    planned = experiments.read(folder / "experiments" / "small.toml")
    runs = {run.id: run for cell in planned.cells() for run in cell.runs({})}
    for run in (runs | planned.every_earlier_run()).values():
        if leave_out not in (run.task, run.method_label):
            store.save(make(run))


def check(text: str) -> str:
    a, b = CLAIMS.index("    { measure"), CLAIMS.rindex("\n]")
    return CLAIMS[:a] + f'    {{ what = "x", experiment = "small", {text} }}' + CLAIMS[b:]


def found(folder: Path, text: str, make: Made = usual, leave_out: str = "") -> Finding:
    folder.mkdir(exist_ok=True)
    write(folder, EXPERIMENT)
    fill(folder, make, leave_out)
    (finding,) = findings(*read(folder, check(text)))
    return finding


def evidence_of(folder: Path) -> dict[str, Record]:
    return read(folder, check(ADDED + 'of = "forgetting", claimed = { above = 0 }'))[1].records(
        "small"
    )


ADDED = 'measure = "added task", task = "glue/sst2", methods = ["continue"], '


def test_an_added_task_is_scored_beside_a_method_of_its_own(tmp_path):
    for on in ("", 'on = "half", '):
        text = ADDED + on + 'of = "score", against = "alone", claimed = { above = 0 }'
        finding = found(tmp_path / (on[6:10] or "new"), text)
        (cell,) = finding.cells
        assert cell.estimate.value == pytest.approx(0.1)
        assert cell.estimate.over == "seeds and examples"
        assert len(cell.records) == 6
        assert finding.verdict == "reproduced"


def test_the_time_of_an_added_task_counts_what_was_made_for_it(tmp_path):
    """The old model and the old adapters are there already; the new one's adapter is not."""
    text = ADDED + 'on = "half", of = "seconds", against = "fused", claimed = { below = 1 }'
    (cell,) = found(tmp_path, text).cells
    assert cell.estimate.value == pytest.approx(2 / (3 + 5))
    assert cell.judgement == "reproduced"
    used = {r.settings.task for r in evidence_of(tmp_path).values() if r.id in cell.records}
    assert used > {"glue/sst2"}, "what both build on is named too"


def test_what_is_forgotten_is_after_less_before(tmp_path):
    base = ADDED + 'of = "forgetting", claimed = { above = -0.05 }'
    (alone,) = found(tmp_path, base).cells
    assert alone.name == "glue/cola after glue/sst2, continue"
    assert alone.estimate.value == pytest.approx(-0.2)
    assert len(alone.records) > 3, "the runs before are named too"
    assert alone.judgement == "not reproduced"
    (half,) = findings(*read(tmp_path, check(base + ', on = "half"')))[0].cells
    assert half.estimate.value == 0
    assert half.judgement == "reproduced"


def test_a_run_before_that_is_not_recorded_is_named(tmp_path):
    text = ADDED + 'of = "forgetting", claimed = { above = 0 }'
    with pytest.raises(RecordError, match="starts from the run .* not recorded"):
        found(tmp_path, text, leave_out="glue/cola")


def test_time_with_all_that_came_before(tmp_path):
    text = (
        'measure = "training ratio", of = "seconds", tasks = ["glue/sst2"], '
        'methods = ["continue"], against = "alone", claimed = { above = 1 }'
    )
    (cell,) = found(tmp_path, text).cells
    assert cell.estimate.value == pytest.approx(102 / 4)


def test_a_path_counts_every_run_once():
    first = record("first").replaced(seconds={"train": 7.0, "total": 7.0})
    second = built(first.id, 5.0)
    third = built(second.id, 3.0, first.id)
    there = {r.id: r for r in (first, second)}
    assert m.path_cost(third, there, lambda run: True).amount == (15, 15)
    assert m.path_cost(third, there, lambda run: run is second).amount == (8, 8)
    with pytest.raises(RecordError, match="is not recorded"):
        m.path_cost(third, {second.id: second}, lambda run: True)


def test_a_path_in_flops_by_either_convention():
    def flops(run: Record, closed_form: int | None) -> Record:
        return run.replaced(flops={"closed_form": closed_form, "hugging_face": 100})

    first = flops(record("first"), 7)
    second = flops(built(first.id, 5.0), 3)
    there = {first.id: first}
    assert m.path_cost(second, there, lambda run: True, "flops").amount == (10, 10)
    assert m.path_cost(second, there, lambda run: True, "trainer flops").amount == (200, 200)
    for without in (flops(second, None), built(first.id, 5.0)):
        with pytest.raises(RecordError, match="does not say how many FLOPs"):
            m.path_cost(without, there, lambda run: True, "flops")


def built(start: str, time: float, also: str | None = None) -> Record:
    """A record of a run that starts from another, and perhaps from a second one."""
    uses: dict[str, Any] = {"start": start} | ({"layers": also} if also else {})
    settings = record(f"on {start}").settings.model_copy(update={"model_options": {"uses": uses}})
    return record().replaced(settings=settings, seconds={"train": time, "total": time})


def chose(*layers: int, seed: int = 0, of: int = 4) -> Record:
    return record(seed=seed).replaced(layers=Layers(chosen=[*layers], shares=[0.5] * of))


def test_the_share_of_layers_is_over_seeds():
    share = m.selected_share([chose(0, seed=0), chose(0, 1, 2, seed=1)])
    assert (share.value, share.n) == (0.5, 2)
    assert (share.low, share.high) == (0, 1)  # no share lies beyond
    with pytest.raises(RecordError, match="says nothing of selected layers"):
        m.selected_share([record("full")])


def test_layers_agree_over_seeds_or_with_those_of_another_cell():
    runs = [chose(*layers, seed=n) for n, layers in enumerate([(0, 1), (0, 1), (0, 2)])]
    own = m.agreement(runs)
    assert (own.value, own.n) == (pytest.approx(1 / 3), 3)
    assert own.low < own.value < own.high
    # the same layers at the same seeds, in another order and with a seed that is not shared
    same = m.agreement(runs, [*reversed(runs), chose(3, seed=3)])
    assert (same.value, same.low, same.high, same.n) == (1, 1, 1, 3)
    with pytest.raises(RecordError, match="needs 3 of them, not 2"):
        m.agreement(runs, runs[:2])
    with pytest.raises(RecordError, match="says nothing of selected layers"):
        m.agreement([record("full")])


def test_where_every_layer_is_selected_nothing_is_known_of_agreement():
    found = m.agreement([chose(0, 1, 2, 3, seed=n) for n in range(3)])
    assert Region(above=0).judge(found) == "undecided"
    assert str(found) == "not known"


def test_selected_layers_are_asked_of_a_task_and_of_two(tmp_path):
    base = 'measure = "selected layers", task = "glue/sst2", methods = ["switched"], '
    (share,) = found(tmp_path, base + 'of = "share", claimed = { below = 1 }').cells
    assert (share.estimate.value, share.judgement) == (0.5, "reproduced")
    (own,) = findings(*read(tmp_path, check(base + 'of = "agreement", claimed = { above = 0 }')))[
        0
    ].cells
    assert own.estimate.value == pytest.approx(1)
    text = base + 'of = "agreement", other = "glue/mrpc", claimed = { above = 0 }'
    (both,) = findings(*read(tmp_path, check(text)))[0].cells
    # seeds 0 and 1 and 2: {0,1} against {0}, {0,1} and {0,2}
    assert both.estimate.value == pytest.approx((0.75 - 0.5 + 0.5 + 0) / 1.5)
    assert both.name == "glue/sst2 (10 rows) and glue/mrpc (10 rows), switched"
    assert math.isfinite(both.estimate.low)


LAYERS = 'measure = "selected layers", methods = ["switched"], claimed = { below = 1 }, '


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (ADDED + 'of = "score", claimed = { above = 0 }', "score and cost against a method"),
        (
            ADDED + 'of = "forgetting", against = "alone", claimed = { above = 0 }',
            "forgetting is measured against nothing",
        ),
        (
            ADDED.replace("continue", "alone") + 'of = "forgetting", claimed = { above = 0 }',
            "it keeps no heads",
        ),
        (
            ADDED + 'on = "hal", of = "score", against = "alone", claimed = { above = 0 }',
            "did you mean 'half'",
        ),
        (
            ADDED.replace("continue", "fused")
            + 'on = "half", of = "score", against = "alone", claimed = { above = 0 }',
            "'fused' is not trained on 'half'",
        ),
        (LAYERS + 'task = "glue/sst", of = "share"', "did you mean 'glue/sst2'"),
        (
            LAYERS + 'task = "glue/sst2", rows = 11, of = "share"',
            "with 11 train rows once, but it is there as glue/sst2 .10 rows. on tiny:",
        ),
        (
            LAYERS + 'task = "glue/sst2", other = "glue/mrpc", of = "share"',
            "only for the agreement",
        ),
        (
            LAYERS + 'task = "glue/sst2", against = "alone", of = "share"',
            "name no method in against",
        ),
    ],
)
def test_a_mistake_is_one_sentence(text, words, tmp_path):
    write(tmp_path, EXPERIMENT)
    with pytest.raises(PeftlabError, match=words) as caught:
        read(tmp_path, check(text))
    assert "\n" not in str(caught.value)
