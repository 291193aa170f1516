"""Multiple choice: which of a few texts goes with a premise (COPA, Roemmele et al., 2011)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from peftlab.errors import DataError, SettingsError
from peftlab.tasks import metrics as scores
from peftlab.tasks.base import Evaluation, Task
from peftlab.tasks.fields import CHUNK, Feature, Row, check_length, hidden, inputs, require
from peftlab.tasks.heads import ChoiceHead, Head
from peftlab.tasks.splits import Data

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class ChoiceTask(Task):
    """A premise and two or more choices, one of which is right.

    Every choice is read as a pair with the premise, gets one score, and the highest wins.

    Args:
        name: Short name.
        data: The rows.
        premise: The field with the premise.
        choices: The fields with the choices.
        label: The field with the index of the right choice, from 0.
        ask: A field that says what is asked, such as COPA's ``question``; None: nothing.
        prompts: What to add to the premise for each value of ``ask``; None: the value itself.
        metrics: Out of the metrics of classification; the first is the main one.
        options: As for :class:`Task`.
    """

    kind = "choice"
    known_metrics = ("accuracy",)

    def __init__(
        self,
        name: str,
        data: Data,
        *,
        premise: str = "premise",
        choices: Sequence[str] = ("choice1", "choice2"),
        label: str = "label",
        ask: str | None = None,
        prompts: Mapping[str, str] | None = None,
        metrics: Sequence[str] = ("accuracy",),
        **options: Any,
    ) -> None:
        super().__init__(name, data, metrics=metrics, **options)
        self.premise, self.label, self.ask = premise, label, ask
        self.prompts = dict(prompts or {})
        self.labels = tuple(choices)
        if len(self.labels) < 2:
            raise SettingsError(f"choices names {len(self.labels)} fields: name two or more.")

    def check(self, row: Row, where: str) -> None:
        """Raise a DataError unless all texts are there and the label is the index of a choice."""
        for name in (self.premise, *self.labels):
            require(row, name, str, where, "text")
        if self.ask is not None:
            asked = require(row, self.ask, str, where, "text")
            if self.prompts and asked not in self.prompts:
                known = ", ".join(map(repr, self.prompts))
                raise DataError(
                    f"{where}: the field {self.ask!r} is {asked!r}, but should be one of {known}."
                )
        self._target(row, where)

    def _target(self, row: Row, where: str) -> int:
        label: int = require(row, self.label, int, where, "the index of a choice")
        if not 0 <= label < len(self.labels):
            raise DataError(
                f"{where}: the label {label} is not in the label set 0 to {len(self.labels) - 1}"
                f"{hidden(label)}."
            )
        return label

    @property
    def outputs(self) -> tuple[str, ...]:
        """One score, whatever the number of choices."""
        return ("score",)

    def stratum(self, row: Row) -> Hashable:
        """Return the index of the right choice."""
        label: Hashable = row[self.label]
        return label

    def _first(self, row: Row) -> str:
        if self.ask is None:
            return str(row[self.premise])
        return f"{row[self.premise]} {self.prompts.get(row[self.ask], row[self.ask])}"

    def encode(
        self, rows: Sequence[Row], tokenizer: PreTrainedTokenizerBase, max_length: int
    ) -> list[Feature]:
        """Tokenise premise and choice as pairs; ``input_ids`` is a list of lists, one a choice."""
        check_length(max_length, tokenizer)
        count = len(self.labels)
        features: list[Feature] = []
        for start in range(0, len(rows), CHUNK):
            chunk = rows[start : start + CHUNK]
            encoded = tokenizer(
                [self._first(row) for row in chunk for _ in range(count)],
                [row[name] for row in chunk for name in self.labels],
                truncation=True,
                max_length=max_length,
            )
            for i, row in enumerate(chunk):
                pairs = [inputs(encoded, count * i + c) for c in range(count)]
                feature: Feature = {key: [pair[key] for pair in pairs] for key in pairs[0]}
                feature["row"] = start + i
                if self.label in row:
                    feature["labels"] = self._target(row, f"Row {start + i + 1}")
                features.append(feature)
        return features

    def head(self, hidden_size: int, pooling: str, dropout: float = 0.1) -> Head:
        """Make a head with one score a text."""
        return ChoiceHead(hidden_size, 1, pooling=pooling, dropout=dropout, layers=self.head_layers)

    def predict(
        self, rows: Sequence[Row], features: Sequence[Feature], logits: Sequence[np.ndarray]
    ) -> list[int]:
        """Return the index of the best choice of every row."""
        return [int(np.argmax(row)) for row in logits]

    def score(self, rows: Sequence[Row], predictions: Sequence[Any]) -> Evaluation:
        """Compare choices with the rows' labels."""
        gold = [self._target(row, f"Row {i}") for i, row in enumerate(rows, start=1)]
        return Evaluation(
            scores.classification(gold, predictions, self.metrics),
            [float(g == p) for g, p in zip(gold, predictions, strict=True)],
        )

    def majority(self, train: Sequence[Row], rows: Sequence[Row]) -> list[int]:
        """Predict the position that is right most often in ``train``.

        Rows of ``train`` may have more choices than those of this task.
        """
        positions = [row[self.label] for row in train if row[self.label] < len(self.labels)]
        [(best, _)] = Counter(positions).most_common(1)
        return [best] * len(rows)
