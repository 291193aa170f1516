"""Extractive question answering: the answer is a span of the context (SQuAD 1.1).

A context that is too long is read through several windows that overlap; the best span of all
windows is the answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from peftlab.errors import DataError, SettingsError
from peftlab.tasks import metrics as scores
from peftlab.tasks.base import Evaluation, Task
from peftlab.tasks.fields import CHUNK, Feature, Row, check_length, hidden, inputs, require, short
from peftlab.tasks.heads import Head, QuestionHead
from peftlab.tasks.splits import Data

if TYPE_CHECKING:
    from transformers import BatchEncoding, PreTrainedTokenizerBase

#: The shortest input that holds a piece of question and a piece of context.
SHORTEST = 16


class QuestionTask(Task):
    """Questions whose answers are spans of a context. Rajpurkar et al., 2016.

    Args:
        name: Short name.
        data: The rows.
        question: The field with the question.
        context: The field with the context.
        answers: The field with ``{"text": [...], "answer_start": [...]}``, starts in characters.
        stride: Tokens that two windows share; at most a quarter of the longest input is used.
        max_question: Longest question in tokens, at most a third of the longest input; the rest of
            a longer one is cut off.
        max_answer: Longest answer in tokens.
        metrics: Out of ``f1`` and ``exact_match``; the first is the main one.
        options: As for :class:`Task`.
    """

    kind = "qa"
    known_metrics = scores.QUESTIONS

    def __init__(
        self,
        name: str,
        data: Data,
        *,
        question: str = "question",
        context: str = "context",
        answers: str = "answers",
        stride: int = 128,
        max_question: int = 64,
        max_answer: int = 30,
        metrics: Sequence[str] = scores.QUESTIONS,
        **options: Any,
    ) -> None:
        super().__init__(name, data, metrics=metrics, **options)
        self.question, self.context, self.answers = question, context, answers
        self.stride, self.max_question, self.max_answer = stride, max_question, max_answer

    def check(self, row: Row, where: str) -> None:
        """Raise a DataError unless every answer stands in the context where it says."""
        require(row, self.question, str, where, "text")
        context = require(row, self.context, str, where, "text")
        answers = require(row, self.answers, dict, where, "{'text': […], 'answer_start': […]}")
        texts = require(answers, "text", list, where, "a list of answers")
        starts = require(answers, "answer_start", list, where, "a list of character positions")
        if not texts or len(texts) != len(starts):
            raise DataError(
                f"{where} has {len(texts)} answers and {len(starts)} starts: every question needs "
                f"an answer, and every answer a start{'' if texts else hidden('')}."
            )
        for text, start in zip(texts, starts, strict=True):
            if not text:
                raise DataError(f"{where}: the answer is blank{hidden(text)}.")
            if context[start : start + len(text)] != text:
                raise DataError(
                    f"{where}: the answer {short(text)} does not stand at character {start} of the "
                    f"field {self.context!r}."
                )

    def encode(
        self, rows: Sequence[Row], tokenizer: PreTrainedTokenizerBase, max_length: int
    ) -> list[Feature]:
        """Tokenise question and context into one or more windows a row.

        ``labels`` are the first answer's (start, end) tokens, both (0, 0) where the window does not
        hold it; ``offsets`` [length, 2] are the characters of context tokens, (-1, -1) elsewhere.
        """
        check_length(max_length, tokenizer)
        if max_length < SHORTEST:
            raise SettingsError(
                f"max_length is {max_length}: a question with its context needs {SHORTEST} or more."
            )
        if not tokenizer.is_fast:
            raise SettingsError("Answers need a fast tokenizer, which knows where a token stands.")
        features: list[Feature] = []
        for begin in range(0, len(rows), CHUNK):
            chunk = rows[begin : begin + CHUNK]
            encoded = tokenizer(
                self._questions(chunk, tokenizer, min(self.max_question, max_length // 3)),
                [row[self.context] for row in chunk],
                truncation="only_second",
                max_length=max_length,
                stride=min(self.stride, max_length // 4),
                return_overflowing_tokens=True,
                return_offsets_mapping=True,
            )
            windows = encoded["overflow_to_sample_mapping"]
            for i, number in enumerate(windows):
                offsets = np.array(encoded["offset_mapping"][i], dtype=np.int32)
                offsets[~in_context(encoded, i)] = -1
                feature = inputs(encoded, i) | {"row": begin + number, "offsets": offsets}
                if self.answers in chunk[number]:
                    first = windows[i - 1 : i] != [number]
                    last = windows[i + 1 : i + 2] != [number]
                    feature["labels"] = self._span(chunk[number], offsets, first, last)
                features.append(feature)
        return features

    def _questions(
        self, rows: Sequence[Row], tokenizer: PreTrainedTokenizerBase, longest: int
    ) -> list[str]:
        """Return the questions, cut after ``longest`` tokens."""
        questions = [row[self.question].strip() for row in rows]
        encoded = tokenizer(
            questions,
            add_special_tokens=False,
            truncation=True,
            max_length=longest,
            return_offsets_mapping=True,
        )
        return [
            question[: offsets[-1][1]] if len(offsets) == longest else question
            for question, offsets in zip(questions, encoded["offset_mapping"], strict=True)
        ]

    def _span(self, row: Row, offsets: np.ndarray, first: bool, last: bool) -> tuple[int, int]:
        """Return the tokens of the answer, or (0, 0) where the window does not hold all of it.

        Its edges may have no token: a space, or an accent that the tokenizer strips.
        """
        text, begin = (row[self.answers][key][0] for key in ("text", "answer_start"))
        end = begin + len(text)
        tokens = np.flatnonzero((offsets[:, 0] < end) & (offsets[:, 1] > begin))
        inside = np.flatnonzero(offsets[:, 0] >= 0)
        if not len(tokens):
            return (0, 0)
        left = 0 if first else offsets[inside[0], 0]
        right = len(row[self.context]) if last else offsets[inside[-1], 1]
        if begin < left or end > right:
            return (0, 0)
        return (int(tokens[0]), int(tokens[-1]))

    def head(self, hidden_size: int, pooling: str, dropout: float = 0.1) -> Head:
        """Make a head with a start and an end score a token; ``pooling`` plays no part."""
        return QuestionHead(hidden_size, 2, dropout=dropout, layers=self.head_layers)

    def predict(
        self, rows: Sequence[Row], features: Sequence[Feature], logits: Sequence[np.ndarray]
    ) -> list[str]:
        """Return the text of the best span over all windows of every row.

        The best span maximises start + end logit (Devlin et al., 2019, section 4.2) over spans of
        at most ``max_answer`` tokens of the context.
        """
        best = [(-np.inf, "")] * len(rows)
        for feature, scored in zip(features, logits, strict=True):
            offsets = feature["offsets"]
            inside = offsets[:, 0] >= 0
            if not inside.any():
                continue
            value, first, last = best_span(
                np.where(inside, scored[:, 0], -np.inf),
                np.where(inside, scored[:, 1], -np.inf),
                self.max_answer,
            )
            row = feature["row"]
            if value > best[row][0]:
                text = rows[row][self.context][offsets[first, 0] : offsets[last, 1]]
                best[row] = (value, text.strip())
        return [text for _, text in best]

    def score(self, rows: Sequence[Row], predictions: Sequence[Any]) -> Evaluation:
        """Compare answers with the rows' reference answers, of which the best counts."""
        pairs = [(p, row[self.answers]["text"]) for row, p in zip(rows, predictions, strict=True)]
        f1 = [scores.answer_f1(p, references) for p, references in pairs]
        values = {
            "f1": float(np.mean(f1)),
            "exact_match": float(np.mean([scores.exact_match(p, refs) for p, refs in pairs])),
        }
        return Evaluation({name: values[name] for name in self.metrics}, f1)


def in_context(encoded: BatchEncoding, i: int) -> np.ndarray:
    """Say which tokens of the i-th window are of its second text [length].

    Without special tokens around the texts, later windows do not say of which text a token is; what
    is neither special nor of the first text is of the second.
    """
    parts, special = encoded.sequence_ids(i), encoded[i].special_tokens_mask
    return np.array([p != 0 and not s for p, s in zip(parts, special, strict=True)])


def best_span(start: np.ndarray, end: np.ndarray, longest: int) -> tuple[float, int, int]:
    """Find the span i ≤ j < i + longest that maximises start[i] + end[j].

    Args:
        start: Scores [length].
        end: Scores [length].
        longest: Most tokens of a span.

    Returns:
        The sum, i and j.
    """
    padded = np.concatenate([end, np.full(longest - 1, -np.inf)])
    sums = start[:, None] + np.lib.stride_tricks.sliding_window_view(padded, longest)
    i, ahead = np.unravel_index(int(sums.argmax()), sums.shape)
    return float(sums[i, ahead]), int(i), int(i + ahead)
