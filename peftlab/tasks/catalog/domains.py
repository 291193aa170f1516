"""English data sets of a domain: those of Gururangan et al. (2020), and entities.

Their paper scores ChemProt and RCT by micro-F1, the others by macro-F1. With one label a row,
micro-F1 over all classes is accuracy; both metrics are computed for all.
"""

from __future__ import annotations

from typing import Any

from peftlab.tasks.catalog.changes import truth_value, without_misc
from peftlab.tasks.catalog.dataset import CONVERTED, DataSet
from peftlab.tasks.splits import Cut

_MACRO = ("macro_f1", "accuracy")
_MICRO = ("accuracy", "macro_f1")
#: The names of people, organisations and places in BIO tags, as in WikiANN and Naamapadam.
ENTITIES = ("O", "B-PER", "I-PER", "B-ORG", "I-ORG", "B-LOC", "I-LOC")


def _source(folder: str) -> str:
    return (
        "https://github.com/allenai/dont-stop-pretraining, environments/datasets.py: "
        f"{folder}/train.jsonl, {folder}/dev.jsonl (here called validation) and {folder}/test.jsonl"
    )


def _classes(name: str, labels: tuple[str, ...], metrics: tuple[str, str], **row: Any) -> DataSet:
    return DataSet(
        name=name,
        kind="classification",
        options={"text": ("text",), "labels": labels, "metrics": metrics},
        folder=row.pop("folder", name),
        **row,
    )


def _conll(name: str, **row: Any) -> DataSet:
    """CoNLL-2003 (Tjong Kim Sang and De Meulder, 2003): named entities in news."""
    return DataSet(
        name=name,
        kind="tagging",
        folder="conll2003",
        hub="eriktks/conll2003",
        revision=CONVERTED,
        **row,
    )


ROWS = (
    _classes(
        "chemprot",
        (
            "ACTIVATOR", "AGONIST", "AGONIST-ACTIVATOR", "AGONIST-INHIBITOR", "ANTAGONIST",
            "DOWNREGULATOR", "INDIRECT-DOWNREGULATOR", "INDIRECT-UPREGULATOR", "INHIBITOR",
            "PRODUCT-OF", "SUBSTRATE", "SUBSTRATE_PRODUCT-OF", "UPREGULATOR",
        ),
        _MICRO,
        source=_source("chemprot"),
    ),
    _classes(
        "acl-arc",
        ("Background", "CompareOrContrast", "Extends", "Future", "Motivation", "Uses"),
        _MACRO,
        folder="acl_arc",
        source=_source("citation_intent"),
        note="A third of the test sentences also stand in train, with another citation; so it was "
        "published.",
    ),
    _classes(
        "scierc",
        (
            "COMPARE", "CONJUNCTION", "EVALUATE-FOR", "FEATURE-OF", "HYPONYM-OF", "PART-OF",
            "USED-FOR",
        ),
        _MACRO,
        folder="sciie",
        source=_source("sciie"),
    ),
    _classes(
        "rct-20k",
        ("background", "conclusions", "methods", "objective", "results"),
        _MICRO,
        folder="rct20k",
        hub="armanc/pubmed-rct20k",
        revision="091aec1e2384a20b2b36eb96177755ca13dd0b42",
    ),
    _classes(
        "csabstruct",  # Cohan et al., 2019
        ("background", "objective", "method", "result", "other"),
        _MICRO,
        source="https://github.com/allenai/sequential_sentence_classification, data/CSAbstruct: "
        "one row a sentence",
        note="A stand-in for RCT-20k where that is not at hand: the same kind of task on abstracts "
        "of computer science. Its numbers are not those of RCT-20k.",
    ),
    _classes(
        "hyperpartisan",
        ("false", "true"),
        _MACRO,
        source=_source("hyperpartisan_news"),
        change=truth_value,
        note="The splits of Gururangan et al. are theirs alone; other copies are cut otherwise.",
    ),
    _classes(
        "ag-news",
        ("World", "Sports", "Business", "Sci/Tech"),
        _MACRO,
        folder="ag_news",
        splits={"train": "train", "test": "test"},
        cut=Cut(),
        hub="fancyzhx/ag_news",
        revision="eb185aade064a813bc0b7f42de02595523103ca4",
        note="On the hub, the text begins with the title.",
    ),
    _classes(
        "imdb",
        ("neg", "pos"),
        _MACRO,
        splits={"train": "train", "test": "test"},
        cut=Cut(),
        hub="stanfordnlp/imdb",
        config="plain_text",
        revision="e6281661ce1c48d982bc483cf8a173c1bbeb5d31",
    ),
    _classes(
        "helpfulness",
        ("unhelpful", "helpful"),
        _MACRO,
        source=_source("amazon"),
        note="The names of its labels are known from a copy only.",
    ),
    _conll(
        "conll2003",
        options={"tags": "ner_tags", "labels": (*ENTITIES, "B-MISC", "I-MISC")},
    ),
    _conll(
        "conll2003-no-misc",
        options={"tags": "ner_tags", "labels": ENTITIES},
        change=without_misc,
        note="As Mundra et al. (2023) train for Naamapadam.",
    ),
    DataSet(
        name="ncbi-disease",  # Doğan et al., 2014
        kind="tagging",
        options={"tags": "ner_tags", "labels": ("O", "B-Disease", "I-Disease")},
        folder="ncbi_disease",
        hub="ncbi/ncbi_disease",
        revision=CONVERTED,
    ),
)  # fmt: skip
