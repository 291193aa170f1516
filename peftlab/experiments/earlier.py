"""Runs that others build on: language adapters, and adapters to be fused.

An experiment names them under ``earlier``; ``uses`` says which method takes which. They are runs
like any other, recorded beside the rest, and their trained models are kept until the experiment is
done. This file plans them; who builds with them is :mod:`peftlab.experiments.execute`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pydantic import Field, NonNegativeInt, PositiveFloat, model_validator

from peftlab.results.record import Entry, RunSettings, Strict

#: Where a run's ``model_options`` name, by id, the runs that its model was built from.
USES = "uses"


class Earlier(Strict):
    """One run that others build on.

    Attributes:
        task: What it is trained on; an entry as of the experiment's tasks.
        method: Preset name or settings.
        learning_rate: Its one rate: what others stand on is not tuned for them.
        seed: Of the run; by default that of the run that builds on it.
        settings: Of the training loop, beside those of the experiment.
    """

    task: Entry
    method: Entry
    learning_rate: PositiveFloat
    seed: NonNegativeInt | None = None
    settings: dict[str, Any] = Field(default={})


class Uses(Strict):
    """What a method's models are built from; the names are labels of earlier runs.

    Attributes:
        language: The language adapter that the task adapter is trained on (``madx-task``).
        languages: Language of a transfer task → the adapter that is put in before it is scored. A
            language that is not named is scored with the one of the training.
        fuse: The adapters that are fused (``fusion``).
    """

    language: str | None = None
    languages: dict[str, str] = Field(default={})
    fuse: list[str] = Field(default=[])

    @model_validator(mode="after")
    def _one_thing(self) -> Uses:
        """Refuse what cannot be built."""
        if bool(self.fuse) == (self.language is not None):
            raise ValueError("name a language, or adapters to fuse, and not both")
        if self.languages and self.language is None:
            raise ValueError("languages to score with need the language of the training")
        return self

    def labels(self) -> list[str]:
        """Return the labels of all earlier runs, each once."""
        named = [self.language] if self.language is not None else []
        return list(dict.fromkeys([*named, *self.languages.values(), *self.fuse]))

    def ids(self, runs: dict[str, RunSettings]) -> dict[str, Any]:
        """Return the same with ids in place of labels, without what is empty.

        Args:
            runs: The earlier runs by label.
        """
        found: dict[str, Any] = {}
        if self.language is not None:
            found["language"] = runs[self.language].id
        if self.languages:
            found["languages"] = {code: runs[label].id for code, label in self.languages.items()}
        if self.fuse:
            found["fuse"] = [runs[label].id for label in self.fuse]
        return found


def used(run: RunSettings) -> Iterator[str]:
    """Yield the ids of the runs that a run's model is built from."""
    uses = run.model_options.get(USES, {})
    assert isinstance(uses, dict)
    for found in uses.values():
        if isinstance(found, dict):
            yield from map(str, found.values())
        elif isinstance(found, list):
            yield from map(str, found)
        else:
            yield str(found)
