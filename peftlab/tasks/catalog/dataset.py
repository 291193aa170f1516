"""What the table of data sets says of one: where it lies, its fields and labels, its splits."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from peftlab.tasks.fields import Row
from peftlab.tasks.splits import Cut

#: Stands in ``configs`` for "any": the data set's own list is too long to repeat.
ANY = ("*",)

#: Where the hub keeps what it made of a data set that has a loading script: ``datasets`` 4 and
#: newer run no scripts. Its folders are ``<config>/<split>``.
CONVERTED = "refs/convert/parquet"
PARQUET = "{config}/{split}/*.parquet"


@dataclass(frozen=True)
class DataSet:
    """One row of the table.

    Attributes:
        name: Short name; ``name/config`` where there are configs.
        kind: Kind of task.
        options: How the kind's task class is set up: fields, labels, metrics.
        splits: The stored split behind ``train``, ``dev`` and ``test``.
        folder: Its folder under ``PEFTLAB_DATA``; its files lie in ``folder[/config]``. Their
            fields are those of the hub.
        hub: Id on the Hugging Face hub; None: not to be had there.
        config: Config on the hub; ``{config}`` stands for the hub's name of the config.
        files: Files on the hub, with ``{config}`` and ``{split}``, where no config can be opened.
        revision: Commit or branch on the hub; None: the default branch.
        configs: The configs, mostly languages; empty: there is one and it has no name.
        hub_names: What the hub calls the configs; those that are left out are not there. None: as
            they are called here.
        part: A field that begins with the hub's name of the config, where the hub has the rows of
            all configs in one.
        default: The config that the bare name means.
        language: Of the rows; ``"{config}"`` where the config is the language.
        trained_in: The configs that have a train split; None: all. The others are for zero-shot
            evaluation.
        train_on: The task to train on where there is no train split; None: the first of
            ``trained_in``.
        cut: How dev is cut from train; None: it is stored.
        change: Makes of a stored row the rows that are used, none or more; its docstring says what
            it does. None: the row itself.
        generated: Made by :mod:`peftlab.tasks.pocket` instead of read.
        source: Where the data come from, for those who must fetch them.
        note: What else a user must know.
    """

    name: str
    kind: str
    options: Mapping[str, Any]
    splits: Mapping[str, str] = field(
        default_factory=lambda: {"train": "train", "dev": "validation", "test": "test"}
    )
    folder: str = ""
    hub: str | None = None
    config: str | None = None
    files: str | None = None
    revision: str | None = None
    configs: tuple[str, ...] = ()
    hub_names: Mapping[str, str] | None = None
    part: str | None = None
    default: str | None = None
    language: str = "en"
    trained_in: tuple[str, ...] | None = None
    train_on: str | None = None
    cut: Cut | None = None
    change: Callable[[Row], list[Row]] | None = None
    generated: bool = False
    source: str = ""
    note: str = ""

    @property
    def changed(self) -> str:
        """What ``change`` does, in a sentence; empty if there is none."""
        return ((self.change.__doc__ or "") if self.change else "").split("\n")[0]

    def on_hub(self, config: str | None) -> str | None:
        """Return what the hub calls a config; None: it has no configs, or not this one."""
        return config if self.hub_names is None else self.hub_names.get(config or "")
