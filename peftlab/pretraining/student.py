"""The student's two forms: a bag of word pieces, and the BERT encoder that follows it.

A bag learns at thousands of sentences a second which pieces of all languages mean the same, but
knows no order. With that knowledge, a part of the teacher becomes the encoder (start.py).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from peftlab.pretraining.teacher import word_means

if TYPE_CHECKING:
    from transformers import PreTrainedModel


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
    """The encoder with a head that guesses hidden pieces and one for the teacher's word states.

    The first is kept with the encoder, the second is thrown away.

    Args:
        encoder: A ``BertModel``.
        kept: Which coordinates of the teacher's sentence vectors its own stand for, int64 [d].
        taught: Width of the teacher's word states.
        frequency: [vocabulary], how often each piece occurs; the bias of the head for masked
            language modelling starts at its logarithm, so that it need not be learned.
    """

    def __init__(self, encoder: nn.Module, kept: Tensor, taught: int, frequency: Tensor) -> None:
        super().__init__()
        self.encoder: Any = encoder
        self.kept = kept
        d = len(kept)
        config: Any = encoder.config
        norm = nn.LayerNorm(d, eps=config.layer_norm_eps)
        self.head = nn.Sequential(nn.Linear(d, d), nn.GELU(), norm)
        self.bias = nn.Parameter((frequency / frequency.sum() + 1e-6).log())
        self.word_head = nn.Linear(d, taught)

    def forward(self, ids: Tensor, types: Tensor, mask: Tensor) -> Tensor:
        """Map ids, token types and attention mask, each [B, L], to states [B, L, d]."""
        return self.encoder(
            input_ids=ids, token_type_ids=types, attention_mask=mask
        ).last_hidden_state

    def words(self, hidden: Tensor, owners: Tensor, number: int) -> Tensor:
        """Return what stands for the teacher's states of words, [number, d_teacher]."""
        return self.word_head(word_means(hidden, owners, number))

    @torch.no_grad()
    def language_model(self) -> PreTrainedModel:
        """Return the encoder with its head as transformers knows it, sharing the encoder."""
        from transformers import BertForMaskedLM

        whole = BertForMaskedLM(self.encoder.config)
        whole.bert = self.encoder
        whole.tie_weights()
        transform = whole.cls.predictions.transform
        transform.dense.load_state_dict(self.head[0].state_dict())
        transform.LayerNorm.load_state_dict(self.head[2].state_dict())
        whole.cls.predictions.bias.copy_(self.bias)
        return whole

    def masked_loss(self, hidden: Tensor, labels: Tensor) -> Tensor:
        """Cross-entropy of the masked pieces; ``labels`` is -100 elsewhere.

        The decoder is the word embedding itself.
        """
        chosen = labels >= 0
        table = self.encoder.embeddings.word_embeddings.weight
        state = self.head(hidden[chosen])
        logits = state @ table.T.to(state.dtype)
        return F.cross_entropy(logits.float() + self.bias, labels[chosen])
