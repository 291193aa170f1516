"""Doing a grid: each run once, however many processes work on it and however often they die."""

from __future__ import annotations

import json
import multiprocessing
import random
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from peftlab.checkpoints.format import FILE
from peftlab.cli import main
from peftlab.errors import NonFiniteLossError, OutOfMemoryError, RecordError
from peftlab.experiments import Experiment, read
from peftlab.experiments.earlier import MODELS, SELECTED, used
from peftlab.experiments.execute import LAYERS
from peftlab.experiments.grid import Grid
from peftlab.results.records.run import Layers, Record
from peftlab.results.records.store import Store
from tests.conftest import WORDS
from tests.results.made import record

GRID: dict[str, Any] = {
    "name": "small",
    "question": "Does it run?",
    "encoder": "tiny",
    "tasks": ["toy"],
    "methods": {"majority": "majority", "full": "full", "lora": "lora-8"},
    "tuning": {"learning_rates": [1e-4, 1e-3]},
    "seeds": [0, 1, 2],
}
TOTAL = 1 + 4 + 4
# What a run imports: loaded once by the server that forks the processes which are then killed.
PRELOAD = [
    "peftlab.experiments.grid",
    "peftlab.models",
    "peftlab.tasks",
    "peftlab.training",
    "sklearn.metrics",
    "transformers.models.auto.modeling_auto",
    "transformers.models.bert.modeling_bert",
]


@pytest.fixture
def experiment() -> Experiment:
    return Experiment.model_validate(GRID)


class Stub:
    """Does no training; notes what it was asked and how it may be answered."""

    def __init__(self, seconds: float = 0.0):
        self.runs: list[str] = []
        self.seconds = seconds
        self.errors: dict[float | None, Exception] = {}

    def __call__(self, run, folder, kept, keep=False):
        self.runs.append(run.id)
        assert all((kept(i) / FILE).is_file() for i in used(run, MODELS))
        assert all((kept(i) / LAYERS).is_file() for i in used(run, [SELECTED]))
        time.sleep(self.seconds)
        if run.learning_rate in self.errors:
            raise self.errors[run.learning_rate]
        if keep:
            kept(run.id).mkdir(parents=True, exist_ok=True)
            (kept(run.id) / FILE).touch()
        dev = 0.5 + (run.learning_rate or 0)
        adaptable = run.method["name"] == "adaptable"
        layers = Layers(chosen=[0], shares=[0.9, 0.1]) if adaptable else None
        made = record(dev=dev, accuracy=dev)
        return made.replaced(settings=run, experiment="", layers=layers)


def grid(experiment, folder, stub, **options) -> Grid:
    return Grid(experiment, Store(folder), stub, **{"report": lambda line: None, **options})


def test_every_run_is_done_once_and_recorded(experiment, tmp_path):
    stub, lines = Stub(), []
    first = grid(experiment, tmp_path, stub, report=lines.append)
    assert first.left() == TOTAL
    assert first.work() == TOTAL
    assert first.left() == 0
    assert len(set(stub.runs)) == len(stub.runs) == TOTAL
    records = Store(tmp_path).load_all("small")
    assert {r.id for r in records} == set(stub.runs)
    later = [r.settings.learning_rate for r in records if r.settings.seed != 0]
    assert later == [1e-3] * 4  # the better rate of the first stage
    assert lines[0].startswith(f"[1/{TOTAL}] toy majority seed 0: accuracy dev 0.500")
    assert lines[-1].startswith(f"[{TOTAL}/{TOTAL}]")
    assert grid(experiment, tmp_path, stub).work() == 0
    assert len(stub.runs) == TOTAL


def test_a_limit_stops_and_the_next_call_goes_on(experiment, tmp_path):
    stub = Stub()
    assert grid(experiment, tmp_path, stub).work(limit=2) == 2
    assert grid(experiment, tmp_path, stub).work() == TOTAL - 2
    assert len(set(stub.runs)) == TOTAL


def test_failures_are_recorded_and_retried_only_when_asked(experiment, tmp_path):
    stub = Stub()
    stub.errors = {
        1e-3: NonFiniteLossError("The loss is NaN."),
        1e-4: OutOfMemoryError("Too big."),
    }
    first = grid(experiment, tmp_path, stub)
    assert first.work() == 5  # without a good rate there are no other seeds
    assert first.left() == 0
    by_status = {r.settings.learning_rate: r for r in Store(tmp_path).load_all("small")}
    assert by_status[1e-3].status == "failed"
    assert by_status[1e-3].error == "The loss is NaN."
    assert by_status[1e-3].versions["torch"]
    assert by_status[1e-4].status == "oom"
    assert grid(experiment, tmp_path, stub).work() == 0
    stub.errors = {}
    time.sleep(1.1)  # times in records are whole seconds
    assert grid(experiment, tmp_path, stub, retry=True).work() == TOTAL - 1
    assert {r.status for r in Store(tmp_path).load_all("small")} == {"ok"}
    assert grid(experiment, tmp_path, stub, retry=True).work() == 0


def test_a_mistake_of_the_user_stops_the_grid_and_records_nothing(experiment, tmp_path):
    stub = Stub()
    stub.errors = {None: RecordError("Something to correct.")}
    with pytest.raises(RecordError):
        grid(experiment, tmp_path, stub).work()
    assert Store(tmp_path).load_all() == []


def test_a_damaged_record_is_named_not_replaced(experiment, tmp_path):
    grid(experiment, tmp_path, Stub()).work()
    path = next((tmp_path / "small").glob("*.json"))
    path.write_text("{")
    with pytest.raises(RecordError, match=path.name):
        grid(experiment, tmp_path, Stub())
    assert path.read_text() == "{"


def test_workers_share_a_grid(experiment, tmp_path):
    stub = Stub(seconds=0.05)
    workers = [grid(experiment, tmp_path, stub) for _ in range(3)]
    done: list[int] = []
    threads = [threading.Thread(target=lambda w=w: done.append(w.work())) for w in workers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sum(done) == TOTAL
    assert len(set(stub.runs)) == len(stub.runs) == TOTAL
    assert min(done) >= 1


# -- for real: a tiny encoder, a user's own data, processes that are killed -----------------------


@pytest.fixture(scope="module")
def real(tmp_path_factory, tiny_folder) -> Path:
    """An experiment file over a tiny encoder and a folder of generated rows."""
    place = tmp_path_factory.mktemp("real")
    draw = random.Random(0)
    data = place / "data"
    data.mkdir()
    for split, count in (("train", 96), ("dev", 32), ("test", 32)):
        with (data / f"{split}.jsonl").open("w") as file:
            for i in range(count):
                words = draw.choices(WORDS, k=draw.randint(4, 24))
                label = ("bad", "good")[i % 3 > 0]
                file.write(
                    json.dumps({"text": " ".join([*[label] * 4, *words]), "label": label}) + "\n"
                )
    path = place / "real.toml"
    path.write_text(f"""
name = "real"
question = "Does a grid survive?"
encoder = "{tiny_folder("bert")}"
seeds = [0, 1]

[[tasks]]
name = "{data}"
kind = "classification"
train = 80

[methods]
majority = "majority"
full = "full"
lora = "lora-8"

[settings]
epochs = 2
batch_size = 8
max_length = 32
precision = "fp32"
checkpoint_seconds = 0

[tuning]
learning_rates = [3e-3, 1e-2]
""")
    return path


def what_came_out(folder: Path) -> dict[str, Any]:
    """What two runs of one grid must agree on; reading checks every record."""
    return {
        r.id: (
            r.status,
            r.settings,
            r.metrics,
            r.example_scores,
            r.curve,
            r.evaluations,
            r.best_step,
            r.sizes,
            r.parameters,
            r.tokens,
        )
        for r in Store(folder).load_all("real")
    }


def start(file: Path, folder: Path, *options: str):
    """Start ``peftlab run`` in a process of its own, with torch and transformers loaded."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOAD)
    arguments = ["run", str(file), "--folder", str(folder), *options]
    process = context.Process(target=main, args=(arguments,))
    process.start()
    return process


@pytest.fixture(scope="module")
def undisturbed(real, tmp_path_factory) -> tuple[Path, float]:
    """The records of the grid done at one go, and the seconds that it took."""
    folder = tmp_path_factory.mktemp("undisturbed")
    began = time.monotonic()
    assert main(["run", str(real), "--folder", str(folder)]) == 0
    return folder, time.monotonic() - began


def test_a_record_that_was_half_written_goes_when_the_run_is_recorded(experiment, tmp_path):
    first = grid(experiment, tmp_path, Stub())
    run = first.pending()[0]
    half = first.store.path(first.experiment.name, run.id)
    half = half.with_name(f".{half.name}.1234.tmp")
    half.parent.mkdir(parents=True)
    half.write_text("{")
    first.work()
    assert first.store.has(first.experiment.name, run.id)
    assert not half.exists()


def test_what_another_process_does_again_is_left_alone(experiment, tmp_path):
    from filelock import FileLock

    first = grid(experiment, tmp_path, Stub())
    first.work()
    held, free = list(first.records)[:2]
    folders = [tmp_path / ".peftlab" / "runs" / run_id for run_id in (held, free)]
    for folder in folders:
        folder.mkdir(parents=True)
    with FileLock(tmp_path / ".peftlab" / "locks" / f"{held}.lock"):
        assert grid(experiment, tmp_path, Stub()).work() == 0
    assert [folder.exists() for folder in folders] == [True, False]


def checkpoints(folder: Path) -> set[int]:
    """When the checkpoints of the runs under way were written, in ns."""
    written = set()
    for path in (folder / ".peftlab" / "runs").glob("*/*.safetensors"):
        with suppress(FileNotFoundError):  # a run that ends takes its own with it
            written.add(path.stat().st_mtime_ns)
    return written


def test_a_grid_that_is_killed_ten_times_ends_like_one_that_is_not(real, undisturbed, tmp_path):
    expected, duration = what_came_out(undisturbed[0]), undisturbed[1]
    assert len(expected) == sum(cell.size() for cell in read(real).cells()) == 1 + 3 + 3
    start(real, tmp_path, "--dry-run").join(240)  # warms the server up
    moments = random.Random(7)
    in_training = 0
    for kill in range(10):
        before = checkpoints(tmp_path)
        process = start(real, tmp_path)
        # Every other one while it trains, however fast the machine is; the others at any moment.
        while kill % 2 and process.is_alive() and checkpoints(tmp_path) <= before:
            time.sleep(0.005)
        process.join(moments.uniform(0.0, 0.1) * duration)
        process.kill()
        process.join()
        in_training += bool(checkpoints(tmp_path))
    assert in_training >= 3  # else the kills came too late to test anything
    process = start(real, tmp_path)
    process.join(240)
    assert what_came_out(tmp_path) == expected
    assert not list((tmp_path / ".peftlab" / "runs").iterdir())
    assert not list((tmp_path / "real").glob(".*"))


def test_a_kill_before_the_record_is_written_loses_no_training(real, tmp_path, monkeypatch):
    class Killed(BaseException):
        """Stands for a SIGKILL: nothing may catch it and tidy up."""

    def kill(self, record, **_):
        raise Killed

    experiment = read(real)
    run = next(c for c in experiment.cells() if c.label == "lora").tuning_runs()[0]
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(Store, "save", kill)
        Grid(experiment, Store(tmp_path), report=lambda line: None)._do(run)
    assert (tmp_path / ".peftlab" / "runs" / run.id / "training.safetensors").is_file()
    Grid(experiment, Store(tmp_path), report=lambda line: None)._do(run)
    assert not (tmp_path / ".peftlab" / "runs" / run.id).exists()
    assert Store(tmp_path).load("real", run.id).status == "ok"


def test_two_processes_share_a_real_grid(real, undisturbed, tmp_path):
    workers = [start(real, tmp_path) for _ in range(2)]
    for worker in workers:
        worker.join(240)
    assert what_came_out(tmp_path) == what_came_out(undisturbed[0])


def test_records_of_a_real_grid_say_what_was_run(undisturbed):
    by_label: dict[str, list[Record]] = {}
    for one in Store(undisturbed[0]).load_all("real"):
        by_label.setdefault(one.settings.method_label, []).append(one)
    majority = by_label["majority"][0]
    assert majority.score() == pytest.approx(21 / 32)  # two of three rows are good
    for one in by_label["full"] + by_label["lora"]:
        assert one.experiment == "real"
        assert len(one.settings.encoder_fingerprint) == 64
        assert one.sizes.train == 80
        assert one.settings.training["epochs"] == 2
        assert one.seconds["load"] > 0
        assert len(one.example_scores["test"]) == 32
    assert by_label["lora"][0].parameters.trainable < by_label["full"][0].parameters.trainable
