"""Several tasks, one encoder: heads, shares of the batches, resuming, adding a task, forgetting."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import peftlab as pl
from peftlab.checkpoints import restore
from peftlab.errors import CheckpointError, DataError, SettingsError, UnknownNameError
from peftlab.experiments import Experiment
from peftlab.experiments.grid import Grid
from peftlab.methods.lora import LoRAPart
from peftlab.models import add_task
from peftlab.results.records.store import Store
from peftlab.tasks.multi import Heads, MultiTask
from peftlab.training import TrainSettings, batches, fit
from peftlab.training.evaluation import encode
from peftlab.training.loop import learning_rate, optimiser_for
from peftlab.training.mixture import Mixture, shares

SETTINGS = TrainSettings(
    learning_rate=5e-3,
    epochs=2,
    batch_size=8,
    max_length=32,
    precision="fp32",
    checkpoint_seconds=0,
)
FILL = ("the", "old", "a", "house", "and", "walks")


class Killed(BaseException):
    """Stands for a SIGKILL."""


def sentences(name: str, decides: dict[str, str], train: int, seed: int) -> Any:
    """A task whose labels hang on one word of each sentence."""
    draw = random.Random(seed)

    def row() -> dict[str, str]:
        word = draw.choice(sorted(decides))
        words = draw.choices(FILL, k=draw.randint(3, 7))
        words[draw.randrange(3)] = word
        return {"text": " ".join(words), "label": decides[word]}

    rows = {s: [row() for _ in range(n)] for s, n in (("train", train), ("dev", 20), ("test", 20))}
    return pl.task(rows, kind="classification", name=name)


@pytest.fixture(scope="module")
def animals() -> Any:
    return sentences("own/animals.v2", {"dog": "barks", "cat": "meows"}, train=21, seed=1)


@pytest.fixture(scope="module")
def tags() -> Any:
    """Every word is tagged by whether it is an article."""
    draw = random.Random(3)

    def row() -> dict[str, list[str]]:
        words = draw.choices(FILL, k=draw.randint(2, 8))
        return {"tokens": words, "tags": ["A" if w in ("a", "the") else "B" for w in words]}

    rows = {split: [row() for _ in range(n)] for split, n in (("train", 30), ("test", 9))}
    return pl.task(rows | {"dev": rows["test"]}, kind="tagging", name="tags", labels=("A", "B"))


@pytest.fixture
def make(make_encoder, words_task, animals):
    """Return a function that builds a model of two heads."""

    def made(method: Any = "full", tasks: Any = None, family: str = "bert", **options: Any) -> Any:
        return pl.model(make_encoder(family), tasks or [words_task, animals], method, **options)

    return made


# -- heads ----------------------------------------------------------------------------------------


def test_every_task_has_a_head_and_one_task_has_the_plain_one(make, make_model, words_task):
    model = make()
    assert isinstance(model.head, Heads)
    names = {n for n, _ in model.named_parameters() if n.startswith("head.")}
    assert names == {
        f"head.[{task}].out.{which}"
        for task in ("words", "own/animals%2Ev2")
        for which in ("weight", "bias")
    }
    plain = make_model()
    assert not isinstance(plain.head, Heads)
    assert {n for n in plain.state_dict() if n.startswith("head.")} == {
        "head.out.weight",
        "head.out.bias",
    }
    assert pl.summary(model).head == 2 * pl.summary(plain).head


def test_a_batch_goes_to_the_head_of_its_task(make, words_task, animals):
    model = make()
    tokenizer = model.encoder.tokenizer
    rows = [{"text": "the good dog", "label": "good"}]
    batch = batches.collate(words_task.encode(rows, tokenizer, 16), tokenizer.pad_token_id)
    with torch.no_grad():
        hidden = model.backbone(
            **{k: v for k, v in batch.items() if k != "labels"}
        ).last_hidden_state
        for name in ("words", "own/animals.v2"):
            out = model(batch | {"task": name})
            assert torch.equal(out.logits, model.head.of(name)(hidden, batch))
    with pytest.raises(DataError, match="of which task it is"):
        model(batch)
    with pytest.raises(UnknownNameError, match="no task with a head in this model 'word'"):
        model(batch | {"task": "word"})


def test_every_kind_is_scored_as_if_it_were_alone(make, words_task, tags):
    rows = [{"text": " ".join(FILL[: n % 6 + 1]), "label": n / 2} for n in range(12)]
    numbers = pl.task({"train": rows, "dev": rows, "test": rows}, kind="regression", name="numbers")
    kinds = [pl.task("pocket/qa"), pl.task("pocket/copa"), numbers]
    tasks = [task.limit(train=8, dev=8, test=12) for task in (words_task, tags, *kinds)]
    model = make("lora-8", tasks, family="roberta")
    mixture = MultiTask(tasks).limit(test=30)  # the rows of the tasks are mixed
    assert len({row["task"] for row in mixture.rows("test")[:9]}) > 2
    together = pl.evaluate(model, MultiTask(tasks), max_length=48)
    for task in tasks:
        alone = pl.evaluate(model, task, max_length=48)
        alone.metrics.pop("loss", None)  # that of several tasks is over all their labels
        assert together.parts[task.name] == alone
        for metric, value in alone.metrics.items():
            assert together.metrics[f"{task.name} {metric}"] == value
    main = [together.parts[t.name].metrics[t.main_metric] for t in tasks]
    assert together.metrics["mean"] == pytest.approx(sum(main) / 5)
    mixed = pl.evaluate(model, mixture, max_length=48)
    for row, score in zip(mixture.rows("test"), mixed.example_scores, strict=True):
        part = together.parts[row["task"]]
        place = next(t for t in tasks if t.name == row["task"]).rows("test").index(row["row"])
        assert score == pytest.approx(part.example_scores[place])


def test_a_task_of_another_name_takes_the_only_head_that_fits(make, words_task, animals):
    other = words_task.limit(test=7)
    other.name = "words/de"
    model = make()
    wanted = pl.evaluate(model, words_task.limit(test=7), max_length=32)
    assert pl.evaluate(model, other, max_length=32) == wanted
    same = sentences("more", {"good": "good", "bad": "bad"}, train=8, seed=4)
    with pytest.raises(DataError, match="'words', 'more' all fit 'words/de'"):
        pl.evaluate(make(tasks=[words_task, same]), other)
    with pytest.raises(DataError, match="label sets differ"):
        pl.evaluate(make(), sentences("far", {"a": "x", "the": "y"}, train=8, seed=4))


def test_one_head_can_learn_from_several_tasks_that_fit_it(make_model, words_task):
    second = sentences("more", {"good": "good", "bad": "bad"}, train=20, seed=4)
    record = pl.train(make_model("full"), [words_task, second], SETTINGS)
    assert {"words", "more", "dev", "test"} == record.metrics.keys()


def test_tasks_that_share_a_head_keep_their_shares(make, words_task):
    model = make()
    other = words_task.limit(train=8)
    other.name = "words/de"
    task = MultiTask([words_task, other])
    features = encode(model, task, "train", 32)
    assert {feature["task"] for feature in features} == {"words"}
    sizes = [len(task.rows("train")) for task in (words_task, other)]
    assert [len(group) for group in batches.groups(features)] == sizes
    assert "group" not in batches.collate(features[:2], 0)


# -- sampling -------------------------------------------------------------------------------------


def features(sizes: dict[str, int]) -> list[dict[str, Any]]:
    draw = random.Random(0)
    return [
        {"input_ids": [1] * draw.randint(3, 30), "task": task}
        for task, size in sizes.items()
        for _ in range(size)
    ]


def test_proportional_sampling_sees_every_row_once():
    rows = features({"a": 203, "b": 40, "c": 3})
    mixture = Mixture(rows, 8, 1.0, seed=5)
    assert mixture.shares == [26, 5, 1]
    for epoch in (0, 3):
        made = mixture.epoch(epoch)
        assert sorted(i for batch in made for i in batch) == list(range(246))
        assert all(len({rows[i]["task"] for i in batch}) == 1 for batch in made)
    assert mixture.epoch(0) != mixture.epoch(1)
    # tasks are mixed, not one after the other
    order = [rows[batch[0]]["task"] for batch in mixture.epoch(0)]
    assert order != sorted(order)


def test_one_task_keeps_the_order_that_it_always_had():
    rows = features({"a": 203})
    mixture = Mixture(rows, 8, 1.0, seed=5)
    for epoch in range(3):
        assert mixture.epoch(epoch) == batches.plan(mixture.lengths, 8, 5, epoch)


def test_the_temperature_makes_the_shares_more_equal():
    sizes = [1000, 100, 10]
    for temperature in (1.0, 2.0, 5.0):
        weights = [n ** (1 / temperature) for n in sizes]
        for found, weight in zip(shares(sizes, temperature), weights, strict=True):
            assert abs(found - 1110 * weight / sum(weights)) < 1
        assert sum(shares(sizes, temperature)) == 1110
    assert shares(sizes, 1.0) == sizes
    assert shares(sizes, 1e9) == [370, 370, 370]
    assert shares([1, 1, 1], 3.0) == [1, 1, 1]


def test_at_a_high_temperature_all_rows_come_in_turn():
    mixture = Mixture(features({"a": 200, "b": 16}), 8, 2.0, seed=5)
    assert mixture.size == 27
    seen: Counter[int] = Counter()
    of_a = 0
    epoch = 0
    while of_a < 3 * 25:  # three passes over the 25 batches of a
        for batch in mixture.epoch(epoch):
            if batch[0] < 200 and of_a < 3 * 25:
                seen.update(batch)
                of_a += 1
        epoch += 1
    assert set(seen.values()) == {3}
    assert len(seen) == 200


@pytest.mark.parametrize("wrong", [0, 0.5, -1, float("nan"), float("inf")])
def test_a_temperature_that_cannot_work_is_refused(words_task, animals, wrong):
    with pytest.raises(SettingsError, match="temperature is"):
        MultiTask([words_task, animals], temperature=wrong)


# -- training -------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", ["bert", "roberta"])
def test_all_tasks_are_learnt_and_recorded(make, words_task, animals, tags, family):
    tasks = [words_task, animals, tags]
    record = pl.train(make("full", tasks, family), settings=SETTINGS, epochs=12, learning_rate=3e-3)
    assert record.metrics["test"]["words accuracy"] >= 0.85
    assert record.metrics["test"]["own/animals.v2 accuracy"] >= 0.85
    assert record.main_metric == "mean"
    for split in ("dev", "test"):
        assert set(record.metrics[split]) == {"mean", "loss"} | {
            f"{task.name} {metric}" for task in tasks for metric in task.metrics
        }
    for task in tasks:
        assert len(record.example_scores[task.name]) == len(task.rows("test"))
        found = record.metrics[task.name][task.main_metric]
        assert record.metrics["test"][f"{task.name} {task.main_metric}"] == found
    best = next(e for e in record.evaluations if e.step == record.best_step)
    assert best.metrics["mean"] == max(e.metrics["mean"] for e in record.evaluations)
    assert record.sizes.train == 60 + 21 + 30
    assert record.settings.task == "words+own/animals.v2+tags"
    assert record.settings.task_options == {
        "of": [task.name for task in tasks],
        "options": {task.name: task.options for task in tasks},
    }


def test_the_record_tells_mixtures_apart(make, words_task, animals):
    def settings(tasks: Any) -> Any:
        return pl.train(make("head-only"), tasks, SETTINGS, max_steps=1).settings

    usual = settings([words_task, animals])
    hot = settings(MultiTask([words_task, animals], temperature=3))
    few = settings([words_task.share(1 / 5), animals])
    alone = settings(animals)
    assert hot.task_options == usual.task_options | {"temperature": 3.0}
    draws = {"train": [{"rows": 12, "seed": 0, "share": 0.2}]}
    assert few.task_options == usual.task_options | {
        "limits": {"words": {"train": 12}},
        "options": usual.task_options["options"] | {"words": words_task.options | {"draws": draws}},
    }
    assert alone.task_options == animals.options == {"kind": "classification"}
    assert alone.model_options == {"heads": ["words", "own/animals.v2"]}
    assert len({s.id for s in (usual, hot, few, alone)}) == 4


@pytest.mark.parametrize("stop", [1, 11, 15])
def test_a_killed_run_goes_on_exactly(make, words_task, animals, tmp_path, stop):
    tasks = MultiTask([words_task, animals], temperature=4)
    whole_model = make()
    whole = fit(whole_model, tasks, SETTINGS)

    def kill(step: int) -> None:
        if step == stop:
            raise Killed

    with pytest.raises(Killed):
        fit(make(), tasks, SETTINGS, folder=tmp_path, key="a", on_step=kill)
    torch.manual_seed(99)
    model = make()
    done: list[int] = []
    resumed = fit(model, tasks, SETTINGS, folder=tmp_path, key="a", on_step=done.append)
    assert done[0] == stop
    assert resumed.losses == whole.losses
    assert resumed.evaluations == whole.evaluations
    for (name, a), (_, b) in zip(
        whole_model.state_dict().items(), model.state_dict().items(), strict=True
    ):
        assert torch.equal(a, b), name


def test_tasks_that_cannot_be_joined_are_refused(make, words_task, animals):
    with pytest.raises(SettingsError, match="'words' is there twice"):
        make(tasks=[words_task, animals, words_task.limit(train=5)])
    with pytest.raises(SettingsError, match="itself made of tasks"):
        make(tasks=[MultiTask([words_task]), animals])
    with pytest.raises(SettingsError, match="no task to train on"):
        MultiTask([])
    with pytest.raises(SettingsError, match="names a split"):
        MultiTask([words_task, sentences("test", {"a": "x", "the": "y"}, train=8, seed=4)])
    for share in (0, 1.5):
        with pytest.raises(SettingsError, match="share of the train split"):
            words_task.share(share)


def test_subsets_keep_the_shares_of_the_tasks(words_task, animals):
    tasks = MultiTask([words_task, animals])
    fifth = tasks.share(1 / 3)
    assert Counter(row["task"] for row in fifth.rows("train")) == {
        "words": 20,
        "own/animals.v2": 7,
    }
    tenth = tasks.limit(train=9).rows("train")
    assert tenth == fifth.rows("train")[:9]
    assert tasks.limits == {}
    assert len(tasks.provenance["tasks"]["words"]["sha256"]) == 3


# -- one task more --------------------------------------------------------------------------------


@pytest.mark.parametrize("heads", [1, 2])
def test_add_task_leaves_everything_else_bitwise(make, words_task, animals, tags, heads):
    model = make(tasks=[words_task, animals] if heads == 2 else words_task)
    before = {n: t.clone() for n, t in model.state_dict().items()}
    assert add_task(model, tags, seed=4) is model
    after = model.state_dict()
    for name, tensor in before.items():
        # a single head moves to its own name
        place = name if heads == 2 else name.replace("head.", "head.[words].")
        assert torch.equal(after.pop(place), tensor)
    assert after.keys() == {"head.[tags].out.weight", "head.[tags].out.bias"}
    assert model.head.names == (*["words", "own/animals.v2"][:heads], "tags")
    assert model.options["added"] == [["tags", 4]]
    with pytest.raises(SettingsError, match="'tags' is there twice"):
        add_task(model, tags)


def test_the_new_head_is_decided_by_its_seed(make, tags):
    def weights(seed: int | None) -> torch.Tensor:
        return add_task(make(), tags, seed=seed).head.of("tags").out.weight

    torch.manual_seed(7)
    first = weights(3)
    torch.manual_seed(8)
    assert torch.equal(weights(3), first)
    assert torch.equal(weights(None), weights(0))
    assert not torch.equal(weights(None), first)


def test_training_on_the_new_task_moves_no_old_head(make, words_task, tags):
    model = add_task(make("head-only"), tags)
    before = {n: t.clone() for n, t in model.state_dict().items()}
    record = pl.train(model, tags, SETTINGS, transfer=[words_task])
    moved = {n for n, t in model.state_dict().items() if not torch.equal(t, before[n])}
    assert moved == {"head.[tags].out.weight", "head.[tags].out.bias"}
    assert record.curve[-1].loss < record.curve[0].loss
    found = pl.evaluate(model, words_task, max_length=32, precision=SETTINGS.precision)
    assert record.metrics["words"] == found.metrics


def test_old_rows_prevent_forgetting(make, make_model, words_task, tmp_path):
    """The three protocols: the new task with a share of the old one, and alone."""
    model = make_model("full")
    pl.train(model, words_task, SETTINGS, epochs=8)
    saved = model.save(tmp_path)
    before = pl.evaluate(model, words_task, max_length=32).metrics["accuracy"]
    assert before >= 0.9
    new = sentences("new", {"old": "x", "fine": "y"}, train=60, seed=2)
    after = {}
    for share in (1 / 3, 1 / 20, 0):
        model = make_model("full")
        restore(model, saved)
        add_task(model, new)
        old = [words_task.share(share)] if share else []
        record = pl.train(
            model, [new, *old], SETTINGS, transfer=[words_task], epochs=6, learning_rate=3e-3
        )
        assert record.metrics["new"]["accuracy"] >= 0.8
        assert len(record.settings.model_options["after"]) == 1
        after[share] = record.metrics["words"]["accuracy"]
    assert after[1 / 3] >= 0.8
    assert after[0] < after[1 / 3] - 0.2, after


# -- checkpoints ----------------------------------------------------------------------------------


def test_save_and_load_of_several_heads(make, make_encoder, words_task, animals, tags, tmp_path):
    tasks = [words_task, animals, tags]
    model = make("lora-8", tasks, dropout=0.0)
    pl.train(model, settings=SETTINGS, epochs=1)
    model.save(tmp_path)
    assert {n for n in load_file(tmp_path / "model.safetensors") if n.startswith("head.")} == {
        f"head.{n}" for n in model.head.state_dict()
    }
    again = pl.load(tmp_path, task=tasks)
    assert all(
        torch.equal(a, b)
        for a, b in zip(model.state_dict().values(), again.state_dict().values(), strict=True)
    )
    assert again.head.settings == model.head.settings
    assert again.runs == model.runs
    assert len(model.runs) == 1
    with pytest.raises(CheckpointError, match="give the tasks it was made for, in that order"):
        restore(make("lora-8", tasks[:2]), tmp_path)
    with pytest.raises(CheckpointError, match="give the tasks it was made for, in that order"):
        pl.load(tmp_path, task=words_task)
    with pytest.raises(CheckpointError, match="'words'.*cannot be opened here"):
        pl.load(tmp_path)


def test_known_tasks_are_opened_again(make_encoder, tmp_path):
    tasks = MultiTask([pl.task("pocket/nli"), pl.task("pocket/topic")], temperature=2.0)
    model = pl.model(make_encoder(), tasks, "lora-8")
    model.save(tmp_path)
    again = pl.load(tmp_path)
    assert again.task.name == tasks.name
    assert again.task.temperature == 2.0
    assert [task.labels for task in again.task.tasks] == [task.labels for task in tasks.tasks]


# -- experiments ----------------------------------------------------------------------------------


def test_an_experiment_file_may_name_tasks_that_are_learnt_together(tiny_folder, tmp_path):
    entry = {"name": "both", "of": ["pocket/nli", "pocket/topic"], "temperature": 2.0}
    experiment = Experiment.model_validate(
        {
            "name": "multi",
            "question": "Does it run?",
            "encoder": str(tiny_folder("bert")),
            "tasks": [entry | {"train": 24, "dev": 8, "test": 8}],
            "methods": {"majority": "majority", "full": "full"},
            "settings": {"epochs": 1, "max_length": 32},
            "tuning": {"learning_rates": [1e-3]},
            "seeds": [0],
            "transfer": ["pocket/topic/de"],
        }
    )
    grid = Grid(experiment, Store(tmp_path), report=lambda line: None)
    assert grid.work() == 2
    for record in grid.records.values():
        assert record.status == "ok", record.error
        assert record.settings.task == "both"
        assert record.settings.task_options == {"of": entry["of"], "temperature": 2.0}
        assert set(record.metrics) == {"dev", "test", "pocket/topic/de", *entry["of"]}
        assert record.sizes.train == 24


# -- what parts may ask of the loop ---------------------------------------------------------------


def test_parts_may_have_their_own_learning_rate(make_model, words_task, monkeypatch):
    plain = [
        (group["weight_decay"], len(group["params"]), group.get("peak"))
        for group in optimiser_for(make_model(), SETTINGS).param_groups
    ]
    assert plain == [(0.01, 13, None), (0.0, 1, None)]
    monkeypatch.setattr(LoRAPart, "rates", {"B": 0.05})
    model = make_model()
    groups = optimiser_for(model, SETTINGS).param_groups
    assert [g.get("peak") for g in groups] == [None, None, 0.05]
    own = {id(p) for p in groups[2]["params"]}
    assert own == {id(p) for n, p in model.named_parameters() if n.endswith(".B")}
    seen: list[list[float]] = []
    step = torch.optim.AdamW.step

    def noted(self: Any, *args: Any) -> Any:
        seen.append([group["lr"] for group in self.param_groups])
        return step(self, *args)

    monkeypatch.setattr(torch.optim.AdamW, "step", noted)
    trained = fit(model, words_task, SETTINGS)
    assert trained.rates == [rates[0] for rates in seen]
    total = len(seen)
    assert [r[2] for r in seen] == [learning_rate(s, total, SETTINGS, 0.05) for s in range(total)]
    assert max(r[2] for r in seen) == 0.05


@pytest.mark.parametrize("accumulation", [1, 4])
def test_a_penalty_is_added_once(make_model, words_task, monkeypatch, accumulation):
    settings = TrainSettings(**SETTINGS.as_dict() | {"accumulation": accumulation, "max_steps": 3})
    plain = fit(make_model(), words_task, settings).losses
    parts = sum(isinstance(m, LoRAPart) for m in make_model().modules())
    monkeypatch.setattr(LoRAPart, "penalty", lambda self: None)
    assert fit(make_model(), words_task, settings).losses == plain
    monkeypatch.setattr(LoRAPart, "penalty", lambda self: (self.A**2).sum() * 0 + 0.5)
    found = fit(make_model(), words_task, settings).losses
    assert found == pytest.approx([loss + 0.5 * parts for loss in plain], abs=1e-4)
    monkeypatch.setattr(LoRAPart, "penalty", lambda self: 100 * (self.B - 1).square().sum())
    model = make_model()
    fit(model, words_task, TrainSettings(**settings.as_dict() | {"keep_best": False}))
    assert all((m.B > 0).all() for m in model.modules() if isinstance(m, LoRAPart))
