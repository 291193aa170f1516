"""A small book for tests: an experiment file, its records, and claims about them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from peftlab import experiments
from peftlab.claims import Evidence, Ledger, Region
from peftlab.claims.checks import Cell
from peftlab.claims.trained import ScoreDifference
from peftlab.claims.verdicts import Asked
from peftlab.results.records.run import Record, RunSettings
from peftlab.results.records.store import Store
from tests.results.made import record

EXPERIMENT = """
name = "small"
question = "Which is better?"
encoder = "tiny"
tasks = [{ name = "glue/sst2", train = 10 }, { name = "glue/mrpc", train = 20 }]
methods = { full = "full", lora-8 = "lora-8", other = "pfeiffer-16" }
seeds = [0, 1, 2]
tuning = { learning_rates = [1e-3] }
"""
#: A cost experiment beside it.
COST = """
name = "price"
kind = "cost"
question = "What does it cost?"
encoders = ["minilm-l6"]
cells = [[1, 8], [2, 8]]
modes = ["train", "inference"]
methods = { full = "full", lora-8 = "lora-8" }
"""
CLAIMS = """
[papers.one]
title = "One"
cite = "one"
encoders = ["tiny"]

[experiments]
small = { minutes = 60 }

[[claims]]
id = "C1.1"
paper = "one"
whose = "summary"
claim = "LoRA scores higher."
protocol = "Compare."
checks = [
    { measure = "score difference", what = "score", experiment = "small", methods = ["lora-8"], \
claimed = { above = 0 } },
]

"""
#: A check of that experiment.
SMALL = (
    '{ measure = "score difference", what = "score", experiment = "small", '
    'methods = ["lora-8"], claimed = { above = 0 } }'
)
#: Task and label → accuracy.
Score = Callable[[str, str], float]


def hinge(claim: str = "C1.1", one: str = SMALL, other: str = "{ against = 'other' }") -> str:
    """Return a hinge, to be appended to claims: one way, and what differs in the other."""
    return f'[[hinges]]\nclaim = "{claim}"\non = "the baseline"\none = {one}\nother = {other}\n'


def asked(*cells: Cell, what: str = "score") -> Asked:
    """Return a check that has found these cells."""
    check = ScoreDifference(
        measure="score difference",
        what=what,
        experiment="small",
        methods=["lora-8"],
        claimed=cells[0].claimed if cells else Region(above=0),
    )
    return Asked(check, cells)


def write(folder: Path, experiment: str = EXPERIMENT) -> None:
    (folder / "experiments").mkdir(exist_ok=True)
    (folder / "experiments" / "small.toml").write_text(experiment)


def read(folder: Path, claims: str = CLAIMS) -> tuple[Ledger, Evidence]:
    """Read claims beside the experiment file and check them."""
    (folder / "claims.toml").write_text(claims)
    ledger = Ledger.from_toml(folder / "claims.toml")
    evidence = Evidence(folder / "experiments", folder / "results")
    ledger.verify(evidence)
    return ledger, evidence


def made(run: RunSettings, accuracy: float) -> Record:
    """A record of a planned run; which rows are right differs between methods."""
    made = record(run.method_label, seed=run.seed, accuracy=accuracy)
    return made.replaced(settings=run, experiment="small")


def fill(folder: Path, score: Score, leave_out: tuple[tuple[str, str, int], ...] = ()) -> None:
    """Save a record of every planned run, but for some, named by task, label and seed."""
    store: Store[Record] = Store(folder / "results")
    for cell in experiments.read(folder / "experiments" / "small.toml").cells():
        for run in cell.runs({}):
            if (run.task, run.method_label, run.seed) not in leave_out:
                store.save(made(run, score(run.task, run.method_label)))
