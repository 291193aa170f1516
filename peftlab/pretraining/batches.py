"""Batches for the encoder stage: about equally many tokens each, examples of one length together.

A batch is a function of (seed, step) alone, so a resumed run sees what the killed one would have.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from peftlab.pretraining.examples import Example, Source
from peftlab.pretraining.recipe import Recipe
from peftlab.pretraining.teacher import pad

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

POOL = 16  # batches drawn at once, so that examples of one length can share a batch


class Batches:
    """Called with a step, returns its batch.

    Args:
        recipe: Its seed and encoder stage.
        source: Draws the examples.
        tokenizer: Turns them into ids.
    """

    def __init__(self, recipe: Recipe, source: Source, tokenizer: PreTrainedTokenizerBase) -> None:
        self.seed, self.settings = recipe.seed, recipe.encoder_stage
        self.source, self.tokenizer = source, tokenizer
        self.number, self.pool = -1, []  # type: ignore[var-annotated]

    def __call__(self, step: int) -> tuple[Tensor, Tensor, Tensor]:
        """Return ids [B, L], token types [B, L] and target indices [B] of a step."""
        number, place = divmod(step, POOL)
        if number != self.number:
            self.number, self.pool = (
                number,
                self._fill(np.random.default_rng([self.seed, 2, number])),
            )
        rows = self.pool[place]
        return (
            pad([row["ids"] for row in rows], self.tokenizer.pad_token_id),
            pad([row["types"] for row in rows]),
            torch.tensor([row["target"] for row in rows]),
        )

    def _fill(self, rng: np.random.Generator) -> list[list[dict[str, Any]]]:
        rows: list[dict[str, Any]] = []
        wanted = POOL * self.settings.tokens
        while wanted > 0:
            for example in self._encode(self.source.draw(256, rng)):
                rows.append(example)
                wanted -= len(example["ids"])
        rows.sort(key=lambda row: len(row["ids"]))
        ends = np.cumsum([len(row["ids"]) for row in rows])
        cuts = np.searchsorted(ends, ends[-1] * np.arange(1, POOL) / POOL).tolist()
        pool = [rows[a:b] for a, b in zip([0, *cuts], [*cuts, len(rows)], strict=True)]
        return [pool[i] for i in rng.permutation(POOL)]

    def _encode(self, examples: list[Example]) -> list[dict[str, Any]]:
        texts = [(e.text, e.second) if e.second else e.text for e in examples]
        encoded = self.tokenizer(texts, truncation=True, max_length=self.settings.max_length)
        return [
            {"ids": ids, "types": types, "target": example.target}
            for example, ids, types in zip(
                examples, encoded["input_ids"], encoded["token_type_ids"], strict=True
            )
        ]
