"""Heads: small modules that turn an encoder's hidden states into logits, and their losses.

A head is the same for every method, so that methods differ only in what they do to the encoder.
This file knows no data and no tokenizer.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from peftlab.errors import SettingsError, unknown

if TYPE_CHECKING:
    from peftlab.encoders import Encoder
    from peftlab.methods.work import States, Tape

Batch = Mapping[str, Any]

#: Label of a position that takes no part in the loss.
IGNORED = -100

POOLINGS = ("cls", "mean")


def pool(hidden: Tensor, mask: Tensor | None, how: str) -> Tensor:
    """Make one vector of a sequence.

    ``cls`` takes the first state, ``mean`` is Σ mᵢhᵢ / Σ mᵢ over the real tokens, so that padding
    changes neither.

    Args:
        hidden: States [batch, length, d].
        mask: 1 for real tokens, 0 for padding [batch, length]; None: nothing is padding.
        how: ``"cls"`` or ``"mean"``.

    Returns:
        Vectors [batch, d].
    """
    if how == "cls":
        return hidden[:, 0]
    if mask is None:
        return hidden.mean(1)
    return (hidden * mask.unsqueeze(-1)).sum(1) / mask.sum(1, keepdim=True)


class Head(nn.Module, ABC):
    """Base of all heads.

    Attributes:
        settings: Plain values that say which head it is.
    """

    kind: ClassVar[str]
    #: Whether it maps, in training, only the states of tokens that have a label.
    labelled_only: ClassVar[bool] = False
    settings: dict[str, Any]

    def bind(self, encoder: Encoder) -> None:
        """Take what is needed of the encoder that the head stands on; most need nothing."""
        return

    @abstractmethod
    def forward(self, hidden: Tensor, batch: Batch) -> Tensor:
        """Turn hidden states [batch, length, d] into logits."""

    @abstractmethod
    def loss(self, logits: Tensor, batch: Batch) -> Tensor:
        """Return the mean loss over the batch, computed in fp32."""

    def products(self, tape: Tape, x: States) -> None:
        """Note the matrix products over an encoder's output: see :mod:`peftlab.methods.work`.

        Raises:
            SettingsError: They have no closed form.
        """
        raise SettingsError(
            f"The matrix products of a {self.kind} head have no closed form: count them with "
            "peftlab.timing.flops.count."
        )


class LinearHead(Head):
    """One or two linear maps; weights are drawn from N(0, 0.02²), biases are 0.

    :func:`build` makes the same head again from its settings.

    Class attributes:
        pooled: Whether it reads one vector a text, and not one a token.
    """

    pooled: ClassVar[bool] = True

    def __init__(
        self,
        hidden_size: int,
        outputs: int,
        *,
        pooling: str = "cls",
        dropout: float = 0.1,
        layers: int = 1,
    ) -> None:
        super().__init__()
        if pooling not in POOLINGS:
            raise SettingsError(f"pooling is {pooling!r}: choose one of {', '.join(POOLINGS)}.")
        if layers not in (1, 2):
            raise SettingsError(f"head_layers is {layers!r}: a head has 1 or 2 layers.")
        self.settings = {
            "kind": self.kind,
            "hidden_size": hidden_size,
            "outputs": outputs,
            "pooling": pooling,
            "dropout": dropout,
            "layers": layers,
        }
        self.pooling = pooling
        self.dropout = nn.Dropout(dropout)
        self.dense = nn.Linear(hidden_size, hidden_size) if layers == 2 else None
        self.out = nn.Linear(hidden_size, outputs)
        for linear in filter(None, (self.dense, self.out)):
            nn.init.normal_(linear.weight, std=0.02)
            nn.init.zeros_(linear.bias)

    def scores(self, x: Tensor) -> Tensor:
        """Map vectors to outputs: W·drop(x) + b, or W·drop(tanh(V·drop(x) + c)) + b.

        Args:
            x: [..., d].

        Returns:
            [..., outputs].
        """
        x = self.dropout(x)
        if self.dense is not None:
            x = self.dropout(torch.tanh(self.dense(x)))
        result: Tensor = self.out(x)
        return result

    def products(self, tape: Tape, x: States) -> None:
        """Note the one or two linear maps."""
        if self.pooled:
            x = replace(x, length=1)
        if self.dense is not None:
            x = tape.linear(x, self.dense.weight.numel())
        tape.linear(x, self.out.weight.numel())


class ClassificationHead(LinearHead):
    """A sentence or a pair → logits [batch, classes]; softmax cross-entropy."""

    kind = "classification"

    def forward(self, hidden: Tensor, batch: Batch) -> Tensor:
        """Return logits [batch, classes]."""
        return self.scores(pool(hidden, batch.get("attention_mask"), self.pooling))

    def loss(self, logits: Tensor, batch: Batch) -> Tensor:
        """Return the mean cross-entropy; labels are class indices [batch]."""
        return F.cross_entropy(logits.float(), batch["labels"])


class RegressionHead(LinearHead):
    """A sentence or a pair → one number [batch]; mean squared error."""

    kind = "regression"

    def forward(self, hidden: Tensor, batch: Batch) -> Tensor:
        """Return values [batch]."""
        return self.scores(pool(hidden, batch.get("attention_mask"), self.pooling)).squeeze(-1)

    def loss(self, logits: Tensor, batch: Batch) -> Tensor:
        """Return the mean squared error; labels are numbers [batch]."""
        return F.mse_loss(logits.float(), batch["labels"].float())


class TaggingHead(LinearHead):
    """Every token → logits [batch, length, tags]; cross-entropy over the labelled tokens."""

    kind = "tagging"
    pooled = False

    def forward(self, hidden: Tensor, batch: Batch) -> Tensor:
        """Return logits [batch, length, tags]."""
        return self.scores(hidden)

    def loss(self, logits: Tensor, batch: Batch) -> Tensor:
        """Return the mean over labelled tokens; labels [batch, length], -100 takes no part."""
        labels = batch["labels"]
        total = F.cross_entropy(
            logits.float().flatten(0, 1), labels.flatten(), ignore_index=IGNORED, reduction="sum"
        )
        return total / (labels != IGNORED).sum().clamp(min=1)


class QuestionHead(LinearHead):
    """Every token → two logits, "the answer starts here" and "ends here" [batch, length, 2]."""

    kind = "qa"
    pooled = False

    def forward(self, hidden: Tensor, batch: Batch) -> Tensor:
        """Return start and end logits [batch, length, 2]."""
        return self.scores(hidden)

    def loss(self, logits: Tensor, batch: Batch) -> Tensor:
        """Return the mean of the cross-entropies of start and end; labels are indices [batch, 2].

        The softmax runs over the real tokens, so that padding does not change the loss.
        """
        padding = batch["attention_mask"].eq(0).unsqueeze(-1)
        logits = logits.float().masked_fill(padding, -torch.inf)
        return F.cross_entropy(logits, batch["labels"])


class ChoiceHead(LinearHead):
    """c texts a row → one score each, logits [batch, c]; cross-entropy over the choices."""

    kind = "choice"

    def forward(self, hidden: Tensor, batch: Batch) -> Tensor:
        """Return logits [batch, c] from hidden states [batch · c, length, d]."""
        scores = self.scores(pool(hidden, batch.get("attention_mask"), self.pooling))
        count: int = batch["num_choices"]
        return scores.reshape(-1, count)

    def loss(self, logits: Tensor, batch: Batch) -> Tensor:
        """Return the mean cross-entropy; labels are the indices of the right choices [batch]."""
        return F.cross_entropy(logits.float(), batch["labels"])


HEADS: dict[str, type[LinearHead]] = {
    cls.kind: cls
    for cls in (ClassificationHead, RegressionHead, TaggingHead, QuestionHead, ChoiceHead)
}


def build(settings: Mapping[str, Any]) -> LinearHead:
    """Make a head from the ``settings`` of another one; its weights are drawn anew.

    Args:
        settings: As in :attr:`LinearHead.settings`.

    Returns:
        The head.

    Raises:
        UnknownNameError: There is no head of that kind.
    """
    options = dict(settings)
    kind = options.pop("kind")
    if kind not in HEADS:
        raise unknown("kind of head", kind, HEADS)
    return HEADS[kind](**options)
