"""Where rows come from: the folder ``PEFTLAB_DATA``, the hub, our own generator, or the user.

A data set that is known by name is looked for in that order, as a whole. This file reads files and
says what is wrong with them; it knows no labels and cuts no splits.
"""

from __future__ import annotations

import gzip
import json
import os
import tempfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import IO, Any

from peftlab.errors import DataError, OfflineError, unknown
from peftlab.tasks.catalog import ANY, DataSet
from peftlab.tasks.fields import Row
from peftlab.tasks.splits import Cut, Data

JSON_LINES = (".jsonl", ".jsonl.gz")
#: Suffixes that the ``datasets`` library reads, and its name for each.
BUILDERS = {".json": "json", ".csv": "csv", ".parquet": "parquet"}
#: Names under which a user's splits are found.
ALIASES = {"train": ("train",), "dev": ("dev", "validation", "valid", "val"), "test": ("test",)}


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


def open_dataset(dataset: DataSet, config: str | None) -> Data:
    """Find a data set of the catalogue; reads no rows yet.

    Args:
        dataset: Its row in the table.
        config: Its config, if it has configs.

    Returns:
        Where its rows come from.

    Raises:
        DataError: ``PEFTLAB_DATA`` is no folder.
        UnknownNameError: There is no such config.
    """
    name = f"{dataset.name}/{config}" if config else dataset.name
    splits, missing = dict(dataset.splits), ""
    cut: Cut | None = dataset.cut
    if dataset.trained_in is not None and config not in dataset.trained_in:
        splits, cut = {"test": splits["test"]}, None
        missing = f"it is for zero-shot evaluation; train on {dataset.name}/{dataset.trained_in[0]}"
    if dataset.generated:
        return Data(
            read=lambda split: _generate(dataset, config, split),
            where=lambda split: f"{name}, split {split!r}",
            splits=splits,
            origin={"source": "generated", "dataset": name},
            missing=missing,
        )
    folder = _folder(dataset, config)
    path = "/".join(filter(None, (dataset.folder, config)))
    if folder is not None:
        return Data(
            read=lambda split: read_file(_file(folder, (split,))),
            where=lambda split: f"{path}/{split} in PEFTLAB_DATA",
            splits=splits,
            origin={"source": "folder", "dataset": path},
            cut=cut,
            missing=missing,
        )
    hub_config = config if dataset.config == "{config}" else dataset.config
    return Data(
        read=lambda split: _from_hub(dataset, hub_config, split, name, f"{path}/{split}.jsonl.gz"),
        where=lambda split: f"{name}, split {split!r} on the hub",
        splits=splits,
        origin={
            "source": "hub",
            "dataset": dataset.hub,
            "config": hub_config,
            "revision": dataset.revision,
        },
        cut=cut,
        missing=missing,
    )


def _folder(dataset: DataSet, config: str | None) -> Path | None:
    """Return the data set's folder under PEFTLAB_DATA, if it is there."""
    root = os.environ.get("PEFTLAB_DATA")
    if not root:
        return None
    if not Path(root).is_dir():
        raise DataError(f"PEFTLAB_DATA names {root!r}, which is no folder.")
    folder = Path(root) / dataset.folder
    if config and folder.is_dir() and not (folder / config).is_dir() and dataset.configs == ANY:
        there = [p.name for p in folder.iterdir() if p.is_dir()]
        error = unknown(f"config of {dataset.name} in PEFTLAB_DATA", config, there)
        if "did you mean" in str(error):
            raise error
    folder = folder / config if config else folder
    return folder if folder.is_dir() else None


def _file(folder: Path, stems: tuple[str, ...]) -> Path:
    found = next(_files(folder, stems), None)
    if found is None:
        there = ", ".join(sorted(p.name for p in folder.iterdir())) or "nothing"
        raise DataError(
            f"The folder {folder} has no file {stems[0]}{JSON_LINES[1]}: it holds {there}."
        )
    return found


def _files(folder: Path, stems: tuple[str, ...]) -> Iterator[Path]:
    for stem in stems:
        for suffix in (*JSON_LINES, *BUILDERS):
            if (folder / f"{stem}{suffix}").is_file():
                yield folder / f"{stem}{suffix}"


def _generate(dataset: DataSet, config: str | None, split: str) -> list[Row]:
    from peftlab.tasks import pocket

    return list(pocket.rows(dataset.name.removeprefix("pocket/"), config or "en", split))


def _from_hub(dataset: DataSet, config: str | None, split: str, name: str, place: str) -> list[Row]:
    hint = f"put it at {place} in a folder and set PEFTLAB_DATA to that folder"
    if dataset.hub is None:
        raise OfflineError(f"The data set {name!r} is not on the hub: {hint} ({dataset.source}).")
    try:
        splits = _hub_splits(dataset.hub, config, dataset.revision)
    except Exception as error:  # datasets, huggingface_hub, httpx and requests each raise their own
        offline = (
            "HF_HUB_OFFLINE is set" if os.environ.get("HF_HUB_OFFLINE") else "is there a network"
        )
        cause = str(error).strip().split("\n")[0].rstrip(".")
        raise OfflineError(
            f"The data set {name!r} cannot be had from the hub ({offline}: {cause}); to work "
            f"offline, {hint}."
        ) from error
    if split not in splits:
        raise DataError(f"{dataset.hub} has no split {split!r} (it has {', '.join(splits)}).")
    return list(splits[split].to_list())


@cache
def _hub_splits(hub: str, config: str | None, revision: str | None) -> Mapping[str, Any]:
    from datasets import load_dataset

    splits: Mapping[str, Any] = load_dataset(hub, config, revision=revision)
    return splits


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
    files = {split: next(_files(folder, stems), None) for split, stems in ALIASES.items()}
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
