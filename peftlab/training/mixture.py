"""Which batches an epoch has, and in which order, where several tasks share the steps.

Every batch is of one task. Like a plan, a mixture is a pure function of seed and epoch.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence

import numpy as np

from peftlab.tasks.base import Feature
from peftlab.training import batches


class Mixture:
    """Decides which rows form which batch, over all epochs, where there may be several tasks.

    The tasks' shares of the batches are those of :class:`peftlab.tasks.multi.MultiTask`, rounded to
    whole batches by largest remainder. However few of its batches an epoch has, a task goes through
    its rows as it would alone, in the order of :func:`peftlab.training.batches.plan`; with one task
    an epoch is its plan.

    Args:
        features: Encoded rows of one or several tasks.
        batch_size: Rows a batch.
        temperature: T of the shares, 1 or more.
        seed: Seed of the run.

    Attributes:
        lengths: Tokens of every row.
        shares: Batches of every task in an epoch.
        size: Batches an epoch.
    """

    def __init__(
        self, features: Sequence[Feature], batch_size: int, temperature: float, seed: int
    ) -> None:
        self.lengths = [batches.length(feature) for feature in features]
        self.groups = batches.groups(features)
        self.batch_size, self.seed = batch_size, seed
        self.whole = [math.ceil(len(group) / batch_size) for group in self.groups]
        self.size = sum(self.whole)
        self.shares = shares(self.whole, temperature)

    def epoch(self, epoch: int) -> list[list[int]]:
        """Return the batches of an epoch, numbered from 0, as lists of row indices."""
        queues = [self._queue(task, epoch) for task in range(len(self.groups))]
        order = np.repeat(np.arange(len(self.groups)), self.shares)
        random = np.random.default_rng([self.seed, epoch, len(self.groups)])
        return [next(queues[task]) for task in random.permutation(order)]

    def _queue(self, task: int, epoch: int) -> Iterator[list[int]]:
        """Yield a task's batches from where the epochs before have left off."""
        rows = self.groups[task]
        lengths = [self.lengths[row] for row in rows]
        start, position = divmod(epoch * self.shares[task], self.whole[task])
        for number in itertools.count(start):
            planned = batches.plan(lengths, self.batch_size, self.seed, number, stream=task)
            yield from ([rows[i] for i in batch] for batch in planned[position:])
            position = 0


def shares(whole: Sequence[int], temperature: float) -> list[int]:
    """Divide the batches of an epoch among tasks, p_t ∝ b_t^(1/T), by largest remainder.

    Args:
        whole: b_t, the batches of every task that would show each row once.
        temperature: T, 1 or more; 1 returns ``whole``.

    Returns:
        Batches of every task, one at least, with the sum of ``whole``.
    """
    weights = [b ** (1 / temperature) for b in whole]
    exact = [sum(whole) * weight / sum(weights) for weight in weights]
    found = [math.floor(quota + 1e-9) for quota in exact]  # 1e-9: equal shares are not whole
    by_remainder = sorted(range(len(exact)), key=lambda t: found[t] - exact[t])
    for task in by_remainder[: sum(whole) - sum(found)]:
        found[task] += 1
    return found
