"""Real data, where there are some: every data set that is there loads, encodes and is scored."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from peftlab import tasks
from peftlab.encoders import load_encoder
from peftlab.errors import DataError
from peftlab.tasks import catalog
from peftlab.tasks.coverage import unknown_share
from peftlab.training.batches import label_count
from tools import datasets

from .conftest import right_logits, write
from .stored import stored

ROWS = [row for row in catalog.ROWS if not row.generated]
TRIED = json.loads(datasets.FOUND.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def pocket():
    """The tokenizer of the pocket encoder."""
    return load_encoder("pocket").tokenizer


def test_the_tool_counts_rows_by_stored_split(tmp_path, monkeypatch):
    """On made-up rows, for those without real ones."""
    rows = {row.name: row for row in ROWS}
    for language in ("de", "th"):
        write(tmp_path / "xnli" / language / "test.jsonl", stored("xnli"))
    write(tmp_path / "copa" / "train.jsonl", stored("copa"))
    hidden = [row | {"label": -1} for row in stored("copa")]
    write(tmp_path / "copa" / "validation.jsonl", hidden)
    monkeypatch.setenv("PEFTLAB_DATA", str(tmp_path))
    assert [row.name for row in ROWS if datasets.configs(row, tmp_path)] == ["xnli", "copa"]
    found = datasets.found(rows["xnli"], tmp_path)
    assert found == {"configs": 2, "rows": {"test": 240}, "hidden": []}
    found = datasets.found(rows["copa"], tmp_path)
    assert found == {"configs": 1, "rows": {"train": 120}, "hidden": ["validation"]}


@pytest.mark.data
def test_the_page_tells_of_what_is_there(peftlab_data):
    assert set(TRIED) == {row.name for row in ROWS if datasets.configs(row, peftlab_data)}


@pytest.mark.data
@pytest.mark.parametrize("name", TRIED)
def test_what_the_page_tells_is_found_again(name, peftlab_data):
    [row] = [each for each in ROWS if each.name == name]
    found = datasets.found(row, peftlab_data)
    assert found == TRIED[name], "run python -m tools.datasets"
    manifest = json.loads((Path(peftlab_data) / "MANIFEST.json").read_text(encoding="utf-8"))
    [listed] = [each for each in manifest["datasets"] if each["name"] == row.folder]
    assert found["configs"] == listed["n_configs"]
    if (
        row.trained_in is None and row.kind != "language-model"
    ):  # which leaves lines out; else the other languages' train rows are not read
        assert found["rows"].items() <= listed["rows"].items()


@pytest.mark.data
@pytest.mark.parametrize("name", TRIED)
def test_real_rows_are_encoded_and_scored(name, peftlab_data, pocket):
    [row] = [each for each in ROWS if each.name == name]
    if row.configs:
        here = datasets.configs(row, peftlab_data)
        name = f"{name}/{next((c for c in ('en', 'eng_Latn') if c in here), here[0])}"
    texts = row.kind == "language-model"
    options = {"held_out": 200} if TRIED[row.name]["hidden"] or texts else {}
    task = tasks.task(name, **options)
    rows = task.rows("test")
    shown = rows[:20]
    features = task.encode(shown, pocket, 128)
    if texts:
        assert sum(map(label_count, features)) > 0
        return
    assert unknown_share(features, pocket) < 0.05
    evaluation = task.evaluate(shown, features, right_logits(task, features))
    # what lies behind the longest input, or in a long answer, is not found
    assert evaluation.metrics[task.main_metric] > 0.8
    if task.kind == "qa":
        return
    train = task if "train" in task.splits else tasks.task(row.train_on)
    majority = tasks.majority(task, train=train)
    assert majority.metrics[task.main_metric] < 0.99
    assert len(majority.example_scores) == len(rows)


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


@pytest.mark.data
def test_a_real_script_that_the_tokenizer_does_not_know(peftlab_data, bert):
    thai, english = (tasks.task(f"xnli/{language}") for language in ("th", "en"))
    shares = [
        unknown_share(task.encode(task.rows("test")[:20], bert, 128), bert)
        for task in (thai, english)
    ]
    assert shares[0] > 0.25
    assert shares[1] < 0.05


@pytest.mark.data
def test_real_test_rows_without_answers_are_refused(peftlab_data):
    with pytest.raises(DataError, match=r"tydiqa_goldp/en/validation .* the answer is blank"):
        tasks.task("tydiqa/en").rows("test")
