"""How good a sentence encoder is across languages: linear probes and retrieval of translations.

A logistic regression on frozen sentence vectors is trained on English and tested on other languages
(xSID intents, SIB-200 topics); retrieval asks how often a sentence's nearest English one is its
translation (SIB-200 test). None of these texts takes part in pretraining. Fine-tuning has its own
records; this is the quick look while a recipe is being worked out.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from peftlab.pretraining.corpus import read_rows

Embed = Callable[[list[str]], Tensor]

XSID = ("da", "de", "it", "nl", "tr", "no")
SIB = {
    "de": "deu_Latn", "da": "dan_Latn", "es": "spa_Latn", "fr": "fra_Latn", "it": "ita_Latn",
    "nl": "nld_Latn", "pt": "por_Latn", "cs": "ces_Latn", "tr": "tur_Latn", "ru": "rus_Cyrl",
}  # fmt: skip


def cross_lingual_scores(embed: Embed) -> dict[str, dict[str, float]]:
    """Measure zero-shot transfer from English and retrieval of translations.

    Args:
        embed: Maps texts to vectors [N, d].

    Returns:
        For ``"xsid"``, ``"sib200"`` (accuracy) and ``"retrieval"`` (accuracy at rank 1): fractions
        by language, ``"en"`` and ``"majority"`` where they make sense, and the ``"mean"`` over the
        languages other than English.
    """
    xsid = {lang: read_rows(f"xsid/{lang}", "test") for lang in ("en", *XSID)}
    xsid_train = read_rows("xsid/en", "validation")
    sib = {lang: read_rows(f"sib200/{code}", "test") for lang, code in SIB.items()}
    sib["en"] = read_rows("sib200/eng_Latn", "test")
    sib_train = read_rows("sib200/eng_Latn", "train")
    return {
        "xsid": _probe(embed, xsid_train, xsid, "intent"),
        "sib200": _probe(embed, sib_train, sib, "category"),
        "retrieval": _retrieval(embed, sib),
    }


def _probe(
    embed: Embed, train: list[dict[str, str]], tests: dict[str, list[dict[str, str]]], label: str
) -> dict[str, float]:
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    classifier = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=500))
    classifier.fit(embed([row["text"] for row in train]).numpy(), [row[label] for row in train])
    scores = {
        language: float(
            classifier.score(embed([r["text"] for r in rows]).numpy(), [r[label] for r in rows])
        )
        for language, rows in tests.items()
    }
    scores["mean"] = float(np.mean([s for language, s in scores.items() if language != "en"]))
    labels = [row[label] for row in train]
    majority = max(sorted(set(labels)), key=labels.count)
    scores["majority"] = float(np.mean([row[label] == majority for row in tests["en"]]))
    return scores


def _retrieval(embed: Embed, tests: dict[str, list[dict[str, str]]]) -> dict[str, float]:
    vectors = {}
    for language, rows in tests.items():
        ordered = sorted(rows, key=lambda row: row["index_id"])
        found = embed([row["text"] for row in ordered])
        vectors[language] = torch.nn.functional.normalize(found - found.mean(0), dim=-1)
    english = vectors.pop("en")
    truth = torch.arange(len(english))
    scores = {
        language: float(((found @ english.T).argmax(1) == truth).float().mean())
        for language, found in vectors.items()
    }
    return scores | {"mean": float(np.mean(list(scores.values())))}
