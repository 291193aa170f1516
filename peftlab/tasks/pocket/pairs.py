"""Rows about two texts: inference, paraphrase, cause and effect.

Each function draws a group of rows in which no text tells the label by itself: whatever stands
beside one label stands as often beside the others. It returns, for each row, a function from
language to row.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from peftlab.tasks.fields import Row
from peftlab.tasks.pocket.draws import Draw
from peftlab.tasks.pocket.wording import (
    Cells,
    Scene,
    lexicon,
    people,
    scene,
    sentence_template,
    word,
)

#: One row, to be worded in a language (its index).
Maker = Callable[[int], Row]


# In percent: contradictions by denial (the others say what excludes the premise), denials that
# stand in the premise, neutral hypotheses and unequal sentences about another person.
BY_DENIAL = 70
DENIED_PREMISE = 35
ANOTHER = 30


def nli(draw: Draw, part: str) -> list[Maker]:
    """Draw a premise and three hypotheses: entailed, neutral, contradicted.

    A case implies the claim of its pole, and the claim's denial the denial of the case. Such a pair
    is an entailment, and a contradiction when the hypothesis turns round. Also contradicted is the
    claim of another pole. Neutral is a claim or case of a frame on the other side (a state beside
    an activity, an activity beside a state), sometimes of another person as well.
    """
    sides = draw.some(("state", "activity"), 2)
    frame, other = (draw.one([f for f in lexicon("nli")[part] if f["side"] == s]) for s in sides)
    pole, opposite = draw.some(frame["pole"], 2)
    by_denial, affirmed = draw.chance(BY_DENIAL), True
    key, implied = "cases", "claims"
    if by_denial and draw.chance(DENIED_PREMISE):
        key, implied, affirmed = implied, key, False
    premise, entailed = draw.one(pole[key]), draw.one(pole[implied])
    neutral = draw.one(draw.one(other["pole"])[implied])
    if by_denial:
        hypotheses = [(entailed, affirmed), (neutral, draw.chance(50)), (entailed, not affirmed)]
    else:
        hypotheses = [(entailed, True), (neutral, True), (draw.one(opposite[implied]), True)]
    where, shared = scene(draw, part), lexicon("shared")
    elsewhere = scene(draw, part) if draw.chance(ANOTHER) else where
    first, second = draw.some(range(len(shared["affirmed"][part])), 2)

    def told(at: Scene, predicate: Cells, true: bool, template: int, language: int) -> str:
        cells = shared["affirmed" if true else "denied"][part][template]
        return at.told(cells, predicate, language)

    def maker(label: int) -> Maker:
        return lambda language: {
            "premise": told(where, premise, affirmed, first, language),
            "hypothesis": told(
                elsewhere if label == 1 else where, *hypotheses[label], second, language
            ),
            "label": label,
        }

    return [maker(label) for label in range(3)]


def paraphrase(draw: Draw, part: str) -> list[Maker]:
    """Draw a sentence, another wording of it, and a sentence that says something else.

    The other sentence changes what is said, or sometimes of whom. Its template may change as well,
    as that of the other wording does.
    """
    concept, other = draw.some(lexicon("paraphrase")[part], 2)
    first, same = draw.some(("a", "b"), 2)
    where = scene(draw, part)
    templates = [sentence_template(draw, part)] * 2
    if draw.chance(50):
        templates[1] = sentence_template(draw, part)
    another = dataclasses.replace(where, person=scene(draw, part).person)
    different = (
        (another, concept[same])
        if draw.chance(ANOTHER) and another != where
        else (where, other[draw.one(("a", "b"))])
    )
    seconds = (different, (where, concept[same]))

    def maker(label: int) -> Maker:
        at, predicate = seconds[label]
        return lambda language: {
            "sentence1": where.told(templates[0], concept[first], language),
            "sentence2": at.told(templates[1], predicate, language),
            "label": label,
        }

    return [maker(label) for label in range(2)]


def copa(draw: Draw, part: str) -> list[Maker]:
    """Draw two pairs of cause and effect: a choice is right in one row, wrong in the other."""
    pairs = lexicon("copa")[part]
    first = draw.one(pairs)
    second = draw.one([p for p in pairs if not set(p["themes"]) & set(first["themes"])])
    question, given = draw.one((("effect", "cause"), ("cause", "effect")))
    (person,) = people(draw, part, 1)

    def text(pair: dict[str, Cells], key: str, language: int) -> str:
        return word(pair[key][language], language, person.gender, p=person.named(language))

    def maker(label: int) -> Maker:
        return lambda language: {
            "premise": text((first, second)[label], given, language),
            "choice1": text(first, question, language),
            "choice2": text(second, question, language),
            "question": question,
            "label": label,
        }

    return [maker(label) for label in range(2)]
