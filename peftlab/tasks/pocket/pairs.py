"""Rows about two texts: inference, paraphrase, cause and effect.

Each function draws a group of rows in which no text tells the label by itself: whatever stands
beside one label stands as often beside the others. It returns, for each row, a function from
language to row.
"""

from __future__ import annotations

from collections.abc import Callable

from peftlab.tasks.fields import Row
from peftlab.tasks.pocket.draws import Draw
from peftlab.tasks.pocket.wording import Cells, lexicon, people, scene, sentence_template, word

#: One row, to be worded in a language (its index).
Maker = Callable[[int], Row]


def nli(draw: Draw, part: str) -> list[Maker]:
    """Draw a premise and three hypotheses: entailed, neutral, contradicted.

    The premise is a case of one pole of a frame. Its own pole's claim is entailed, that of another
    pole contradicted; a claim of a frame on the other side (state, activity) is neutral.
    """
    sides = draw.some(("state", "activity"), 2)
    frame, other = (draw.one([f for f in lexicon("nli")[part] if f["side"] == s]) for s in sides)
    pole, opposite = draw.some(frame["pole"], 2)
    hypotheses = [draw.one(p["claims"]) for p in (pole, draw.one(other["pole"]), opposite)]
    premise, where = draw.one(pole["cases"]), scene(draw, part)
    templates = [sentence_template(draw, part) for _ in range(2)]

    def maker(label: int) -> Maker:
        return lambda language: {
            "premise": where.told(templates[0], premise, language),
            "hypothesis": where.told(templates[1], hypotheses[label], language),
            "label": label,
        }

    return [maker(label) for label in range(3)]


def paraphrase(draw: Draw, part: str) -> list[Maker]:
    """Draw a sentence, another wording of it, and the same template with another meaning."""
    concept, other = draw.some(lexicon("paraphrase")[part], 2)
    first, same = draw.some(("a", "b"), 2)
    where = scene(draw, part)
    templates = [sentence_template(draw, part) for _ in range(2)]
    seconds = (other[draw.one(("a", "b"))], concept[same])

    def maker(label: int) -> Maker:
        return lambda language: {
            "sentence1": where.told(templates[0], concept[first], language),
            "sentence2": where.told(templates[1], seconds[label], language),
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
