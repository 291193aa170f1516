"""Hiding pieces of a text for masked language modelling. This file knows no model and no task."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from peftlab.errors import SettingsError
from peftlab.tasks.fields import Feature
from peftlab.tasks.heads import IGNORED

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def mask_tokens(
    ids: Tensor,
    special: Tensor,
    rate: float,
    mask_id: int,
    vocabulary: int,
    generator: torch.Generator | None = None,
) -> tuple[Tensor, Tensor]:
    """Hide pieces for masked language modelling, as BERT does (Devlin et al. 2019, section 3.1).

    Of the chosen pieces 80 % become the mask, 10 % a random piece, 10 % stay.

    Args:
        ids: [B, L].
        special: [B, L], true where nothing may be chosen.
        rate: Probability of being chosen.
        mask_id: The mask's id.
        vocabulary: Number of pieces.
        generator: Draws; by default torch's own.

    Returns:
        The changed ids, and labels that are -100 where nothing was chosen.
    """
    chosen = (torch.rand(ids.shape, generator=generator) < rate) & ~special
    labels = ids.masked_fill(~chosen, IGNORED)
    what = torch.rand(ids.shape, generator=generator)
    ids = torch.where(chosen & (what < 0.8), torch.full_like(ids, mask_id), ids)
    random = torch.randint(5, vocabulary, ids.shape, generator=generator)
    return torch.where(chosen & (what >= 0.9), random, ids), labels


@dataclass(frozen=True, eq=False)
class Masking:
    """How the pieces of a tokenizer are hidden.

    Attributes:
        rate: Share of the pieces that is hidden.
        mask_id: The mask's id.
        vocabulary: Number of pieces.
        special: Ids that are never hidden.
    """

    rate: float
    mask_id: int
    vocabulary: int
    special: Tensor

    @classmethod
    def of(cls, tokenizer: PreTrainedTokenizerBase, rate: float) -> Masking:
        """Read off a tokenizer what is needed.

        Raises:
            SettingsError: It has no mask.
        """
        if tokenizer.mask_token_id is None:
            raise SettingsError(
                "The encoder's tokenizer has no mask token: masked language modelling needs an "
                "encoder that was trained with one, such as BERT or XLM-R."
            )
        special = torch.tensor(tokenizer.all_special_ids)
        return cls(rate, tokenizer.mask_token_id, len(tokenizer), special)

    def hide(self, ids: list[int], random: np.random.Generator) -> tuple[list[int], list[int]]:
        """Hide pieces of a text, one at least if there is one that may be hidden.

        Returns:
            The changed ids, and labels that are -100 where nothing was hidden.
        """
        generator = _generator(random)
        while True:
            shown, labels = self._draw(ids, generator)
            if set(labels) != {IGNORED} or torch.isin(torch.tensor(ids), self.special).all():
                return shown, labels

    def __call__(self, feature: Feature, random: np.random.Generator) -> Feature:
        """Return a feature with other pieces of its ``original`` hidden, as a training step wants.

        Each piece is hidden with the same probability, so that of a short text often none is. It
        has no ``targets``: the loss needs ``labels`` only.
        """
        ids, labels = self._draw(feature["original"], _generator(random))
        kept = {key: value for key, value in feature.items() if key != "targets"}
        return kept | {"input_ids": ids, "labels": labels}

    def _draw(self, ids: list[int], generator: torch.Generator) -> tuple[list[int], list[int]]:
        pieces = torch.tensor(ids)
        special = torch.isin(pieces, self.special)
        shown, labels = mask_tokens(
            pieces, special, self.rate, self.mask_id, self.vocabulary, generator
        )
        return shown.tolist(), labels.tolist()


def _generator(random: np.random.Generator) -> torch.Generator:
    return torch.Generator().manual_seed(int(random.integers(2**63)))
