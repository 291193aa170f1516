"""Files are written whole or not at all, whenever the writer dies."""

from __future__ import annotations

import multiprocessing

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
    write(path, "whole")
    assert [p.name for p in tmp_path.iterdir()] == ["file.json"]  # nothing is left over


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "file.json"
    write(path, "old")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        write(path, "new")
    assert path.read_text() == "old"
