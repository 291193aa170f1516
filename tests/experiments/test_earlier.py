"""Runs that others build on: done first, kept, done again where only their record is there."""

from __future__ import annotations

import json
import shutil
from typing import Any

import pytest
from pydantic import ValidationError

from peftlab.checkpoints import format
from peftlab.errors import NonFiniteLossError, SettingsError, UnknownNameError
from peftlab.experiments import Experiment
from peftlab.experiments.earlier import used
from peftlab.experiments.grid import Grid
from peftlab.results.comparison.statistics import summarise
from peftlab.results.records.store import Store
from tests.experiments.test_grid import Stub, grid

LANGUAGE = {"method": "madx-language", "learning_rate": 1e-3}
MADX: dict[str, Any] = {
    "name": "madx",
    "question": "Is a language put in before a task is scored?",
    "encoder": "pocket",
    "tasks": [{"name": "pocket/topic", "train": 16, "dev": 8, "test": 24}],
    "transfer": ["{task}/de", "{task}/fr"],
    "methods": {"full": "full", "madx": "madx-task", "kept": "madx-task"},
    "earlier": {
        "english": LANGUAGE | {"task": "texts", "seed": 0},
        "german": LANGUAGE | {"task": "other texts", "seed": 0},
    },
    "uses": {
        "madx": {"language": "english", "languages": {"de": "german"}},
        "kept": {"language": "english"},
    },
    "settings": {"max_steps": 2, "batch_size": 8, "max_length": 32},
    "tuning": {"learning_rates": [1e-3]},
    "seeds": [0, 1],
}
TOTAL = 3 * 2 + 2


def plan(**changes: Any) -> Experiment:
    return Experiment.model_validate(MADX | changes)


def test_earlier_runs_come_first_and_are_recorded(tmp_path):
    stub = Stub()
    first = grid(plan(), tmp_path, stub)
    assert first.left() == TOTAL
    assert first.work() == TOTAL
    records = {r.id: r for r in Store(tmp_path).load_all("madx")}
    assert len(records) == TOTAL
    for run in stub.runs:
        for earlier in used(records[run].settings):
            assert stub.runs.index(earlier) < stub.runs.index(run)
            assert records[earlier].settings.method["name"] == "madx-language"
    uses = {r.settings.method_label: r.settings.model_options for r in records.values()}
    assert set(uses["madx"]["uses"]) == {"language", "languages"}
    assert set(uses["kept"]["uses"]) == {"language"}
    assert uses["full"] == {}
    assert grid(plan(), tmp_path, stub).work() == 0
    # they are for others to build on, and no table has them
    assert {i for i, r in records.items() if r.earlier} == set(plan().every_earlier_run())
    assert set(summarise(records.values())["method"]) == {"full", "madx", "kept"}


def test_a_model_that_is_gone_is_made_again_and_its_record_stays(tmp_path):
    grid(plan(seeds=[0]), tmp_path, Stub()).work()
    before = {p.name: p.read_bytes() for p in (tmp_path / "madx").iterdir()}
    shutil.rmtree(tmp_path / ".peftlab")
    stub = Stub()
    assert grid(plan(), tmp_path, stub).work() == 3 + 2  # two adapters, and the other seed
    assert {n: (tmp_path / "madx" / n).read_bytes() for n in before} == before


def test_an_earlier_run_may_have_the_seed_of_what_builds_on_it(tmp_path):
    earlier = {
        name: {k: v for k, v in e.items() if k != "seed"} for name, e in MADX["earlier"].items()
    }
    stub = Stub()
    assert grid(plan(earlier=earlier), tmp_path, stub).work() == 3 * 2 + 2 * 2
    for record in Store(tmp_path).load_all("madx"):
        for i in used(record.settings):
            assert Store(tmp_path).load("madx", i).settings.seed == record.settings.seed


def test_nothing_is_built_on_a_run_that_failed(tmp_path):
    earlier = MADX["earlier"] | {"german": MADX["earlier"]["german"] | {"learning_rate": 0.5}}
    stub = Stub()
    stub.errors = {0.5: NonFiniteLossError("The loss is NaN.")}
    first = grid(plan(earlier=earlier), tmp_path, stub)
    assert first.work() == TOTAL - 2  # without the two runs of madx
    assert {
        r.settings.method_label for r in Store(tmp_path).load_all("madx") if r.status == "ok"
    } == {
        "full",
        "kept",
        "madx-language",
    }
    assert first.left() > 0


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"uses": {"madx": {"language": "englsh"}}}, UnknownNameError, "did you mean 'english'"),
        ({"uses": {"mad": {"language": "english"}}}, UnknownNameError, "method in this experiment"),
        ({"uses": {"madx": {}}}, ValidationError, "name one of language, fuse, start, layers"),
        (
            {"uses": {"madx": {"language": "english", "fuse": ["english"]}}},
            ValidationError,
            "and no two of them",
        ),
        (
            {"uses": {"madx": {"fuse": ["english"], "languages": {"de": "german"}}}},
            ValidationError,
            "need the language of the training",
        ),
        (
            {"uses": {"madx": {"fuse": ["english"]}}},
            SettingsError,
            "'madx' uses fuse, but its method 'madx-task' cannot: give it the method 'adapterfus",
        ),
        (
            {"uses": {"full": {"language": "english"}}},
            SettingsError,
            "'full' uses language, but its method 'full' cannot",
        ),
    ],
)
def test_mistakes_are_found_before_the_first_run(changes, error, words):
    with pytest.raises(error, match=words):
        plan(**changes)


def texts(place, name: str, words: str) -> dict[str, Any]:
    """A folder of texts, and the entry of the task that models them."""
    folder = place / name
    folder.mkdir()
    rows = [{"text": " ".join(words.split()[i % 4 :])} for i in range(16)]
    for split in ("train", "dev", "test"):
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / f"{split}.jsonl").write_text(lines)
    return {"name": str(folder), "kind": "language-model"}


def test_a_language_is_put_in_before_its_task_is_scored(tmp_path):
    english = texts(tmp_path, "en", "the small river runs past the old house in the town")
    german = texts(tmp_path, "de", "der kleine Fluss fließt an dem alten Haus in der Stadt vorbei")
    fast = {"learning_rate": 3e-2, "settings": {"max_steps": 12}}
    experiment = plan(
        seeds=[0],
        earlier={
            "english": LANGUAGE | fast | {"task": english},
            "german": LANGUAGE | fast | {"task": german},
        },
    )
    done = Grid(experiment, Store(tmp_path / "out"), report=lambda line: None)
    assert done.work() == 3 + 2
    by_label = {r.settings.method_label: r for r in Store(tmp_path / "out").load_all("madx")}
    madx, kept = by_label["madx"], by_label["kept"]
    # trained alike and scored alike, but for German, for which one of them changed its adapter
    assert madx.curve == kept.curve
    assert madx.example_scores["pocket/topic/fr"] == kept.example_scores["pocket/topic/fr"]
    losses = [r.metrics["pocket/topic/de"]["loss"] for r in (madx, kept)]
    assert losses[0] != losses[1]
    for i in used(madx.settings):
        assert (done.kept(i) / format.FILE).is_file()


def test_trained_adapters_are_fused(tmp_path):
    names = ("pocket/topic", "pocket/sentiment")
    sizes = {"train": 16, "dev": 8, "test": 8}
    experiment = plan(
        methods={"fusion": {"name": "adapterfusion", "members": 2}},
        transfer=[],
        seeds=[0],
        earlier={
            name: {
                "task": {"name": name} | sizes,
                "method": "pfeiffer-16",
                "learning_rate": 1e-3,
            }
            for name in names
        },
        uses={"fusion": {"fuse": list(names)}},
    )
    assert Grid(experiment, Store(tmp_path), report=lambda line: None).work() == 3
    by_label = {r.settings.method_label: r for r in Store(tmp_path).load_all("madx")}
    fusion = by_label["fusion"]
    assert fusion.status == "ok"
    ids = [r.id for r in Store(tmp_path).load_all("madx") if r is not fusion and r.id != fusion.id]
    assert sorted(fusion.settings.model_options["uses"]["fuse"]) == sorted(ids)
