"""No shortcut solves a pocket task: not half of a pair, not shared words, not length, not place.

Each baseline is a logistic regression on train, scored on test; its score must be near chance. Dev
has the words of train, so half a pair is tried there as well. (The words of sentiment and topic do
tell the label, as they should; held-out words are what makes their test need more than counting.)
"""

from __future__ import annotations

import re
from collections import Counter
from typing import Any

import numpy as np
import pytest

from peftlab.tasks import pocket

PAIRS = {"nli": ("premise", "hypothesis"), "paraphrase": ("sentence1", "sentence2")}
CHANCE = {"nli": 1 / 3, "paraphrase": 1 / 2, "copa": 1 / 2, "sentiment": 1 / 2, "topic": 1 / 6}


def words(text: str) -> set[str]:
    return set(re.findall(r"\w+", text.lower()))


def accuracy(train: Any, train_labels: Any, test: Any, test_labels: Any) -> float:
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import MaxAbsScaler

    scale = MaxAbsScaler().fit(train)
    model = LogisticRegression(max_iter=1000).fit(scale.transform(train), train_labels)
    return float(model.score(scale.transform(test), test_labels))


def bag_of_words(task: str, field: str, split: str) -> float:
    from sklearn.feature_extraction.text import CountVectorizer

    count = CountVectorizer(ngram_range=(1, 2))
    rows = {s: pocket.rows(task, "en", s) for s in ("train", split)}
    labels = {s: [r["label"] for r in rows[s]] for s in rows}
    train = count.fit_transform(r[field] for r in rows["train"])
    test = count.transform(r[field] for r in rows[split])
    return accuracy(train, labels["train"], test, labels[split])


@pytest.mark.parametrize("split", ["dev", "test"])
@pytest.mark.parametrize(
    ("task", "field"),
    [(task, field) for task, fields in PAIRS.items() for field in fields]
    + [("copa", field) for field in ("premise", "choice1", "choice2")],
)
def test_one_text_of_a_pair_does_not_tell(task: str, field: str, split: str) -> None:
    assert bag_of_words(task, field, split) <= CHANCE[task] + 0.10


@pytest.mark.parametrize("language", pocket.LANGUAGES)
@pytest.mark.parametrize("task", PAIRS)
def test_shared_words_do_not_tell(task: str, language: str) -> None:
    def features(row: dict[str, Any]) -> list[float]:
        first, second = (words(row[field]) for field in PAIRS[task])
        return [
            len(first & second),
            len(first & second) / len(first | second),
            len(first - second),
            len(second - first),
        ]

    rows = {s: pocket.rows(task, language, s) for s in ("train", "test")}
    table = {s: np.array([features(r) for r in rows[s]]) for s in rows}
    labels = {s: [r["label"] for r in rows[s]] for s in rows}
    score = accuracy(table["train"], labels["train"], table["test"], labels["test"])
    assert score <= CHANCE[task] + 0.15


@pytest.mark.parametrize("task", ["nli", "paraphrase", "copa", "sentiment", "topic"])
def test_length_does_not_tell(task: str) -> None:
    def features(row: dict[str, Any]) -> list[int]:
        values = [v for v in row.values() if isinstance(v, str)]
        return [n for v in values for n in (len(v), len(v.split()))]

    rows = {s: pocket.rows(task, "en", s) for s in ("train", "test")}
    table = {s: np.array([features(r) for r in rows[s]]) for s in rows}
    labels = {s: [r["label"] for r in rows[s]] for s in rows}
    score = accuracy(table["train"], labels["train"], table["test"], labels["test"])
    assert score <= CHANCE[task] + 0.15


@pytest.mark.parametrize("split", pocket.SIZES)
def test_a_choice_is_as_often_right_as_wrong(split: str) -> None:
    right: Counter[str] = Counter()
    wrong: Counter[str] = Counter()
    for row in pocket.rows("copa", "en", split):
        choices = (row["choice1"], row["choice2"])
        right[choices[row["label"]]] += 1
        wrong[choices[1 - row["label"]]] += 1
    assert right == wrong


def test_shared_words_do_not_tell_the_choice() -> None:
    rows = pocket.rows("copa", "en", "test")
    shared = [
        [len(words(r["premise"]) & words(r[c])) for c in ("choice1", "choice2")] for r in rows
    ]
    right = [
        0.5 if a == b else float((b > a) == r["label"])
        for (a, b), r in zip(shared, rows, strict=True)
    ]
    assert np.mean(right) <= 0.60


@pytest.mark.parametrize("language", pocket.LANGUAGES)
def test_the_place_of_a_sentence_does_not_tell_the_answer(language: str) -> None:
    places: Counter[int] = Counter()
    for row in pocket.rows("qa", language, "test"):
        start = row["answers"]["answer_start"][0]
        places[row["context"][:start].count(". ")] += 1
    assert max(places.values()) / places.total() <= 0.40


def test_a_third_of_ner_words_are_entities_of_all_kinds() -> None:
    counts = Counter(t for r in pocket.rows("ner", "en", "test") for t in r["ner_tags"])
    total = counts.total()
    assert 0.15 <= 1 - counts[0] / total <= 0.60
    assert all(counts[t] / total >= 0.04 for t in (1, 3, 5))


def test_plain_words_outweigh_negation_in_sentiment() -> None:
    for split in pocket.SIZES:
        rows = pocket.rows("sentiment", "en", split)
        negated = ["not" in words(row["sentence"]) for row in rows]
        assert 0.10 <= np.mean(negated) <= 0.30
