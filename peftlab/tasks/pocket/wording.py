"""From a template and words to a sentence: gender, spacing, the capital at its start.

Knows no grammar: the forms that a template needs stand in the lexicon.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from importlib.resources import files
from typing import Any

from peftlab.tasks.pocket.draws import Draw

#: The order of the columns in every lexicon file.
LANGUAGES = ("en", "de", "es", "fr", "ru", "tr")

#: One meaning in all languages.
Cells = Sequence[str]

_GENDERED = re.compile(r"\(([^()|]*)\|([^()|]*)\)")
_LETTER = re.compile(r"[^\W\d_]")


@cache
def lexicon(name: str) -> dict[str, Any]:
    """Read ``lexicon/<name>.toml``."""
    text = files("peftlab.tasks.pocket").joinpath("lexicon", f"{name}.toml").read_text("utf-8")
    return tomllib.loads(text)


@lru_cache(maxsize=2**15)
def word(template: str, language: int, gender: str = "m", **slots: str) -> str:
    """Fill a template.

    Args:
        template: Text with ``{slot}`` and ``(masculine|feminine)``.
        language: Index in :data:`LANGUAGES`.
        gender: ``"m"`` or ``"f"``: which of two forms is taken, in the slots' words as well.
        slots: What stands for each slot.

    Returns:
        The text, its first letter a capital.
    """
    text = template.format(**slots)
    text = _GENDERED.sub(r"\1" if gender == "m" else r"\2", text).replace("~", " ")
    text = re.sub(r" +", " ", text).strip()
    before = (
        "[.,]" if LANGUAGES[language] == "fr" else "[.,!?]"
    )  # French has a space before ! and ?
    text = re.sub(f" (?={before})", "", text)  # an empty slot before the end
    return _capital(text, LANGUAGES[language])


def _capital(text: str, language: str) -> str:
    letter = _LETTER.search(text)
    if letter is None:
        return text
    first = "İ" if language == "tr" and letter[0] == "i" else letter[0].upper()
    return text[: letter.start()] + first + text[letter.end() :]


@dataclass(frozen=True)
class Person:
    """Somebody with a given name; ``how`` says how the name stands in a sentence."""

    gender: str
    latin: str
    cyrillic: str
    how: Cells = ("{p}",) * len(LANGUAGES)

    def named(self, language: int) -> str:
        """Return the name as it stands in a sentence, gendered forms unresolved."""
        name = self.cyrillic if LANGUAGES[language] == "ru" else self.latin
        return self.how[language].format(p=name)


@dataclass(frozen=True)
class Scene:
    """Who and when: what the sentences of one row have in common."""

    person: Person
    time: Cells

    def told(self, template: Cells, predicate: Cells, language: int) -> str:
        """Return a sentence: the person does or is what the predicate says."""
        head, _, tail = predicate[language].partition(" ")
        return word(
            template[language],
            language,
            self.person.gender,
            p=self.person.named(language),
            v=predicate[language],
            v0=head,
            v1=tail,
            t=self.time[language],
        )


def people(draw: Draw, part: str, count: int) -> list[Person]:
    """Draw different persons, by their given names."""
    return [Person(*row) for row in draw.some(lexicon("shared")["names"][part], count)]


def scene(draw: Draw, part: str) -> Scene:
    """Draw a person, how to speak of them, and a time."""
    shared = lexicon("shared")
    gender, latin, cyrillic = draw.one(shared["names"][part])
    person = Person(gender, latin, cyrillic, draw.one(shared["persons"][part]))
    return Scene(person, draw.one(shared["times"][part]))


def sentence_template(draw: Draw, part: str) -> Cells:
    """Draw a template for :meth:`Scene.told`, with the time first or last."""
    template: Cells = draw.one(lexicon("shared")[draw.one(("early", "late"))][part])
    return template
