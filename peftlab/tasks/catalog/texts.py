"""Plain texts in one language, for masked language modelling, such as of language adapters.

None has a test split of its own: ``held_out`` cuts one from train.
"""

from __future__ import annotations

from typing import Any

from peftlab.tasks.catalog.changes import with_words
from peftlab.tasks.catalog.dataset import DataSet
from peftlab.tasks.splits import Cut

#: Three-letter codes of the languages, all with English.
TATOEBA = (
    "afr", "amh", "ang", "ara", "arq", "arz", "ast", "awa", "aze", "bel", "ben",
    "ber", "bos", "bre", "bul", "cat", "cbk", "ceb", "ces", "cha", "cmn", "cor",
    "csb", "cym", "dan", "deu", "dsb", "dtp", "ell", "epo", "est", "eus", "fao",
    "fin", "fra", "fry", "gla", "gle", "glg", "gsw", "heb", "hin", "hrv", "hsb",
    "hun", "hye", "ido", "ile", "ina", "ind", "isl", "ita", "jav", "jpn", "kab",
    "kat", "kaz", "khm", "kor", "kur", "kzj", "lat", "lfn", "lit", "lvs", "mal",
    "mar", "max", "mhr", "mkd", "mon", "nds", "nld", "nno", "nob", "nov", "oci",
    "orv", "pam", "pes", "pms", "pol", "por", "ron", "rus", "slk", "slv", "spa",
    "sqi", "srp", "swe", "swg", "swh", "tam", "tat", "tel", "tgl", "tha", "tuk",
    "tur", "tzl", "uig", "ukr", "urd", "uzb", "vie", "war", "wuu", "xho", "yid",
    "yue", "zsm",
)  # fmt: skip


def _texts(name: str, **row: Any) -> DataSet:
    return DataSet(
        name=name,
        kind="language-model",
        options={"text": row.pop("text", "text")},
        cut=Cut(share=0.1, most=300),
        **row,
    )


ROWS = (
    _texts(
        "bible",  # Christodoulopoulos and Steedman, 2015; the New Testament, a verse a row
        splits={"train": "train"},
        folder="bible_nt",
        configs=("ee", "eu", "gu", "hy", "qu", "sw", "wo", "zu"),
        language="{config}",
        source="https://github.com/christos-c/bible-corpus, bibles/: id and text of every verse",
    ),
    _texts(
        "tatoeba",  # Artetxe and Schwenk, 2019; the side that is not English
        text="source_sentence",
        splits={"train": "validation"},
        folder="tatoeba",
        configs=TATOEBA,
        language="{config}",
        source="https://github.com/facebookresearch/LASER, data/tatoeba/v1",
    ),
    _texts(
        "wikitext-2",  # Merity et al., 2017; its validation split alone
        splits={"train": "validation"},
        folder="wikitext2",
        change=with_words,
        source="https://github.com/salesforce/awd-lstm-lm, getdata.sh",
    ),
)
