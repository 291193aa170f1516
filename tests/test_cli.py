"""The command line: what it prints, how it exits, and that a mistake is one sentence."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from pathlib import Path

import pytest

from peftlab import bench, cli, methods
from peftlab.bench import Row
from peftlab.cli import main
from peftlab.methods import registry
from peftlab.methods.finetuning import TopLayers
from peftlab.results import bench_store

FILE = """
name = "small"
question = "Does it run?"
encoder = "some/encoder"
tasks = ["glue/sst2"]
methods = { majority = "majority", full = "full" }
seeds = [0, 1]
tuning = { learning_rates = [1e-4, 1e-3] }
"""


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "small.toml"
    path.write_text(FILE)
    return path


def test_a_dry_run_lists_the_runs_and_does_nothing(file, tmp_path, capsys):
    results = tmp_path / "results"
    assert main(["run", str(file), "--folder", str(results), "--dry-run"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 4
    assert "to do some/encoder glue/sst2 full rate 0.0001 seed 0" in lines[1]
    assert lines[-1] == "4 to do, 1 of them when the learning rates are chosen"
    assert not results.exists()


def sentence(capsys):
    """What stderr says, which must be one sentence."""
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("peftlab: ")
    assert err.count("\n") == 1
    return err


def test_a_mistake_is_one_sentence_and_exit_code_2(file, tmp_path, capsys):
    file.write_text(FILE.replace('"full"', '"ful"'))
    assert main(["run", str(file), "--folder", str(tmp_path / "results")]) == 2
    assert "did you mean 'full'" in sentence(capsys)
    assert not (tmp_path / "results").exists()


def test_a_missing_file_is_one_sentence(tmp_path, capsys):
    assert main(["run", str(tmp_path / "none.toml")]) == 2
    assert "none.toml" in sentence(capsys)


def test_no_data_and_no_hub_is_one_sentence_and_leaves_no_record(
    file, tmp_path, capsys, monkeypatch
):
    monkeypatch.setenv("PEFTLAB_DATA", str(tmp_path / "empty"))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    assert main(["run", str(file), "--folder", str(tmp_path / "results")]) == 2
    assert "PEFTLAB_DATA" in sentence(capsys)
    assert not list((tmp_path / "results").glob("*/*.json"))


# -- bad input from the command line --------------------------------------------------------------

TEXTS = [{"text": text, "label": label} for text, label in (("a good film", 1), ("a bad dog", 0))]


def lines(rows) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


BAD_INPUT = {
    "an unknown model": ({"encoder": "no/model"}, {}, "PEFTLAB_MODELS"),
    "a folder without a model": ({"encoder": "."}, {}, "config.json is missing"),
    "an unknown method": ({"methods": {"x": "lorra"}}, {}, "did you mean 'lora"),
    "an unknown training setting": ({"settings": {"epoch": 1}}, {}, "did you mean 'epochs'"),
    "an unknown setting of a method": (
        {"methods": {"x": {"name": "lora", "rang": 2}}},
        {},
        "no setting 'rang'",
    ),
    "an unknown task": ({"tasks": ["glue/sts2"]}, {}, "did you mean"),
    "a label outside the set": (
        {},
        {"dev.jsonl": lines([{"text": "a", "label": 7}])},
        "label 7 is not in the label set",
    ),
    "an empty file": ({}, {"test.jsonl": b""}, "is empty"),
    "a truncated file": (
        {},
        {"test.jsonl": None, "test.jsonl.gz": gzip.compress(lines(TEXTS * 99))[:-30]},
        "cut short",
    ),
    "a cut line": ({}, {"test.jsonl": lines(TEXTS)[:-9]}, "not a JSON object"),
    "a missing column": ({}, {"train.jsonl": lines([{"text": "a"}])}, "no field 'label'"),
    "a sequence longer than the model takes": (
        {"settings": {"max_length": 65}},
        {},
        "set max_length to 64 or less",
    ),
}


@pytest.fixture
def own(tmp_path, tiny_folder, monkeypatch):
    """A function that writes an experiment over a user's own data and returns its file."""
    monkeypatch.delenv("PEFTLAB_MODELS", raising=False)
    monkeypatch.chdir(tmp_path)

    def write(changes, files=None):
        (tmp_path / "data").mkdir()
        whole = {f"{split}.jsonl": lines(TEXTS * 4) for split in ("train", "dev", "test")}
        for name, content in (whole | (files or {})).items():
            if content is not None:
                (tmp_path / "data" / name).write_bytes(content)
        said = {
            "name": "own",
            "question": "Is it told?",
            "encoder": str(tiny_folder("bert")),
            "tasks": [{"name": "data", "kind": "classification"}],
            "methods": {"lora": "lora-8"},
            "settings": {"epochs": 1, "max_length": 32, "precision": "fp32"},
            "tuning": {"learning_rates": [1e-3]},
            "seeds": [0],
        } | changes
        path = tmp_path / "own.toml"
        path.write_text("".join(f"{key} = {toml(value)}\n" for key, value in said.items()))
        return path

    return write


def toml(value) -> str:
    """Write a value as TOML, tables in line."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} = {toml(each)}" for key, each in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(toml, value)) + "]"
    return json.dumps(value)


@pytest.mark.parametrize("case", BAD_INPUT)
def test_bad_input_is_one_sentence_and_nothing_is_written(case, own, tmp_path, capsys):
    changes, files, words = BAD_INPUT[case]
    file = own(changes, files)
    capsys.readouterr()  # transformers draws a bar when the encoder is saved
    assert main(["run", str(file), "--folder", str(tmp_path / "results")]) == 2
    assert words in sentence(capsys)
    left = [p for p in tmp_path.glob("results/**/*") if p.is_file() and p.suffix != ".lock"]
    assert left == []


def test_a_loss_that_is_not_finite_is_recorded_and_exits_with_1(own, tmp_path, capsys):
    file = own({"tuning": {"learning_rates": [1e30]}})
    assert main(["run", str(file), "--folder", str(tmp_path / "results")]) == 1
    assert "1 failed" in capsys.readouterr().out
    (path,) = (tmp_path / "results" / "own").glob("*.json")
    record = json.loads(path.read_text())
    assert record["status"] == "failed"
    assert "choose a lower" in record["error"]


def test_out_of_memory_is_recorded_with_a_batch_that_fits(own, tmp_path, monkeypatch):
    import torch

    from peftlab.models import Model

    forward = Model.forward

    def small_memory(self, batch):
        if len(batch["input_ids"]) > 3:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        return forward(self, batch)

    monkeypatch.setattr(Model, "forward", small_memory)
    assert main(["run", str(own({})), "--folder", str(tmp_path / "results")]) == 1
    (path,) = (tmp_path / "results" / "own").glob("*.json")
    record = json.loads(path.read_text())
    assert record["status"] == "oom"
    assert "set batch_size=2" in record["error"]


def test_an_interruption_says_how_to_go_on(file, tmp_path, capsys, monkeypatch):
    def interrupted(self, limit, minutes):
        raise KeyboardInterrupt

    monkeypatch.setattr("peftlab.experiments.grid.Grid.work", interrupted)
    assert main(["run", str(file), "--folder", str(tmp_path)]) == 130
    assert "goes on from here" in sentence(capsys)


@pytest.mark.parametrize("arguments", [[], ["run"], ["dance"], ["run", "x", "--fast"]])
def test_wrong_arguments_exit_with_2(arguments):
    with pytest.raises(SystemExit) as exit_:
        main(arguments)
    assert exit_.value.code == 2


@pytest.mark.parametrize(
    ("option", "value", "words"),
    [
        ("--limit", "0", "'0' is no whole number above 0"),
        ("--limit", "1.5", "'1.5' is no whole number above 0"),
        ("--minutes", "-1", "'-1' is no number of minutes"),
        ("--minutes", "nan", "'nan' is no number of minutes"),
        ("--minutes", "soon", "'soon' is no number of minutes"),
    ],
)
def test_a_number_that_cannot_work_is_named(option, value, words, capsys):
    with pytest.raises(SystemExit) as exit_:
        main(["run", "x.toml", f"{option}={value}"])
    assert exit_.value.code == 2
    assert words in capsys.readouterr().err


def test_methods_are_listed_with_their_presets_and_sizes(capsys):
    assert main(["methods"]) == 0
    out = capsys.readouterr().out
    for name in {*methods.names(), *methods.presets()}:
        assert name in out
    row = next(line for line in out.splitlines() if line.startswith("lora-8-all "))
    assert row.split()[1:5] == ["1,327,104"] * 3 + ["2,654,208"]
    assert "can be merged, targets=" in row


def test_methods_are_counted_on_every_shape(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(registry, "_presets", methods.presets())
    methods.preset("top-13", TopLayers(layers=13))
    file = tmp_path / "methods.json"
    assert main(["methods", "--encoder", "bert-large", "--json", str(file)]) == 0
    rows = {(row["method"], row["encoder"]): row for row in json.loads(file.read_text())}
    shapes = ("bert-base", "roberta-base", "xlm-roberta-base", "bert-large")
    wanted = {(name, shape) for name in methods.catalogue() for shape in shapes}
    assert wanted - set(rows) == {("top-13", shape) for shape in shapes[:3]}
    assert set(rows) <= wanted
    assert rows["pfeiffer-16", "bert-large"] == {
        "method": "pfeiffer-16",
        "encoder": "bert-large",
        **dict.fromkeys(("trainable", "stored", "inference"), 3_171_840),
    }
    out = capsys.readouterr().out
    assert "on bert-large" in out
    assert "3,171,840" in out
    for shape in shapes[:3]:
        assert f"top-13 on {shape}: layers is 13" in out


def test_what_cannot_be_counted_here_is_said(capsys, monkeypatch):
    monkeypatch.setattr(registry, "_presets", methods.presets())
    methods.preset("top-13", TopLayers(layers=13))
    assert main(["methods"]) == 0
    assert "left out: top-13: layers is 13" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--encoder", "bert-bse"], "did you mean 'bert-base'"),
        (["--json", "no/such/folder/methods.json"], "make it first"),
    ],
)
def test_a_mistake_in_methods_is_one_sentence(arguments, words, capsys):
    assert main(["methods", *arguments]) == 2
    assert words in sentence(capsys)


@pytest.fixture
def measured(monkeypatch):
    """A benchmark that takes no time; the real ones have their own tests."""
    unit = "examples per second"
    rows = [Row(name="sst2", against="trainer-padded-128", ratio=5, low=4.5, high=5.5, unit=unit)]
    monkeypatch.setattr(bench, "get", lambda name: lambda: rows)
    return rows


def test_bench_prints_a_table_and_writes_json(measured, tmp_path, capsys):
    assert main(["bench", "throughput", "--json", str(tmp_path / "rows.json")]) == 0
    assert "trainer-padded-128" in capsys.readouterr().out
    assert json.loads((tmp_path / "rows.json").read_text()) == [
        {
            "name": "sst2",
            "against": "trainer-padded-128",
            "ratio": 5.0,
            "low": 4.5,
            "high": 5.5,
            "unit": "examples per second",
        }
    ]


def test_bench_records_rows_and_machine(measured, tmp_path, capsys):
    for _ in range(2):  # a later run on the same machine replaces the earlier one
        assert main(["bench", "throughput", "--folder", str(tmp_path)]) == 0
    (record,) = bench_store(tmp_path).load_all("throughput")
    assert record.rows == measured
    assert record.processor and record.versions["peftlab"]
    assert f"recorded in {tmp_path}" in capsys.readouterr().out
    other = record.model_dump() | {"threads": 99}
    with pytest.raises(ValueError, match="not that of benchmark and machine"):
        type(record)(**other)


def test_bench_asks_for_the_folder_before_it_measures(measured, tmp_path, capsys):
    assert main(["bench", "throughput", "--json", str(tmp_path / "no" / "rows.json")]) == 2
    assert "make it first" in sentence(capsys)


def test_an_unknown_benchmark_is_one_sentence(capsys):
    assert main(["bench", "througput"]) == 2
    assert "did you mean 'throughput'" in sentence(capsys)


def test_the_module_runs_and_help_needs_no_heavy_import():
    code = "import sys, peftlab.cli\ntry: peftlab.cli.main(['--help'])\nexcept SystemExit: pass\n"
    code += "print({'transformers', 'pandas', 'matplotlib', 'datasets'} & set(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.splitlines()[-1] == "set()"
    for command in ("run", "bench", "methods", "pretrain"):
        assert command in done.stdout


def test_version(capsys):
    with pytest.raises(SystemExit) as exit_:
        cli.main(["--version"])
    assert exit_.value.code == 0
    assert capsys.readouterr().out.startswith("peftlab ")


def test_a_folder_that_cannot_be_written_is_one_sentence(tmp_path, capsys):
    file = tmp_path / "results"
    file.write_text("a file stands where the folder should be")
    small = Path(__file__).parents[1] / "book" / "experiments" / "sst2-full.toml"
    assert main(["run", str(small), "--folder", str(file)]) == 2
    assert "results" in capsys.readouterr().err.splitlines()[0]


def test_an_unknown_task_shows_before_anything_runs(tmp_path, capsys):
    file = tmp_path / "experiment.toml"
    good = Path(__file__).parents[1] / "book" / "experiments" / "sst2-mrpc-1000.toml"
    file.write_text(good.read_text().replace("glue/mrpc", "glue/mrcp"))
    assert main(["run", str(file), "--folder", str(tmp_path / "results"), "--dry-run"]) == 2
    assert "did you mean 'glue/mrpc'" in sentence(capsys)
    assert not (tmp_path / "results").exists()


@pytest.mark.filterwarnings("ignore::peftlab.timing.NoisyTiming")
def test_cost_measures_an_encoder_and_writes_the_record(tmp_path, capsys):
    from peftlab.results.records.costs import CostRecord

    file = tmp_path / "cost.json"
    arguments = ["--methods", "full", "lora-8", "--batch", "1", "--length", "8", "--rounds", "2"]
    assert main(["cost", "pocket", *arguments, "--json", str(file)]) == 0
    record = CostRecord.from_json(file.read_text())
    assert set(record.candidates) == {"full", "lora-8", "full again"}
    assert record.settings.encoder == "pocket"
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[1:]] == ["full", "lora-8", "full"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["bert-bose"], "did you mean 'bert-base'"),
        (["pocket", "--methods", "lorra"], "did you mean 'lora'"),
        (["pocket", "--json", "no/such/folder/cost.json"], "make it first"),
    ],
)
def test_a_mistake_in_cost_is_one_sentence(arguments, said, capsys):
    assert main(["cost", *arguments]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1


def test_run_does_cost_experiments_too(tmp_path, capsys):
    file = tmp_path / "flops.toml"
    file.write_text(
        'name = "flops"\nkind = "cost"\nquestion = "?"\nencoders = ["minilm-l6"]\n'
        'cells = [[1, 8], [2, 8]]\ndevice = "meta"\n[methods]\nfull = "full"\n'
    )
    run = ["run", str(file), "--folder", str(tmp_path / "results")]
    assert main([*run, "--dry-run"]) == 0
    assert capsys.readouterr().out.count("to do") == 2
    assert main([*run, "--limit", "1"]) == 0
    assert "1 cells measured, 1 left" in capsys.readouterr().out
    assert main([*run, "--minutes", "0"]) == 0
    assert "0 cells measured, 1 left" in capsys.readouterr().out
    assert main(run) == 0
    assert len(list((tmp_path / "results" / "cost" / "flops").glob("*.json"))) == 2
