"""Splits: which stored rows are train, dev and test, and how rows are drawn without luck.

Every draw is seeded and stratified. This file reads nothing itself and knows no labels.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from peftlab.tasks.fields import Row

#: Seed of every development split that is cut from a train split.
CUT_SEED = 20240607


@dataclass(frozen=True)
class Cut:
    """How a development split is cut from the train split.

    Attributes:
        share: Its share of the train split.
        most: Its largest size in rows.
        group: A field whose equal values stay on one side, such as the article of a question.
    """

    share: float = 0.1
    most: int = 1000
    group: str | None = None


@dataclass(frozen=True)
class Data:
    """Where a task's rows come from.

    Attributes:
        read: Returns the rows of a stored split.
        where: Says in words where a stored split lies, for errors.
        splits: The stored split behind ``train``, ``dev`` and ``test``, as far as they exist.
        origin: What to write down about the source; no paths of this machine.
        cut: How ``dev`` is cut from ``train`` where no split is stored for it; None: not at all.
        missing: What to say when a split is asked for that is not there.
    """

    read: Callable[[str], list[Row]]
    where: Callable[[str], str]
    splits: Mapping[str, str]
    origin: Mapping[str, Any] = field(default_factory=dict)
    cut: Cut | None = None
    missing: str = ""


@dataclass(frozen=True)
class Draw:
    """How rows are drawn from the splits of a task.

    Attributes:
        sizes: Most rows, by split; the other splits stay whole.
        seed: Decides which.
        share: Where a share of the train split was asked for, and not its size.
    """

    sizes: Mapping[str, int]
    seed: int
    share: float | None = None


def told(draws: Sequence[Draw]) -> dict[str, list[dict[str, Any]]]:
    """Say what the limits of the splits do not: shares, other seeds than 0, and several draws.

    Args:
        draws: In the order in which they are done.

    Returns:
        By split its draws: ``rows`` and ``seed``, and ``share`` where one was asked for. A split
        that is drawn from once, by size and with the seed 0, is missing.
    """
    found: dict[str, list[dict[str, Any]]] = {}
    for draw in draws:
        share = {} if draw.share is None else {"share": draw.share}
        for split, size in draw.sizes.items():
            found.setdefault(split, []).append({"rows": size, "seed": draw.seed} | share)
    return {
        split: each
        for split, each in found.items()
        if len(each) > 1 or each != [{"rows": each[0]["rows"], "seed": 0}]
    }


def development(rows: Sequence[Row], strata: Sequence[Hashable], cut: Cut) -> list[int]:
    """Choose the train rows that become the development split.

    Args:
        rows: The stored train split.
        strata: The stratum of every row.
        cut: How much, and what stays together.

    Returns:
        Row indices, at least one.
    """
    size = min(cut.most, max(1, round(cut.share * len(rows))))
    groups: dict[Any, list[int]] = {}
    if cut.group is not None:
        for i, row in enumerate(rows):
            groups.setdefault(row.get(cut.group), []).append(i)
    names = list(groups)
    chosen: list[int] = []
    for n in stratified_order([None] * len(names), CUT_SEED):
        if len(chosen) + len(groups[names[n]]) <= size:
            chosen += groups[names[n]]
    # without groups, or where every group is larger than the cut, single rows are taken
    return chosen or stratified_order(strata, CUT_SEED)[:size]


def stratified_order(strata: Sequence[Hashable], seed: int) -> list[int]:
    """Order rows so that every beginning of the order keeps the shares of the strata.

    The i-th of the n rows of a stratum, in random order, stands at (i + ½) / n.

    Args:
        strata: The stratum of every row.
        seed: Decides the order inside a stratum, and ties.

    Returns:
        Row indices.
    """
    generator = random.Random(seed)
    noise = [generator.random() for _ in strata]
    members: dict[Hashable, list[int]] = {}
    for i in sorted(range(len(strata)), key=noise.__getitem__):
        members.setdefault(strata[i], []).append(i)
    place = {
        i: (rank + 0.5) / len(rows) for rows in members.values() for rank, i in enumerate(rows)
    }
    return sorted(place, key=lambda i: (place[i], noise[i]))
