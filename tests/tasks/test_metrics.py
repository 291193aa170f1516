"""Metrics against numbers worked out by hand; no warnings on degenerate predictions."""

from __future__ import annotations

import math
import warnings

import pytest

from peftlab.tasks import metrics


@pytest.fixture(autouse=True)
def no_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def test_classification():
    gold, predicted = [1, 1, 1, 0, 0, 0], [1, 1, 0, 0, 0, 1]
    values = metrics.classification(gold, predicted, metrics.CLASSIFICATION)
    assert values["accuracy"] == pytest.approx(4 / 6)
    assert values["f1"] == values["macro_f1"] == pytest.approx(2 / 3)
    assert values["mcc"] == pytest.approx((2 * 2 - 1 * 1) / math.sqrt(3 * 3 * 3 * 3))


def test_f1_is_that_of_class_one():
    assert metrics.classification([1, 0, 0, 0], [1, 1, 0, 0], ["f1"])["f1"] == pytest.approx(2 / 3)


@pytest.mark.parametrize("gold", [[0, 1, 0], [0, 0, 0]])
def test_one_class_only(gold):
    values = metrics.classification(gold, [0, 0, 0], metrics.CLASSIFICATION)
    assert values["mcc"] == 0
    assert values["f1"] == 0


def test_regression():
    values = metrics.regression([1, 2, 3], [10, 20, 90], metrics.REGRESSION)
    assert values["spearman"] == pytest.approx(1)
    assert values["pearson"] == pytest.approx(80 / math.sqrt(2 * 3800))
    assert metrics.regression([1, 2, 3], [5, 5, 5], metrics.REGRESSION) == {
        "pearson": 0,
        "spearman": 0,
    }


def test_tagging():
    gold = [["B-PER", "I-PER", "O", "B-LOC"], ["O", "B-weather/attribute"]]
    predicted = [["B-PER", "O", "O", "B-LOC"], ["O", "B-weather/attribute"]]
    values = metrics.tagging(gold, predicted, metrics.TAGGING)
    assert values["span_f1"] == values["span_recall"] == pytest.approx(2 / 3)
    assert values["accuracy"] == pytest.approx(5 / 6)
    nothing = metrics.tagging(gold, [["O"] * 4, ["O"] * 2], metrics.TAGGING)
    assert nothing["span_f1"] == 0
    assert nothing["accuracy"] == pytest.approx(2 / 6)


@pytest.mark.parametrize(
    ("answer", "references", "f1", "exact"),
    [
        ("The Eiffel Tower!", ["eiffel tower"], 1, 1),
        ("tower in Paris", ["the tower"], 2 * (1 / 3) * 1 / (1 / 3 + 1), 0),
        ("paris paris", ["paris"], 2 / 3, 0),
        ("Lyon", ["Paris", "lyon."], 1, 1),
        ("", ["Paris"], 0, 0),
        ("theory", ["a theory"], 1, 1),
    ],
)
def test_answers(answer, references, f1, exact):
    assert metrics.answer_f1(answer, references) == pytest.approx(f1)
    assert metrics.exact_match(answer, references) == exact
