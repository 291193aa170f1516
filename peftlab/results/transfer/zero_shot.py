"""Zero-shot transfer: what models that were trained in one language score in others.

A *transfer* is a method on one task: trained and selected in the source language, scored in the
target languages with no labelled row of them. Rows come from here; what may be said of them is in
:mod:`peftlab.results.transfer.retention`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from peftlab.errors import RecordError
from peftlab.results.comparison import statistics
from peftlab.results.comparison.selection import cells, selected
from peftlab.results.comparison.statistics import Array, Interval
from peftlab.results.records.run import Record
from peftlab.results.transfer import languages

if TYPE_CHECKING:
    from pandas import DataFrame

MAJORITY = "majority"
#: What is appended to the label of a method that was trained on several tasks at once.
JOINT = ", multi-task"
COLUMNS = [
    "encoder",
    "random_weights",
    "task",
    "source",
    "target",
    "script",
    "method",
    "seed",
    "metric",
    "score",
]


@dataclass(frozen=True)
class Transfer:
    """One method on one task, at the rate that the development split chose, in all languages.

    Attributes:
        encoder, random_weights: The encoder.
        task: What is asked, without a language, such as ``sib200``; of models that were trained on
            another set it is the one that is tested, such as ``xnli`` for ``glue/mnli``.
        source: Language of the training.
        method: Its label, with ``", multi-task"`` where several tasks were learnt together.
        runs: The records, in order of seed.
        home: Where the score in the source language stands in a record's metrics.
        targets: The same by target language, in the order of the records.
    """

    encoder: str
    random_weights: bool
    task: str
    source: str
    method: str
    runs: tuple[Record, ...]
    home: str
    targets: dict[str, str]

    @property
    def metric(self) -> str:
        """The main metric of the task."""
        found, main = self.runs[0].metrics[self.home], self.runs[0].main_metric
        return main if main in found else next(iter(found))  # of several tasks, each has its own

    @property
    def place(self) -> tuple[str, bool, str]:
        """What methods must share to be compared."""
        return self.encoder, self.random_weights, self.task

    def scores(self, split: str) -> list[float]:
        """Return the score of every seed on a split or transfer task."""
        return [run.metrics[split][self.metric] for run in self.runs]

    def examples(self, split: str) -> Array | None:
        """Return example scores [seeds, examples], None where the metric is not their mean."""
        return statistics.examples(self.runs, split, self.metric)

    def interval(self, split: str) -> Interval:
        """Return the mean score on a split with its interval, over what it can be over."""
        rows = self.examples(split)
        if rows is None:
            return statistics.seed_interval(self.scores(split))
        return statistics.crossed_interval(rows)


def transfers(records: Iterable[Record]) -> list[Transfer]:
    """Find what was tested in other languages; all else, such as earlier runs, is passed over.

    Args:
        records: Of experiments, all rates and seeds; the selected runs are kept.

    Raises:
        RecordError: Several tasks were learnt together, and none of them is the tested one.
    """
    found = []
    for cell, runs in cells(selected(records)).items():
        settings = runs[0].settings
        trained = runs[0].settings.members
        by_task: dict[str, dict[str, str]] = {}
        for name in settings.transfer:
            task, language = languages.split(name)
            by_task.setdefault(task, {})[language] = name
        for task, names in by_task.items():
            source, home = _home(task, trained, runs[0])
            # the same rows as in other languages, where they are there
            home = next((n for code, n in names.items() if languages.same(code, source)), home)
            targets = {c: n for c, n in names.items() if not languages.same(c, source)}
            if targets:
                label = cell.label + (JOINT if trained else "")
                where = (cell.encoder, cell.random_weights, task, source, label)
                found.append(Transfer(*where, tuple(runs), home, targets))
    return found


def _home(task: str, trained: list[str], record: Record) -> tuple[str, str]:
    """Return the language that a task was learnt in, and where the score in it stands."""
    if not trained:
        return languages.split(record.settings.task)[1], "test"
    for name in trained:
        known, language = languages.split(name)
        if known == task:
            return language, name
    raise RecordError(
        f"Record {record.id} was trained on {', '.join(trained)} and tested on {task!r}, and none "
        "of them is its source: train on the tested data set."
    )


def table(records: Iterable[Record]) -> DataFrame:
    """Return one row a run and language, the source's too.

    Args:
        records: As for :func:`transfers`.

    Returns:
        Columns ``encoder, random_weights, task, source, target, script, method, seed, metric,
        score``.
    """
    import pandas as pd

    rows: list[dict[str, Any]] = []
    for each in transfers(records):
        for target, split in ((each.source, each.home), *each.targets.items()):
            for run, score in zip(each.runs, each.scores(split), strict=True):
                rows.append(_line(each, target) | {"seed": run.settings.seed, "score": score})
    return pd.DataFrame(rows, columns=COLUMNS)


def _line(transfer: Transfer, target: str) -> dict[str, Any]:
    """Return what every table says of a transfer to a language."""
    return {
        "encoder": transfer.encoder,
        "random_weights": transfer.random_weights,
        "task": transfer.task,
        "source": transfer.source,
        "target": target,
        "script": languages.script(f"{transfer.task}/{target}"),
        "method": transfer.method,
        "metric": transfer.metric,
    }


def by_language(records: Iterable[Record]) -> DataFrame:
    """Return one row a method and language: mean over seeds, interval, and the majority class.

    Args:
        records: As for :func:`transfers`.

    Returns:
        Columns ``encoder, random_weights, task, source, target, script, method, metric, seeds,
        rows, mean, low, high, over, majority``; the source language stands first, then those
        in its script, then the others by script. ``rows`` is the number of test rows, ``over`` what
        the interval is over.
    """
    import pandas as pd

    found = transfers(records)
    majority = {each.place: each for each in found if each.method.removesuffix(JOINT) == MAJORITY}
    rows: list[dict[str, Any]] = []
    for each in found:
        for target, split in ((each.source, each.home), *each.targets.items()):
            interval = each.interval(split)
            control = majority.get(each.place)
            its = None if control is None else ({control.source: control.home} | control.targets)
            rows.append(
                _line(each, target)
                | {
                    "seeds": len(each.runs),
                    "rows": len(each.runs[0].example_scores.get(split, [])),
                    "mean": interval.estimate,
                    "low": interval.low,
                    "high": interval.high,
                    "over": interval.over,
                    "majority": control.scores(its[target])[0]
                    if control is not None and its and target in its
                    else float("nan"),
                }
            )
    columns = [*COLUMNS[:7], "metric", "seeds", "rows", "mean", "low", "high", "over", "majority"]
    made = pd.DataFrame(rows, columns=columns)
    made["away"] = made["target"] != made["source"]
    home = (languages.script(f"{line.task}/{line.source}") for line in made.itertuples())
    made["foreign"] = made["script"] != pd.Series(list(home), index=made.index, dtype=object)
    order = ["encoder", "random_weights", "task", "away", "foreign", "script", "target"]
    made = made.sort_values(order, kind="stable", ignore_index=True)
    return made.drop(columns=["away", "foreign"])
