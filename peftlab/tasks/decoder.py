"""The head that says which piece is hidden: from states back to words, by the words' own vectors.

The head that was pretrained with the encoder is taken over, where its checkpoint has one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from peftlab.errors import SettingsError
from peftlab.tasks.heads import IGNORED, Batch, Head

if TYPE_CHECKING:
    from peftlab.encoders import Encoder
    from peftlab.methods.work import States, Tape

#: Pieces that are scored at a time: each has a logit for every word of the vocabulary.
CHUNK = 256


class LanguageModelHead(Head):
    r"""Every state → a logit for every piece of the vocabulary.

    .. math:: s = LN(f(W h + b)), \qquad logits = E\,A^{-1}(s) + c

    with the encoder's word vectors :math:`E \in R^{V \times d}`, which belong to the encoder: here
    they are neither trained nor counted nor saved. :math:`A^{-1}` is the inverse of the method's
    invertible adapter, if it has one. The head's own are :math:`W, b, LN` and :math:`c`.

    They are those of the encoder's checkpoint, if it has a head for masked language modelling
    (``cls.predictions`` of BERT, ``lm_head`` of RoBERTa). A fresh one is drawn otherwise: W from
    N(0, 0.02²), biases 0, and the gain of LN such that the first logits are of order 1, however
    long the word vectors are.

    Sources: Devlin et al. 2019 (arXiv 1810.04805), section 3.1, released code; the inverse:
    Pfeiffer et al. 2020, MAD-X (arXiv 2005.00052), section on invertible adapters.

    Args:
        hidden_size: d.
        trained: Whether the head's own parameters train; None: only a fresh head's do.
    """

    kind = "language-model"
    labelled_only = True

    def __init__(self, hidden_size: int, *, trained: bool | None = None) -> None:
        super().__init__()
        self.settings = {
            "kind": self.kind,
            "hidden_size": hidden_size,
            "layers": 1,
            "trained": trained,
        }
        self.trained = trained
        self.dense = nn.Linear(hidden_size, hidden_size)
        self.norm = nn.LayerNorm(hidden_size)
        nn.init.normal_(self.dense.weight, std=0.02)
        nn.init.zeros_(self.dense.bias)
        self.encoder: Encoder | None = None

    @torch.no_grad()
    def bind(self, encoder: Encoder) -> None:
        """Take over the encoder's pretrained head if there is one, and refer to its words."""
        from transformers.activations import get_activation

        from peftlab.encoders import language_model_head

        self.encoder = encoder
        config: Any = encoder.backbone.config
        self.activation = get_activation(
            config.hidden_act if config.model_type == "bert" else "gelu"
        )
        self.norm.eps = config.layer_norm_eps
        words = self._words()
        self.bias = nn.Parameter(words.new_zeros(len(words)))
        pretrained = language_model_head(encoder)
        if pretrained is None:
            self.norm.weight.fill_(1).div_(words.float().pow(2).mean().mul(words.shape[1]).sqrt())
        else:
            self.load_state_dict(pretrained)
        self.requires_grad_(pretrained is None if self.trained is None else self.trained)
        self.settings["outputs"] = len(words)

    def forward(self, hidden: Tensor, batch: Batch) -> Tensor:
        """Return logits of the pieces that are asked for; all of them would seldom fit into memory.

        Args:
            hidden: States [batch, length, d].
            batch: With ``labels``, logits [n, V] of the n positions whose label is not -100. With
                ``targets`` instead (labels that are only compared), [batch, length, 2]: the
                log-probability of the target, and 1 if no piece is likelier. Else logits
                [batch, length, V].
        """
        if "labels" in batch:
            return self.logits(hidden[batch["labels"] != IGNORED])
        if "targets" in batch:
            return self._compared(hidden, batch["targets"])
        return self.logits(hidden)

    def loss(self, logits: Tensor, batch: Batch) -> Tensor:
        """Return the mean cross-entropy of the hidden pieces; labels [batch, length]."""
        labels = batch["labels"][batch["labels"] != IGNORED]
        total = F.cross_entropy(logits.float(), labels, reduction="sum")
        return total / max(1, len(labels))

    def products(self, tape: Tape, x: States) -> None:
        """Note the maps of x: the states of hidden pieces, as no others are mapped in training."""
        embeddings: Any = self._embeddings()
        x = tape.linear(x, self.dense.weight.numel(), self.dense.weight.requires_grad)
        if hasattr(embeddings, "inverse"):
            x = embeddings.undone(tape, x)
        tape.linear(x, self._words().numel(), self._words().requires_grad)

    def logits(self, states: Tensor) -> Tensor:
        """Map states [..., d] to logits [..., V]."""
        embeddings: Any = self._embeddings()
        states = self.norm(self.activation(self.dense(states)))
        if hasattr(embeddings, "inverse"):  # there are parts behind the embeddings
            states = embeddings.inverse(states)
        return F.linear(states, self._words(), self.bias)

    def _compared(self, hidden: Tensor, targets: Tensor) -> Tensor:
        chosen = targets != IGNORED
        result = hidden.new_zeros((*targets.shape, 2), dtype=torch.float32)
        found = []
        pieces = zip(hidden[chosen].split(CHUNK), targets[chosen].split(CHUNK), strict=True)
        for states, wanted in pieces:
            # in bf16 the likeliest pieces would often be equal, and every tie count as right
            with torch.autocast(states.device.type, enabled=False):
                logits = self.logits(states.to(self.dense.weight.dtype)).float()
            own = logits.gather(-1, wanted.unsqueeze(-1))
            right = (logits <= own).all(-1, keepdim=True)
            found.append(torch.cat([own - logits.logsumexp(-1, keepdim=True), right.float()], -1))
        result[chosen] = torch.cat(found)
        return result

    def _embeddings(self) -> nn.Module:
        if self.encoder is None:
            raise SettingsError(
                "A language-model head decodes with the words of an encoder: call bind(encoder)."
            )
        return self.encoder.anatomy.embeddings.get()

    def _words(self) -> Tensor:
        embeddings: Any = self._embeddings()
        return cast(Tensor, embeddings.word_embeddings.weight)
