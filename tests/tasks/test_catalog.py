"""Every row of the table loads, encodes, trains a step and is scored, on made-up rows."""

from __future__ import annotations

import math
import os
import subprocess
import sys

import pytest
import torch

from peftlab import tasks
from peftlab.errors import DataError, UnknownNameError
from peftlab.tasks import catalog
from peftlab.training.batches import collate, label_count
from tests.conftest import tiny_tokenizer

from .conftest import right_logits, write
from .stored import KEPT, STORED, stored

READ = [row for row in catalog.ROWS if not row.generated and row.kind != "language-model"]
TEXTS = [row for row in catalog.ROWS if row.kind == "language-model"]


def short_name(row):
    if not row.configs:
        return row.name
    return f"{row.name}/{'deu_Latn' if row.configs == catalog.ANY else row.configs[0]}"


def test_there_are_made_up_rows_of_every_data_set():
    assert set(STORED) == {row.name for row in READ}


@pytest.mark.parametrize("row", READ, ids=lambda row: row.name)
def test_row_loads_encodes_learns_and_scores(row, tmp_path, monkeypatch, tokenizer):
    name, kept = short_name(row), KEPT.get(row.name, 120)
    folder = tmp_path / row.folder
    if row.configs:
        folder /= name.rpartition("/")[2]
    for split in set(row.splits.values()):
        write(folder / f"{split}.jsonl.gz", stored(row.name))
    monkeypatch.setenv("PEFTLAB_DATA", str(tmp_path))
    task = tasks.task(name)
    trained = row.trained_in is None or name.rpartition("/")[2] in row.trained_in
    assert task.splits == (("train", "dev", "test") if trained else ("test",))
    sizes = task.sizes
    assert sizes["test"] == kept
    if row.cut and trained:
        assert sizes["train"] + sizes["dev"] == kept
        assert 0 < sizes["dev"] <= row.cut.share * kept
    assert task.provenance.get("rows", "") == row.changed
    assert task.provenance["source"] == "folder"
    assert str(tmp_path) not in str(task.provenance)

    rows = task.rows("test")
    features = task.encode(rows, tokenizer, 48)
    assert ("token_type_ids" in features[0]) == ("token_type_ids" in tokenizer.model_input_names)
    assert "attention_mask" not in features[0]
    head = task.head(8, "mean", dropout=0.0)
    batch = collate(features[:4], 0)
    hidden = torch.randn(*batch["input_ids"].shape, 8)
    loss = head.loss(head(hidden, batch), batch)
    loss.backward()
    assert math.isfinite(loss.item())
    assert all(p.grad is not None for p in head.parameters())

    evaluation = task.evaluate(rows, features, right_logits(task, features))
    assert evaluation.metrics[task.main_metric] == pytest.approx(1)
    assert set(evaluation.metrics) == set(task.metrics)
    assert len(evaluation.example_scores) == len(rows)
    if task.kind != "qa" and trained:
        assert tasks.majority(task).metrics[task.main_metric] < 0.99


@pytest.mark.parametrize("row", TEXTS, ids=lambda row: row.name)
def test_texts_are_cut_and_encoded(row, tmp_path, monkeypatch):
    name = short_name(row)
    folder = tmp_path / row.folder
    if row.configs:
        folder /= name.rpartition("/")[2]
    field = row.options["text"]
    rows = [{field: f"the old river walks {'. ' * i}"} for i in range(100)]
    empty = [{"text": " "}, {"text": " = a heading = "}] if row.change else []
    write(folder / f"{row.splits['train']}.jsonl.gz", [*rows, *empty])
    monkeypatch.setenv("PEFTLAB_DATA", str(tmp_path))
    assert tasks.task(name).sizes == {"train": 90, "dev": 10}
    task = tasks.task(name, held_out=20, packed=True)
    assert task.sizes == {"train": 72, "dev": 8, "test": 20}
    assert task.options == {"held_out": 20, "packed": True}
    features = task.encode(task.rows("test"), tiny_tokenizer("bert"), 32)
    assert 0 < sum(map(label_count, features)) < sum(len(f["input_ids"]) for f in features)


@pytest.mark.parametrize("row", [r for r in catalog.ROWS if r.generated], ids=lambda row: row.name)
def test_generated_row_loads_encodes_and_scores(row, tokenizer):
    task = tasks.task(row.name)
    assert task.pocket
    assert task.language == "en"
    assert tasks.task(f"{row.name}/en").name == task.name
    assert task.provenance["source"] == "generated"
    assert min(task.sizes.values()) >= 100
    other = tasks.task(f"{row.name}/ru").limit(test=20)
    assert other.labels == task.labels
    rows = other.rows("test")
    features = other.encode(rows, tokenizer, 128)
    evaluation = other.evaluate(rows, features, right_logits(other, features))
    assert evaluation.metrics[other.main_metric] > 0.9


def test_generated_configs_are_those_of_the_generator():
    from peftlab.tasks import pocket

    rows = {row.name.removeprefix("pocket/"): row for row in catalog.ROWS if row.generated}
    assert set(rows) == set(pocket.TASKS)
    for name, made in pocket.TASKS.items():
        task = tasks.task(f"pocket/{name}")
        assert rows[name].configs == pocket.LANGUAGES
        assert (task.kind, task.labels) == (made.kind, made.labels)
        assert task.main_metric == made.main_metric


def test_zero_shot_language_has_a_test_split_only(tmp_path, monkeypatch):
    for split in ("validation", "test"):
        write(tmp_path / "xsid" / "de" / f"{split}.jsonl.gz", stored("xsid"))
    monkeypatch.setenv("PEFTLAB_DATA", str(tmp_path))
    task = tasks.task("xsid/de")
    assert task.splits == ("test",)
    assert task.language == "de"
    with pytest.raises(DataError, match=r"'xsid/de' has no train split .* train on xsid/en\.$"):
        task.rows("train")


def test_names_are_unique_and_all_known_names_resolve():
    assert len({row.name for row in catalog.ROWS}) == len(catalog.ROWS)
    for name in tasks.names():
        assert tasks.task(name.replace("<config>", "deu_Latn")).splits


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("glue/sst", r"no data set 'glue/sst': did you mean 'glue/sst2'"),
        ("xsid/dee", r"no 'xsid' language 'dee': did you mean 'de'"),
        ("xnli/xx", r"no 'xnli' language 'xx': known are 'ar', 'bg', "),
        ("udpos/English", r"no 'udpos' language 'English': "),
    ],
)
def test_unknown_names(name, sentence):
    with pytest.raises(UnknownNameError, match=sentence):
        tasks.task(name)


def test_missing_config_is_asked_for():
    with pytest.raises(DataError, match=r"'sib200' has configs: name one, as in sib200/<config>"):
        tasks.task("sib200")


def test_a_folder_may_lack_splits_of_a_language(tmp_path, monkeypatch):
    for split in ("validation", "test"):
        write(tmp_path / "xnli" / "de" / f"{split}.jsonl.gz", stored("xnli"))
    write(tmp_path / "wikiann" / "th" / "test.jsonl.gz", stored("wikiann"))
    monkeypatch.setenv("PEFTLAB_DATA", str(tmp_path))
    assert tasks.task("xnli/de").sizes == {"dev": 120, "test": 120}
    with pytest.raises(
        DataError, match=r"has no train split \(it has dev, test\): .* train on glue/mnli\.$"
    ):
        tasks.task("xnli/de").rows("train")
    assert tasks.task("wikiann/th").splits == ("test",)


def test_misspelt_config_of_a_folder(tmp_path, monkeypatch):
    write(tmp_path / "sib200" / "deu_Latn" / "test.jsonl.gz", [{}])
    monkeypatch.setenv("PEFTLAB_DATA", str(tmp_path))
    with pytest.raises(UnknownNameError, match="did you mean 'deu_Latn'"):
        tasks.task("sib200/deu_Latin")


def test_peftlab_data_that_is_no_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("PEFTLAB_DATA", str(tmp_path / "nowhere"))
    with pytest.raises(DataError, match=r"PEFTLAB_DATA names .*nowhere', which is no folder"):
        tasks.task("squad")


def test_missing_split_file_is_named(tmp_path, monkeypatch):
    (tmp_path / "squad").mkdir()
    monkeypatch.setenv("PEFTLAB_DATA", str(tmp_path))
    with pytest.raises(DataError, match=r"no file validation\.jsonl\.gz: it holds nothing"):
        tasks.task("squad").rows("test")


def test_hub_away_fails_at_once_and_names_the_offline_way(tmp_path):
    code = (
        "import time, peftlab as pl, datasets\n"
        "waits = []\n"
        "time.sleep = waits.append\n"  # retries would wait between them
        "try: pl.task('glue/rte').rows('test')\n"
        "except pl.PeftlabError as e: print(type(e).__name__, e, sum(waits))\n"
    )
    env = {k: v for k, v in os.environ.items() if k not in ("PEFTLAB_DATA", "HF_HOME")}
    env |= {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)}
    out = subprocess.run(
        [sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True
    ).stdout
    assert out.startswith("OfflineError The data set 'glue/rte' cannot be had from the hub")
    assert "HF_HUB_OFFLINE" in out
    assert "glue_rte/validation.jsonl.gz" in out
    assert "PEFTLAB_DATA" in out
    assert float(out.rsplit(maxsplit=1)[1]) == 0


def test_import_is_light():
    heavy = ("datasets", "sklearn", "scipy", "pandas", "transformers")
    code = f"import sys, peftlab.tasks; print([m for m in {heavy} if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"
