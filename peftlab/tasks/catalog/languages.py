"""Data sets in many languages: inference, paraphrases, questions, tags, topics, intents, reviews.

Where a set has no train split (of its own, or in the folder at hand), ``train_on`` names the
English one with the same labels.
"""

from __future__ import annotations

from typing import Any

from peftlab.tasks.catalog.changes import labelled, two_classes
from peftlab.tasks.catalog.dataset import ANY, CONVERTED, DataSet
from peftlab.tasks.catalog.domains import ENTITIES
from peftlab.tasks.catalog.glue import NLI
from peftlab.tasks.splits import Cut

#: Two sentences that do or do not mean the same, in PAWS-X and IndicXParaphrase.
PARAPHRASE: dict[str, Any] = {
    "text": ("sentence1", "sentence2"),
    "labels": ("not_paraphrase", "paraphrase"),
    "metrics": ("accuracy",),
}

_XNLI = ("ar", "bg", "de", "el", "en", "es", "fr", "hi", "ru", "sw", "th", "tr", "ur", "vi", "zh")
_TYDI = {
    "ar": "arabic", "bn": "bengali", "en": "english", "fi": "finnish", "id": "indonesian",
    "ko": "korean", "ru": "russian", "sw": "swahili", "te": "telugu",
}  # fmt: skip
_TREEBANKS = {
    "af": "Afrikaans", "ar": "Arabic", "bg": "Bulgarian", "de": "German", "el": "Greek",
    "en": "English", "es": "Spanish", "et": "Estonian", "eu": "Basque", "fa": "Persian",
    "fi": "Finnish", "fr": "French", "he": "Hebrew", "hi": "Hindi", "hu": "Hungarian",
    "id": "Indonesian", "it": "Italian", "ja": "Japanese", "kk": "Kazakh", "ko": "Korean",
    "mr": "Marathi", "nl": "Dutch", "pt": "Portuguese", "ru": "Russian", "ta": "Tamil",
    "te": "Telugu", "th": "Thai", "tl": "Tagalog", "tr": "Turkish", "ur": "Urdu",
    "vi": "Vietnamese", "yo": "Yoruba", "zh": "Chinese",
}  # fmt: skip
_PARTS_OF_SPEECH = (
    "ADJ", "ADP", "ADV", "AUX", "CCONJ", "DET", "INTJ", "NOUN", "NUM", "PART", "PRON", "PROPN",
    "PUNCT", "SCONJ", "SYM", "VERB", "X",
)  # fmt: skip
_WIKIPEDIAS = (
    "ace af als am an ang ar arc arz as ast ay az ba bar bat-smg be be-x-old bg bh bn bo br bs ca "
    "cbk-zam cdo ce ceb ckb co crh cs csb cv cy da de diq dv el eml en eo es et eu ext fa fi "
    "fiu-vro fo fr frr fur fy ga gan gd gl gn gu hak he hi hr hsb hu hy ia id ig ilo io is it ja "
    "jbo jv ka kk km kn ko ksh ku ky la lb li lij lmo ln lt lv map-bms mg mhr mi min mk ml mn mr "
    "ms mt mwl my mzn nap nds ne nl nn no nov oc or os pa pdc pl pms pnb ps pt qu rm ro ru rw sa "
    "sah scn sco sd sh si simple sk sl so sq sr su sv sw szl ta te tg th tk tl tr tt ug uk ur uz "
    "vec vep vi vls vo wa war wuu xmf yi yo zea zh zh-classical zh-min-nan zh-yue"
)

_INTENTS = (
    "AddToPlaylist", "BookRestaurant", "PlayMusic", "RateBook", "SearchCreativeWork",
    "SearchScreeningEvent", "alarm/cancel_alarm", "alarm/modify_alarm", "alarm/set_alarm",
    "alarm/show_alarms", "alarm/snooze_alarm", "alarm/time_left_on_alarm",
    "reminder/cancel_reminder", "reminder/set_reminder", "reminder/show_reminders", "weather/find",
)  # fmt: skip
_SLOTS = (
    "album", "artist", "best_rating", "condition_description", "condition_temperature", "cuisine",
    "datetime", "entity_name", "facility", "genre", "location", "movie_name", "movie_type",
    "music_item", "object_location_type", "object_name", "object_part_of_series_type",
    "object_select", "object_type", "party_size_description", "party_size_number", "playlist",
    "rating_unit", "rating_value", "recurring_datetime", "reference", "reference-part",
    "reminder/todo", "restaurant_name", "restaurant_type", "served_dish", "service", "sort",
    "track", "weather/attribute",
)  # fmt: skip


def _languages(name: str, kind: str, configs: tuple[str, ...], **row: Any) -> DataSet:
    return DataSet(
        name=name,
        kind=kind,
        options=row.pop("options", {}),
        folder=row.pop("folder", name),
        configs=configs,
        language="{config}",
        **row,
    )


def _xsid(name: str, kind: str, **options: Any) -> DataSet:
    """A task of xSID 0.7 (van der Goot et al., 2021), which is not on the hub.

    Its English train split is not part of the usual download: English *validation*
    stands in as train, with a fifth of it cut out as dev. The other languages are test only.
    """
    return _languages(
        name,
        kind,
        (
            "en", "ar", "da", "de", "de-ba", "de-muc", "de-st", "gsw", "id", "it", "ja", "kk",
            "lt", "nap", "nl", "no", "sr", "tr", "zh",
        ),
        options=options,
        splits={"train": "validation", "test": "test"},
        folder="xsid",
        trained_in=("en",),
        cut=Cut(share=0.2),
        source="https://github.com/mainlp/xsid, data/xSID-0.7",
    )  # fmt: skip


def _reviews(name: str, **row: Any) -> DataSet:
    """The Multilingual Amazon Reviews Corpus (Keung et al., 2020); its own site is closed."""
    return _languages(
        name,
        "classification",
        ("en", "de", "es", "fr", "ja", "zh"),
        folder="amazon_reviews",
        hub="mteb/AmazonReviewsClassification",
        config="{config}",
        revision="6b5d328eaae8ef408dd7d775040245cf86f92e9d",
        **row,
    )


ROWS = (
    _languages(
        "xnli",  # Conneau et al., 2018; hr: C-XNLI, my: myXNLI
        "classification",
        (*_XNLI, "hr", "my"),
        options={"text": ("premise", "hypothesis"), "labels": NLI, "metrics": ("accuracy",)},
        hub="facebook/xnli",
        config="{config}",
        revision="b8dd5d7af51114dbda02c0e3f6133f332186418e",
        hub_names={language: language for language in _XNLI},
        train_on="glue/mnli",
        source="https://github.com/lobadic/C-XNLI (hr), https://github.com/akhtet/myXNLI (my)",
        note="The train splits of the hub are MultiNLI (en) and its machine translations.",
    ),
    _languages(
        "paws-x",  # Yang et al., 2019
        "classification",
        ("en", "de", "es", "fr", "ja", "ko", "zh"),
        options=PARAPHRASE,
        folder="paws_x",
        hub="google-research-datasets/paws-x",
        config="{config}",
        revision="4cd8187c404bda33cb1f62b49b001115862acf37",
        train_on="paws-x/en",
        change=labelled,
        note="The train splits but English are machine translations.",
    ),
    _languages(
        "xquad",  # Artetxe et al., 2020
        "qa",
        ("ar", "de", "el", "en", "es", "hi", "ro", "ru", "th", "tr", "vi", "zh"),
        splits={"test": "validation"},
        hub="google/xquad",
        config="xquad.{config}",
        revision="51adfef1c1287aab1d2d91b5bead9bcfb9c68583",
        trained_in=(),
        train_on="squad",
        note="Its English part stands in the test split of squad.",
    ),
    _languages(
        "mlqa",  # Lewis et al., 2020: question and context in one language
        "qa",
        ("ar", "de", "en", "es", "hi", "vi", "zh"),
        splits={"test": "validation"},
        hub="facebook/mlqa",
        files="mlqa.{config}.{config}/{split}/*.parquet",
        revision=CONVERTED,
        trained_in=(),
        train_on="squad",
        note="The test is MLQA's development split; published numbers are on its test split.",
    ),
    _languages(
        "tydiqa",  # Clark et al., 2020: the gold passage task
        "qa",
        tuple(_TYDI),
        splits={"train": "train", "test": "validation"},
        folder="tydiqa_goldp",
        hub="google-research-datasets/tydiqa",
        files="secondary_task/{split}/*.parquet",
        revision=CONVERTED,
        hub_names=_TYDI,
        part="id",
        train_on="tydiqa/en or squad",
        cut=Cut(group="context"),
        note="The copy of XTREME has blank answers in its test; held_out cuts one from train.",
    ),
    _languages(
        "wikiann",  # Pan et al., 2017, as cut by Rahimi et al., 2019
        "tagging",
        tuple(_WIKIPEDIAS.split()),
        options={"tags": "ner_tags", "labels": ENTITIES},
        hub="unimelb-nlp/wikiann",
        config="{config}",
        train_on="wikiann/en",
    ),
    _languages(
        "udpos",  # Universal Dependencies 2.5, as in XTREME (Hu et al., 2020)
        "tagging",
        tuple(sorted({*_TREEBANKS, "lt", "pl", "ro", "uk", "wo"})),
        options={"tags": "pos_tags", "labels": _PARTS_OF_SPEECH, "metrics": ("accuracy",)},
        hub="google/xtreme",
        config="udpos.{config}",
        revision="ec5f1f46e9af79639a90684a7a70a956c4998f04",
        hub_names=_TREEBANKS,
        train_on="udpos/en",
        source="https://universaldependencies.org",
        note="On the hub, some languages have a test split only.",
    ),
    _languages(
        "sib200",  # Adelani et al., 2024; rows with one index_id are translations
        "classification",
        ANY,
        options={
            "text": ("text",),
            "label": "category",
            "labels": (
                "entertainment",
                "geography",
                "health",
                "politics",
                "science/technology",
                "sports",
                "travel",
            ),
        },
        hub="Davlan/sib200",
        config="{config}",
    ),
    _xsid("xsid", "classification", text=("text",), label="intent", labels=_INTENTS),
    _xsid(
        "xsid-slots",
        "tagging",
        tokens="tokens",
        tags="slots",
        labels=("O", *(f"{p}-{slot}" for slot in _SLOTS for p in "BI")),
        metrics=("span_f1", "span_precision", "span_recall", "accuracy"),
    ),
    _reviews(
        "amazon-reviews",
        options={"text": ("text",), "labels": ("1", "2", "3", "4", "5")},
    ),
    _reviews(
        "amazon-polarity",
        options={
            "text": ("text",),
            "labels": ("Negative", "Positive"),
            "metrics": ("accuracy",),
        },
        change=two_classes,
        note="As Mundra et al. (2023) train for IndicSentiment; they leave out the review's title.",
    ),
)
