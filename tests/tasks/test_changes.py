"""What is done to stored rows, row by row."""

from __future__ import annotations

import pytest

from peftlab import tasks
from peftlab.errors import DataError
from peftlab.tasks import catalog
from peftlab.tasks.catalog import changes

from .conftest import write
from .stored import nested


@pytest.mark.parametrize(
    ("change", "row", "label"),
    [
        (changes.two_classes, {"label": 0}, "Negative"),
        (changes.two_classes, {"label": 1}, "Negative"),
        (changes.two_classes, {"label": 3}, "Positive"),
        (changes.two_classes, {"label": 4}, "Positive"),
        (changes.from_zero, {"label": "1"}, 0),
        (changes.from_zero, {"label": "3\n"}, 2),
        (changes.from_zero, {"label": ""}, ""),  # hidden labels are for the task to refuse
        (changes.truth_value, {"hyperpartisan": True}, "true"),
        (changes.truth_value, {"hyperpartisan": False}, "false"),
        (changes.truth_value, {"label": "true"}, "true"),
        (changes.labelled, {"label": 0}, 0),
    ],
)
def test_labels(change, row, label):
    [changed] = change(row)
    assert changed["label"] == label


@pytest.mark.parametrize(
    ("change", "row"),
    [
        (changes.two_classes, {"label": 2}),
        (changes.labelled, {"label": -1}),
        (changes.labelled, {"LABEL": None}),
        (changes.without_misc, {"ner_tags": [0, 7, 0]}),
        (changes.without_misc, {"ner_tags": ["O", "B-MISC", "I-MISC"]}),
        (
            changes.answered,
            {"context": "a b", "answers": {"text": ["c"], "answer_start": [0]}},
        ),
    ],
)
def test_rows_that_are_left_out(change, row):
    assert change(row) == []


@pytest.mark.parametrize(
    "change",
    [
        changes.labelled,
        changes.two_classes,
        changes.without_misc,
        changes.truth_value,
        changes.from_zero,
    ],
)
def test_a_row_without_the_field_is_left_for_the_task_to_refuse(change):
    assert change({"text": "x"}) == [{"text": "x"}]


def test_questions_of_a_nested_file():
    questions = changes.answered(nested(0))
    assert [question["id"] for question in questions[:3]] == ["1", "2", "4"]
    context = "anna sings in oslo 0"
    assert questions[1] == {
        "id": "2",
        "context": context,
        "question": "where ?",
        "answers": {"text": ["oslo"], "answer_start": [context.index("oslo")]},
    }


def test_every_change_says_in_a_line_what_it_does():
    changed = {row.change: row.changed for row in catalog.ROWS if row.change}
    assert len(set(changed.values())) == len(changed)
    assert all(line.endswith(".") for line in changed.values())
    assert all(row.changed == "" for row in catalog.ROWS if not row.change)


def test_a_missing_label_is_still_an_error(tmp_path, monkeypatch):
    write(tmp_path / "paws_x" / "de" / "test.jsonl", [{"sentence1": "a", "sentence2": "b"}])
    monkeypatch.setenv("PEFTLAB_DATA", str(tmp_path))
    with pytest.raises(DataError, match="Row 1 of paws_x/de/test .* has no field 'label'"):
        tasks.task("paws-x/de").rows("test")
