"""How good an encoder is across languages: linear probes and retrieval of translations.

A logistic regression on frozen sentence vectors is trained on English and tested on other languages
(xSID intents, SIB-200 topics); retrieval asks how often a sentence's nearest English one is its
translation (SIB-200 test); a linear map of frozen word states names parts of speech (UD). None of
these texts takes part in pretraining. Fine-tuning has its own records; this is the quick look while
a recipe is being worked out.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from peftlab.encoders import Encoder
from peftlab.pretraining.corpus import Row, read_rows
from peftlab.pretraining.teacher import Words, read
from peftlab.pretraining.tokenizer import Splitter

Embed = Callable[[list[str]], Tensor]
WordStates = Callable[[list[Words]], list[Tensor]]

XSID = ("da", "de", "it", "nl", "tr", "no")
SIB = {
    "de": "deu_Latn", "da": "dan_Latn", "es": "spa_Latn", "fr": "fra_Latn", "it": "ita_Latn",
    "nl": "nld_Latn", "pt": "por_Latn", "cs": "ces_Latn", "tr": "tur_Latn", "ru": "rus_Cyrl",
}  # fmt: skip
POS = ("de", "es", "fr", "it", "nl", "pt", "ru", "tr")
POS_TRAIN, POS_TEST = 1000, 150  # rows a language
RIDGE = 50.0  # weight of the squared norm, for standardised states


def probe(encoder: Encoder) -> dict[str, dict[str, float]]:
    """Measure all that this file can; see :func:`cross_lingual_scores` and :func:`pos_scores`."""
    split = Splitter()
    scores = cross_lingual_scores(lambda texts: read(encoder, [split(t) for t in texts])[0])
    return scores | {"pos": pos_scores(lambda texts: read(encoder, texts)[1])}


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


def pos_scores(states: WordStates) -> dict[str, float]:
    """Measure how well a linear map, fitted to English words, names parts of speech.

    Ridge regression onto one-hot tags; the tag with the largest value is the answer.

    Args:
        states: Maps texts to the states of their words, each [words, d]; it may leave out words at
            the end of a text.

    Returns:
        Accuracy over words by language, and the ``"mean"`` over those other than English.
    """
    train, tags = _words(states, read_rows("udpos/en", "train")[:POS_TRAIN])
    mean, deviation = train.mean(0), train.std(0) + 1e-3

    def features(words: Tensor) -> Tensor:
        return torch.cat([(words - mean) / deviation, torch.ones(len(words), 1)], 1)

    known = features(train)
    wanted = torch.nn.functional.one_hot(tags).float()
    gram = known.T @ known + RIDGE * torch.eye(known.shape[1])
    weights = torch.linalg.solve(gram, known.T @ wanted)
    scores = {}
    for language in ("en", *POS):
        words, truth = _words(states, read_rows(f"udpos/{language}", "test")[:POS_TEST])
        scores[language] = float(((features(words) @ weights).argmax(1) == truth).float().mean())
    return scores | {"mean": float(np.mean([scores[language] for language in POS]))}


def _words(states: WordStates, rows: list[Row]) -> tuple[Tensor, Tensor]:
    found = states([tuple(row["tokens"]) for row in rows])
    tags = [row["pos_tags"][: len(words)] for row, words in zip(rows, found, strict=True)]
    return torch.cat(found).float(), torch.tensor([tag for row in tags for tag in row])
