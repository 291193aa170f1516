"""Moments of a GPU come in milliseconds, from the earlier to the later."""

from __future__ import annotations

import pytest
import torch

from peftlab.timing.marks import Marks


class Event:
    """Stands for an event in a GPU's queue; ``now`` is its clock, in milliseconds."""

    now = 0.0

    def __init__(self, enable_timing: bool) -> None:
        assert enable_timing

    def record(self) -> None:
        self.at = Event.now

    def elapsed_time(self, end: Event) -> float:
        return end.at - self.at


def test_moments_of_a_gpu_are_read_in_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[bool] = []
    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: waited.append(True))
    marks = Marks(torch.device("cuda"))
    for name, passed in (
        ("start", 0),
        ("forward", 5),
        ("backward", 10),
        ("start", 99),
        ("forward", 7),
    ):
        Event.now += passed
        marks(name)
    assert not waited, "noting a moment waited for the GPU"
    assert marks.seconds() == {"forward": [0.005, 0.007], "backward": [0.010]}
    assert waited
