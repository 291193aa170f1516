"""What the student sees: examples drawn from the corpus and the dictionary, in batches.

Batches are a function of (seed, stage, step) alone. A killed run therefore needs to remember its
step and nothing else to go on with the same data.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from peftlab.errors import SettingsError
from peftlab.pretraining.corpus import Corpus
from peftlab.pretraining.dictionary import Dictionary

KINDS = ("english", "translation", "switched", "word", "pair", "paragraph")


@dataclass(frozen=True)
class Example:
    """A text to encode and the teacher's sentence it shall resemble.

    Attributes:
        text: The text.
        second: A second segment, for translation language modelling; ``""`` for none.
        target: Index of the English text whose teacher embedding is the target; -1 for none.
    """

    text: str
    second: str
    target: int


class Source:
    """Draws examples.

    Args:
        corpus: Sentences, translations, paragraphs.
        dictionary: Words, and code-switching.
        languages: The encoder's languages beside English. Pairs of other languages (relatives)
            are drawn ``relatives`` times as often as their number suggests.
        shares: Probability of each kind of example (:data:`KINDS`); they are normalised.
        relatives: See above.
    """

    def __init__(
        self,
        corpus: Corpus,
        dictionary: Dictionary,
        languages: list[str],
        shares: Mapping[str, float],
        relatives: float,
    ) -> None:
        unknown = set(shares) - set(KINDS)
        if unknown:
            raise SettingsError(
                f"The recipe gives a share to {sorted(unknown)[0]!r}: kinds of examples are "
                f"{', '.join(KINDS)}."
            )
        self.corpus, self.dictionary, self.languages = corpus, dictionary, languages
        self.english = list(dict.fromkeys([*corpus.english, *english_forms(dictionary)]))
        place = {text: i for i, text in enumerate(self.english)}
        self.pair_targets = [place[pair.english] for pair in corpus.pairs]
        self.word_targets = [
            [place[form] for form in entry.forms["en"]] for entry in dictionary.entries
        ]
        self.paragraphs = [
            (language, texts) for language, texts in corpus.paragraphs.items() if texts
        ]
        weights = np.array([float(shares.get(kind, 0)) for kind in KINDS])
        if not (weights.min() >= 0 < weights.sum()):
            raise SettingsError(
                f"The recipe's shares are {dict(shares)}: none may be below 0, one must be above."
            )
        self.shares = weights / weights.sum()
        counts: dict[str, int] = {}
        for pair in corpus.pairs:
            counts[pair.language] = counts.get(pair.language, 0) + 1
        # a language with four times the pairs is drawn twice as often
        each = np.array(
            [
                counts[p.language] ** -0.5 * (1 if p.language in languages else relatives)
                for p in corpus.pairs
            ]
        )
        self.pair_cumulative = np.cumsum(each / each.sum()) if len(each) else each

    def draw(self, number: int, rng: np.random.Generator) -> list[Example]:
        """Draw examples at random."""
        kinds = rng.choice(len(KINDS), number, p=self.shares)
        return [getattr(self, f"_{KINDS[kind]}")(rng) for kind in kinds]

    def _english(self, rng: np.random.Generator) -> Example:
        i = int(rng.integers(len(self.corpus.english)))
        return Example(self.english[i], "", i)

    def _pick_pair(self, rng: np.random.Generator) -> int:
        place = int(np.searchsorted(self.pair_cumulative, rng.random(), side="right"))
        return min(place, len(self.corpus.pairs) - 1)

    def _translation(self, rng: np.random.Generator) -> Example:
        i = self._pick_pair(rng)
        return Example(self.corpus.pairs[i].text, "", self.pair_targets[i])

    def _pick_language(self, rng: np.random.Generator) -> str:
        return self.languages[int(rng.integers(len(self.languages)))]

    def _switched(self, rng: np.random.Generator) -> Example:
        i = int(rng.integers(len(self.corpus.english)))
        rate = 0.2 + 0.8 * rng.random()
        text = self.dictionary.switch(self.english[i], self._pick_language(rng), rate, rng)
        return Example(text, "", i)

    def _word(self, rng: np.random.Generator) -> Example:
        i = int(rng.integers(len(self.dictionary.entries)))
        entry = self.dictionary.entries[i]
        form = int(rng.integers(len(entry.forms["en"])))
        text = entry.translate(form, self._pick_language(rng), rng) or entry.forms["en"][form]
        return Example(text, "", self.word_targets[i][form])

    def _pair(self, rng: np.random.Generator) -> Example:
        i = self._pick_pair(rng)
        texts = [self.corpus.pairs[i].text, self.corpus.pairs[i].english]
        first = int(rng.integers(2))
        return Example(texts[first], texts[1 - first], self.pair_targets[i])

    def _paragraph(self, rng: np.random.Generator) -> Example:
        language, texts = self.paragraphs[int(rng.integers(len(self.paragraphs)))]
        text = texts[int(rng.integers(len(texts)))]
        if language == "en":
            text = self.dictionary.switch(text, self._pick_language(rng), rng.random(), rng)
        return Example(text, "", -1)


def english_forms(dictionary: Dictionary) -> list[str]:
    """Return every English form of the dictionary; they get a teacher embedding too."""
    return [form for entry in dictionary.entries for form in entry.forms["en"]]
