"""Experiment files: what they may say, the grid they mean, and one sentence for every mistake."""

from __future__ import annotations

from pathlib import Path

import pytest

from peftlab import methods
from peftlab.costs import CostExperiment
from peftlab.encoders import load_encoder
from peftlab.errors import PeftlabError, SettingsError
from peftlab.experiments import read
from peftlab.experiments.plan import MAJORITY
from peftlab.results.records.run import Record
from tests.results.made import record

BOOK = Path(__file__).parents[2] / "book" / "experiments"
GOOD = """
name = "small"
question = "Does it run?"
encoder = "tiny"
seeds = [0, 1, 2]
transfer = ["{task}/de"]

[[tasks]]
name = "glue/sst2"
train = 100

[methods]
majority = "majority"
full = "full"
lora-4 = { name = "lora-8", rank = 4 }

[settings]
epochs = 2

[tuning]
learning_rates = { full = [1e-5, 1e-4], default = [1e-3] }
"""


def write(folder: Path, text: str) -> Path:
    file = folder / "experiment.toml"
    file.write_text(text)
    return file


def done(run, dev: float) -> Record:
    """A record of a run with a score on the development split."""
    return record(dev=dev).replaced(settings=run)


def test_a_file_becomes_runs_with_complete_settings(tmp_path):
    experiment = read(write(tmp_path, GOOD))
    cells = list(experiment.cells())
    assert [(c.task.name, c.label, c.size()) for c in cells] == [
        ("glue/sst2", "majority", 1),
        ("glue/sst2", "full", 4),
        ("glue/sst2", "lora-4", 3),
    ]
    run = cells[2].tuning_runs()[0]
    assert run.encoder == "tiny"
    assert run.limits == {"train": 100}
    assert run.method["name"] == "lora"
    assert run.method["rank"] == 4
    assert run.method["alpha"] == 16  # of the preset
    assert run.transfer == ["glue/sst2/de"]
    assert run.training["learning_rate"] == 1e-3
    assert run.training["epochs"] == 2
    assert run.training["weight_decay"] == 0.01  # a default is written down too
    majority = cells[0].tuning_runs()[0]
    assert majority.learning_rate is None
    assert majority.method == {"name": "majority"}


def test_the_second_stage_waits_for_the_first_and_takes_its_best_rate(tmp_path):
    full = list(read(write(tmp_path, GOOD)).cells())[1]
    low, high = full.tuning_runs()
    assert full.runs({}) == [low, high]
    assert full.runs({low.id: done(low, 0.9)}) == [low, high]
    records = {low.id: done(low, 0.6), high.id: done(high, 0.7)}
    runs = full.runs(records)
    assert runs[:2] == [low, high]
    assert [(r.learning_rate, r.seed) for r in runs[2:]] == [(1e-4, 1), (1e-4, 2)]


def test_one_rate_needs_no_first_stage(tmp_path):
    lora = list(read(write(tmp_path, GOOD)).cells())[2]
    assert [r.seed for r in lora.runs({})] == [0, 1, 2]


def test_where_every_rate_failed_there_is_no_second_stage(tmp_path):
    full = list(read(write(tmp_path, GOOD)).cells())[1]
    failed = {
        r.id: done(r, 0.5).replaced(status="failed", error="NaN.") for r in full.tuning_runs()
    }
    assert full.runs(failed) == full.tuning_runs()


def test_a_task_can_differ_in_settings_and_leave_methods_out(tmp_path):
    text = GOOD.replace("train = 100", 'train = 100\nwithout = ["majority"]\nsettings.epochs = 9')
    cells = list(read(write(tmp_path, text)).cells())
    assert [c.label for c in cells] == ["full", "lora-4"]
    assert cells[0].tuning_runs()[0].training["epochs"] == 9


def test_a_random_encoder_is_a_row_of_its_own(tmp_path):
    pair = 'encoders = ["tiny", { name = "tiny", random_weights = true }]'
    experiment = read(write(tmp_path, GOOD.replace('encoder = "tiny"', pair)))
    assert {r.random_weights for c in experiment.cells() for r in c.runs({})} == {False, True}


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("name =", "name", "no valid TOML"),
        ('name = "small"', "", "name: Field required"),
        ('name = "small"', 'name = "../up"', "name"),
        ("seeds =", "sedes =", "sedes is no known key"),
        ("train = 100", "trian = 100", "tasks.0.trian is no known key"),
        ("train = 100", "train = 0", "tasks.0.train"),
        ("train = 100", 'without = ["ful"]', "did you mean 'full'"),
        ("epochs = 2", "epoch = 2", "did you mean 'epochs'"),
        ("epochs = 2", 'epochs = "two"', "settings.epochs"),
        ("epochs = 2", "epochs = 0", "epochs is 0"),
        ("epochs = 2", "seed = 2", "settings.seed"),
        ('"full"', '"ful"', "did you mean 'full'"),
        ("rank = 4", "rnak = 4", "no setting 'rnak'"),
        ('{ name = "lora-8", rank = 4 }', "{ rank = 4 }", "no method ''"),
        ('name = "lora-8"', 'name = ["lora-8"]', "did you mean 'lora-8'"),
        ("[0, 1, 2]", "[0, -1]", "seeds.1"),
        ("[0, 1, 2]", "[0, 1, 1]", "twice"),
        ("[0, 1, 2]", "[1, 2]", "tuning.seed is not one of the seeds"),
        ("[0, 1, 2]", '["0"]', "seeds.0"),
        ("[1e-5, 1e-4]", "[1e-5, 1e-5]", "repeated"),
        ("[1e-5, 1e-4]", "[-1.0]", "learning_rates"),
        ("full = [", "ful = [", "did you mean 'full'"),
        (", default = [1e-3]", "", "no rates for the method 'lora-4'"),
        ('encoder = "tiny"', 'encoder = "tiny"\nencoders = ["tiny"]', "not in both"),
        ('encoder = "tiny"', "encoders = []", "encoders"),
    ],
)
def test_a_mistake_is_one_sentence_with_file_and_key(tmp_path, old, new, words):
    assert old in GOOD
    file = write(tmp_path, GOOD.replace(old, new, 1))
    with pytest.raises(PeftlabError, match=words) as error:
        read(file)
    assert file.name in str(error.value)
    assert "\n" not in str(error.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(SettingsError, match=r"none\.toml"):
        read(tmp_path / "none.toml")


@pytest.mark.parametrize("file", sorted(BOOK.glob("*.toml")), ids=lambda f: f.stem)
def test_the_files_of_the_book_can_be_run(file):
    text = file.read_text()
    if "[methods]" not in text:
        pytest.skip("a pretraining recipe, which its own tests read")
    if 'kind = "cost"' in text:
        costs = CostExperiment.from_toml(file)
        assert costs.name == file.stem
        assert list(costs.plans(costs.device or "cuda", "a processor", None))
        return
    experiment = read(file)
    assert experiment.name == file.stem
    assert len({r.id for c in experiment.cells() for r in c.tuning_runs()}) > 1
    if {entry.name for entry in experiment.encoders} == {"pocket"}:  # no width that does not fit
        anatomy = load_encoder("pocket").anatomy
        for method in experiment.methods.values():
            if method["name"] != MAJORITY:
                assert methods.get(method).counts(anatomy).stored >= 0


def test_only_the_task_stands_in_braces(tmp_path):
    experiment = read(write(tmp_path, GOOD.replace("{task}/de", "{task}/{de")))
    assert next(experiment.cells()).tuning_runs()[0].transfer == ["glue/sst2/{de"]
