"""Real data, where there are some: every data set of the table loads, encodes and is scored."""

from __future__ import annotations

import pytest

from peftlab import tasks

from .conftest import right_logits

NAMES = [
    *(f"glue/{name}" for name in ("cola", "sst2", "mrpc", "qqp", "stsb", "mnli", "qnli", "rte")),
    "squad",
    "sib200/deu_Latn",
    "xsid/en",
    "xsid-slots/en",
]


@pytest.mark.data
@pytest.mark.parametrize("name", NAMES)
def test_real_rows(name, peftlab_data, tokenizer):
    # the tests' tokenizers know letters, of which an answer has more than words
    options = {"max_answer": 120} if name == "squad" else {}
    task = tasks.task(name, **options).limit(test=200)
    sizes = task.sizes
    assert sizes["test"] == 200
    assert sizes["train"] > sizes["dev"] >= 60
    rows = task.rows("test")
    features = task.encode(rows, tokenizer, 128)
    evaluation = task.evaluate(rows, features, right_logits(task, features))
    assert evaluation.metrics[task.main_metric] > 0.9


@pytest.mark.data
@pytest.mark.parametrize("name", ["xsid/de", "xsid-slots/de"])
def test_real_zero_shot_rows_share_the_labels(name, peftlab_data, bert):
    task, english = tasks.task(name), tasks.task(name.replace("de", "en"))
    assert task.labels == english.labels
    rows = task.rows("test")
    assert len(task.encode(rows, bert, 128)) == 500
    assert tasks.majority(task, train=english).metrics["accuracy"] > 0.2


@pytest.mark.data
def test_real_test_rows_never_select(peftlab_data):
    task = tasks.task("glue/sst2")
    assert task.sizes == {"train": 19_000, "dev": 1_000, "test": 872}
    assert set(task.rows("train")[0]) == {"sentence", "label", "idx"}
    chosen = {row["idx"] for row in task.rows("dev")}
    assert not chosen & {row["idx"] for row in task.rows("train")}
