"""A user's own data: a folder of files, a DatasetDict, or lists of rows by split."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from peftlab.errors import DataError
from peftlab.tasks.fields import Row
from peftlab.tasks.files import BUILDERS, JSON_LINES, candidates, read_file
from peftlab.tasks.splits import Cut, Data

#: Names under which a user's splits are found.
ALIASES = {"train": ("train",), "dev": ("dev", "validation", "valid", "val"), "test": ("test",)}


def from_folder(folder: Path) -> Data:
    """Find a user's splits in a folder.

    Args:
        folder: Holds ``train``, ``dev`` (or ``validation``) and ``test`` with one of the suffixes
            ``.jsonl``, ``.jsonl.gz``, ``.json``, ``.csv`` or ``.parquet``.

    Returns:
        Where the rows come from.

    Raises:
        DataError: There is no such folder, or no such file in it.
    """
    if not folder.is_dir():
        raise DataError(f"There is no folder {str(folder)!r} to read a task from.")
    files = {split: next(candidates(folder, stems), None) for split, stems in ALIASES.items()}
    paths = {split: path for split, path in files.items() if path is not None}
    if not paths:
        raise DataError(
            f"The folder {folder} holds no split: name the files train, dev and test with one of "
            f"the suffixes {', '.join((*JSON_LINES, *BUILDERS))}."
        )
    return _users(lambda split: read_file(paths[split]), lambda split: str(paths[split]), paths)


def from_mapping(splits: Mapping[str, Any]) -> Data:
    """Take a user's splits from memory.

    Args:
        splits: A ``datasets.DatasetDict``, or lists of rows by split; ``validation`` counts as dev.

    Returns:
        Where the rows come from.

    Raises:
        DataError: No split has a known name, or one is neither a list of rows nor a Dataset.
    """
    names = {
        split: name for split, stems in ALIASES.items() for name in stems[::-1] if name in splits
    }
    if not names:
        raise DataError(
            f"There is no split train, dev or test, only {', '.join(map(repr, splits))}."
        )

    def read(split: str) -> list[Row]:
        rows = splits[names[split]]
        rows = rows.to_list() if hasattr(rows, "to_list") else rows
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            raise DataError(f"The split {names[split]!r} is neither a list of rows nor a Dataset.")
        return rows

    return _users(read, lambda split: f"the split {names[split]!r}", names)


def label_names(splits: Mapping[str, Any], column: str) -> tuple[str, ...] | None:
    """Return the names behind the integers of a ``ClassLabel`` column of a DatasetDict, if any."""
    features = getattr(splits.get("train"), "features", None) or {}
    feature = features.get(column)
    names = getattr(getattr(feature, "feature", feature), "names", None)
    return tuple(names) if names else None


def _users(
    read: Callable[[str], list[Row]], where: Callable[[str], str], splits: Mapping[str, Any]
) -> Data:
    return Data(
        read=cache(read),
        where=where,
        splits={split: split for split in splits},
        origin={"source": "user"},
        cut=None if "dev" in splits else Cut(),
    )
