"""Batches for the encoder stage: about equally many tokens each, examples of one length together.

A batch is a function of (seed, step) alone, so a resumed run sees what the killed one would have.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from peftlab.pretraining.examples import Example, Source
from peftlab.pretraining.recipe import Recipe
from peftlab.pretraining.teacher import Lessons, Words, pad

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

FAR = 1 << 20  # keeps the words of two segments apart
POOL = 16  # batches drawn at once, so that examples of one length can share a batch


class Pieces:
    """The ids of words; each word is cut into pieces once.

    Args:
        tokenizer: Does it.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self.tokenizer = tokenizer
        self.known: dict[str, list[int]] = {}

    def __call__(self, texts: Iterable[Words]) -> list[list[list[int]]]:
        """Return for each text the ids of each of its words."""
        texts = list(texts)
        new = list(dict.fromkeys(w for words in texts for w in words if w not in self.known))
        if new:
            ids = self.tokenizer(new, add_special_tokens=False)["input_ids"]
            self.known.update(zip(new, ids, strict=True))
        return [[self.known[word] for word in words] for words in texts]


@dataclass(frozen=True)
class Encoded:
    """An example as ids.

    Attributes:
        ids: Its tokens.
        types: The segment of each.
        links: The place of the English word that each token belongs to; -1 for none.
        target: Index of the English text; -1 for none.
    """

    ids: list[int]
    types: list[int]
    links: list[int]
    target: int


@dataclass(frozen=True)
class Batch:
    """What one step works on.

    Attributes:
        ids: [B, L].
        types: [B, L], the segment of each token.
        targets: [B], indices of English texts; -1 for none.
        owners: [B, L], which of the W taught words each token belongs to; -1 for none.
        states: [W, d_teacher], the teacher's states of these words.
    """

    ids: Tensor
    types: Tensor
    targets: Tensor
    owners: Tensor
    states: Tensor


class Batches:
    """Called with a step, returns its batch.

    Args:
        recipe: Its seed and encoder stage.
        source: Draws the examples.
        tokenizer: Turns them into ids.
        lessons: What the teacher says about ``source.english``.
    """

    def __init__(
        self,
        recipe: Recipe,
        source: Source,
        tokenizer: PreTrainedTokenizerBase,
        lessons: Lessons,
    ) -> None:
        self.seed, self.settings = recipe.seed, recipe.encoder_stage
        self.source, self.tokenizer, self.lessons = source, tokenizer, lessons
        self.pieces = Pieces(tokenizer)
        self.number = -1
        self.pool: list[list[Encoded]] = []

    def __call__(self, step: int) -> Batch:
        """Return the batch of a step."""
        number, place = divmod(step, POOL)
        if number != self.number:
            rng = np.random.default_rng([self.seed, 2, number])
            self.number, self.pool = number, self._fill(rng)
        rows = self.pool[place]
        owners, states = self._teach(rows)
        return Batch(
            pad([row.ids for row in rows], self.tokenizer.pad_token_id),
            pad([row.types for row in rows]),
            torch.tensor([row.target for row in rows]),
            pad(owners, -1),
            states,
        )

    def _teach(self, rows: list[Encoded]) -> tuple[list[list[int]], Tensor]:
        """Number the words that the teacher has states for, and fetch these."""
        owners: list[list[int]] = []
        states = [torch.empty(0, self.lessons.sentences.shape[1])]
        number = 0
        for row in rows:
            links, segment = np.array(row.links), np.array(row.types) * FAR
            known = self.lessons.places[row.target, 2] if row.target >= 0 else 0
            taught = (links >= 0) & (links < known)
            words, which = np.unique((links + segment)[taught], return_inverse=True)
            owner = np.full(len(links), -1)
            owner[taught] = number + which
            owners.append(owner.tolist())
            if len(words):
                states.append(self.lessons.states(row.target, words % FAR).float())
            number += len(words)
        return owners, torch.cat(states)

    def _fill(self, rng: np.random.Generator) -> list[list[Encoded]]:
        rows: list[Encoded] = []
        wanted = POOL * self.settings.tokens
        while wanted > 0:
            for row in self._encode(self.source.draw(256, rng)):
                rows.append(row)
                wanted -= len(row.ids)
        rows.sort(key=lambda row: len(row.ids))
        ends = np.cumsum([len(row.ids) for row in rows])
        cuts = np.searchsorted(ends, ends[-1] * np.arange(1, POOL) / POOL).tolist()
        pool = [rows[a:b] for a, b in zip([0, *cuts], [*cuts, len(rows)], strict=True)]
        return [pool[i] for i in rng.permutation(POOL)]

    def _encode(self, examples: list[Example]) -> list[Encoded]:
        start, end = self.tokenizer.cls_token_id, self.tokenizer.sep_token_id
        texts = self.pieces(segment.words for e in examples for segment in e.segments)
        pieces, rows = iter(texts), []
        for example in examples:
            ids, types, links = [start], [0], [-1]
            room = (self.settings.max_length - 1) // len(example.segments) - 1
            for number, segment in enumerate(example.segments):
                words = next(pieces)
                owned = [[link] * len(w) for w, link in zip(words, segment.links, strict=True)]
                kept = list(chain.from_iterable(words))[:room]
                ids += [*kept, end]
                links += [*list(chain.from_iterable(owned))[:room], -1]
                types += [number] * (len(kept) + 1)
            rows.append(Encoded(ids, types, links, example.target))
        return rows
