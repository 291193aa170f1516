"""Where the rows of a known data set come from: ``PEFTLAB_DATA``, the hub, or our own generator.

A data set is looked for in that order, as a whole. This file knows no labels and cuts no splits.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from peftlab.errors import DataError, OfflineError, unknown
from peftlab.tasks.catalog import ANY, DataSet
from peftlab.tasks.fields import Row
from peftlab.tasks.files import find, read_file
from peftlab.tasks.splits import Cut, Data


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
            read=lambda split: read_file(find(folder, split)),
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
