"""Files are written whole or not at all, whenever the writer dies."""

from __future__ import annotations

import multiprocessing
import os

import pytest

from peftlab.files import replacing


def write(path, text):
    with replacing(path) as temporary:
        temporary.write_text(text)


def write_forever(path, started):
    count = 0
    while True:
        write(path, f"{count % 10}" * 200_000)
        started.set()
        count += 1


def test_a_killed_writer_leaves_a_whole_file(tmp_path):
    context = multiprocessing.get_context("fork")
    path = tmp_path / "file.json"
    for _ in range(10):
        started = context.Event()
        process = context.Process(target=write_forever, args=(path, started))
        process.start()
        started.wait(10)
        process.kill()
        process.join()
        text = path.read_text()
        assert len(text) == 200_000
        assert len(set(text)) == 1
    for left_over in tmp_path.glob(".*.tmp"):
        os.utime(left_over, (0, 0))
    write(path, "whole")
    assert [p.name for p in tmp_path.iterdir()] == ["file.json"]  # nothing old is left over


def test_the_file_of_a_living_writer_is_left_alone(tmp_path):
    path = tmp_path / "file.json"
    with replacing(path) as temporary:
        temporary.write_text("mine")
        other = tmp_path / ".file.json.1.tmp"
        other.write_text("theirs")
    assert path.read_text() == "mine"
    assert other.read_text() == "theirs"


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "file.json"
    write(path, "old")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        write(path, "new")
    assert path.read_text() == "old"
