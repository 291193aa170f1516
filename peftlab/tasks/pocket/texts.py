"""Rows about one text: sentiment and topic. See ``pairs.py`` for what a function returns."""

from __future__ import annotations

from peftlab.tasks.fields import Row
from peftlab.tasks.pocket.draws import Draw
from peftlab.tasks.pocket.pairs import Maker
from peftlab.tasks.pocket.wording import Cells, lexicon, people, word

#: Share of sentences that say it with a negation, in percent.
NEGATED = 20

#: Share of sentences that a second one follows, in percent.
FOLLOWED = 40

TOPICS = ("food", "sport", "travel", "weather", "health", "technology")


def sentiment(draw: Draw, part: str) -> list[Maker]:
    """Draw a negative and a positive sentence about one thing."""
    words = {name: table[part] for name, table in lexicon("sentiment").items()}
    subject = draw.one(words["subjects"])
    template = draw.one(words["negated" if draw.chance(NEGATED) else "plain"])
    followed = draw.chance(FOLLOWED)
    qualities = [draw.some(words[name], 2) for name in ("negative", "positive")]
    follow_ups = [draw.one(words[name]) for name in ("complaint", "praise")]

    def maker(label: int) -> Maker:
        def make(language: int) -> Row:
            gender, _, thing = subject[language].rpartition(":")
            (a, n), (o, _) = qualities[label], qualities[1 - label]
            slots = {"s": thing, "a": a[language], "n": n[language], "o": o[language]}
            text = word(template[language], language, gender or "m", **slots)
            follow_up = f" {follow_ups[label][language]}" if followed else ""
            return {"sentence": text + follow_up, "label": label}

        return make

    return [maker(label) for label in range(2)]


def topic(draw: Draw, part: str) -> list[Maker]:
    """Draw a text for each topic: two sentences of it after one opener that fits all."""
    words = lexicon("topic")
    opener, (person,) = draw.one(words["openers"][part]), people(draw, part, 1)

    def maker(label: int) -> Maker:
        pair = draw.some(words[TOPICS[label]][part], 2)

        def make(language: int) -> Row:
            cells: list[Cells] = [opener, *pair]
            name = person.named(language)
            said = [word(c[language], language, person.gender, p=name) for c in cells]
            return {"text": " ".join(filter(None, said)), "label": label}

        return make

    return [maker(label) for label in range(len(TOPICS))]
