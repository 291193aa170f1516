"""A user's own data: folders, DatasetDicts, lists; and one clear sentence for what is wrong."""

from __future__ import annotations

import gzip

import pytest

from peftlab import tasks
from peftlab.errors import DataError, SettingsError, UnknownNameError

from .conftest import write

ROWS = [{"sentence": f"river {i}", "stars": ("low", "high")[i % 2]} for i in range(20)]
FIELDS = {"kind": "classification", "text": ("sentence",), "label": "stars"}


@pytest.mark.parametrize("suffix", [".jsonl", ".jsonl.gz", ".json", ".csv", ".parquet"])
def test_folders_in_every_format(suffix, tmp_path, bert):
    for split in ("train", "validation", "test"):
        path = tmp_path / f"{split}{suffix}"
        if ".jsonl" in suffix:
            write(path, ROWS)
        else:
            from datasets import Dataset

            data = Dataset.from_list(ROWS)
            getattr(data, "to_" + suffix[1:])(path)
    task = tasks.task(tmp_path, **FIELDS)
    assert task.sizes == {"train": 20, "dev": 20, "test": 20}
    assert task.rows("train") == ROWS
    assert task.labels == ("high", "low")
    assert task.name == tmp_path.name
    assert task.provenance["source"] == "user"
    assert str(tmp_path.parent) not in str(task.provenance)
    assert tasks.task(str(tmp_path), name="stars", **FIELDS).name == "stars"


def test_dataset_dict_with_class_labels(bert):
    from datasets import ClassLabel, Dataset, DatasetDict, Features, Value

    features = Features({"text": Value("string"), "label": ClassLabel(names=["no", "yes"])})
    data = Dataset.from_list([{"text": "x", "label": i % 2} for i in range(10)], features=features)
    task = tasks.task(DatasetDict({"train": data, "test": data}), kind="classification")
    assert task.labels == ("no", "yes")
    assert task.sizes == {"train": 9, "dev": 1, "test": 10}
    assert [f["labels"] for f in task.encode(task.rows("test")[:2], bert, 8)] == [0, 1]


def test_dataset_dict_with_tag_names():
    from datasets import ClassLabel, Dataset, DatasetDict, Features, Sequence, Value

    names = ["O", "B-X", "I-X"]
    features = Features(
        {"tokens": Sequence(Value("string")), "ner": Sequence(ClassLabel(names=names))}
    )
    data = Dataset.from_list([{"tokens": ["a", "b"], "ner": [0, 1]}] * 4, features=features)
    task = tasks.task(DatasetDict({"train": data, "test": data}), kind="tagging", tags="ner")
    assert task.labels == tuple(names)
    assert task.main_metric == "span_f1"
    assert tasks.majority(task).example_scores == [0.5] * 4


def own(rows=ROWS, **options):
    return tasks.task({"train": ROWS, "dev": rows}, **(FIELDS | options))


@pytest.mark.parametrize(
    ("row", "sentence"),
    [
        ({"stars": "low"}, r"Row 1 of the split 'dev' has no field 'sentence'.*has 'stars'"),
        ({"sentence": None, "stars": "low"}, r"Row 1 .* field 'sentence' is None, .* be text"),
        ({"sentence": "x", "stars": "mid"}, r"label 'mid' is not in the label set 'high', 'low'"),
        (
            {"sentence": "x", "stars": None},
            r"'stars' is None, but should be a label \(labels of this split are hidden: score "
            r"another, or cut a test split with held_out\)\.$",
        ),
        ({"sentence": "x", "stars": -1}, r"label -1 .*labels of this split are hidden"),
    ],
)
def test_bad_rows(row, sentence):
    with pytest.raises(DataError, match=sentence):
        own([row]).rows("dev")


TAGS = {"tokens": ["a", "b"], "tags": ["O", "B-X"]}
ANSWER = {
    "question": "who ?",
    "context": "anna sings",
    "answers": {"text": ["anna"], "answer_start": [0]},
}
CHOICE = {"premise": "p", "choice1": "a", "choice2": "b", "label": 1}


@pytest.mark.parametrize(
    ("kind", "good", "bad", "sentence"),
    [
        ("tagging", TAGS, {"tags": ["O"]}, "has 2 words, but 1 tags"),
        ("tagging", TAGS, {"tokens": "a b"}, "'tokens' is 'a b', but should be a list of words"),
        ("tagging", TAGS, {"tokens": ["a", 3]}, "'tokens' holds something that is no text"),
        ("tagging", TAGS, {"tags": ["O", "B-Y"]}, "label 'B-Y' is not in the label set"),
        (
            "qa",
            ANSWER,
            {"answers": {"text": [], "answer_start": []}},
            r"every question needs an answer, .* a start \(labels of this split are hidden",
        ),
        (
            "qa",
            ANSWER,
            {"answers": {"text": [""], "answer_start": [0]}},
            r"the answer is blank \(labels of this split are hidden",
        ),
        (
            "qa",
            ANSWER,
            {"answers": {"text": ["oslo"], "answer_start": [0]}},
            "'oslo' does not stand at character 0 of the field 'context'",
        ),
        ("qa", ANSWER, {"answers": "anna"}, "field 'answers' is 'anna'"),
        ("choice", CHOICE, {"label": 2}, "label 2 is not in the label set 0 to 1"),
        ("choice", CHOICE, {"choice2": None}, "'choice2' is None"),
        ("regression", {"text": "x", "label": 1.5}, {"label": "high"}, "should be a number"),
        ("regression", {"text": "x", "label": 1}, {"label": float("nan")}, "not a finite number"),
    ],
)
def test_bad_rows_of_every_kind(kind, good, bad, sentence):
    task = tasks.task({"train": [good] * 3, "dev": [good, good | bad]}, kind=kind)
    assert task.rows("train")
    with pytest.raises(DataError, match=f"Row 2 of the split 'dev'.*{sentence}"):
        task.rows("dev")


def test_a_prompt_that_is_not_known():
    rows = [CHOICE | {"question": "why"}]
    task = tasks.task({"train": rows}, kind="choice", ask="question", prompts={"cause": "because"})
    with pytest.raises(DataError, match="field 'question' is 'why', but should be one of 'cause'"):
        task.rows("train")


@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".csv"])
def test_empty_files(suffix, tmp_path):
    (tmp_path / f"train{suffix}").touch()
    with pytest.raises(DataError, match=rf"The file .*train{suffix} is empty"):
        tasks.task(tmp_path, **FIELDS)


def test_truncated_and_damaged_files(tmp_path):
    path = tmp_path / "train.jsonl.gz"
    write(path, [{"sentence": f"{i} {hash(str(i))}", "stars": "low"} for i in range(5_000)])
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"train\.jsonl\.gz is damaged or cut short after row \d+"):
        tasks.task(tmp_path, **FIELDS)
    path.write_bytes(b"plain text")
    with pytest.raises(DataError, match="damaged or cut short after row 0"):
        tasks.task(tmp_path, **FIELDS)
    path.write_bytes(gzip.compress(b'{"sentence": "x", "stars": "low"}\n{"sentence": "x", "st'))
    with pytest.raises(DataError, match=r"Row 2 of the file .*train\.jsonl\.gz is not a JSON"):
        tasks.task(tmp_path, **FIELDS)
    path.write_bytes(gzip.compress(b"[1, 2]\n"))
    with pytest.raises(DataError, match="Row 1 of the file"):
        tasks.task(tmp_path, **FIELDS)
    path.write_bytes(gzip.compress(b""))
    with pytest.raises(DataError, match=r"train\.jsonl\.gz is empty"):
        tasks.task(tmp_path, **FIELDS)


def test_a_file_of_another_format(tmp_path):
    (tmp_path / "train.parquet").write_bytes(b"no parquet at all")
    with pytest.raises(DataError, match=r"The file .*train\.parquet cannot be read"):
        tasks.task(tmp_path, **FIELDS)


@pytest.mark.parametrize(
    ("source", "options", "error", "sentence"),
    [
        ("no-such-folder", FIELDS, DataError, "no folder 'no-such-folder'"),
        ({"train": ROWS}, {"kind": "classify"}, UnknownNameError, "kind of task 'classify': did"),
        ({"train": ROWS}, {}, SettingsError, "Your own data need kind="),
        ({"train": ROWS}, FIELDS | {"txt": 1}, UnknownNameError, "'txt': did you mean 'text'"),
        ({"train": ROWS}, FIELDS | {"metrics": ("acc",)}, UnknownNameError, "'acc': did you mean"),
        ({"train": ROWS}, FIELDS | {"text": "abc"}, DataError, "no field 'abc'"),
        ({"train": ROWS}, FIELDS | {"text": ("a", "b", "c")}, SettingsError, "names 3 fields"),
        ({"train": ROWS[::2]}, FIELDS, DataError, "single label 'low'"),
        ({"train": []}, FIELDS, DataError, "holds no rows"),
        ({"test": ROWS}, FIELDS, DataError, "no train split to take its labels from"),
        ({"trian": ROWS}, FIELDS, DataError, "no split train, dev or test, only 'trian'"),
        ({"train": "rows"}, FIELDS, DataError, "neither a list of rows nor a Dataset"),
        ({"train": []}, FIELDS | {"labels": ("low", "high")}, DataError, "holds no rows"),
        (7, FIELDS, DataError, "not of a int"),
        ("glue/sst2", {"kind": "classification"}, SettingsError, "known data set: leave kind="),
        ("glue/sst2", {"text": ("x",)}, UnknownNameError, "no option of the task 'glue/sst2'"),
        ({"train": [{"text": "x", "label": 1.5}]}, {"kind": "classification"}, DataError, "1.5"),
    ],
)
def test_what_cannot_be_a_task(source, options, error, sentence):
    with pytest.raises(error, match=sentence):
        tasks.task(source, **options).rows("train")


def test_a_folder_without_kind_or_splits(tmp_path):
    with pytest.raises(SettingsError, match="is a folder: say kind="):
        tasks.task(str(tmp_path))
    with pytest.raises(DataError, match="holds no split: name the files train, dev and test"):
        tasks.task(tmp_path, **FIELDS)
