"""Tasks: data, tokenisation, head and metric. They know no method and no training.

The public way in is :func:`task`, which the book calls ``pl.task``.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from peftlab.errors import DataError, SettingsError, unknown
from peftlab.tasks import catalog, own, sources
from peftlab.tasks.base import Evaluation, Task
from peftlab.tasks.choice import ChoiceTask
from peftlab.tasks.classification import ClassificationTask, RegressionTask
from peftlab.tasks.heads import Head
from peftlab.tasks.language import LanguageModelTask
from peftlab.tasks.multi import MultiTask, like
from peftlab.tasks.questions import QuestionTask
from peftlab.tasks.tagging import TaggingTask
from peftlab.tasks.unlabelled import TEXT_OF, texts

#: Options that may be given for a known data set; the others are those of its row in the table.
CHOSEN = {
    *("head_layers", "held_out", "stride", "max_question", "max_answer"),
    *("mask_rate", "packed", "train_head"),
}

__all__ = ["Evaluation", "Head", "Task", "majority", "names", "task"]

KINDS: dict[str, type[Task]] = {
    cls.kind: cls
    for cls in (
        ClassificationTask,
        RegressionTask,
        TaggingTask,
        QuestionTask,
        ChoiceTask,
        LanguageModelTask,
    )
}


def names() -> list[str]:
    """Return the short names of all known data sets, ``name/config`` where configs are listed."""
    found = []
    for row in catalog.ROWS:
        configs = row.configs if row.configs != catalog.ANY else ("<config>",)
        found += [f"{row.name}/{config}" for config in configs] or [row.name]
        if row.default:
            found.append(row.name)
    return sorted(found)


def task(source: str | Path | Mapping[str, Any], kind: str | None = None, **options: Any) -> Task:
    """Make a task from a known data set, or from your own data.

    Known data sets go by short names: ``glue/sst2``, ``squad``, ``xnli/de``, ``sib200/deu_Latn``,
    ``pocket/nli``. They are looked for in the folder ``PEFTLAB_DATA``, then on the hub; pocket
    tasks are generated. ``text-of/glue/sst2`` is language modelling on the texts of ``glue/sst2``,
    and so with other sets of one or two texts a row. Nothing is read before it is needed. Where a
    data set hides its test labels (GLUE, SQuAD), its validation split is ``test`` and ``dev`` is
    cut from train with a fixed seed.

    Your own data are a folder with the files ``train``, ``dev`` and ``test`` (``.jsonl``,
    ``.jsonl.gz``, ``.json``, ``.csv``, ``.parquet``), a ``datasets.DatasetDict``, or lists of rows
    by split; they need ``kind`` and the names of the fields. Without a dev split, a tenth of train
    is cut off for it.

    Args:
        source: Short name, folder, or splits.
        kind: ``"classification"``, ``"regression"``, ``"tagging"``, ``"qa"``, ``"choice"`` or
            ``"language-model"`` (masked language modelling), for your own data.
        options: For your own data ``name``, ``language``, the fields (``text``, ``label``;
            ``tokens``, ``tags``; ``question``, ``context``, ``answers``; ``premise``, ``choices``),
            ``labels`` and ``metrics``. For all: ``head_layers`` (1, or 2 with a tanh between),
            ``held_out`` (so many train rows are the test split, in place of the stored one), and
            ``stride``, ``max_question``, ``max_answer`` for questions; for language models
            ``mask_rate``, ``packed``, ``train_head``.

    Returns:
        The task.

    Raises:
        UnknownNameError: No data set, kind, option or metric is called so.
        SettingsError: ``kind`` is missing for your own data, or given for a known data set.
        DataError: The data are not as they must be; some faults show when a split is first read.

    Examples:
        >>> rows = [{"text": "fine", "label": "good"}, {"text": "no", "label": "bad"}]
        >>> own = task({"train": rows}, kind="classification")
        >>> own.labels
        ('bad', 'good')
    """
    if kind is not None:
        return _own(source, kind, options)
    if not isinstance(source, str):
        raise SettingsError(
            f"Your own data need kind=…, one of {', '.join(map(repr, KINDS))}, and the names of "
            "their fields."
        )
    row, config = _find(source.removeprefix(TEXT_OF))
    kind, data, preset = row.kind, sources.open_dataset(row, config), dict(row.options)
    if source.startswith(TEXT_OF):
        if kind not in (ClassificationTask.kind, RegressionTask.kind):
            raise DataError(
                f"{source!r} cannot be opened, for the texts of a {kind} task stand in no fields "
                "of their own: name a data set for classification or regression."
            )
        cut = {key: options[key] for key in ("held_out",) if key in options}
        labelled = task(source.removeprefix(TEXT_OF), **cut)
        data = texts(labelled, {**_parameters(kind), **preset}["text"])
        kind, preset = LanguageModelTask.kind, {}
    defaults = _parameters(kind)
    allowed = CHOSEN & defaults.keys()
    for option in options:
        if option not in allowed:
            raise unknown(f"option of the task {source!r}", option, allowed)
    name = f"{row.name}/{config}" if config and config != row.default else row.name
    found = KINDS[kind](
        TEXT_OF + name if source.startswith(TEXT_OF) else name,
        data,
        language=row.language.format(config=config),
        pocket=row.generated,
        **{**preset, **options, **({"held_out": 0} if source.startswith(TEXT_OF) else {})},
    )
    found.asked = _beyond({**defaults, **preset}, options)
    return found


def _find(name: str) -> tuple[catalog.DataSet, str | None]:
    """Return the table's row for a short name, and the config in it."""
    for row in catalog.ROWS:
        if name == row.name and (not row.configs or row.default):
            return row, row.default
        prefix, _, config = name.rpartition("/")
        if prefix == row.name and row.configs:
            if config in row.configs or (row.configs == catalog.ANY and config):
                return row, config
            what = "language" if row.language == "{config}" else "config"
            raise unknown(f"{row.name!r} {what}", config, row.configs)
        if name == row.name:
            example = "<config>" if row.configs == catalog.ANY else row.configs[0]
            raise DataError(f"The data set {name!r} has configs: name one, as in {name}/{example}.")
    if Path(name).is_dir():
        raise SettingsError(
            f"{name!r} is a folder: say kind=…, one of {', '.join(map(repr, KINDS))}."
        )
    raise unknown("data set", name, names())


def _own(source: str | Path | Mapping[str, Any], kind: str, options: dict[str, Any]) -> Task:
    if kind not in KINDS:
        raise unknown("kind of task", kind, KINDS)
    defaults = _parameters(kind)
    allowed = defaults.keys() - {"data", "pocket"}
    for option in options:
        if option not in allowed:
            raise unknown(f"option of a {kind} task", option, allowed)
    asked = {"kind": kind, **_beyond(defaults, options)}
    if isinstance(source, (str, Path)):
        if isinstance(source, str) and not Path(source).is_dir() and source in names():
            raise SettingsError(f"{source!r} is a known data set: leave kind={kind!r} out.")
        folder = Path(source)
        name, data = folder.resolve().name, own.from_folder(folder)
    elif isinstance(source, Mapping):
        name, data = "data", own.from_mapping(source)
        column = options.get({"classification": "label", "tagging": "tags"}.get(kind, ""))
        column = column or {"classification": "label", "tagging": "tags"}.get(kind, "")
        labels = own.label_names(source, column)
        if labels:
            options = {"labels": labels, **options}
    else:
        raise DataError(
            f"A task is made of a name, a folder, a DatasetDict or lists of rows by split, not of "
            f"a {type(source).__name__}."
        )
    task = KINDS[kind](options.pop("name", name), data, **options)
    task.asked = asked
    return task


def _parameters(kind: str) -> dict[str, Any]:
    """Return all options of a kind's class with their defaults, its bases included."""
    found: dict[str, Any] = {}
    for cls in reversed(KINDS[kind].__mro__):
        if issubclass(cls, Task):
            parameters = inspect.signature(cls.__init__).parameters
            found |= {name: parameter.default for name, parameter in parameters.items()}
    return {name: default for name, default in found.items() if name not in ("self", "options")}


def _beyond(defaults: Mapping[str, Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options, but for the name, that are not the defaults, as plain JSON types."""
    chosen = {name: _plain(value) for name, value in options.items() if name != "name"}
    return {name: v for name, v in chosen.items() if v != _plain(defaults[name])}


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(name): _plain(each) for name, each in value.items()}
    if isinstance(value, Iterable) and not isinstance(value, str):
        return [_plain(each) for each in value]
    return value.item() if isinstance(value, np.generic) else value


def majority(of: Task, split: str = "test", train: Task | None = None) -> Evaluation:
    """Score what is most frequent in the train split: the row of every table that must be beaten.

    Args:
        of: The task that is scored.
        split: The split that is scored.
        train: Where to count, if the task has no train split of its own (zero-shot evaluation).

    Returns:
        Metrics and one score a row. A number's "majority" is the mean.

    Raises:
        SettingsError: The kind of task has no majority class (questions).
        DataError: There is no train split.
    """
    rows = of.rows(split)
    train = train or of
    if isinstance(train, MultiTask) and not isinstance(of, MultiTask):
        train = like(of, train.tasks)
    return of.score(rows, of.majority(train.rows("train"), rows))
