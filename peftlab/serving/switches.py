"""Modules that run another version of themselves for some rows of a batch.

Whose rows are where is said from outside, by :class:`Groups`; who puts switches where, and what the
versions are, is in :mod:`peftlab.serving`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from peftlab.methods.sites import EmbeddingSite


@dataclass
class Groups:
    """Which rows of the batch in the encoder are whose; shared by all switches of one encoder.

    Attributes:
        rows: Name of the adapter and its rows, from the first to the last row. Empty: the encoder
            runs as if it had no adapters.
        extra: How many vectors stand before the tokens: the most that one of the adapters has.
    """

    rows: list[tuple[str, slice]] = field(default_factory=list)
    extra: int = 0


class Switch(nn.Module):
    """A module of the backbone of which adapters have versions of their own.

    Every adapter's version runs on its rows; the original on the rows of those that have none.
    """

    def __init__(self, original: nn.Module, own: dict[str, nn.Module], groups: Groups) -> None:
        super().__init__()
        self.original = original
        self.own = own  # a plain dict: these modules belong to the adapters
        self.groups = groups

    def runs(self) -> Iterator[tuple[nn.Module, slice]]:
        """Yield every version that is needed, with its rows."""
        chosen = ((self.own.get(name, self.original), rows) for name, rows in self.groups.rows)
        for module, together in groupby(chosen, key=lambda pair: pair[0]):
            rows = [rows for _, rows in together]
            yield module, slice(rows[0].start, rows[-1].stop)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Cut the arguments into rows, and join what the versions return."""
        if not self.groups.rows:
            return self.original(*args, **kwargs)
        total = self.groups.rows[-1][1].stop

        def cut(value: Any, rows: slice) -> Any:
            has_rows = isinstance(value, Tensor) and value.dim() > 1 and len(value) == total
            return value[rows] if has_rows else value

        return _joined(
            [
                module(
                    *(cut(value, rows) for value in args),
                    **{name: cut(value, rows) for name, value in kwargs.items()},
                )
                for module, rows in self.runs()
            ]
        )


class EmbeddingSwitch(Switch):
    """The embeddings, of which some adapters make longer sequences than others.

    The shorter ones begin with zero vectors, which the attention mask hides from all tokens: their
    weight in the attention is exactly zero.
    """

    @property
    def word_embeddings(self) -> nn.Module:
        """The table of word vectors, where transformers looks for it."""
        return cast(nn.Module, self.original.word_embeddings)

    def forward(self, input_ids: Tensor, token_type_ids: Tensor | None = None, **_: Any) -> Tensor:
        """Map ids [batch, extra + length], whose first ones only hold a place, to vectors."""
        if not self.groups.rows:
            return cast(Tensor, self.original(input_ids=input_ids, token_type_ids=token_type_ids))
        vectors = []
        for module, rows in self.runs():
            more = self.groups.extra - extra(module)
            types = None if token_type_ids is None else token_type_ids[rows, more:]
            found = module(input_ids=input_ids[rows, more:], token_type_ids=types)
            vectors.append(F.pad(found, (0, 0, more, 0)))
        return torch.cat(vectors)


def extra(embeddings: nn.Module) -> int:
    """Return how many vectors embeddings put before the tokens."""
    return embeddings.extra if isinstance(embeddings, EmbeddingSite) else 0


def _joined(results: list[Any]) -> Any:
    """Join results along the batch, tuples piece by piece.

    Attention weights [batch, heads, length, p + length] are filled up on the left, where the
    prefixes stand: what an adapter does not have gets no attention.
    """
    first = results[0]
    if isinstance(first, tuple):
        return tuple(_joined(list(pieces)) for pieces in zip(*results, strict=True))
    if not isinstance(first, Tensor):
        return first
    longest = max(result.shape[-1] for result in results)
    return torch.cat([F.pad(result, (longest - result.shape[-1], 0)) for result in results])
