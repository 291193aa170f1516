"""Runs that begin where others have ended: encoders and heads taken over, layers selected."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError

import peftlab as pl
from peftlab.checkpoints import format
from peftlab.cli import main
from peftlab.errors import (
    NonFiniteLossError,
    PeftlabError,
    RecordError,
    SettingsError,
    UnknownNameError,
)
from peftlab.experiments import Experiment, open_task
from peftlab.experiments.earlier import used
from peftlab.experiments.execute import LAYERS
from peftlab.experiments.grid import Grid
from peftlab.methods.focused import Selection
from peftlab.results.records.run import Layers, Record
from peftlab.results.records.store import Store
from tests.experiments.test_grid import Stub, grid

SIZES = {"train": 16, "dev": 8, "test": 8}
BASE: dict[str, Any] = {
    "name": "chain",
    "question": "Does a run begin where another ended?",
    "encoder": "pocket",
    "tasks": [{"name": "pocket/topic"} | SIZES],
    "settings": {
        "max_steps": 2,
        "batch_size": 8,
        "max_length": 32,
        "precision": "fp32",
        "checkpoint_seconds": 0,
    },
    "tuning": {"learning_rates": [1e-3]},
    "seeds": [0],
}
TEXTS = {"name": "text-of/pocket/nli", "options": {"train_head": True}} | SIZES
#: Pretraining on a domain, then on the task's own texts, then the task itself.
DOMAIN = BASE | {
    "methods": {"full": "full", "after": "lora-8"},
    "earlier": {
        "head": {"task": TEXTS, "method": "head-only", "learning_rate": 1e-2},
        "domain": {
            "task": TEXTS,
            "method": "full",
            "learning_rate": 1e-3,
            "uses": {"start": "head"},
        },
        "task": {
            "task": TEXTS | {"name": "text-of/{task}"},
            "method": "full",
            "learning_rate": 1e-3,
            "uses": {"start": "domain"},
        },
    },
    "uses": {"after": {"start": "task"}},
}
OLD = [{"name": "pocket/nli"} | SIZES, {"name": "pocket/paraphrase"} | SIZES]
#: A model of two old tasks learns a third, with a part of the old rows and without.
ADDING = BASE | {
    "tasks": [
        {"name": "pocket/topic"} | SIZES | {"test": 6},  # old tasks keep the rows of before
        {
            "name": "with-half",
            "of": [{"name": "pocket/topic"} | SIZES, *({"share": 0.5} | old for old in OLD)],
            "without": ["scratch"],
        },
    ],
    "methods": {"scratch": "full", "continue": "full"},
    "earlier": {
        "joint": {"task": {"name": "old", "of": OLD}, "method": "full", "learning_rate": 1e-3}
    },
    "uses": {"continue": {"start": "joint", "keep_heads": True}},
}
#: The focused form in the layers that switches selected on the same task, and on another.
LEARNED = BASE | {
    "methods": {
        "adaptable": "adaptable",
        "own": "adaptable-focused",
        "foreign": "adaptable-focused",
        "random": "adaptable-focused",
        "top": "adaptable-focused",
    },
    "earlier": {
        "here": {"method": "adaptable", "learning_rate": 1e-3},
        "there": {
            "task": {"name": "pocket/sentiment"} | SIZES,
            "method": "adaptable",
            "learning_rate": 1e-3,
        },
    },
    "uses": {
        "own": {"layers": "here"},
        "foreign": {"layers": "there"},
        "random": {"layers": "here", "control": "random"},
        "top": {"layers": "here", "control": "top"},
    },
    "settings": BASE["settings"] | {"max_steps": 6},
}


def plan(data: dict[str, Any], **changes: Any) -> Experiment:
    return Experiment.model_validate(data | changes)


def quiet(data: dict[str, Any], folder: Path, **changes: Any) -> Grid:
    return Grid(plan(data, **changes), Store(folder), report=lambda line: None)


def recorded(folder: Path) -> dict[str, Record]:
    """The records of a grid by task and label."""
    return {
        f"{r.settings.task} {r.settings.method_label}": r for r in Store(folder).load_all("chain")
    }


# -- the plan --------------------------------------------------------------------------------------


def test_a_chain_is_done_from_its_beginning(tmp_path):
    stub = Stub()
    first = grid(plan(DOMAIN, seeds=[0, 1]), tmp_path, stub)
    assert first.left() == 2 * (2 + 3)
    assert first.work() == 2 * (2 + 3)
    records = {r.id: r for r in Store(tmp_path).load_all("chain")}
    for seed in (0, 1):
        run = next(
            r
            for r in records.values()
            if r.settings.method_label == "after" and r.settings.seed == seed
        )
        chain = [run.id]
        while found := list(used(records[chain[-1]].settings)):
            chain += found
        names = [records[i].settings.task for i in chain]
        assert names == ["pocket/topic", "text-of/pocket/topic", *["text-of/pocket/nli"] * 2]
        assert {records[i].settings.seed for i in chain} == {seed}
        places = [stub.runs.index(i) for i in chain]
        assert places == sorted(places, reverse=True)
    assert grid(plan(DOMAIN, seeds=[0, 1]), tmp_path, stub).work() == 0


def test_a_run_with_a_seed_of_its_own_stands_on_runs_of_that_seed(tmp_path):
    earlier = DOMAIN["earlier"] | {"task": DOMAIN["earlier"]["task"] | {"seed": 7}}
    assert grid(plan(DOMAIN, seeds=[0, 1], earlier=earlier), tmp_path, Stub()).work() == 4 + 3
    seeds = {
        r.settings.seed
        for r in Store(tmp_path).load_all("chain")
        if r.settings.task != ("pocket/topic")
    }
    assert seeds == {7}


def test_nothing_is_done_beyond_a_run_that_failed(tmp_path):
    earlier = DOMAIN["earlier"] | {"head": DOMAIN["earlier"]["head"] | {"learning_rate": 0.5}}
    stub = Stub()
    stub.errors = {0.5: NonFiniteLossError("The loss is NaN.")}
    done = grid(plan(DOMAIN, earlier=earlier), tmp_path, stub)
    assert done.work() == 2  # the head that failed, and what stands on nothing
    assert done.left() == 1 + 3  # what waits, and what it waits for
    assert done.work() == 0


def test_only_what_is_needed_is_done_again(tmp_path):
    grid(plan(DOMAIN), tmp_path, Stub()).work()
    stub = Stub()
    again = grid(
        plan(DOMAIN, seeds=[0, 1], tuning={"learning_rates": [1e-3], "seed": 0}), tmp_path, stub
    )
    kept = next(r.id for r in recorded(tmp_path).values() if r.settings.method_label == "task")
    (again.kept(kept) / format.FILE).unlink()  # seed 0 is recorded to the end: nobody misses it
    assert again.work() == 2 + 3
    assert kept not in stub.runs


def test_a_dry_run_lists_what_comes_first(tmp_path, capsys):
    file = tmp_path / "chain.toml"
    file.write_text("""
name = "chain"
question = "What comes first?"
encoder = "pocket"
tasks = ["pocket/topic"]
methods = { after = "lora-8" }
seeds = [0]
earlier.first = { task = "text-of/{task}", method = "full", learning_rate = 1e-3 }
earlier.second = { task = "text-of/{task}", method = "full", learning_rate = 1e-3, \
uses = { start = "first" } }
uses.after = { start = "second" }
settings = { max_steps = 2 }
tuning = { learning_rates = [1e-3] }
""")
    assert main(["run", str(file), "--folder", str(tmp_path / "out"), "--dry-run"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(" ", 1)[1] for line in lines[:-1]] == [
        "to do pocket text-of/pocket/topic full rate 0.001 seed 0",
        "to do pocket text-of/pocket/topic second rate 0.001 seed 0",
        "to do pocket pocket/topic after rate 0.001 seed 0",
    ]
    assert lines[-1] == "3 to do, 0 of them when the learning rates are chosen"


def test_an_earlier_run_without_a_task_is_on_the_very_same():
    experiment = plan(
        LEARNED, tasks=[{"name": "pocket/topic", "settings": {"max_steps": 9}} | SIZES]
    )
    own = next(cell for cell in experiment.cells() if cell.label == "own").tuning_runs()[0]
    (first,) = used(own)
    found = experiment.every_earlier_run()[first]
    assert (found.task, found.limits) == (own.task, own.limits)
    assert found.training == own.training  # the task's settings count for both


def test_the_run_of_a_cell_serves_as_an_earlier_one(tmp_path):
    done = grid(plan(LEARNED), tmp_path, Stub())
    assert done.left() == 5 + 1  # one of the two that select is the cell "adaptable"
    assert done.work() == 6
    records = Store(tmp_path).load_all("chain")
    assert [r.settings.task for r in records if r.earlier] == ["pocket/sentiment"]


def test_what_is_left_is_what_will_be_done(tmp_path):
    rates = {"adaptable": [1e-3], "default": [1e-3, 3e-3]}
    tried = {"seed": 0, "learning_rates": rates}
    done = grid(plan(LEARNED, seeds=[0, 1], tuning=tried), tmp_path, Stub())
    left = done.left()  # with the earlier runs of seed 1, whose rates are not chosen yet
    assert done.work() == left
    assert done.left() == 0


def test_models_that_only_finished_cells_needed_are_not_left(tmp_path):
    done = grid(plan(LEARNED, seeds=[0, 1]), tmp_path, Stub())
    done.work()
    for run in done.earlier():
        shutil.rmtree(done.kept(run.id))  # as in a new clone
    more = LEARNED["methods"] | {"other": "lora-8"}
    tuning = {"seed": 0, "learning_rates": {"default": [1e-3], "other": [1e-3, 3e-3]}}
    again = grid(plan(LEARNED, seeds=[0, 1], methods=more, tuning=tuning), tmp_path, Stub())
    assert again.left() == 2 + 1  # two rates, and another seed


def test_members_of_a_mixture_have_limits_and_shares():
    def options(of: list[Any]) -> Any:
        tasks = [{"name": "both", "of": of}]
        experiment = plan(BASE | {"methods": {"full": "full", "head": "head-only"}}, tasks=tasks)
        return next(experiment.cells()).tuning_runs()[0].task_options

    assert options(["pocket/nli", {"name": "pocket/topic"}]) == {
        "of": ["pocket/nli", "pocket/topic"]
    }
    half = {"name": "pocket/nli", "train": 10, "share": 0.5}
    assert options(["pocket/topic", half]) == {"of": ["pocket/topic", half]}
    rows = open_task("both", options(["pocket/topic", half])).tasks[1].rows("train")
    assert len(rows) == 5
    # of the rows that a model of both has seen
    assert all(row in pl.task("pocket/nli").limit(train=10).rows("train") for row in rows)
    with pytest.raises(ValidationError, match="share"):
        options([half | {"share": 0.0}])


@pytest.mark.parametrize(
    ("data", "change", "error", "words"),
    [
        (DOMAIN, {"uses": {"after": {"start": "tsk"}}}, UnknownNameError, "did you mean 'task'"),
        (
            DOMAIN,
            {"earlier": {"task": DOMAIN["earlier"]["task"]}},
            UnknownNameError,
            "no earlier run in this experiment 'domain'",
        ),
        (
            DOMAIN,
            {
                "earlier": DOMAIN["earlier"]
                | {"domain": DOMAIN["earlier"]["domain"] | {"uses": {"start": "task"}}}
            },
            ValidationError,
            r"in a circle \(domain → task → domain\)",
        ),
        (
            DOMAIN,
            {"earlier": DOMAIN["earlier"] | {"task": LEARNED["earlier"]["here"]}},
            SettingsError,
            "'after' starts from 'task', but its method 'adaptable' does not train",
        ),
        (
            DOMAIN,
            {
                "earlier": DOMAIN["earlier"]
                | {"task": DOMAIN["earlier"]["task"] | {"method": "full-frozen-embeddings"}}
            },
            SettingsError,
            "does not train the whole encoder",
        ),
        (
            DOMAIN,
            {
                "earlier": DOMAIN["earlier"]
                | {"task": DOMAIN["earlier"]["task"] | {"method": "head-only"}}
            },
            SettingsError,
            "trains only a head on what 'domain' has trained",
        ),
        (
            DOMAIN,
            {"uses": {"after": {"start": "task", "layers": "task"}}},
            ValidationError,
            "and no two of them",
        ),
        (
            LEARNED,
            {"uses": {"own": {"layers": "here", "keep_heads": True}}},
            ValidationError,
            "keep_heads needs start",
        ),
        (
            DOMAIN,
            {"uses": {"after": {"start": "task", "control": "top"}}},
            ValidationError,
            "a control needs layers",
        ),
        (
            LEARNED,
            {"earlier": LEARNED["earlier"] | {"here": DOMAIN["earlier"]["head"]}},
            SettingsError,
            "its method 'head-only' selects none",
        ),
        (
            LEARNED,
            {"uses": {"adaptable": {"layers": "here"}}},
            SettingsError,
            "only the method 'adaptable-focused' without layers",
        ),
        (
            ADDING,
            {
                "earlier": {
                    "joint": ADDING["earlier"]["joint"]
                    | {"task": {"name": "mine", "kind": "classification"}}
                }
            },
            SettingsError,
            "'mine' is known only with its options",
        ),
    ],
)
def test_mistakes_are_found_before_the_first_run(data, change, error, words):
    with pytest.raises(error, match=words):
        plan(data, **change)


# -- for real, on the encoder that ships -----------------------------------------------------------


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory) -> Grid:
    done = quiet(DOMAIN, tmp_path_factory.mktemp("domain"))
    assert done.work() == 2 + 3
    return done


def weights(done: Grid, label: str, task: str) -> dict[str, torch.Tensor]:
    record = recorded(done.store.folder)[f"{task} {label}"]
    return format.read(done.kept(record.id))[1]


def test_an_encoder_and_its_head_are_handed_on(pretrained):
    records = recorded(pretrained.store.folder)
    assert {r.status for r in records.values()} == {"ok"}
    prints = {
        name: r.settings.encoder_fingerprint
        for name, r in records.items()
        if r.settings.model_options
    }
    full, head, domain, task, after = (
        records[name].settings.encoder_fingerprint
        for name in (
            "pocket/topic full",
            "text-of/pocket/nli head-only",
            "text-of/pocket/nli domain",
            "text-of/pocket/topic task",
            "pocket/topic after",
        )
    )
    assert full == head == domain == pl.load_encoder("pocket").fingerprint
    assert len({domain, task, after}) == 3, prints
    # the fingerprint is that of the weights which the run before has left
    header, tensors = format.read(
        pretrained.kept(next(used(records["pocket/topic after"].settings)))
    )
    encoder = pl.load_encoder("pocket")
    encoder.backbone.load_state_dict(
        {n.removeprefix("backbone."): t for n, t in tensors.items() if n.startswith("backbone.")},
        strict=False,
    )
    del encoder.fingerprint
    assert encoder.fingerprint == after
    assert header["encoder"]["fingerprint"] == task


def test_the_next_run_begins_with_the_trained_weights(pretrained, tmp_path):
    """At a rate of nearly nothing it ends where it began: encoder and language-model head."""
    data = json.loads(json.dumps(DOMAIN))
    data["earlier"]["task"]["learning_rate"] = 1e-12
    still = quiet(data, tmp_path)
    still.work()
    first = weights(still, "domain", "text-of/pocket/nli")
    then = weights(still, "task", "text-of/pocket/topic")
    assert first.keys() == then.keys()
    for name, tensor in first.items():
        assert torch.allclose(then[name], tensor, atol=1e-6), name
    moved = weights(pretrained, "task", "text-of/pocket/topic")
    assert any(not torch.allclose(moved[n], t, atol=1e-6) for n, t in first.items())


def test_a_kill_in_a_chain_loses_no_training(pretrained, tmp_path, monkeypatch):
    class Killed(BaseException):
        """Stands for a SIGKILL: nothing may catch it and tidy up."""

    save, due = Store.save, {"domain", "after"}

    def die_once(self: Any, record: Record, **options: Any) -> Path:
        if record.settings.method_label in due:
            due.remove(record.settings.method_label)
            raise Killed
        return save(self, record, **options)

    monkeypatch.setattr(Store, "save", die_once)
    for _ in range(2):
        with pytest.raises(Killed):
            quiet(DOMAIN, tmp_path).work()
        assert len([*(tmp_path / ".peftlab" / "runs").glob("*/training.safetensors")]) == 1
    # a checkpoint that were not this run's would be refused
    assert quiet(DOMAIN, tmp_path).work() >= 1
    assert not [*(tmp_path / ".peftlab" / "runs").iterdir()]
    expected = recorded(pretrained.store.folder)
    assert recorded(tmp_path).keys() == expected.keys()
    for name, record in recorded(tmp_path).items():
        assert record.curve == expected[name].curve, name
        assert record.metrics == expected[name].metrics, name


@pytest.fixture(scope="module")
def adding(tmp_path_factory) -> Grid:
    done = quiet(ADDING, tmp_path_factory.mktemp("adding"))
    assert done.work() == 1 + 3
    return done


def test_old_tasks_keep_their_heads_and_are_scored(adding):
    records = recorded(adding.store.folder)
    joint, half, none = (
        records[name] for name in ("old full", "with-half continue", "pocket/topic continue")
    )
    assert half.sizes.train == 16 + 8 + 8
    assert half.settings.transfer == []
    assert none.settings.transfer == ["pocket/nli", "pocket/paraphrase"]
    heads = ["pocket/nli", "pocket/paraphrase", "pocket/topic"]
    assert none.settings.model_options["heads"] == half.settings.model_options["heads"] == heads
    for name in ("pocket/nli", "pocket/paraphrase"):
        lengths = [len(r.example_scores[name]) for r in (joint, half, none)]
        assert lengths == [8, 8, 8]
    assert none.sizes.train == 16
    assert "pocket/topic" in half.metrics
    scratch = records["pocket/topic scratch"]
    assert scratch.settings.transfer == []
    assert scratch.curve != none.curve


def test_without_old_rows_an_old_head_stays_as_it_was(tmp_path):
    """At a rate of nearly nothing the old tasks are scored as before: nothing is forgotten."""
    done = quiet(ADDING, tmp_path, tuning={"learning_rates": [1e-12]})
    done.work()
    records = recorded(tmp_path)
    for name in ("pocket/nli", "pocket/paraphrase"):
        before = records["old full"].example_scores[name]
        assert records["pocket/topic continue"].example_scores[name] == before


@pytest.fixture(scope="module")
def learned(tmp_path_factory) -> Grid:
    done = quiet(LEARNED, tmp_path_factory.mktemp("learned"))
    done.work()
    assert done.left() == 0
    return done


def test_the_record_says_which_layers_and_how_sure(learned):
    records = recorded(learned.store.folder)
    first, there = records["pocket/topic adaptable"], records["pocket/sentiment adaptable"]
    for one in (first, there):
        kept = Selection.load(learned.kept(one.id) / LAYERS)
        assert one.layers.chosen == list(kept.layers)
        assert one.layers.chosen == [i for i, p in enumerate(one.layers.shares) if p > 0.5]
    own, foreign, drawn, top = (
        records[f"pocket/topic {label}"] for label in ("own", "foreign", "random", "top")
    )
    for one, theirs in ((own, first), (foreign, there)):
        assert one.layers.chosen == theirs.layers.chosen
        assert one.layers.shares == pytest.approx(theirs.layers.shares)
    assert there.layers.shares != first.layers.shares
    assert top.layers.chosen == list(range(len(first.layers.shares)))[-len(first.layers.chosen) :]
    assert len(drawn.layers.chosen) == len(first.layers.chosen)
    for one in (own, foreign, drawn, top):
        assert one.parameters.trainable * len(own.layers.chosen) == own.parameters.trainable * len(
            one.layers.chosen
        )
        assert one.settings.method["layers"] is None  # it is not known when the run is planned


def test_layers_are_those_of_the_record_not_of_a_training_again(learned, tmp_path):
    """As in a new clone: the records came without models, and one run is missing."""
    records = recorded(learned.store.folder)
    first, own = records["pocket/topic adaptable"], records["pocket/topic own"]
    shutil.copytree(
        learned.store.folder, tmp_path, dirs_exist_ok=True, ignore=lambda *_: [".peftlab"]
    )
    store = Store(tmp_path)
    others = [0.1 if share > 0.5 else 0.9 for share in first.layers.shares]
    chosen = [i for i, share in enumerate(others) if share > 0.5] or [0]
    others[chosen[0]] = 0.9
    changed = Layers(chosen=chosen, shares=others)
    store.save(first.replaced(layers=changed), overwrite=True)
    (tmp_path / own.experiment / f"{own.id}.json").unlink()
    again = quiet(LEARNED, tmp_path)
    assert [run.id for run in again.pending()] == [own.id]
    assert again.work() == 1
    assert recorded(tmp_path)["pocket/topic own"].layers.chosen == chosen
    (tmp_path / own.experiment / f"{own.id}.json").unlink()
    store.save(first.replaced(layers=Layers(chosen=[], shares=others)), overwrite=True)
    with pytest.raises(RecordError, match="its shares select"):
        quiet(LEARNED, tmp_path).work()


def test_without_a_selected_layer_the_run_fails_and_the_grid_goes_on(tmp_path):
    still = {"settings": LEARNED["settings"] | {"max_steps": 1}}
    earlier = {
        "here": {
            "method": {"name": "adaptable", "switch_rate": 1e-9},
            "learning_rate": 1e-12,
        }
    }
    done = quiet(
        LEARNED,
        tmp_path,
        earlier=earlier,
        uses={"own": {"layers": "here"}},
        methods={"own": "adaptable-focused", "head": "head-only"},
        **still,
    )
    done.work()
    records = recorded(tmp_path)
    assert records["pocket/topic adaptable"].layers.chosen == []
    assert records["pocket/topic own"].status == "failed"
    assert "selected no layer" in records["pocket/topic own"].error
    assert records["pocket/topic head"].status == "ok"


# -- checkpoints -----------------------------------------------------------------------------------


def test_what_cannot_be_started_from_is_one_sentence(make_encoder, toy_task, tmp_path):
    from peftlab.checkpoints import start

    parts = pl.model(make_encoder(), toy_task, "lora-8").save(tmp_path / "parts")
    with pytest.raises(PeftlabError, match="which puts parts into the encoder"):
        start(make_encoder(), toy_task, "full", parts)
    trained = pl.model(make_encoder(), toy_task, "full").save(tmp_path / "full")
    with pytest.raises(PeftlabError, match="start from a run on the same encoder"):
        start("pocket", toy_task, "full", trained)
    with pytest.raises(PeftlabError, match="is missing"):
        start(make_encoder(), toy_task, "full", tmp_path)
    other = pl.task(
        {"train": [{"text": "a", "label": "x"}, {"text": "b", "label": "y"}]},
        kind="classification",
        name="toy",
    )
    with pytest.raises(PeftlabError, match="with labels"):
        start(make_encoder(), other, "full", trained)


def test_a_model_that_started_elsewhere_comes_back_if_it_is_whole(make_encoder, toy_task, tmp_path):
    from peftlab.checkpoints import start

    first = pl.model(make_encoder(), toy_task, "full", seed=1)
    with torch.no_grad():
        next(first.backbone.parameters()).add_(1)
    folder = first.save(tmp_path / "first")
    full = start(make_encoder(), toy_task, "full", folder)
    found = pl.load(full.save(tmp_path / "full"), encoder=make_encoder(), task=toy_task)
    for (name, a), (_, b) in zip(
        full.state_dict().items(), found.state_dict().items(), strict=True
    ):
        assert torch.equal(a, b), name
    lora = start(make_encoder(), toy_task, "lora-8", folder)
    with pytest.raises(PeftlabError, match="other weights"):
        pl.load(lora.save(tmp_path / "lora"), encoder=make_encoder(), task=toy_task)


def test_a_head_that_was_pretrained_stays_frozen_in_the_second_stage_too(tmp_path):
    from peftlab.checkpoints import start

    texts = pl.task("text-of/pocket/topic")
    first = pl.model("pocket", texts, "full")
    second = start("pocket", texts, "full", first.save(tmp_path / "first"))
    trains = [[p.requires_grad for p in model.head.parameters()] for model in (first, second)]
    assert trains[0] == trains[1]
    assert not any(trains[0])


def test_an_encoder_that_a_model_uses_is_not_overwritten(make_encoder, toy_task, tmp_path):
    from peftlab.checkpoints import start

    folders = [
        pl.model(make_encoder(), toy_task, "full", seed=seed).save(tmp_path / str(seed))
        for seed in (0, 1)
    ]
    encoder = make_encoder()
    one = start(encoder, toy_task, "full", folders[0])
    before = {name: tensor.clone() for name, tensor in one.state_dict().items()}
    with pytest.raises(PeftlabError, match="would be overwritten: load it again"):
        start(encoder, toy_task, "full", folders[1])
    assert all(torch.equal(before[name], tensor) for name, tensor in one.state_dict().items())
