"""Several tasks as one: their rows together, a head each, and the shares of their batches.

A mixture is a task like any other, so that training, scoring and saving treat one task and several
alike. It knows no training: how a batch finds its head is here, how batches are planned is in
:mod:`peftlab.training.batches`.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

from torch import Tensor, nn

from peftlab.errors import DataError, SettingsError, unknown
from peftlab.tasks.base import SPLITS, Evaluation, Feature, Row, Task
from peftlab.tasks.heads import Batch, Head
from peftlab.tasks.splits import Data

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from peftlab.encoders import Encoder


class Heads(nn.ModuleDict):
    """One head a task, chosen by ``batch["task"]``: all rows of a batch are of one task.

    A task's tensors are called ``[<task>].…``; dots in its name are written ``%2E``.

    Args:
        heads: By the name of the task.
    """

    def __init__(self, heads: Mapping[str, Head]) -> None:
        super().__init__({place(name): head for name, head in heads.items()})
        self.names = tuple(heads)

    @property
    def settings(self) -> dict[str, Any]:
        """Kind, and the settings of every head."""
        heads = {name: self.of(name).settings for name in self.names}
        return {"kind": MultiTask.kind, "heads": heads}

    def of(self, name: str) -> Head:
        """Return the head of a task.

        Raises:
            UnknownNameError: There is none.
        """
        if name not in self.names:
            raise unknown("task with a head in this model", name, self.names)
        return cast(Head, self[place(name)])

    def bind(self, encoder: Encoder) -> None:
        """Have every head take what it needs of the encoder."""
        for name in self.names:
            self.of(name).bind(encoder)

    def extended(self, name: str, head: Head) -> None:
        """Add the head of one more task."""
        self[place(name)] = head
        self.names = (*self.names, name)

    def forward(self, hidden: Tensor, batch: Batch) -> Tensor:
        """Turn hidden states [batch, length, d] into logits, whose shape is that of the head."""
        return cast(Tensor, self._chosen(batch)(hidden, batch))

    def loss(self, logits: Tensor, batch: Batch) -> Tensor:
        """Return the mean loss over the batch, computed in fp32."""
        return self._chosen(batch).loss(logits, batch)

    def _chosen(self, batch: Batch) -> Head:
        if "task" not in batch:
            raise DataError(
                "The batch does not say of which task it is, but the model has several heads: set "
                f"batch['task'] to one of {', '.join(map(repr, self.names))}."
            )
        return self.of(batch["task"])


class MultiTask(Task):
    r"""Several tasks that are learnt together; main metric is the mean of their main metrics.

    Of the B batches of an epoch, where task t alone would have :math:`b_t = \lceil n_t /
    \mathrm{batch\ size} \rceil`, task t gets the share

    .. math:: p_t = b_t^{1/T} \Big/ \sum_s b_s^{1/T}, \qquad B = \sum_s b_s.

    T = 1 is sampling in proportion to the sizes: an epoch sees every row once. The higher T, the
    more equal the shares; then an epoch repeats rows of small tasks and leaves out some of large
    ones, which come in the next. The shares are kept exactly in every epoch, not only on average.

    Its metrics are ``mean`` and, for each task, ``<task> <metric>``; a row is ``{"task": name,
    "row": row of the task}``. Source: Mundra et al. (arXiv 2305.07491), released code (multi-task
    training). Taught in the chapter on multi-task training.

    Args:
        tasks: One or more, all with different names.
        temperature: T, 1 or more.
        name: By default the tasks' names, joined.

    Attributes:
        tasks: The single tasks.
        temperature: T.

    Raises:
        SettingsError: A name occurs twice or is that of a split, a task is itself made of tasks, or
            T is less than 1.
    """

    kind = "multi-task"
    known_metrics = ("mean",)

    def __init__(
        self, tasks: Iterable[Task], *, temperature: float = 1.0, name: str | None = None
    ) -> None:
        self.tasks = tuple(tasks)
        self.temperature = temperature
        names = [task.name for task in self.tasks]
        if not names:
            raise SettingsError("There is no task to train on: name one or more.")
        for one, task in zip(names, self.tasks, strict=True):
            if names.count(one) > 1:
                raise SettingsError(
                    f"The task {one!r} is there twice: leave one out, or give your own data "
                    "another name=…."
                )
            if one in SPLITS:
                raise SettingsError(
                    f"A task among several cannot be called {one!r}, which names a split of them "
                    "all: give your own data another name=…."
                )
            if isinstance(task, MultiTask):
                raise SettingsError(f"{one!r} is itself made of tasks: name these instead.")
        # NaN is refused too
        if not 1 <= temperature < math.inf:
            raise SettingsError(
                f"temperature is {temperature!r}: 1 samples in proportion to the sizes, a high "
                "number nearly all tasks alike."
            )
        there = [s for s in SPLITS if all(s in task.splits for task in self.tasks)]
        super().__init__(
            name or "+".join(names),
            Data(
                read=self._joined,
                where=lambda split: f"The {split} split of {self.name!r}",
                splits={split: split for split in there},
                missing="every task must have it",
            ),
            metrics=self.known_metrics,
            language="+".join(dict.fromkeys(task.language for task in self.tasks)),
            pocket=any(task.pocket for task in self.tasks),
        )

    @property
    def options(self) -> dict[str, Any]:
        """``of``, the tasks' names, ``temperature``, and their ``limits`` and ``options`` by name.

        What has its default is left out.
        """
        options = {"of": [task.name for task in self.tasks], **super().options}
        if self.temperature != 1:
            options["temperature"] = float(self.temperature)
        for what in ("limits", "options"):
            found = {task.name: getattr(task, what) for task in self.tasks}
            options[what] = {name: value for name, value in found.items() if value}
        return {name: value for name, value in options.items() if value}

    @property
    def provenance(self) -> dict[str, Any]:
        """Like that of a single task, and under ``tasks`` that of every task."""
        return super().provenance | {"tasks": {task.name: task.provenance for task in self.tasks}}

    def check(self, row: Row, where: str) -> None:
        """Do nothing: the tasks have checked their rows."""

    def stratum(self, row: Row) -> Hashable:
        """Return the task and the row's stratum in it: a subset keeps the shares of the tasks."""
        return row["task"], self._task(row["task"]).stratum(row["row"])

    def encode(
        self, rows: Sequence[Row], tokenizer: PreTrainedTokenizerBase, max_length: int
    ) -> list[Feature]:
        """Tokenise the rows of every task as it does; features name their ``task``."""
        features = []
        for task, places in self._by_task(rows):
            own = [rows[i]["row"] for i in places]
            for feature in task.encode(own, tokenizer, max_length):
                features.append(feature | {"row": places[feature["row"]], "task": task.name})
        return features

    def head(self, hidden_size: int, pooling: str, dropout: float = 0.1) -> Heads:  # type: ignore[override]
        """Make a head a task, in the order of the tasks; the weights use torch's seed."""
        return Heads({task.name: task.head(hidden_size, pooling, dropout) for task in self.tasks})

    def predict(
        self, rows: Sequence[Row], features: Sequence[Feature], logits: Sequence[Any]
    ) -> list[Any]:
        """Turn logits into one prediction a row, as the row's task does."""
        predictions: list[Any] = [None] * len(rows)
        for task, places in self._by_task(rows):
            inside = {place: i for i, place in enumerate(places)}
            pairs = [
                (feature | {"row": inside[feature["row"]]}, scored)
                for feature, scored in zip(features, logits, strict=True)
                if feature["row"] in inside
            ]
            own, scores = zip(*pairs, strict=True)
            found = task.predict([rows[i]["row"] for i in places], own, scores)
            for place, prediction in zip(places, found, strict=True):
                predictions[place] = prediction
        return predictions

    def score(self, rows: Sequence[Row], predictions: Sequence[Any]) -> Evaluation:
        """Score every task by itself; ``parts`` of the result are the tasks' evaluations."""
        parts, examples = {}, [0.0] * len(rows)
        for task, places in self._by_task(rows):
            part = task.score([rows[i]["row"] for i in places], [predictions[i] for i in places])
            parts[task.name] = part
            for place, score in zip(places, part.example_scores, strict=True):
                examples[place] = score
        main = [part.metrics[self._task(name).main_metric] for name, part in parts.items()]
        metrics = {"mean": math.fsum(main) / len(main)}
        for name, part in parts.items():
            metrics |= {f"{name} {metric}": value for metric, value in part.metrics.items()}
        return Evaluation(metrics, examples, parts)

    def majority(self, train: Sequence[Row], rows: Sequence[Row]) -> list[Any]:
        """Predict for every row what is most frequent in ``train`` among the rows of its task."""
        learnt = {task.name: [train[i]["row"] for i in at] for task, at in self._by_task(train)}
        predictions: list[Any] = [None] * len(rows)
        for task, places in self._by_task(rows):
            found = task.majority(learnt[task.name], [rows[i]["row"] for i in places])
            for place, prediction in zip(places, found, strict=True):
                predictions[place] = prediction
        return predictions

    def _joined(self, split: str) -> list[Row]:
        return [{"task": task.name, "row": row} for task in self.tasks for row in task.rows(split)]

    def _task(self, name: str) -> Task:
        return next(task for task in self.tasks if task.name == name)

    def _by_task(self, rows: Sequence[Row]) -> Iterator[tuple[Task, list[int]]]:
        """Yield every task that has some of the rows, and where they are."""
        places: dict[str, list[int]] = {task.name: [] for task in self.tasks}
        for i, row in enumerate(rows):
            places[row["task"]].append(i)
        for task in self.tasks:
            if places[task.name]:
                yield task, places[task.name]


def joined(tasks: Task | Iterable[Task]) -> Task:
    """Return a task as it is, and several as one :class:`MultiTask`."""
    return tasks if isinstance(tasks, Task) else MultiTask(tasks)


def members(task: Task) -> tuple[Task, ...]:
    """Return the tasks that a task is made of: itself, if it is a single one."""
    return task.tasks if isinstance(task, MultiTask) else (task,)


def like(task: Task, known: Sequence[Task]) -> Task:
    """Return the known task whose head a task can use.

    It is the one of that name, or else the only one of the same kind and labels. Choices have no
    labels of their own: any head for choices can rank any number of them.

    Raises:
        DataError: None is of that kind with these labels, or several are and none has the name.
    """
    fit = [each for each in known if (each.kind, each.outputs) == (task.kind, task.outputs)]
    if not fit:
        raise DataError(
            f"The model was made for {_words(known)} and cannot be trained or scored on "
            f"{task.name!r}: their {_difference(task, known)}; add_task() adds a head for it."
        )
    same = [each for each in fit if each.name == task.name]
    if len(fit) > 1 and not same:
        raise DataError(
            f"The heads for {_words(fit)} all fit {task.name!r}: give the task the name of the one "
            "to use."
        )
    return (same or fit)[0]


def _difference(task: Task, known: Sequence[Task]) -> str:
    """Say how a task differs from known ones: for a single one of its kind, by the labels."""
    same = [each for each in known if each.kind == task.kind]
    if len(same) != 1:
        return "kinds or label sets differ"
    extra, lacking = (
        [name for name in one.labels if name not in other.labels]
        for one, other in ((task, same[0]), (same[0], task))
    )
    if not extra and not lacking:
        return "labels stand in another order"
    found = [f"{task.name!r} has {', '.join(map(repr, extra[:3]))}"] if extra else []
    found += [f"{same[0].name!r} has {', '.join(map(repr, lacking[:3]))}"] if lacking else []
    return "label sets differ (only " + ", only ".join(found) + ")"


def _words(tasks: Sequence[Task]) -> str:
    return ", ".join(repr(task.name) for task in tasks)


def place(name: str) -> str:
    """Return what the head of a task is called among :class:`Heads`."""
    # a module's name has no dots, and must not be that of an attribute such as "train"
    return f"[{name.replace('%', '%25').replace('.', '%2E')}]"
