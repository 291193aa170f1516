"""Texts in a script that the tokenizer does not know are warned of, once a task."""

from __future__ import annotations

import warnings

import pytest

import peftlab as pl
from peftlab import tasks
from peftlab.tasks.coverage import unknown_share, warn_of_unknown

LATIN = {"text": "the quiet river moves", "label": "a"}
THAI = {"text": "แม่น้ำ ไหล ใต้ สะพาน", "label": "b"}


def classes(rows, **options):
    return tasks.task({"train": rows, "test": rows}, "classification", **options)


def test_the_share_counts_pieces_but_no_special_tokens(bert, roberta):
    task = classes([LATIN, THAI])
    features = task.encode([LATIN, THAI], bert, 32)
    assert [unknown_share([feature], bert) for feature in features] == [0, 1]
    assert unknown_share(features, bert) == 0.5  # four words are known, four are not
    assert unknown_share([], bert) == 0
    assert unknown_share(task.encode([THAI], roberta, 64), roberta) == 0  # bytes are all known


def test_the_pieces_of_all_choices_count(bert):
    rows = [{"premise": "river", "choice1": "stone", "choice2": "สะพาน", "label": 0}]
    task = tasks.task({"train": rows, "test": rows}, "choice")
    assert unknown_share(task.encode(rows, bert, 32), bert) == 1 / 4


def test_a_warning_names_task_language_share_and_encoder(bert):
    rows = [LATIN] * 15 + [THAI]
    task = classes(rows, name="own", language="th")
    with pytest.warns(UserWarning, match="are unknown") as caught:
        warn_of_unknown(task, task.encode(rows, bert, 32), bert, "tiny")
    assert [str(each.message) for each in caught] == [
        "6% of the pieces of 'own' (language 'th') are unknown to the tokenizer of 'tiny': choose "
        "an encoder that was trained on its script."
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_of_unknown(task, task.encode(rows[:1], bert, 32), bert, "tiny")


def test_evaluation_warns_of_the_task_that_is_meant(make_encoder):
    known = classes([{"text": "the old dog", "label": c} for c in "ab"], name="known")
    strange = classes([{"text": f"{c} สะพาน", "label": c} for c in "ab"], name="strange")
    model = pl.model(make_encoder(), [known, strange], "head-only")
    with pytest.warns(UserWarning, match="are unknown") as caught:
        pl.evaluate(model, [known, strange], max_length=16)
    [warning] = caught
    assert "'strange' (language 'en')" in str(warning.message)
    assert warning.filename == __file__  # where it can be acted on
