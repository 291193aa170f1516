"""What an experiment file names: encoders, tasks, learning rates, settings of the training loop."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import (
    BeforeValidator,
    Field,
    JsonValue,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    TypeAdapter,
    ValidationError,
)

from peftlab.errors import SettingsError, unknown
from peftlab.results.records.run import Strict, named, sentence
from peftlab.training.settings import TrainSettings

if TYPE_CHECKING:
    from peftlab.tasks import Task

CHOSEN_BY_GRID = ("learning_rate", "seed")
SETTINGS = TypeAdapter(TrainSettings)  # slow to make, quick to use
SPLITS = ("train", "dev", "test")


class EncoderEntry(Strict):
    """One encoder of the grid; ``random_weights`` draws its weights instead of loading them."""

    name: str
    random_weights: bool = False


class Member(Strict):
    """One of several tasks that are learnt together.

    Attributes:
        name: Short name of a known data set.
        train, dev, test: Most rows of each split; None means all.
        share: Part of these train rows: of old tasks, when a new one is added.
    """

    name: str
    train: PositiveInt | None = None
    dev: PositiveInt | None = None
    test: PositiveInt | None = None
    share: float | None = Field(default=None, gt=0, le=1)

    @property
    def entry(self) -> str | dict[str, Any]:
        """What :func:`open_task` opens: its name, or a table if there is more to say."""
        said = self.model_dump(exclude_none=True)
        return self.name if len(said) == 1 else said


class TaskEntry(Strict):
    """One task of the grid.

    Attributes:
        name: Short name, or a folder with the user's own data.
        kind: Needed for a folder only, as are ``options``; see :func:`peftlab.task`.
        of: Tasks that are learnt together; ``name`` is then any name. The entry's own limits are
            those of all their rows, in proportion.
        temperature: Of the sampling of these tasks; see :class:`peftlab.tasks.multi.MultiTask`.
        without: Labels of methods that are left out, such as ``majority`` for questions.
        train, dev, test: Most rows of each split; None means all.
        transfer: Tasks to score the trained model on; None takes the experiment's.
        settings: Training settings that differ for this task.
    """

    name: str
    kind: str | None = None
    options: dict[str, Any] = Field(default={})
    of: list[Annotated[Member, BeforeValidator(named)]] = Field(default=[])
    temperature: float = Field(default=1.0, ge=1)
    without: list[str] = Field(default=[])
    train: PositiveInt | None = None
    dev: PositiveInt | None = None
    test: PositiveInt | None = None
    transfer: list[str] | None = None
    settings: dict[str, Any] = Field(default={})

    @property
    def how(self) -> dict[str, Any]:
        """The options with which :func:`open_task` opens it."""
        how = self.options | ({} if self.kind is None else {"kind": self.kind})
        how |= {"of": [each.entry for each in self.of]} if self.of else {}
        return how | ({} if self.temperature == 1 else {"temperature": self.temperature})

    @property
    def limits(self) -> dict[str, int]:
        """The limits that are set, by split."""
        sizes = {split: getattr(self, split) for split in SPLITS}
        return {split: size for split, size in sizes.items() if size is not None}

    @property
    def members(self) -> list[str]:
        """Names of the tasks that are learnt together; its own if it is a single one."""
        return [each.name for each in self.of] or [self.name]


class Tuning(Strict):
    """The equal, declared budget of every method.

    Attributes:
        learning_rates: A list for all methods, or lists by method label, with ``default``.
        seed: At which all rates are run.
    """

    learning_rates: list[PositiveFloat] | dict[str, list[PositiveFloat]]
    seed: NonNegativeInt = 0


def open_task(name: str, options: Mapping[str, JsonValue]) -> Task:
    """Open a task as an experiment names it; this reads no rows, unless for the share of a split.

    Args:
        name: Short name or folder.
        options: See :func:`peftlab.task`; a list stands for a tuple. Or ``of``, the tasks that are
            learnt together, as of :attr:`Member.entry`, and their ``temperature``.

    Raises:
        UnknownNameError: There is no such data set or option.
    """
    from peftlab.tasks import task
    from peftlab.tasks.multi import MultiTask

    chosen: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in options.items()}
    if "of" in chosen:
        for option in chosen.keys() - {"of", "temperature"}:
            raise unknown("option of a task made of tasks", option, ("of", "temperature"))
        of = [_member(each) for each in chosen.pop("of")]
        return MultiTask(of, name=name, **chosen)
    return task(name, **chosen)


def _member(entry: str | Mapping[str, Any]) -> Task:
    from peftlab.tasks import task

    if isinstance(entry, str):
        return task(entry)
    limits = {split: entry[split] for split in SPLITS if split in entry}
    found = task(entry["name"])
    found = found.limit(**limits) if limits else found
    return found.share(entry["share"]) if "share" in entry else found


def train_settings(chosen: Mapping[str, Any], rate: float, seed: int) -> TrainSettings:
    """Return the full settings of a run, with names and types checked.

    Raises:
        UnknownNameError: There is no such setting.
        SettingsError: A setting has a wrong type or a value that cannot work.
    """
    names = {field.name for field in fields(TrainSettings)} - set(CHOSEN_BY_GRID)
    for name in chosen:
        if name in CHOSEN_BY_GRID:
            raise SettingsError(
                f"settings.{name} cannot be set here: rates stand in tuning.learning_rates, seeds "
                "in seeds."
            )
        if name not in names:
            raise unknown("training setting", name, names)
    values = dict(chosen) | {"learning_rate": rate, "seed": seed}
    try:
        return SETTINGS.validate_json(json.dumps(values), strict=True)
    except ValidationError as error:
        raise SettingsError(f"settings.{sentence(error)}.") from None
