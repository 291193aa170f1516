"""The texts of a labelled data set as a task of their own."""

from __future__ import annotations

import pytest

from peftlab import tasks
from peftlab.errors import DataError, UnknownNameError

from .conftest import write


@pytest.fixture
def pairs(tmp_path, monkeypatch):
    """MRPC in PEFTLAB_DATA: 40 train rows, of which one has an empty second text."""
    for split, size in (("train", 40), ("validation", 6)):
        rows = [
            {"sentence1": f"the {split} {i}", "sentence2": f"a {split} {i}" * (i > 0), "label": 0}
            for i in range(size)
        ]
        write(tmp_path / "glue_mrpc" / f"{split}.jsonl.gz", rows)
    monkeypatch.setenv("PEFTLAB_DATA", str(tmp_path))


def test_every_text_is_a_row_and_no_label_is_left(pairs):
    task = tasks.task("text-of/glue/mrpc")
    assert (task.name, task.kind) == ("text-of/glue/mrpc", "language-model")
    assert tasks.task("glue/mrpc").sizes == {"train": 36, "dev": 4, "test": 6}
    assert task.sizes == {"train": 71, "dev": 8, "test": 11}  # one train row has one text
    train = task.rows("train") + task.rows("dev")
    assert {*train[0]} == {"text"}
    assert {row["text"] for row in train} == {
        *(f"the train {i}" for i in range(40)),
        *(f"a train {i}" for i in range(1, 40)),
    }
    assert all("validation" in row["text"] for row in task.rows("test"))
    assert task.provenance["texts"] == ["sentence1", "sentence2"]


@pytest.mark.parametrize("options", [{}, {"held_out": 6}])
def test_no_text_is_trained_on_that_the_task_chooses_by_or_is_tested_on(pairs, options):
    task, labelled = (tasks.task(name, **options) for name in ("text-of/glue/mrpc", "glue/mrpc"))
    for split in ("train", "dev", "test"):
        rows = labelled.rows(split)
        both = {row[name] for row in rows for name in ("sentence1", "sentence2")} - {""}
        assert {row["text"] for row in task.rows(split)} == both
    assert task.options == options
    assert task.provenance["splits_of"] == "glue/mrpc"


def test_it_takes_the_options_of_a_language_model(pairs):
    task = tasks.task("text-of/glue/mrpc", mask_rate=0.3, train_head=True)
    assert task.options == {"mask_rate": 0.3, "train_head": True}
    with pytest.raises(UnknownNameError, match="no option of the task 'text-of/glue/mrpc'"):
        tasks.task("text-of/glue/mrpc", stride=3)


def test_generated_texts_and_languages_too():
    task = tasks.task("text-of/pocket/nli/de")
    labelled = tasks.task("pocket/nli/de")
    assert (task.name, task.language, task.pocket) == ("text-of/pocket/nli/de", "de", True)
    first = labelled.rows("test")[0]
    assert task.rows("test")[:2] == [{"text": first["premise"]}, {"text": first["hypothesis"]}]


@pytest.mark.parametrize(
    ("name", "error", "words"),
    [
        ("text-of/glue/sst", UnknownNameError, "did you mean 'glue/sst2'"),
        ("text-of/squad", DataError, "the texts of a qa task stand in no fields"),
        ("text-of/wikitext-2", DataError, "name a data set for classification"),
    ],
)
def test_what_has_no_such_texts_is_one_sentence(name, error, words):
    with pytest.raises(error, match=words):
        tasks.task(name)
