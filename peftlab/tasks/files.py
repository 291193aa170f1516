"""Files of rows: JSON lines (also gzipped), JSON, CSV and Parquet; and what is wrong with one."""

from __future__ import annotations

import gzip
import json
import tempfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from peftlab.errors import DataError
from peftlab.tasks.fields import Row

JSON_LINES = (".jsonl", ".jsonl.gz")
#: Suffixes that the ``datasets`` library reads, and its name for each.
BUILDERS = {".json": "json", ".csv": "csv", ".parquet": "parquet"}


def read_json_lines(path: Path) -> list[Row]:
    """Read a file of one JSON object a line, gzipped if its name ends in ``.gz``.

    Args:
        path: The file.

    Returns:
        The rows.

    Raises:
        DataError: The file is empty, damaged or cut short, or a line is no JSON object.
    """
    rows: list[Row] = []
    try:
        with _open(path) as lines:
            for line in lines:
                row = json.loads(line)
                if not isinstance(row, dict):
                    raise ValueError("no JSON object")
                rows.append(row)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise DataError(
            f"The file {path} is damaged or cut short after row {len(rows)}: get it again."
        ) from error
    except ValueError as error:  # bad JSON and bad UTF-8 are ValueErrors
        raise DataError(
            f"Row {len(rows) + 1} of the file {path} is not a JSON object in UTF-8: the file is "
            "damaged or of another format."
        ) from error
    if not rows:
        raise DataError(f"The file {path} is empty: it should hold one JSON object a line.")
    return rows


def _open(path: Path) -> IO[str]:
    if path.suffix == ".gz":
        return gzip.open(path, "rt", encoding="utf-8")
    return path.open(encoding="utf-8")


def read_file(path: Path) -> list[Row]:
    """Read rows from a file whose suffix says its format: JSON lines, JSON, CSV or Parquet.

    Args:
        path: The file.

    Returns:
        The rows.

    Raises:
        DataError: The file is empty or cannot be read.
    """
    if path.name.endswith(JSON_LINES):
        return read_json_lines(path)
    from datasets import Dataset, load_dataset

    if path.stat().st_size == 0:
        raise DataError(f"The file {path} is empty.")
    try:
        with tempfile.TemporaryDirectory() as folder:
            data = load_dataset(
                BUILDERS[path.suffix],
                data_files=str(path),
                split="train",
                cache_dir=folder,
                keep_in_memory=True,
            )
            assert isinstance(data, Dataset)
            return list(data.to_list())
    except Exception as error:  # the readers raise errors of many libraries
        cause = str(error.__cause__ or error).strip().split("\n")[0]
        raise DataError(f"The file {path} cannot be read: {cause}") from error


def find(folder: Path, stem: str) -> Path:
    """Return the file of that name with a known suffix, or raise a DataError."""
    found = next(candidates(folder, (stem,)), None)
    if found is None:
        there = ", ".join(sorted(p.name for p in folder.iterdir())) or "nothing"
        raise DataError(f"The folder {folder} has no file {stem}{JSON_LINES[1]}: it holds {there}.")
    return found


def candidates(folder: Path, stems: tuple[str, ...]) -> Iterator[Path]:
    """Iterate over the files that have one of the names and a known suffix."""
    for stem in stems:
        for suffix in (*JSON_LINES, *BUILDERS):
            if (folder / f"{stem}{suffix}").is_file():
                yield folder / f"{stem}{suffix}"
