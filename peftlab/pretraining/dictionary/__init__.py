"""The dictionary that we wrote: words and phrases in twelve languages, and code-switching.

Each ``*.tsv`` here has one column a language and one row a meaning; a cell may hold several forms,
separated by ``|``. Cells with equally many forms are taken to list the same forms in one order.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from peftlab.errors import DataError
from peftlab.pretraining.teacher import Words
from peftlab.pretraining.tokenizer import Splitter

FOLDER = Path(__file__).parent


@dataclass(frozen=True)
class Entry:
    """One meaning: its forms by language."""

    forms: dict[str, tuple[str, ...]]

    def translate(self, form: int, language: str, rng: np.random.Generator) -> str | None:
        """Return the form in a language that belongs to an English form, or any of its forms."""
        forms = self.forms.get(language, ())
        if not forms:
            return None
        if len(forms) == len(self.forms["en"]):
            return forms[form]
        return forms[int(rng.integers(len(forms)))]


class Dictionary:
    """All entries, and where each English word occurs in them.

    Args:
        entries: Meanings; each has an English side.
    """

    def __init__(self, entries: Sequence[Entry]) -> None:
        self.entries = list(entries)
        self.split = Splitter()
        self.index: dict[str, list[tuple[int, int]]] = {}
        for number, entry in enumerate(self.entries):
            for form, text in enumerate(entry.forms["en"]):
                word = self.split(text.removeprefix("to "))
                if len(word) == 1:
                    self.index.setdefault(word[0], []).append((number, form))

    @classmethod
    def read(cls, folder: Path = FOLDER) -> Dictionary:
        """Read every table of a folder.

        Raises:
            DataError: There is none, or a row has another number of columns than the header.
        """
        entries = []
        tables = sorted(folder.glob("*.tsv"))
        if not tables:
            raise DataError(f"The folder {str(folder)!r} holds no dictionary table (*.tsv).")
        for table in tables:
            header, *lines = table.read_text(encoding="utf-8").splitlines()
            languages = header.split("\t")
            for number, line in enumerate(lines, start=2):
                cells = line.split("\t")
                if len(cells) != len(languages):
                    raise DataError(
                        f"{table.name}, line {number} has {len(cells)} columns, its header "
                        f"{len(languages)}: separate cells by one tab."
                    )
                forms = {
                    language: tuple(f.strip() for f in cell.split("|") if f.strip())
                    for language, cell in zip(languages, cells, strict=True)
                }
                if forms["en"]:
                    entries.append(Entry(forms))
        return cls(entries)

    def texts(self) -> Iterator[tuple[str, str]]:
        """Yield every form with its language."""
        for entry in self.entries:
            for language, forms in entry.forms.items():
                yield from ((language, form) for form in forms)

    def pairs(self, language: str) -> Iterator[tuple[Words, Words]]:
        """Yield the forms of a language with the English ones, where they stand in one order."""
        for entry in self.entries:
            forms, english = entry.forms.get(language, ()), entry.forms["en"]
            if len(forms) == len(english):
                yield from (
                    (self.split(a), self.split(b)) for a, b in zip(forms, english, strict=True)
                )

    def switch(
        self, words: Words, language: str, rate: float, rng: np.random.Generator
    ) -> tuple[Words, np.ndarray]:
        """Replace words of an English text by their translations.

        What is replaced keeps the meaning of the sentence about as it was, so the sentence keeps
        its teacher embedding (code-switching as augmentation: Qin et al. 2020, CoSDA-ML).

        Args:
            words: English.
            language: Into which language.
            rate: Probability with which each word that the dictionary knows is replaced.
            rng: Source of chance.

        Returns:
            The words, and for each the place of the English word that it stands for.
        """
        found: list[str] = []
        places: list[int] = []
        draws = rng.random(len(words))
        for i, word in enumerate(words):
            new: Words = (word,)
            if draws[i] < rate and (entries := self.index.get(word)):
                entry, form = entries[int(rng.integers(len(entries)))]
                text = self.entries[entry].translate(form, language, rng)
                new = self.split(text) if text else new
            found.extend(new)
            places.extend([i] * len(new))
        return tuple(found), np.array(places, dtype=np.int64)
