"""Tagging: one tag a word. A word's first sub-word carries its tag, the others take no part."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from peftlab.errors import DataError, SettingsError
from peftlab.tasks import metrics as scores
from peftlab.tasks.base import Evaluation, Task
from peftlab.tasks.fields import CHUNK, Feature, Labels, Row, check_length, inputs, require
from peftlab.tasks.heads import IGNORED, Head, TaggingHead
from peftlab.tasks.splits import Data

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

#: What a word gets that the model never saw: it lay behind the longest input.
UNSEEN = "O"


class TaggingTask(Task):
    """A tag for every word: named entities and slots (BIO tags, span F1) or parts of speech.

    Args:
        name: Short name.
        data: The rows.
        tokens: The field with the list of words.
        tags: The field with the list of tags, one a word.
        labels: Tag names in the order of the integer tags; None: those of the train split.
        metrics: Out of ``span_f1``, ``span_precision``, ``span_recall`` and ``accuracy``; None:
            the span metrics for BIO tags, else accuracy.
        options: As for :class:`Task`.
    """

    kind = "tagging"
    known_metrics = scores.TAGGING

    def __init__(
        self,
        name: str,
        data: Data,
        *,
        tokens: str = "tokens",
        tags: str = "tags",
        labels: Sequence[str] | None = None,
        metrics: Sequence[str] | None = None,
        **options: Any,
    ) -> None:
        self.tokens, self.tags = tokens, tags
        super().__init__(name, data, metrics=metrics or ("accuracy",), **options)
        if labels:
            self._label_set = Labels(labels)
        else:
            found, where = self._train_values(tags, list, "a list of tags")
            self._label_set = Labels.found((tag for row in found for tag in row), where)
        self.labels = self._label_set.names
        if metrics is None and all(t == "O" or t[:2] in ("B-", "I-") for t in self.labels):
            self.metrics = scores.TAGGING

    def check(self, row: Row, where: str) -> None:
        """Raise a DataError unless there is one known tag for every word."""
        words = require(row, self.tokens, list, where, "a list of words")
        tags = require(row, self.tags, list, where, "a list of tags")
        if not all(isinstance(word, str) for word in words):
            raise DataError(f"{where}: the field {self.tokens!r} holds something that is no text.")
        if len(words) != len(tags):
            raise DataError(f"{where} has {len(words)} words, but {len(tags)} tags.")
        for tag in tags:
            self._label_set.index(tag, where)

    def encode(
        self, rows: Sequence[Row], tokenizer: PreTrainedTokenizerBase, max_length: int
    ) -> list[Feature]:
        """Tokenise the words joined by spaces; ``words`` and ``at`` say which word starts where.

        Words behind ``max_length`` cannot be seen; a warning gives their number, and they count as
        predicted "O".
        """
        check_length(max_length, tokenizer)
        if not tokenizer.is_fast:
            raise SettingsError("Tagging needs a fast tokenizer, which knows where a token stands.")
        features: list[Feature] = []
        lost = 0
        for start in range(0, len(rows), CHUNK):
            chunk = rows[start : start + CHUNK]
            encoded = tokenizer(
                [" ".join(row[self.tokens]) for row in chunk],
                truncation=True,
                max_length=max_length,
                return_offsets_mapping=True,
            )
            for i, row in enumerate(chunk):
                at, words = first_subwords(row[self.tokens], encoded["offset_mapping"][i])
                feature = inputs(encoded, i) | {"row": start + i, "at": at, "words": words}
                if self.tags in row:
                    labels = [IGNORED] * len(feature["input_ids"])
                    for position, word in zip(at, words, strict=True):
                        tag = row[self.tags][word]
                        labels[position] = self._label_set.index(tag, f"Row {start + i + 1}")
                    feature["labels"] = labels
                features.append(feature)
                if len(feature["input_ids"]) == max_length:
                    lost += len(row[self.tokens]) - len(words)
        if lost:
            warnings.warn(
                f"{lost} words of {self.name!r} lie behind max_length={max_length} and count as "
                "predicted 'O': raise max_length to see them.",
                stacklevel=2,
            )
        return features

    def head(self, hidden_size: int, pooling: str, dropout: float = 0.1) -> Head:
        """Make a head with one output a tag; ``pooling`` plays no part."""
        return TaggingHead(hidden_size, len(self.labels), dropout=dropout, layers=self.head_layers)

    def predict(
        self, rows: Sequence[Row], features: Sequence[Feature], logits: Sequence[np.ndarray]
    ) -> list[list[str]]:
        """Return the most likely tag of every word, "O" for words that were not seen."""
        result = [[UNSEEN] * len(row[self.tokens]) for row in rows]
        for feature, scored in zip(features, logits, strict=True):
            best = scored[feature["at"]].argmax(-1) if feature["at"] else []
            for word, tag in zip(feature["words"], best, strict=True):
                result[feature["row"]][word] = self.labels[tag]
        return result

    def score(self, rows: Sequence[Row], predictions: Sequence[Any]) -> Evaluation:
        """Compare tags with the rows' tags."""
        gold = [
            [self.labels[self._label_set.index(tag, f"Row {i}")] for tag in row[self.tags]]
            for i, row in enumerate(rows, start=1)
        ]
        return Evaluation(
            scores.tagging(gold, predictions, self.metrics),
            [
                float(np.mean([g == p for g, p in zip(gs, ps, strict=True)])) if gs else 1.0
                for gs, ps in zip(gold, predictions, strict=True)
            ],
        )

    def majority(self, train: Sequence[Row], rows: Sequence[Row]) -> list[list[str]]:
        """Predict the tag that ``train`` has most often, for every word."""
        counts = Counter(tag for row in train for tag in row[self.tags])
        [(best, _)] = counts.most_common(1)
        name = self.labels[self._label_set.index(best, "A train row")]
        return [[name] * len(row[self.tokens]) for row in rows]


def first_subwords(
    words: Sequence[str], offsets: Sequence[tuple[int, int]]
) -> tuple[list[int], list[int]]:
    """Find the first token of every word of a text that was joined by single spaces.

    Args:
        words: The words.
        offsets: Start and end of every token in the text; special tokens are empty.

    Returns:
        Positions of tokens and, beside them, the words that they start. A word of which no token
        is left (it was cut off, or is blank) is in neither.
    """
    spans = []
    end = -1
    for text in words:
        start = end + 1
        end = start + len(text)
        spans.append((start, end))
    at: list[int] = []
    found: list[int] = []
    word = 0
    for position, (start, stop) in enumerate(offsets):
        if start == stop:
            continue
        while word < len(spans) and spans[word][1] <= start:
            word += 1
        if word < len(spans) and stop > spans[word][0] and (not found or found[-1] != word):
            at.append(position)
            found.append(word)
    return at, found
