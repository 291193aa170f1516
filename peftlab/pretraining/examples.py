"""What the student sees: examples drawn from the corpus and the dictionary.

An example is drawn with a generator that the caller seeds with the step. A killed run therefore
needs to remember its step and nothing else to go on with the same data.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from peftlab.errors import SettingsError
from peftlab.pretraining.alignment import align
from peftlab.pretraining.corpus import Corpus
from peftlab.pretraining.dictionary import Dictionary
from peftlab.pretraining.teacher import Words

KINDS = ("english", "translation", "switched", "word", "pair", "paragraph")


@dataclass(frozen=True)
class Segment:
    """A text as words, each with the place of the English word that it means.

    Attributes:
        words: The words.
        links: int64 [words]: places in the English text of the example's target; -1 for none.
    """

    words: Words
    links: np.ndarray


@dataclass(frozen=True)
class Example:
    """A text to encode and the English text whose teacher states it shall resemble.

    Attributes:
        segments: One, or two for translation language modelling.
        target: Index of the English text; -1 for none.
    """

    segments: tuple[Segment, ...]
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
        self.dictionary, self.languages = dictionary, languages
        split = dictionary.split
        self.english = list(
            dict.fromkeys(map(split, [*corpus.english, *english_forms(dictionary)]))
        )
        place = {words: i for i, words in enumerate(self.english)}
        self.sentences = len(dict.fromkeys(map(split, corpus.english)))
        self.pairs = [(split(pair.text), split(pair.english)) for pair in corpus.pairs]
        self.pair_targets = [place[english] for _, english in self.pairs]
        self.pair_links = self._align([pair.language for pair in corpus.pairs])
        self.word_targets = [
            [place[split(form)] for form in entry.forms["en"]] for entry in dictionary.entries
        ]
        self.paragraphs = [
            (language, [split(text) for text in texts])
            for language, texts in corpus.paragraphs.items()
            if texts
        ]
        self._set_shares(shares)
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

    def drawing(self, shares: Mapping[str, float]) -> Source:
        """Return a source of the same texts with other shares."""
        other = copy.copy(self)
        other._set_shares(shares)
        return other

    def _set_shares(self, shares: Mapping[str, float]) -> None:
        unknown = set(shares) - set(KINDS)
        if unknown:
            raise SettingsError(
                f"The recipe gives a share to {sorted(unknown)[0]!r}: kinds of examples are "
                f"{', '.join(KINDS)}."
            )
        weights = np.array([float(shares.get(kind, 0)) for kind in KINDS])
        if not (weights.min() >= 0 < weights.sum()):
            raise SettingsError(
                f"The recipe's shares are {dict(shares)}: none may be below 0, one must be above."
            )
        self.shares = weights / weights.sum()

    def _align(self, languages: list[str]) -> list[np.ndarray]:
        """Align all pairs, each language with the help of its dictionary."""
        links: list[np.ndarray] = [np.empty(0)] * len(languages)
        for language in dict.fromkeys(languages):
            own = [i for i, other in enumerate(languages) if other == language]
            found = align([self.pairs[i] for i in own] + list(self.dictionary.pairs(language)))
            for i, each in zip(own, found, strict=False):
                links[i] = each
        return links

    def draw(self, number: int, rng: np.random.Generator) -> list[Example]:
        """Draw examples at random."""
        kinds = rng.choice(len(KINDS), number, p=self.shares)
        return [getattr(self, f"_{KINDS[kind]}")(rng) for kind in kinds]

    def _english(self, rng: np.random.Generator) -> Example:
        i = int(rng.integers(self.sentences))
        return Example((_itself(self.english[i]),), i)

    def _pick_pair(self, rng: np.random.Generator) -> int:
        place = int(np.searchsorted(self.pair_cumulative, rng.random(), side="right"))
        return min(place, len(self.pairs) - 1)

    def _translation(self, rng: np.random.Generator) -> Example:
        i = self._pick_pair(rng)
        return Example((Segment(self.pairs[i][0], self.pair_links[i]),), self.pair_targets[i])

    def _pick_language(self, rng: np.random.Generator) -> str:
        return self.languages[int(rng.integers(len(self.languages)))]

    def _switch(self, words: Words, rate: float, rng: np.random.Generator) -> Segment:
        return Segment(*self.dictionary.switch(words, self._pick_language(rng), rate, rng))

    def _switched(self, rng: np.random.Generator) -> Example:
        i = int(rng.integers(self.sentences))
        return Example((self._switch(self.english[i], 0.2 + 0.8 * rng.random(), rng),), i)

    def _word(self, rng: np.random.Generator) -> Example:
        i = int(rng.integers(len(self.dictionary.entries)))
        entry = self.dictionary.entries[i]
        form = int(rng.integers(len(entry.forms["en"])))
        text = entry.translate(form, self._pick_language(rng), rng) or entry.forms["en"][form]
        words = self.dictionary.split(text)
        return Example((Segment(words, np.full(len(words), -1)),), self.word_targets[i][form])

    def _pair(self, rng: np.random.Generator) -> Example:
        i = self._pick_pair(rng)
        segments = (Segment(self.pairs[i][0], self.pair_links[i]), _itself(self.pairs[i][1]))
        return Example(segments[:: 1 if rng.integers(2) else -1], self.pair_targets[i])

    def _paragraph(self, rng: np.random.Generator) -> Example:
        language, texts = self.paragraphs[int(rng.integers(len(self.paragraphs)))]
        words = texts[int(rng.integers(len(texts)))]
        segment = self._switch(words, rng.random(), rng) if language == "en" else _itself(words)
        return Example((segment,), -1)


def english_forms(dictionary: Dictionary) -> list[str]:
    """Return every English form of the dictionary; the teacher reads them too."""
    return [form for entry in dictionary.entries for form in entry.forms["en"]]


def _itself(words: Words) -> Segment:
    return Segment(words, np.arange(len(words)))
