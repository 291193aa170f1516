"""The student's two forms: a bag of word pieces, and the BERT encoder that takes over from it.

A bag learns word meanings at thousands of sentences a second, but knows no order. The encoder
starts as (almost) the same function of the sentence as the trained bag and goes on from there.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from peftlab.pretraining.teacher import mean_pool

WORD_SIZE = 0.5  # root mean square of a word vector's coordinates when the encoder takes over


class Bag(nn.Module):
    """The mean of word-piece vectors: s = Σ_p e_p / length, with token dropout in training.

    Args:
        vocabulary: Number of pieces.
        width: d.
        dropout: Probability with which a piece is left out.
    """

    def __init__(self, vocabulary: int, width: int, dropout: float) -> None:
        super().__init__()
        self.table = nn.Embedding(vocabulary, width)
        nn.init.normal_(self.table.weight, std=0.02)
        self.dropout = dropout

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Map [B, L] ids to sentence vectors [B, d]; special tokens are not counted."""
        if self.training:
            kept = mask & (torch.rand(mask.shape) >= self.dropout)
            mask = torch.where(kept.any(1, keepdim=True), kept, mask)
        weights = mask.float()
        weights = weights / weights.sum(1, keepdim=True)
        lengths = mask.sum(1)
        offsets = torch.cat([lengths.new_zeros(1), lengths.cumsum(0)[:-1]])
        return F.embedding_bag(
            ids[mask], self.table.weight, offsets, mode="sum", per_sample_weights=weights[mask]
        )


class Student(nn.Module):
    """The encoder with a head for masked language modelling, which is thrown away afterwards.

    Args:
        config: A ``BertConfig``.
        bag: The trained bag.
        frequency: [vocabulary], how often each piece occurs; the head's bias starts at its
            logarithm, so that it need not be learned.
    """

    def __init__(self, config: Any, bag: Tensor, frequency: Tensor) -> None:
        super().__init__()
        from transformers import BertModel

        self.encoder = BertModel(config, add_pooling_layer=False)
        d = config.hidden_size
        self.head = nn.Sequential(nn.Linear(d, d), nn.GELU(), nn.LayerNorm(d))
        self.bias = nn.Parameter((frequency / frequency.sum() + 1e-6).log())
        take_over(self.encoder, bag, frequency)

    def forward(self, ids: Tensor, types: Tensor, mask: Tensor) -> Tensor:
        """Map ids, token types and attention mask, each [B, L], to states [B, L, d]."""
        return self.encoder(
            input_ids=ids, token_type_ids=types, attention_mask=mask
        ).last_hidden_state

    def pool(self, hidden: Tensor, mask: Tensor) -> Tensor:
        """Return the sentence vectors: the raw mean of the states."""
        return mean_pool(hidden.float(), mask)

    def masked_loss(self, hidden: Tensor, labels: Tensor) -> Tensor:
        """Cross-entropy of the masked pieces; ``labels`` is -100 elsewhere.

        The decoder is the word embedding itself, divided by √d because its rows are long.
        """
        chosen = labels >= 0
        table = self.encoder.embeddings.word_embeddings.weight
        state = self.head(hidden[chosen])
        logits = state @ table.T.to(state.dtype) / math.sqrt(table.shape[1])
        return F.cross_entropy(logits.float() + self.bias, labels[chosen])


@torch.no_grad()
def take_over(encoder: nn.Module, bag: Tensor, frequency: Tensor) -> None:
    """Start the encoder as the bag: its mean pool is then nearly the bag's sentence vector.

    Layer normalisation would make all word vectors equally long, but their length is what the bag
    knows about how much a word matters. So the last coordinate of every token gets a constant
    a = √d, much longer than the word's part: then std ≈ √(a²/d + WORD_SIZE²) ≈ 1.1 for every
    token, and a gain of that size makes each normalisation almost the identity. The bias of the
    last one takes the constant away again. (Trained BERTs grow such coordinates by themselves:
    Kovaleva et al. 2021, "BERT Busters".)

    Args:
        encoder: A fresh ``BertModel``.
        bag: [vocabulary, d].
        frequency: [vocabulary]; the mean word length is taken over running text.
    """
    width = bag.shape[1]
    constant = math.sqrt(width)
    weights = (frequency / frequency.sum()).unsqueeze(1)
    size = float((weights * bag.pow(2)).sum().div(width).sqrt())
    words = bag * (WORD_SIZE / size)
    words[:, -1] = 0
    embeddings: Any = encoder.embeddings
    embeddings.word_embeddings.weight.copy_(words)
    embeddings.position_embeddings.weight.mul_(WORD_SIZE)
    embeddings.position_embeddings.weight[:, -1] = 0
    embeddings.token_type_embeddings.weight.mul_(WORD_SIZE)
    embeddings.token_type_embeddings.weight[:, -1] = constant
    for module in encoder.modules():
        if isinstance(module, nn.Linear):
            module.weight[:, -1] = 0  # the constant is carried, not read
    gain = math.sqrt(constant**2 / width + WORD_SIZE**2)
    norms = [module for module in encoder.modules() if isinstance(module, nn.LayerNorm)]
    for norm in norms:
        norm.weight.fill_(gain)
    last = norms[-1]
    last.bias[-1] = -constant
