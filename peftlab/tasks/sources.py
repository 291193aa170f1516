"""Where the rows of a known data set come from: ``PEFTLAB_DATA``, the hub, or our own generator.

A data set is looked for in that order, as a whole. This file knows no labels and cuts no splits.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import quote

from peftlab.errors import DataError, OfflineError, PeftlabError, unknown
from peftlab.tasks.catalog import ANY, DataSet
from peftlab.tasks.fields import Row
from peftlab.tasks.files import candidates, find, read_file
from peftlab.tasks.splits import Cut, Data

#: How the ``datasets`` library calls the formats of files on the hub.
FORMATS = {".parquet": "parquet", ".json": "json", ".jsonl": "json"}


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
    trained_in = dataset.trained_in
    train_on = dataset.train_on or (f"{dataset.name}/{trained_in[0]}" if trained_in else "")
    if trained_in is not None and config not in trained_in:
        splits, cut = {"test": splits["test"]}, None
        missing = f"it is for zero-shot evaluation; train on {train_on}"
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
    changed = {"rows": dataset.changed} if dataset.change else {}
    if folder is not None:
        there = {s: file for s, file in splits.items() if any(candidates(folder, (file,)))}
        if dataset.configs and there and there != splits:
            splits, missing = there, "PEFTLAB_DATA has no file for it"
            missing += f"; train on {train_on}" if train_on and "train" not in there else ""
        return Data(
            read=lambda split: _changed(dataset, read_file(find(folder, split))),
            where=lambda split: f"{path}/{split} in PEFTLAB_DATA",
            splits=splits,
            origin={"source": "folder", "dataset": path} | changed,
            cut=cut,
            missing=missing,
        )
    place = f"{path}/{{split}}.jsonl.gz"
    return Data(
        read=lambda split: _changed(dataset, _from_hub(dataset, config, split, name, place)),
        where=lambda split: f"{name}, split {split!r} on the hub",
        splits=splits,
        origin={
            "source": "hub",
            "dataset": dataset.hub,
            "config": _hub_config(dataset, config),
            "revision": dataset.revision,
        }
        | changed,
        cut=cut,
        missing=missing,
    )


def _changed(dataset: DataSet, rows: list[Row]) -> list[Row]:
    """Return the rows that are used, of those that are stored."""
    if dataset.change is None:
        return rows
    return [each for row in rows for each in dataset.change(row)]


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


def _generate(dataset: DataSet, config: str | None, split: str) -> list[Row]:
    from peftlab.tasks import pocket

    return list(pocket.rows(dataset.name.removeprefix("pocket/"), config or "en", split))


def _hub_config(dataset: DataSet, config: str | None) -> str | None:
    """Return the config that is opened on the hub; None: the only one, or files."""
    if dataset.config is None or dataset.files:
        return None
    return dataset.config.format(config=dataset.on_hub(config))


def _from_hub(dataset: DataSet, config: str | None, split: str, name: str, place: str) -> list[Row]:
    hint = f"put it at {place.format(split=split)} in a folder and set PEFTLAB_DATA to that folder"
    own = dataset.on_hub(config)
    if dataset.hub is None or (config and own is None):
        source = f" ({dataset.source})" if dataset.source else ""
        raise OfflineError(f"The data set {name!r} is not on the hub: {hint}{source}.")
    try:
        if dataset.files:
            file = dataset.files.format(config=own, split=split)
            splits = _hub_file(dataset.hub, file, split, dataset.revision)
        else:
            splits = _hub_splits(dataset.hub, _hub_config(dataset, config), dataset.revision)
    except Exception as error:  # datasets, huggingface_hub, httpx and requests each raise their own
        raise _explained(error, dataset, name, hint) from error
    if split not in splits:
        raise DataError(f"{dataset.hub} has no split {split!r} (it has {', '.join(splits)}).")
    rows = list(splits[split].to_list())
    if dataset.part:
        rows = [row for row in rows if str(row[dataset.part]).startswith(f"{own}-")]
    return rows


def _explained(error: Exception, dataset: DataSet, name: str, hint: str) -> PeftlabError:
    """Return the error that says in a sentence what went wrong on the hub."""
    from huggingface_hub.errors import RevisionNotFoundError

    if any(isinstance(each, RevisionNotFoundError) for each in _chain(error)):
        return DataError(
            f"The revision {dataset.revision!r} of {dataset.hub} is gone from the hub: name "
            f"another in the row {dataset.name!r} of peftlab/tasks/catalog, or {hint}."
        )
    there = re.match(r"BuilderConfig '(.+)' not found\. Available: \[(.*)\]", str(error))
    if there:
        known = re.findall(r"'([^']+)'", there[2])
        return unknown(f"config of {dataset.hub} on the hub", there[1], known)
    offline = "HF_HUB_OFFLINE is set" if os.environ.get("HF_HUB_OFFLINE") else "is there a network"
    cause = str(error).strip().split("\n")[0].rstrip(".")
    return OfflineError(
        f"The data set {name!r} cannot be had from the hub ({offline}: {cause}); to work offline, "
        f"{hint}."
    )


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """Iterate over an error and those that it came from."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


@cache
def _hub_splits(hub: str, config: str | None, revision: str | None) -> Mapping[str, Any]:
    from datasets import load_dataset

    splits: Mapping[str, Any] = load_dataset(hub, config, revision=revision)
    return splits


@cache
def _hub_file(hub: str, file: str, split: str, revision: str | None) -> Mapping[str, Any]:
    from datasets import load_dataset

    place = f"hf://datasets/{hub}@{quote(revision or 'main', safe='')}/{file}"
    data_files = {split: place}
    splits: Mapping[str, Any] = load_dataset(FORMATS[Path(file).suffix], data_files=data_files)
    return splits
