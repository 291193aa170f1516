"""GLUE and SQuAD 1.1, in English."""

from __future__ import annotations

from typing import Any

from peftlab.tasks.catalog.dataset import DataSet
from peftlab.tasks.splits import Cut

_ENTAILED = ("entailment", "not_entailment")
_SENTENCES = ("sentence1", "sentence2")
_PREMISE = ("premise", "hypothesis")
#: The order of the labels of MultiNLI, XNLI and IndicXNLI.
NLI = ("entailment", "neutral", "contradiction")


def _glue(
    name: str,
    kind: str = "classification",
    test: str = "validation",
    config: str | None = None,
    **options: Any,
) -> DataSet:
    """A GLUE task (Wang et al., 2019): the hub hides its test labels, so validation is the test."""
    return DataSet(
        name=f"glue/{name}",
        kind=kind,
        options=options,
        splits={"train": "train", "test": test},
        folder=f"glue_{config or name}",
        hub="nyu-mll/glue",
        config=config or name,
        revision="bcdcba79d07bc864c1c254ccfcedcce55bcc9a8c",
        cut=Cut(),
    )


ROWS = (
    _glue(
        "cola",
        text=("sentence",),
        labels=("unacceptable", "acceptable"),
        metrics=("mcc", "accuracy"),
    ),
    _glue("sst2", text=("sentence",), labels=("negative", "positive"), metrics=("accuracy",)),
    _glue(
        "mrpc",
        text=_SENTENCES,
        labels=("not_equivalent", "equivalent"),
        metrics=("accuracy", "f1"),
    ),
    _glue(
        "qqp",
        text=("question1", "question2"),
        labels=("not_duplicate", "duplicate"),
        metrics=("accuracy", "f1"),
    ),
    _glue("stsb", kind="regression", text=_SENTENCES, metrics=("pearson", "spearman")),
    _glue("mnli", test="validation_matched", text=_PREMISE, labels=NLI, metrics=("accuracy",)),
    _glue(
        "mnli-mismatched",
        test="validation_mismatched",
        config="mnli",
        text=_PREMISE,
        labels=NLI,
        metrics=("accuracy",),
    ),
    _glue("qnli", text=("question", "sentence"), labels=_ENTAILED, metrics=("accuracy",)),
    _glue("rte", text=_SENTENCES, labels=_ENTAILED, metrics=("accuracy",)),
    # the papers leave it out; its labels are the other way round
    _glue("wnli", text=_SENTENCES, labels=_ENTAILED[::-1], metrics=("accuracy",)),
    DataSet(
        name="squad",  # SQuAD 1.1; its test is hidden, so validation is the test
        kind="qa",
        options={},
        splits={"train": "train", "test": "validation"},
        folder="squad",
        hub="rajpurkar/squad",
        revision="7b6d24c440a36b6815f21b70d25016731768db1f",
        cut=Cut(group="title"),
    ),
)
