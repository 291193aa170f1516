"""Other programs on the cores are seen, in a made-up ``/proc/stat``."""

from __future__ import annotations

import pytest

from peftlab.timing import quiet

# user, nice, system, idle, waiting for a disk, two kinds of interrupts, stolen, guest
BEFORE = """cpu  1000 0 0 4000 0 0 0 0 0 0
cpu0 100 0 0 900 0 0 0 0 0 0
cpu1 100 0 50 800 50 0 0 0 10 0
cpu10 7 0 0 0 0 0 0 0 0 0
intr 12345 0 0
"""
AFTER = """cpu  1150 0 0 4150 0 0 0 0 0 0
cpu0 130 0 0 970 0 0 0 0 0 0
cpu1 110 0 50 870 70 0 0 0 90 0
cpu10 107 0 0 0 0 0 0 0 0 0
intr 12345 0 0
"""


@pytest.fixture
def stat(monkeypatch, tmp_path):
    """A file that changes while the cores are watched, for two cores of three."""
    file = tmp_path / "stat"
    file.write_text(BEFORE)
    monkeypatch.setattr(quiet, "STAT", file)
    monkeypatch.setattr(quiet, "sleep", lambda seconds: file.write_text(AFTER))
    monkeypatch.setattr(quiet, "usable_cores", lambda: {0, 1})
    return file


def test_busy_is_what_is_neither_idle_nor_waiting(stat):
    # of 100 ticks each: 30 on the first core, 10 on the second; guests are in the first column
    assert quiet.cores_busy() == pytest.approx(40 / 200)


def test_cores_of_others_do_not_count(stat, monkeypatch):
    monkeypatch.setattr(quiet, "usable_cores", lambda: {1})
    assert quiet.cores_busy() == pytest.approx(0.1)


def test_a_system_that_does_not_tell_is_not_known(stat, monkeypatch):
    monkeypatch.setattr(quiet, "sleep", lambda seconds: None)  # a counter that stands still
    assert quiet.cores_busy() is None
    monkeypatch.setattr(quiet, "STAT", stat.with_name("missing"))
    assert quiet.cores_busy() is None
