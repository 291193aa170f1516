"""What a reader has and wants, for whom :mod:`peftlab.results.choice.rule` ranks methods."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, PositiveInt

from peftlab.results.records.run import Strict

Axis = Literal["time", "memory", "storage", "latency"]
AXES: tuple[Axis, ...] = ("time", "memory", "storage", "latency")


class Needs(Strict):
    """What a reader has and wants.

    Attributes:
        rows: Labelled training rows of a task.
        tasks: That are to be served.
        languages: That are to be served by a model trained in one of them.
        hurts: What matters, the worst first; empty: only the score does.
        batch: Rows of a training step.
        length: Tokens of a text.
        texts: That are answered at once.
        device: Where it is trained and served.
    """

    rows: PositiveInt = 1000
    tasks: PositiveInt = 1
    languages: PositiveInt = 1
    hurts: list[Axis] = Field(default=["time"])
    batch: PositiveInt = 8
    length: PositiveInt = 32
    texts: PositiveInt = 1
    device: Literal["cpu", "cuda"] = "cpu"
