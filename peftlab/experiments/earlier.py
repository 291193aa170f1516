"""Runs that others build on: language adapters, adapters to be fused, encoders trained further.

An experiment names them under ``earlier``; ``uses`` says which method takes which, and an earlier
run may itself use others. They are runs like any other, recorded beside the rest, and their trained
models are kept until the experiment is done. This file says what can be named and checks it; the
runs are planned in :mod:`peftlab.experiments.plan`, and who builds with them is
:mod:`peftlab.experiments.execute`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import (
    BeforeValidator,
    Field,
    JsonValue,
    NonNegativeInt,
    PositiveFloat,
    model_validator,
)

from peftlab import methods
from peftlab.errors import SettingsError, unknown
from peftlab.experiments.entries import TaskEntry
from peftlab.methods.adaptable import Adaptable
from peftlab.methods.base import Method
from peftlab.methods.finetuning import Full, HeadOnly
from peftlab.methods.focused import AdaptableFocused
from peftlab.methods.fusion import AdapterFusion
from peftlab.methods.madx import TaskAdapter
from peftlab.results.records.run import Entry, RunSettings, Strict, named

#: Where a run's ``model_options`` name, by id, the runs that its model was built from.
USES = "uses"
#: What a model can be built from; each run takes one of them.
KINDS = ("language", "fuse", "start", "layers")
#: The method that can be built from a kind.
TAKES: dict[str, type[Method]] = {"language": TaskAdapter, "fuse": AdapterFusion}
#: Where the ids stand.
LINKS = (*KINDS, "languages")
#: The link that takes of a run what its record says; the others take its model.
SELECTED = "layers"
MODELS = tuple(link for link in LINKS if link != SELECTED)


class Uses(Strict):
    """What a method's models are built from; the names are labels of earlier runs.

    Attributes:
        language: The language adapter that the task adapter is trained on (``madx-task``).
        languages: Language of a transfer task → the adapter that is put in before it is scored. A
            language that is not named is scored with the one of the training.
        fuse: The adapters that are fused (``fusion``).
        start: The run whose encoder training begins with; see
            :func:`peftlab.checkpoints.starting.start`. Its method is ``full``, or ``head-only``:
            then the encoder is the pretrained one and only the head is taken over.
        keep_heads: Keep the heads of that run's tasks, and score the tasks that are not trained on
            afterwards, on the same rows: what was forgotten is the difference to that run's own
            scores.
        layers: The run of the method ``adaptable`` whose switches say in which layers the method
            (``adaptable-focused``) has adapters.
        control: Take as many ``"random"`` layers instead, another set that the run's seed draws, or
            the ``"top"`` ones.
    """

    language: str | None = None
    languages: dict[str, str] = Field(default={})
    fuse: list[str] = Field(default=[])
    start: str | None = None
    keep_heads: bool = False
    layers: str | None = None
    control: Literal["random", "top"] | None = None

    @model_validator(mode="after")
    def _one_thing(self) -> Uses:
        """Refuse what cannot be built."""
        if len([kind for kind in KINDS if getattr(self, kind)]) != 1:
            raise ValueError(f"name one of {', '.join(KINDS)}, and no two of them")
        if self.languages and self.language is None:
            raise ValueError("languages to score with need the language of the training")
        if self.keep_heads and self.start is None:
            raise ValueError("keep_heads needs start, the run that has the heads")
        if self.control and self.layers is None:
            raise ValueError("a control needs layers, the run that selects how many")
        return self

    def labels(self) -> list[str]:
        """Return the labels of all earlier runs, each once."""
        single = [self.language, self.start, self.layers]
        named = [label for label in single if label is not None]
        return list(dict.fromkeys([*named, *self.languages.values(), *self.fuse]))

    def ids(self, runs: Mapping[str, RunSettings]) -> dict[str, Any]:
        """Return the same with ids in place of labels, without what is empty.

        Args:
            runs: The earlier runs by label.
        """
        found: dict[str, Any] = {}
        for kind in ("language", "start", "layers"):
            label = getattr(self, kind)
            if label is not None:
                found[kind] = runs[label].id
        if self.languages:
            found["languages"] = {code: runs[label].id for code, label in self.languages.items()}
        if self.fuse:
            found["fuse"] = [runs[label].id for label in self.fuse]
        return found | ({"control": self.control} if self.control else {})


class Earlier(Strict):
    """One run that others build on.

    Attributes:
        task: What it is trained on; an entry as of the experiment's tasks, in whose name ``{task}``
            stands for that of the run that builds on it. None: the very task of that run, with its
            limits.
        method: Preset name or settings.
        learning_rate: Its one rate: what others stand on is not tuned for them.
        seed: Of the run; by default that of the run that builds on it.
        uses: What it is itself built from.
        settings: Of the training loop, beside those of the experiment and its task.
    """

    task: Annotated[TaskEntry, BeforeValidator(named)] | None = None
    method: Entry
    learning_rate: PositiveFloat
    seed: NonNegativeInt | None = None
    uses: Uses | None = None
    settings: dict[str, Any] = Field(default={})


def check(owner: str, method: Entry, uses: Uses, earlier: Mapping[str, Earlier]) -> None:
    """Make sure that what a method uses can be built.

    Args:
        owner: Label of the method, or of the earlier run.
        method: Of the runs that use it.
        uses: Labels.
        earlier: All earlier runs of the experiment.

    Raises:
        UnknownNameError: There is no earlier run of that label.
        SettingsError: It is of a method from which this cannot be built.
    """
    for label in uses.labels():
        if label not in earlier:
            raise unknown("earlier run in this experiment", label, earlier)
    if uses.start is not None:
        _check_start(owner, uses.start, earlier[uses.start])
    ours = methods.get(method)
    for kind, of in TAKES.items():
        if getattr(uses, kind) and not isinstance(ours, of):
            raise SettingsError(
                f"{owner!r} uses {kind}, but its method {ours.name!r} cannot: give it the method "
                f"{of.name!r}."
            )
    if uses.layers is not None:
        theirs = methods.get(earlier[uses.layers].method)
        if not isinstance(theirs, Adaptable):
            raise SettingsError(
                f"{owner!r} takes the layers that {uses.layers!r} selects, but its method "
                f"{theirs.name!r} selects none: give it the method 'adaptable'."
            )
        if not isinstance(ours, AdaptableFocused) or ours.layers is not None:
            raise SettingsError(
                f"{owner!r} takes the layers that {uses.layers!r} selects, which only the method "
                "'adaptable-focused' without layers of its own can."
            )


def _check_start(owner: str, label: str, first: Earlier) -> None:
    method = methods.get(first.method)
    if not isinstance(method, HeadOnly) and method != Full():
        raise SettingsError(
            f"{owner!r} starts from {label!r}, but its method {method.name!r} does not train the "
            "whole encoder: give it the method 'full', or 'head-only' for its head."
        )
    if isinstance(method, HeadOnly) and first.uses is not None:
        raise SettingsError(
            f"{owner!r} starts from {label!r}, which trains only a head on what "
            f"{first.uses.labels()[0]!r} has trained: start from a run of the method 'full'."
        )


def refuse_circle(earlier: Mapping[str, Earlier]) -> None:
    """Raise a ValueError if earlier runs wait for each other."""

    def follow(label: str, path: tuple[str, ...]) -> None:
        if label in path:
            circle = " → ".join((*path[path.index(label) :], label))
            raise ValueError(f"earlier runs build on each other in a circle ({circle})")
        uses = earlier[label].uses
        for each in uses.labels() if uses else ():
            follow(each, (*path, label))

    for label in earlier:
        follow(label, ())


def built_from(
    uses: Uses, runs: Mapping[str, RunSettings], members: Sequence[str]
) -> tuple[dict[str, JsonValue], list[str]]:
    """Return what a run says of the earlier ones: its ``model_options``, and old tasks to score.

    Args:
        uses: By label.
        runs: The earlier runs by label.
        members: The tasks that the run trains on.

    Raises:
        SettingsError: Heads are to be kept of tasks that cannot be opened by their names.
    """
    options: dict[str, JsonValue] = {USES: uses.ids(runs)}
    if not uses.keep_heads:
        return options, []
    assert uses.start is not None
    first = runs[uses.start]
    old = learnt(first)
    if set(first.task_options) - {"of", "temperature"}:
        raise SettingsError(
            f"The heads of {uses.start!r} cannot be kept: its task {first.task!r} is known only "
            "with its options; use data sets that are known by name."
        )
    options["heads"] = [*old, *(name for name in members if name not in old)]
    scored = [name for name in old if name not in members]
    rows: dict[str, JsonValue] = {k: n for k, n in _test_rows(first).items() if k in scored}
    if rows:
        options["old_test_rows"] = rows
    return options, scored


def _test_rows(run: RunSettings) -> dict[str, int]:
    """Return how many test rows the tasks of a run have, those that are limited."""
    limits: Any = run.limits
    of: Any = run.task_options.get("of") or [{"name": run.task} | limits]
    return {each["name"]: each["test"] for each in of if "test" in each}


def learnt(run: RunSettings) -> list[str]:
    """Return the names of the tasks that the model of a run has heads for."""
    heads = run.model_options.get("heads") or run.members or [run.task]
    assert isinstance(heads, list)
    return [str(each) for each in heads]


def used(run: RunSettings, links: Collection[str] = LINKS) -> Iterator[str]:
    """Yield the ids of the runs that a run's model is built from, by some links or by all."""
    uses = run.model_options.get(USES, {})
    assert isinstance(uses, dict)
    for found in (uses[link] for link in links if link in uses):
        if isinstance(found, dict):
            yield from map(str, found.values())
        elif isinstance(found, list):
            yield from map(str, found)
        else:
            yield str(found)
