"""The throughput benchmark: same work on both sides, and only steady steps are timed."""

from __future__ import annotations

from typing import Any

import pytest

import peftlab as pl
from peftlab import bench
from peftlab.bench import throughput
from peftlab.errors import UnknownNameError


@pytest.fixture
def small(tiny_folder: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the benchmark run on a tiny encoder and made-up rows."""
    pytest.importorskip("accelerate")
    words = ("the", "old", "dog", "sees", "a", "house")
    rows = [
        {"text": " ".join(words[: 2 + i % 5]), "label": ("bad", "good")[i % 2]} for i in range(40)
    ]
    task = pl.task({"train": rows, "dev": rows, "test": rows}, kind="classification", name="w")
    monkeypatch.setattr(throughput, "ENCODER", str(tiny_folder("bert")))
    monkeypatch.setattr(throughput, "TASKS", {"words": "w"})
    monkeypatch.setattr(throughput, "BATCH", 4)
    monkeypatch.setattr(throughput, "LONGEST", 32)
    monkeypatch.setattr(throughput, "find_task", lambda name: task)


def test_every_rival_is_compared(small):
    rows = throughput.run(rounds=3, steps=6)
    assert [(row.name, row.against) for row in rows] == [
        ("words", "trainer-padded-128"),
        ("words", "trainer-dynamic"),
    ]
    for row in rows:
        assert 0 < row.low <= row.ratio <= row.high
        assert row.unit == "examples/s, more is better"


def test_all_candidates_do_the_same_steps(small, monkeypatch):
    seen: list[int] = []
    original = throughput.StepTimes.seconds

    def counted(times: throughput.StepTimes) -> float:
        seen.append(len(times.ends))
        return original(times)

    monkeypatch.setattr(throughput.StepTimes, "seconds", counted)
    throughput.compare("w", rounds=1, steps=6)
    assert seen == [6] * 6


def test_the_warm_up_is_not_counted():
    times = throughput.StepTimes()
    times.ends = [10.0, 20.0, 21.0, 22.5]
    assert times.seconds() == 2.5


def test_padding_reaches_the_fixed_length():
    rows = [{"input_ids": [1, 2, 3], "labels": 0}, {"input_ids": [4], "labels": 1}]
    assert throughput.Padding(9, 8)(rows)["input_ids"].shape == (2, 8)
    assert throughput.Padding(9, 0)(rows)["input_ids"].tolist() == [[1, 2, 3], [4, 9, 9]]
    assert throughput.Padding(9, 8)(rows)["attention_mask"].sum() == 4


def test_an_unknown_benchmark_is_named():
    with pytest.raises(UnknownNameError, match="did you mean 'throughput'"):
        bench.get("throughputt")
