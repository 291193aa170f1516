"""Languages of India: the test sets of IndicXTREME (Doddapaneni et al., 2023) and IndicXNLI.

Mundra et al. (2023) train on an English set, which ``train_on`` names, and test on these. Most have
loading scripts on the hub, which ``datasets`` 4 does not run, so files are read instead.
"""

from __future__ import annotations

from typing import Any

from peftlab.tasks.catalog.changes import answered, labelled
from peftlab.tasks.catalog.choices import COPA
from peftlab.tasks.catalog.dataset import CONVERTED, PARQUET, DataSet
from peftlab.tasks.catalog.domains import ENTITIES
from peftlab.tasks.catalog.glue import NLI
from peftlab.tasks.catalog.languages import PARAPHRASE

_ELEVEN = ("as", "bn", "gu", "hi", "kn", "ml", "mr", "or", "pa", "ta", "te")
_UNSEEN = "The place of its files on the hub is taken from the data sets beside it, not seen."


def _indic(name: str, kind: str, hub: str, configs: tuple[str, ...], **row: Any) -> DataSet:
    return DataSet(
        name=name,
        kind=kind,
        folder=name,
        hub=hub,
        files=row.pop("files", PARQUET),
        revision=row.pop("revision", CONVERTED),
        configs=configs,
        language="{config}",
        **row,
    )


ROWS = (
    _indic(
        "indicxnli",  # Aggarwal et al., 2022
        "classification",
        "Divyanshu/indicxnli",
        _ELEVEN,
        options={"text": ("premise", "hypothesis"), "labels": NLI, "metrics": ("accuracy",)},
        train_on="glue/mnli",
        note="All splits are machine translations of XNLI.",
    ),
    _indic(
        "naamapadam",  # Mhaske et al., 2023
        "tagging",
        "ai4bharat/naamapadam",
        _ELEVEN,
        options={"tags": "ner_tags", "labels": ENTITIES},
        train_on="conll2003-no-misc",
        note=_UNSEEN,
    ),
    _indic(
        "indicxparaphrase",
        "classification",
        "ai4bharat/IndicXParaphrase",
        tuple(language for language in _ELEVEN if language != "ta"),
        options=PARAPHRASE,
        splits={"test": "test"},
        trained_in=(),
        train_on="paws-x/en",
        note=_UNSEEN,
    ),
    _indic(
        "indicsentiment",
        "classification",
        "ai4bharat/IndicSentiment",
        ("as", "bd", "bn", "gu", "hi", "kn", "ml", "mr", "or", "pa", "ta", "te", "ur"),
        files="translation-{config}/{split}/*.parquet",
        options={
            "text": ("INDIC REVIEW",),
            "label": "LABEL",
            "labels": ("Negative", "Positive"),
            "metrics": ("accuracy",),
        },
        splits={"test": "test"},
        trained_in=(),
        train_on="amazon-polarity/en",
        change=labelled,
    ),
    _indic(
        "indicqa",
        "qa",
        "ai4bharat/IndicQA",
        _ELEVEN,
        files="data/indicqa.{config}.json",
        revision=None,
        options={},
        splits={"test": "test"},
        trained_in=(),
        train_on="squad",
        change=answered,
        note="Mundra et al. keep the questions without an answer (about a third), so their "
        "numbers are others.",
    ),
    _indic(
        "indiccopa",
        "choice",
        "ai4bharat/IndicCOPA",
        (
            "as", "bn", "gom", "gu", "hi", "kn", "mai", "ml", "mr", "ne", "or", "pa", "sa", "sat",
            "sd", "ta", "te", "ur",
        ),
        files="data/test.{config}.jsonl",
        revision=None,
        options=COPA,
        splits={"test": "test"},
        trained_in=(),
        train_on="social-iqa or copa",
        note="The file names of ta and te were seen; those of the others follow them.",
    ),
)  # fmt: skip
