"""Classification and regression of single sentences and of pairs: one label or number a row."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from peftlab.errors import DataError, SettingsError
from peftlab.tasks import metrics as scores
from peftlab.tasks.base import Evaluation, Task
from peftlab.tasks.fields import CHUNK, LABEL, Feature, Labels, Row, check_length, inputs, require
from peftlab.tasks.heads import ClassificationHead, Head, RegressionHead
from peftlab.tasks.splits import Data

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class _SentenceTask(Task):
    """What classification and regression share: one or two text fields and their encoding."""

    def __init__(
        self, name: str, data: Data, *, text: Sequence[str], label: str, **options: Any
    ) -> None:
        super().__init__(name, data, **options)
        self.text = (text,) if isinstance(text, str) else tuple(text)
        self.label = label
        if len(self.text) not in (1, 2):
            raise SettingsError(
                f"text names {len(self.text)} fields: name one, or two for sentence pairs."
            )

    def target(self, row: Row, where: str) -> float:
        """Return the row's label as the loss wants it, or raise a DataError."""
        raise NotImplementedError

    def check(self, row: Row, where: str) -> None:
        """Raise a DataError unless the texts are texts and the label is one."""
        for name in self.text:
            require(row, name, str, where, "text")
        self.target(row, where)

    def encode(
        self, rows: Sequence[Row], tokenizer: PreTrainedTokenizerBase, max_length: int
    ) -> list[Feature]:
        """Tokenise; of a text or pair that is too long the end (of its longer part) is cut off."""
        check_length(max_length, tokenizer)
        features = []
        for start in range(0, len(rows), CHUNK):
            chunk = rows[start : start + CHUNK]
            columns = [[row[name] for row in chunk] for name in self.text]
            encoded = tokenizer(*columns, truncation=True, max_length=max_length)
            for i, row in enumerate(chunk):
                feature = inputs(encoded, i) | {"row": start + i}
                if self.label in row:
                    feature["labels"] = self.target(row, f"Row {start + i + 1}")
                features.append(feature)
        return features


class ClassificationTask(_SentenceTask):
    """One of several labels for a sentence or a pair.

    Args:
        name: Short name.
        data: The rows.
        text: One text field, or two for pairs.
        label: The field with the label.
        labels: Label names in the order of the integer labels; None: those of the train split.
        metrics: Out of ``accuracy`` (which is micro-F1 over all classes), ``macro_f1``, ``f1`` and
            ``mcc``; the first is the main one.
        options: As for :class:`Task`.
    """

    kind = "classification"
    known_metrics = scores.CLASSIFICATION

    def __init__(
        self,
        name: str,
        data: Data,
        *,
        text: Sequence[str] = ("text",),
        label: str = "label",
        labels: Sequence[str] | None = None,
        metrics: Sequence[str] = ("accuracy", "macro_f1"),
        **options: Any,
    ) -> None:
        super().__init__(name, data, text=text, label=label, metrics=metrics, **options)
        if labels:
            self._label_set = Labels(labels)
        else:
            self._label_set = Labels.found(*self._train_values(label, (str, int), LABEL))
        self.labels = self._label_set.names
        if not self.labels:
            raise DataError(f"The train split of {name!r} holds no rows to take labels from.")
        if len(self.labels) < 2:
            raise DataError(
                f"The field {label!r} of {name!r} has a single label {self.labels[0]!r}: there is "
                "nothing to learn; name two or more, or another field with label=…"
            )

    def target(self, row: Row, where: str) -> int:
        """Return the index of the row's label."""
        value = require(row, self.label, (str, int), where, LABEL)
        return self._label_set.index(value, where)

    def stratum(self, row: Row) -> Hashable:
        """Return the row's label."""
        label: Hashable = row[self.label]
        return label

    def head(self, hidden_size: int, pooling: str, dropout: float = 0.1) -> Head:
        """Make a head with one output a label."""
        return ClassificationHead(
            hidden_size,
            len(self.labels),
            pooling=pooling,
            dropout=dropout,
            layers=self.head_layers,
        )

    def predict(
        self, rows: Sequence[Row], features: Sequence[Feature], logits: Sequence[np.ndarray]
    ) -> list[str]:
        """Return the name of the most likely label of every row."""
        return [self.labels[int(np.argmax(row))] for row in logits]

    def score(self, rows: Sequence[Row], predictions: Sequence[Any]) -> Evaluation:
        """Compare label names with the rows' labels."""
        gold = [self.target(row, f"Row {i}") for i, row in enumerate(rows, start=1)]
        predicted = [self.labels.index(name) for name in predictions]
        return Evaluation(
            scores.classification(gold, predicted, self.metrics),
            [float(g == p) for g, p in zip(gold, predicted, strict=True)],
        )

    def majority(self, train: Sequence[Row], rows: Sequence[Row]) -> list[str]:
        """Predict the label that ``train`` has most often."""
        [(best, _)] = Counter(self.target(row, "A train row") for row in train).most_common(1)
        return [self.labels[best]] * len(rows)


class RegressionTask(_SentenceTask):
    """A number for a sentence or a pair; scored by correlation.

    Args:
        name: Short name.
        data: The rows.
        text: One text field, or two for pairs.
        label: The field with the number.
        metrics: Out of ``pearson`` and ``spearman``; the first is the main one.
        options: As for :class:`Task`.
    """

    kind = "regression"
    known_metrics = scores.REGRESSION

    def __init__(
        self,
        name: str,
        data: Data,
        *,
        text: Sequence[str] = ("text",),
        label: str = "label",
        metrics: Sequence[str] = scores.REGRESSION,
        **options: Any,
    ) -> None:
        super().__init__(name, data, text=text, label=label, metrics=metrics, **options)

    def target(self, row: Row, where: str) -> float:
        """Return the row's number."""
        value = float(require(row, self.label, (float, int), where, "a number"))
        if not math.isfinite(value):
            raise DataError(f"{where}: the field {self.label!r} is {value}, not a finite number.")
        return value

    def head(self, hidden_size: int, pooling: str, dropout: float = 0.1) -> Head:
        """Make a head with a single output."""
        return RegressionHead(
            hidden_size, 1, pooling=pooling, dropout=dropout, layers=self.head_layers
        )

    def predict(
        self, rows: Sequence[Row], features: Sequence[Feature], logits: Sequence[np.ndarray]
    ) -> list[float]:
        """Return the number of every row."""
        return [float(value) for value in logits]

    def score(self, rows: Sequence[Row], predictions: Sequence[Any]) -> Evaluation:
        """Correlate numbers with the rows' numbers."""
        gold = [self.target(row, f"Row {i}") for i, row in enumerate(rows, start=1)]
        return Evaluation(
            scores.regression(gold, predictions, self.metrics),
            [-((g - p) ** 2) for g, p in zip(gold, predictions, strict=True)],
        )

    def majority(self, train: Sequence[Row], rows: Sequence[Row]) -> list[float]:
        """Predict the mean of ``train``."""
        return [float(np.mean([self.target(row, "A train row") for row in train]))] * len(rows)
