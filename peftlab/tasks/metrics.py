"""Metrics: gold and predicted values → named fractions, higher is better.

Libraries compute what they are good at (scikit-learn, scipy, seqeval); the answer scores of SQuAD
follow the official script. This file knows no model and no tokenizer.
"""

from __future__ import annotations

import re
import string
import warnings
from collections import Counter
from collections.abc import Sequence

import numpy as np

CLASSIFICATION = ("accuracy", "macro_f1", "f1", "mcc")
REGRESSION = ("pearson", "spearman")
TAGGING = ("span_f1", "span_precision", "span_recall", "accuracy")
QUESTIONS = ("f1", "exact_match")


def classification(
    gold: Sequence[int], predicted: Sequence[int], names: Sequence[str]
) -> dict[str, float]:
    """Score predicted classes.

    Args:
        gold: Class indices.
        predicted: Class indices.
        names: Which of ``accuracy``, ``macro_f1`` (mean over the classes that occur), ``f1`` (of
            class 1, for two classes) and ``mcc`` (Matthews correlation, in [-1, 1]).

    Returns:
        One value a name.
    """
    from sklearn import metrics

    functions = {
        "accuracy": lambda: metrics.accuracy_score(gold, predicted),
        "macro_f1": lambda: metrics.f1_score(gold, predicted, average="macro", zero_division=0),
        "f1": lambda: metrics.f1_score(gold, predicted, labels=[1], average="micro"),
        "mcc": lambda: metrics.matthews_corrcoef(gold, predicted),
    }
    with warnings.catch_warnings():
        # scikit-learn warns when only one class occurs; the values are defined (0 for mcc)
        warnings.simplefilter("ignore", UserWarning)
        return {name: float(functions[name]()) for name in names}


def regression(
    gold: Sequence[float], predicted: Sequence[float], names: Sequence[str]
) -> dict[str, float]:
    """Correlate predicted numbers with gold ones; 0 where either side is constant.

    Args:
        gold: Numbers.
        predicted: Numbers.
        names: Which of ``pearson`` and ``spearman``.

    Returns:
        One value a name, in [-1, 1].
    """
    from scipy import stats

    if np.ptp(gold) == 0 or np.ptp(predicted) == 0:
        return dict.fromkeys(names, 0.0)
    functions = {"pearson": stats.pearsonr, "spearman": stats.spearmanr}
    return {name: float(functions[name](gold, predicted).statistic) for name in names}


def tagging(
    gold: Sequence[Sequence[str]], predicted: Sequence[Sequence[str]], names: Sequence[str]
) -> dict[str, float]:
    """Score tags, one a word.

    Args:
        gold: Tags by row and word; BIO tags for the span metrics.
        predicted: The same.
        names: Which of ``span_f1``, ``span_precision``, ``span_recall`` (micro average over spans,
            as conlleval counts them; seqeval) and ``accuracy`` (over words).

    Returns:
        One value a name.
    """
    from seqeval import metrics

    spans = {
        "span_f1": metrics.f1_score,
        "span_precision": metrics.precision_score,
        "span_recall": metrics.recall_score,
    }
    result: dict[str, float] = {}
    for name in names:
        if name == "accuracy":
            pairs = [
                g == p
                for gs, ps in zip(gold, predicted, strict=True)
                for g, p in zip(gs, ps, strict=True)
            ]
            result[name] = float(np.mean(pairs))
        else:
            result[name] = float(spans[name](list(gold), list(predicted), zero_division=0))
    return result


def normalise(answer: str) -> str:
    """Lower-case an answer and drop punctuation, English articles and double spaces.

    Rajpurkar et al., 2016, "SQuAD", section 6.1 and the official script ``evaluate-v1.1.py``.
    """
    answer = "".join(c for c in answer.lower() if c not in string.punctuation)
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", answer).split())


def exact_match(answer: str, references: Sequence[str]) -> float:
    """Return 1 if the answer equals one of the references after normalisation, else 0."""
    return float(normalise(answer) in map(normalise, references))


def answer_f1(answer: str, references: Sequence[str]) -> float:
    """Return the best F1 of the answer's words against those of a reference.

    F1 = 2pr / (p + r), p and r from the words that answer and reference share, with repetition.
    """
    words = normalise(answer).split()
    best = 0.0
    for reference in references:
        other = normalise(reference).split()
        shared = sum((Counter(words) & Counter(other)).values())
        if shared:
            best = max(best, 2 * shared / (len(words) + len(other)))
    return best
