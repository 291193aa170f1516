"""From encoded rows to batches of tensors, with little padding.

Rows of like length go into one batch, and a batch is padded to its own longest row. All rows of a
batch are of one task. The order is a pure function of seed and epoch, so that a resumed run sees
what an uninterrupted one would have.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from peftlab.tasks.base import Feature
from peftlab.tasks.heads import IGNORED

Batch = dict[str, Any]

#: Rows are sorted by length within this many batches, then the batches are shuffled.
WINDOW = 50


def length(feature: Feature) -> int:
    """Return the number of tokens that a row takes in a batch (the longest of its choices)."""
    ids = feature["input_ids"]
    return max(map(len, ids)) if ids and isinstance(ids[0], list) else len(ids)


def label_count(feature: Feature) -> int:
    """Return the number of labels that a row brings into the mean of the loss."""
    labels = feature.get("labels")
    return sum(label != IGNORED for label in labels) if isinstance(labels, list) else 1


def varied(feature: Feature, *key: int) -> Feature:
    """Return a row as one training step sees it: changed where its ``vary`` changes it.

    Args:
        feature: Encoded row; ``vary`` maps it and a random generator to another one.
        key: Decides the random state: seed, step and row.
    """
    vary = feature.get("vary")
    return feature if vary is None else vary(feature, np.random.default_rng(key))


def groups(features: Sequence[Feature]) -> list[list[int]]:
    """Return the row indices of every task, by ``group`` or ``task`` of the features; or all."""
    found: dict[Any, list[int]] = {}
    for i, feature in enumerate(features):
        found.setdefault(feature.get("group", feature.get("task")), []).append(i)
    return list(found.values())


def plan(
    lengths: Sequence[int], batch_size: int, seed: int, epoch: int, stream: int = 0
) -> list[list[int]]:
    """Decide which rows of a task form which batch in an epoch.

    Rows are shuffled, sorted by length inside windows of 50 batches, cut into batches, and the
    batches shuffled: nearly no padding, and yet another mixture every epoch.

    Args:
        lengths: Tokens of every row.
        batch_size: Rows a batch; the last one may be smaller.
        seed: Seed of the run.
        epoch: Number of the epoch, from 0.
        stream: Number of the task, so that tasks of one size are not shuffled alike.

    Returns:
        Lists of row indices.
    """
    random = np.random.default_rng([seed, epoch, stream])  # with stream 0 the same as without
    order = random.permutation(len(lengths))
    sizes = np.asarray(lengths)
    window = WINDOW * batch_size
    batches: list[list[int]] = []
    for start in range(0, len(order), window):
        chunk = order[start : start + window]
        chunk = chunk[np.argsort(-sizes[chunk], kind="stable")]
        batches += [chunk[i : i + batch_size].tolist() for i in range(0, len(chunk), batch_size)]
    return [batches[i] for i in random.permutation(len(batches))]


def by_length(features: Sequence[Feature], batch_size: int) -> list[list[int]]:
    """Cut the rows of every task into batches from the longest to the shortest, for evaluation."""
    batches = []
    for rows in groups(features):
        order = sorted(rows, key=lambda i: -length(features[i]))
        batches += [order[i : i + batch_size] for i in range(0, len(order), batch_size)]
    return batches


def collate(features: Sequence[Feature], pad_id: int) -> Batch:
    """Pad rows to the longest of them and make tensors.

    Args:
        features: Encoded rows, all of one task.
        pad_id: The tokenizer's padding id.

    Returns:
        ``input_ids``, ``attention_mask`` (and ``token_type_ids`` if there are some), int64
        [batch, length]; with c choices a row they are [batch · c, length] and ``num_choices`` is c.
        ``labels`` if every row has them: int64 [batch], float32 for float labels, [batch, 2] for
        spans (tuples), and [batch, length] padded with -100 for labels a token (lists), as are
        ``targets`` if the rows have them. ``task`` if the rows name theirs.
    """
    first = features[0]["input_ids"]
    batch: Batch = {"task": features[0]["task"]} if "task" in features[0] else {}
    if first and isinstance(first[0], list):
        batch["num_choices"] = len(first)
    longest = max(length(f) for f in features)
    flat = [ids for f in features for ids in _sequences(f["input_ids"])]
    batch["input_ids"] = _pad(flat, longest, pad_id)
    batch["attention_mask"] = _pad([[1] * len(ids) for ids in flat], longest, 0)
    if "token_type_ids" in features[0]:
        types = [ids for f in features for ids in _sequences(f["token_type_ids"])]
        batch["token_type_ids"] = _pad(types, longest, 0)
    if all(f.get("labels") is not None for f in features):
        batch["labels"] = _labels(features, longest)
    if "targets" in features[0]:
        batch["targets"] = _pad([f["targets"] for f in features], longest, IGNORED)
    return batch


def to_device(batch: Batch, device: torch.device) -> Batch:
    """Move a batch's tensors to a device."""
    if device.type == "cpu":
        return batch
    return {
        k: v.to(device, non_blocking=True) if isinstance(v, Tensor) else v for k, v in batch.items()
    }


def token_counts(features: Sequence[Feature], batches: Sequence[Sequence[int]]) -> tuple[int, int]:
    """Return (real, padded): tokens of the rows, and positions computed with padding."""
    real = padded = 0
    for batch in batches:
        rows = [ids for i in batch for ids in _sequences(features[i]["input_ids"])]
        sizes = [len(row) for row in rows]
        real += sum(sizes)
        padded += len(sizes) * max(sizes)
    return real, padded


def _sequences(ids: list[Any]) -> Iterator[list[int]]:
    if ids and isinstance(ids[0], list):
        yield from ids
    else:
        yield ids


def _pad(rows: Sequence[Sequence[int]], longest: int, fill: int) -> Tensor:
    table = np.full((len(rows), longest), fill, dtype=np.int64)
    for i, row in enumerate(rows):
        table[i, : len(row)] = row
    return torch.from_numpy(table)


def _labels(features: Sequence[Feature], longest: int) -> Tensor:
    values = [f["labels"] for f in features]
    if isinstance(values[0], list):
        return _pad(values, longest, IGNORED)
    dtype = torch.float32 if isinstance(values[0], float) else torch.int64
    return torch.tensor(values, dtype=dtype)
