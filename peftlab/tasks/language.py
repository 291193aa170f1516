"""Masked language modelling: running text, of which a part is hidden and has to be guessed."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from peftlab.errors import DataError, SettingsError
from peftlab.tasks.base import Evaluation, Task
from peftlab.tasks.decoder import LanguageModelHead
from peftlab.tasks.fields import CHUNK, Feature, Row, check_length, require
from peftlab.tasks.heads import IGNORED, Head
from peftlab.tasks.masking import Masking
from peftlab.tasks.splits import Data

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

#: Decides what is hidden when a model is scored: the same for all models with one tokenizer.
SEED = 0

METRICS = ("accuracy", "log_likelihood", "loss", "perplexity")
LOWER_IS_BETTER = ("loss", "perplexity")

#: Columns of a text while it is cut: its ids, what is shown of them, labels, and whose row it is.
ORIGINAL, SHOWN, LABEL, OWNER = range(4)


class LanguageModelTask(Task):
    """Guess hidden pieces of text.

    A share of the pieces is chosen; 80 % of these become the mask, 10 % a random piece, 10 % stay
    (Devlin et al. 2019, section 3.1). In training the choice is another one in every step, a
    function of seed, step and row. When a model is scored it is fixed, so that two models with one
    tokenizer see the same; then every row has one hidden piece at least. Nothing of a long text is
    lost: it is cut into as many sequences as it needs.

    Metrics, over all hidden pieces: ``accuracy``, the share of which no other piece was likelier;
    ``log_likelihood``, the mean of log p in nats; ``loss``, minus that; ``perplexity``, exp(loss).
    The first two may select a model, because for these higher is better. Taught in the chapter on
    language adapters.

    Args:
        name: Short name.
        data: The rows.
        text: The field with the text.
        mask_rate: Share of the pieces that is chosen.
        packed: Join the texts, each followed by a separator, and cut them into sequences of full
            length, for which no padding is needed. Otherwise a sequence is of one row.
        train_head: Whether the transform and bias before the words train. None: only if the
            encoder's checkpoint has none, see :class:`peftlab.tasks.decoder.LanguageModelHead`. The
            word vectors train only with the method's own weights, such as in full fine-tuning.
        metrics: The first is the main one.
        options: As for :class:`Task`.
    """

    kind = "language-model"
    known_metrics = METRICS

    def __init__(
        self,
        name: str,
        data: Data,
        *,
        text: str = "text",
        mask_rate: float = 0.15,
        packed: bool = False,
        train_head: bool | None = None,
        metrics: Sequence[str] = ("accuracy", "loss", "perplexity"),
        **options: Any,
    ) -> None:
        super().__init__(name, data, metrics=metrics, **options)
        if not 0 < mask_rate <= 1:
            raise SettingsError(
                f"mask_rate is {mask_rate!r}: give a share above 0, such as 0.15, and at most 1."
            )
        if self.main_metric in LOWER_IS_BETTER:
            raise SettingsError(
                f"The first metric selects and must be one of which more is better, not "
                f"{self.main_metric!r}: put accuracy or log_likelihood before it."
            )
        if self.head_layers != 1:
            raise SettingsError(
                f"head_layers is {self.head_layers!r}, but the head of a language model is that of "
                "its encoder: leave it out."
            )
        self.text, self.mask_rate, self.packed = text, mask_rate, packed
        self.train_head = train_head

    def check(self, row: Row, where: str) -> None:
        """Raise a DataError unless there is a text."""
        if not require(row, self.text, str, where, "text").strip():
            raise DataError(f"{where}: the field {self.text!r} is empty; leave the row out.")

    def encode(
        self, rows: Sequence[Row], tokenizer: PreTrainedTokenizerBase, max_length: int
    ) -> list[Feature]:
        """Tokenise, hide pieces, and cut into sequences.

        Features have ``targets`` (the same as ``labels``; they are there when a model is scored),
        ``original`` ids, ``owners`` (the row of every piece), and ``vary``.
        """
        check_length(max_length, tokenizer)
        masking = Masking.of(tokenizer, self.mask_rate)
        start, end = tokenizer.cls_token_id, tokenizer.sep_token_id
        body = max_length - 2
        texts = list(self._hidden(rows, tokenizer, masking))
        if self.packed and texts:
            texts = [np.concatenate([_closed(text, end) for text in texts], 1)]
        features = []
        for text in texts:
            for at in range(0, text.shape[1], body):
                piece = text[:, at : at + body]
                labels = [IGNORED, *piece[LABEL].tolist(), IGNORED]
                feature = {
                    "input_ids": [start, *piece[SHOWN].tolist(), end],
                    "labels": labels,
                    "targets": labels,
                    "original": [start, *piece[ORIGINAL].tolist(), end],
                    "owners": piece[OWNER].tolist(),
                    "row": int(piece[OWNER, 0]),
                    "vary": masking,
                }
                if "token_type_ids" in tokenizer.model_input_names:
                    feature["token_type_ids"] = [0] * len(labels)
                features.append(feature)
        return features

    def head(self, hidden_size: int, pooling: str, dropout: float = 0.1) -> Head:
        """Make the head; it is complete once it is bound to an encoder. The others play no part."""
        return LanguageModelHead(hidden_size, trained=self.train_head)

    def predict(
        self, rows: Sequence[Row], features: Sequence[Feature], logits: Sequence[np.ndarray]
    ) -> list[np.ndarray]:
        """Return for every row log p and rightness of its hidden pieces [n, 2]."""
        found: list[list[np.ndarray]] = [[np.empty((0, 2))] for _ in rows]
        for feature, scored in zip(features, logits, strict=True):
            owners = np.asarray(feature["owners"])
            hidden = np.asarray(feature["targets"][1:-1]) != IGNORED
            inside = scored[1:-1]
            for row in np.unique(owners[hidden]):
                found[row].append(inside[hidden & (owners == row)])
        return [np.concatenate(parts) for parts in found]

    def score(self, rows: Sequence[Row], predictions: Sequence[Any]) -> Evaluation:
        """Average over all hidden pieces; a row's score is the share of its pieces that are right.

        It is 1 for a row in which nothing can be hidden.
        """
        pieces = np.concatenate([np.empty((0, 2)), *predictions])
        if not len(pieces):
            raise DataError(f"No piece of {self.name!r} can be hidden: the tokenizer knows none.")
        likelihood, accuracy = (float(value) for value in pieces.mean(0))
        values = {
            "accuracy": accuracy,
            "log_likelihood": likelihood,
            "loss": -likelihood,
            "perplexity": math.exp(min(-likelihood, 700)),  # exp(710) is infinite
        }
        return Evaluation(
            {name: values[name] for name in self.metrics},
            [float(row[:, 1].mean()) if len(row) else 1.0 for row in predictions],
        )

    def _hidden(
        self, rows: Sequence[Row], tokenizer: PreTrainedTokenizerBase, masking: Masking
    ) -> Iterator[np.ndarray]:
        """Yield every text with pieces hidden, as an array of four columns [4, pieces]."""
        for start in range(0, len(rows), CHUNK):
            texts = [row[self.text] for row in rows[start : start + CHUNK]]
            encoded = tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"]
            for row, ids in enumerate(encoded, start=start):
                if ids:
                    shown, labels = masking.hide(ids, np.random.default_rng([SEED, row]))
                    yield np.array([ids, shown, labels, [row] * len(ids)])


def _closed(text: np.ndarray, separator: int) -> np.ndarray:
    """Put a separator behind a text."""
    last = [[separator], [separator], [IGNORED], [text[OWNER, -1]]]
    return np.concatenate([text, last], 1)
