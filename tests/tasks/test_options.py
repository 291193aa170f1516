"""What a task says about itself in the id of a run: all that makes two runs different."""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations
from typing import Any

import numpy as np
import pytest

import peftlab as pl
from peftlab.experiments import Experiment, open_task
from peftlab.results.records.run import RunSettings
from peftlab.tasks import catalog
from peftlab.tasks.base import Task
from peftlab.tasks.multi import MultiTask
from peftlab.training.run import run_settings

TEXTS = [{"text": f"the old dog {i}", "other": "a cat"} for i in range(20)]
ROWS = [row | {"label": ("good", "bad")[i % 2]} for i, row in enumerate(TEXTS)]


def words(**options: Any) -> Task:
    return pl.task({"train": TEXTS, "test": TEXTS}, "language-model", name="own", **options)


def labels(**options: Any) -> Task:
    return pl.task({"train": ROWS, "test": ROWS}, "classification", name="own", **options)


@pytest.fixture
def recorded(make_encoder) -> Callable[[Task], RunSettings]:
    """Return a function from a task to what training on it would record."""
    encoder = make_encoder()

    def settings(task: Task) -> RunSettings:
        encoder.in_use = False  # nothing is trained here
        model = pl.model(encoder, task, "head-only")
        return run_settings(model, task, pl.TrainSettings(), (), "")

    return settings


@pytest.mark.parametrize("name", [row.name for row in catalog.ROWS if row.generated])
def test_a_task_that_is_opened_by_name_alone_has_none(name, recorded):
    task = pl.task(name)
    assert task.options == {}
    assert task.limit(train=8, test=4).limit(dev=4).options == {}  # `limits` says it all
    settings = recorded(task)
    assert settings.id == settings.model_copy(update={"task_options": {}}).id


def test_what_is_the_default_is_not_said():
    assert pl.task("pocket/qa", stride=128, head_layers=1).options == {}
    assert words(mask_rate=0.15, packed=False, train_head=None).options == words().options
    assert labels(text=("text",), labels=None).options == {"kind": "classification"}


@pytest.mark.parametrize(
    "tasks",
    [
        lambda: [words(), words(mask_rate=0.3), words(packed=True), words(train_head=True)],
        lambda: [labels(), labels(head_layers=2), labels(text=("text", "other")), words()],
        lambda: [labels(), labels(labels=("good", "bad")), labels(labels=("bad", "good"))],
        lambda: [labels(), labels(metrics=("macro_f1",))],
        lambda: [pl.task("pocket/qa", max_answer=n) for n in (30, 8)],
        lambda: [labels().limit(train=4, seed=seed) for seed in range(3)],
        lambda: [labels().limit(train=4), labels().limit(train=8).limit(train=4)],
        lambda: [labels().share(0.5), labels().share(0.5, seed=1), labels().share(0.25)],
        lambda: [labels().limit(train=9), labels().share(0.5)],
    ],
)
def test_two_that_differ_in_one_option_are_two_runs(tasks, recorded):
    settings = [recorded(task) for task in tasks()]
    assert len({each.id for each in settings}) == len(settings)
    for one, other in combinations(settings, 2):
        assert one.model_copy(update={"limits": {}, "task_options": {}}).id == (
            other.model_copy(update={"limits": {}, "task_options": {}}).id
        )


def test_one_task_opened_twice_is_one_run(recorded):
    def task() -> Task:
        return labels(labels=["good", "bad"], head_layers=np.int64(2)).limit(train=4, seed=3)

    assert recorded(task()) == recorded(task())
    assert recorded(task()).task_options == {
        "kind": "classification",
        "labels": ["good", "bad"],
        "head_layers": 2,
        "draws": {"train": [{"rows": 4, "seed": 3}]},
    }


def test_draws_are_told_by_split():
    task = labels().share(0.5, seed=2).limit(train=4, test=5)
    assert task.limits == {"train": 4, "test": 5}
    assert task.options["draws"] == {
        "train": [{"rows": 9, "seed": 2, "share": 0.5}, {"rows": 4, "seed": 0}]
    }
    assert labels().limit(seed=4).options == labels().options  # nothing was drawn


def test_a_mixture_says_the_options_of_its_tasks(recorded):
    names = ["pocket/nli", "pocket/topic"]
    usual, wide = (pl.task(names[0], head_layers=n) for n in (1, 2))
    topic = pl.task(names[1])
    plain = recorded(MultiTask([usual, topic]))
    assert plain.task_options == {"of": names}
    mixtures = [
        MultiTask([wide, topic]),
        MultiTask([usual, topic.limit(train=8, seed=1)]),
        MultiTask([usual, topic.limit(train=8)]),
        MultiTask([usual, topic]).limit(train=8, seed=1),
        MultiTask([usual, topic], temperature=2),
    ]
    found = [recorded(mixture) for mixture in mixtures]
    assert len({plain.id, *(each.id for each in found)}) == 6
    assert found[0].task_options == {"of": names, "options": {names[0]: {"head_layers": 2}}}
    assert found[1].task_options["limits"] == {names[1]: {"train": 8}}


@pytest.mark.parametrize(
    "entry",
    [
        {"name": "pocket/nli"},
        {"name": "pocket/nli", "train": 8, "test": 4, "options": {"head_layers": 2}},
        {"name": "pocket/qa", "options": {"stride": 16, "max_answer": 8}},
        {"name": "both", "of": ["pocket/nli", "pocket/topic"], "temperature": 2.0, "dev": 8},
    ],
    ids=str,
)
def test_an_experiment_and_its_training_agree(entry, recorded, tiny_folder):
    """The run that the grid plans is, but for the weights' fingerprint, what training records."""
    experiment = Experiment.model_validate(
        {
            "name": "options",
            "question": "Is it one run?",
            "encoder": str(tiny_folder("bert")),
            "tasks": [entry],
            "methods": {"head-only": "head-only"},
            "tuning": {"learning_rates": [pl.TrainSettings().learning_rate]},
            "seeds": [0],
        }
    )
    (run,) = next(experiment.cells()).tuning_runs()
    task = open_task(run.task, run.task_options).limit(**dict(run.limits))
    assert recorded(task).task_options == run.task_options
    assert recorded(task).id == run.id


def test_own_data_are_opened_as_an_experiment_says(tmp_path):
    for split in ("train", "test"):
        (tmp_path / f"{split}.csv").write_text("sentence,label\na dog,x\na cat,y\n")
    how = {"kind": "classification", "text": ["sentence"], "labels": ["y", "x"]}
    assert open_task(str(tmp_path), how).options == how
