"""Training on one data set and testing on another, such as one in another language."""

from __future__ import annotations

import pytest

import peftlab as pl
from peftlab import tasks
from peftlab.errors import DataError
from peftlab.tasks import catalog
from peftlab.tasks.multi import like

from .stored import stored

PAIRS = [
    (f"{row.name}/{row.configs[0]}", source)
    for row in catalog.ROWS
    if row.train_on
    for source in row.train_on.split(" or ")
]


@pytest.mark.parametrize(("name", "source"), PAIRS)
def test_what_a_set_without_train_rows_is_trained_on_has_its_labels(name, source):
    train = tasks.task(source)
    assert "train" in train.splits
    assert like(tasks.task(name), [train]) is train


def test_one_head_ranks_two_choices_and_three(make_encoder):
    three = {name: [row | {"label": i % 3} for i, row in enumerate(stored("social-iqa"))]
             for name in ("train", "dev")}  # fmt: skip
    choices = ("answerA", "answerB", "answerC")
    source = tasks.task(
        three, "choice", name="three", premise="context", ask="question", choices=choices
    )
    two = tasks.task({"test": stored("copa")}, "choice", name="two")
    model = pl.model(make_encoder(), source, "head-only")
    assert len(pl.evaluate(model, two, max_length=48).example_scores) == 120
    assert len(pl.evaluate(model, source, "dev", max_length=48).example_scores) == 120
    # the position that is right most often among those that both have
    assert tasks.majority(two, train=source).metrics["accuracy"] == 0.5


def test_what_is_asked_may_be_text(bert):
    row = {"premise": "it rained", "ask": "who sings", "choice1": "a", "choice2": "b", "label": 1}
    task = tasks.task({"train": [row], "dev": [row]}, "choice", ask="ask")
    [feature] = task.encode(task.rows("dev"), bert, 64)
    assert bert.decode(feature["input_ids"][1]) == "[CLS] it rained who sings [SEP] b [SEP]"


def classes(name, labels):
    rows = [{"text": "x", "label": label} for label in labels]
    return tasks.task({"train": rows, "test": rows}, "classification", name=name, labels=labels)


@pytest.mark.parametrize(
    ("labels", "sentence"),
    [
        ("abc", "their label sets differ (only 'de' has 'c')"),
        ("ac", "their label sets differ (only 'de' has 'c', only 'en' has 'b')"),
        ("ba", "their labels stand in another order"),
    ],
)
def test_label_sets_that_differ_between_languages(labels, sentence):
    english = classes("en", ("a", "b"))
    with pytest.raises(DataError) as error:
        like(classes("de", tuple(labels)), [english])
    assert str(error.value) == (
        f"The model was made for 'en' and cannot be trained or scored on 'de': {sentence}; "
        "add_task() adds a head for it."
    )
