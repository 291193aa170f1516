"""Which language a task is in, and in which script that is written: read off the task's name.

``sib200/deu_Latn`` is German in Latin script, ``udpos/de`` too, and a name without a language, such
as ``glue/mnli``, is English, as in the catalogue of data sets. This file knows names only.
"""

from __future__ import annotations

ENGLISH = "en"

#: Codes of languages by the script (ISO 15924) that data sets here write them in.
_WRITTEN = {
    "Latn": "ace af als an ang ast ay az bar bat-smg br bs ca cbk-zam cdo ceb co crh cs csb "
    "cy da de diq en eml eo es et eu ext fi fiu-vro fo fr frr fur fy ga gd gl gn gsw hak hr hsb ht "
    "hu ia id ig ilo io is it jbo jv ksh ku la lb li lij lmo ln lt lv map-bms mg mi min ms mt mwl "
    "nap nds nl nn no nov oc pdc pl pms pt qu rm ro rw scn sco sh simple sk sl so sq su sv sw szl "
    "tk tl tr uz vec vep vi vls vo wa war wo yo zea zh-min-nan zu",
    "Cyrl": "ba be be-x-old bg ce cv kk ky mhr mk mn os ru sah sr tg tt uk",
    "Arab": "ar arz ckb fa mzn pnb ps sd ug ur",
    "Deva": "bd bh gom hi mai mr ne sa",
    "Hans": "gan wuu zh",
    "Hant": "zh-classical zh-yue",
    "Hebr": "he yi",
    "Grek": "el",
    "Armn": "hy",
    "Geor": "ka xmf",
    "Beng": "as bn",
    "Gujr": "gu",
    "Guru": "pa",
    "Orya": "or",
    "Taml": "ta",
    "Telu": "te",
    "Knda": "kn",
    "Mlym": "ml",
    "Sinh": "si",
    "Mymr": "my",
    "Khmr": "km",
    "Thai": "th",
    "Tibt": "bo",
    "Ethi": "am",
    "Olck": "sat",
    "Thaa": "dv",
    "Syrc": "arc",
    "Jpan": "ja",
    "Kore": "ko",
}
SCRIPTS = {code: script for script, codes in _WRITTEN.items() for code in codes.split()}
#: Names whose rows are not in the script that the code mostly means.
_OTHERWISE = {"xsid/sr": "Latn"}

NAMES = {
    "Latn": "Latin",
    "Cyrl": "Cyrillic",
    "Arab": "Arabic",
    "Deva": "Devanagari",
    "Hans": "Chinese",
    "Hant": "Chinese (traditional)",
    "Hebr": "Hebrew",
    "Grek": "Greek",
    "Armn": "Armenian",
    "Geor": "Georgian",
    "Jpan": "Japanese",
    "Kore": "Korean",
}


def split(name: str) -> tuple[str, str]:
    """Split the name of a task into what is asked and the language that it is asked in.

    Args:
        name: Such as ``"sib200/deu_Latn"``, ``"pocket/nli/de"`` or ``"glue/mnli"``.

    Returns:
        ``("sib200", "deu_Latn")``, ``("pocket/nli", "de")``, ``("glue/mnli", "en")``.
    """
    task, _, last = name.rpartition("/")
    return (task, last) if task and script(name) else (name, ENGLISH)


def script(name: str) -> str:
    """Return the ISO 15924 code of the script of a task or language; "" for no language's name."""
    if name in _OTHERWISE:
        return _OTHERWISE[name]
    code = name.rpartition("/")[2]
    head, _, tail = code.partition("_")
    if len(head) == 3 and len(tail) == 4 and tail.istitle():
        return tail
    return SCRIPTS.get(code) or SCRIPTS.get(code.partition("-")[0], "")


def same(one: str, other: str) -> bool:
    """Say whether two codes are of one language; of three-letter codes only English is known."""
    return one == other or {one, other} == {ENGLISH, "eng_Latn"}
