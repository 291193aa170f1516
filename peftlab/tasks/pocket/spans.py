"""Rows whose answer lies inside a text: named entities and questions. See ``pairs.py``."""

from __future__ import annotations

import re
from typing import Any

from peftlab.tasks.fields import Row
from peftlab.tasks.pocket.draws import Draw
from peftlab.tasks.pocket.pairs import Maker
from peftlab.tasks.pocket.wording import LANGUAGES, Person, lexicon, people, word

#: Tags in the order of WikiANN, so that names of tasks and heads can be exchanged.
TAGS = ("O", "B-PER", "I-PER", "B-ORG", "I-ORG", "B-LOC", "I-LOC")

# Brackets of entities, words (with inner apostrophes, hyphens), punctuation.
_TOKEN = re.compile(r"\[[A-Z]{3} |\]|[^\W_]+(?:['’-][^\W_]+)*|[^\w\s]")

# The answer is marked by control characters while its sentence is worded.
_ANSWER = re.compile("\x02(.*)\x03")


def ner(draw: Draw, part: str) -> list[Maker]:
    """Draw a sentence and the entities in it, names alone or with a family name."""
    words = {name: table[part] for name, table in lexicon("ner").items()}
    template = draw.one(words["templates"])
    persons, full = people(draw, part, 2), draw.chance(50)
    surnames = draw.some(words["surnames"], 2)
    companies = draw.some(words["organisations"], 2)
    places = draw.some(words["places"], 2)

    def make(language: int) -> Row:
        cyrillic = int(LANGUAGES[language] == "ru")
        pairs = zip(persons, surnames, strict=True)
        names = [p.named(language) + full * f" {s[cyrillic]}" for p, s in pairs]
        slots = {
            "per": f"[PER {names[0]}]",
            "per2": f"[PER {names[1]}]",
            "org": f"[ORG {companies[0][cyrillic]}]",
            "org2": f"[ORG {companies[1][cyrillic]}]",
            "loc": _place(places[0], language),
            "loc2": _place(places[1], language),
            "in": _in_place(places[0], language),
        }
        text = word(template[language], language, persons[0].gender, **slots)
        tokens, tags = _tagged(text)
        return {"tokens": tokens, "ner_tags": [TAGS.index(tag) for tag in tags]}

    return [make]


def _place(place: list[str], language: int) -> str:
    return f"[LOC {place[6 if LANGUAGES[language] == 'tr' else language]}]"


def _in_place(place: list[str], language: int) -> str:
    """Say "in" the place: a preposition, in Russian with a case, in Turkish a suffix."""
    form = {"ru": place[5], "tr": place[7]}.get(LANGUAGES[language], place[language])
    before = ("in ", "in ", "en ", "à ", "в ", "")[language]
    return f"{before}[LOC {form}]"


def _tagged(text: str) -> tuple[list[str], list[str]]:
    """Split ``in [LOC New York].`` into tokens and their BIO tags."""
    tokens, tags, kind, begun = [], [], "", False
    for token in _TOKEN.findall(text):
        if token.startswith("["):
            kind, begun = token[1:4], False
        elif token == "]":
            kind = ""
        else:
            tokens.append(token)
            tags.append(f"{'I' if begun else 'B'}-{kind}" if kind else "O")
            begun = True
    return tokens, tags


def qa(draw: Draw, part: str) -> list[Maker]:
    """Draw a context and a question about its object or its subject.

    Beside the sentence that answers stand one of the same relation and another person, one of the
    same person and another relation, and sometimes one of neither: the question must be read whole.
    """
    asked, other = draw.some(lexicon("qa")[part], 2)
    subject, second, third = people(draw, part, 3)
    objects, others = (draw.some(relation["objects"], 2) for relation in (asked, other))
    facts = [
        (subject, asked, objects[0]),
        (second, asked, objects[1]),
        (subject, other, others[0]),
        (third, other, others[1]),
    ]
    order = [i for i in draw.some(range(4), 4) if i != 3 or draw.chance(50)]
    wanted = draw.one(("what", "who"))

    def said(who: Person, relation: dict[str, Any], key: str, obj: str, language: int) -> str:
        name = who.named(language)
        if wanted == "who" and obj.startswith("\x02"):
            name, obj = f"\x02{name}\x03", obj.strip("\x02\x03")
        return word(relation[key][language], language, who.gender, p=name, o=obj)

    def make(language: int) -> Row:
        sentences = []
        for i in order:
            who, relation, cells = facts[i]
            obj = f"\x02{cells[language]}\x03" if i == 0 else cells[language]
            sentences.append(said(who, relation, "statement", obj, language))
        marked = " ".join(sentences)
        answer = _ANSWER.search(marked)
        assert answer is not None, "the first fact is always told"
        return {
            "context": marked.replace("\x02", "").replace("\x03", ""),
            "question": said(subject, asked, wanted, objects[0][language], language),
            "answers": {"text": [answer[1]], "answer_start": [answer.start()]},
        }

    return [make]
