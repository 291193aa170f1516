"""Made-up rows of every data set, with the fields and label values that it has on the hub.

They are written by hand and know nothing of the table of data sets, which is tested with them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Row = dict[str, Any]

WORDS = ("river", "stone", "bridge", "garden", "door", "window", "rain", "song", "tree", "boat")


def sentence(i: int, more: str = "") -> str:
    """Return a short sentence that differs from its neighbours."""
    return f"the {WORDS[i % 10]} moves under the {WORDS[(7 * i + 3) % 10]} {more}".strip()


def pair(first: str, second: str, labels: int, hidden: int = 0) -> Callable[[int], Row]:
    """Return rows of two sentences; each ``hidden``-th label is -1."""

    def row(i: int) -> Row:
        label = -1 if hidden and i % hidden == 0 else i % labels
        return {first: sentence(i), second: sentence(i + 1, "now"), "label": label, "idx": i}

    return row


def text(labels: int | tuple[str, ...], field: str = "text", label: str = "label") -> Any:
    """Return rows of a sentence; labels are numbers or words."""

    def row(i: int) -> Row:
        value = i % labels if isinstance(labels, int) else labels[i % len(labels)]
        return {field: sentence(i), label: value}

    return row


def tags(names: int, field: str = "ner_tags") -> Callable[[int], Row]:
    """Return rows of three words; numbers of tags are O, B and I of a class in turn, or any."""

    def row(i: int) -> Row:
        first = 1 + 2 * (i % (names // 2))
        words = ["anna", WORDS[i % 10], "sings"]
        return {"id": str(i), "tokens": words, field: [first, first + 1 - i % 2, 0]}

    return row


def parts_of_speech(i: int) -> Row:
    """Return a row of XTREME's UD POS."""
    return {"tokens": ["the", WORDS[i % 10], "moves"], "pos_tags": [5, 7, 15 - i % 2]}


def slots(i: int) -> Row:
    """Return a row of xSID, whose labels are words."""
    intents = ("PlayMusic", "alarm/set_alarm", "weather/find")
    tagged = ["O", "B-datetime", "I-datetime"] if i % 2 else ["O", "B-artist", "O"]
    words = ["play", WORDS[i % 10], "now"]
    return {"text": " ".join(words), "tokens": words, "slots": tagged, "intent": intents[i % 3]}


def question(title: bool = True, prefix: str = "") -> Callable[[int], Row]:
    """Return rows of SQuAD; ids may begin with a language."""

    def row(i: int) -> Row:
        context = f"anna sings in oslo . {sentence(i, str(i // 3))} ."
        answers = {"text": ["oslo"], "answer_start": [context.index("oslo")]}
        found = {"id": f"{prefix}{i}", "context": context, "question": "where is anna ?"}
        return found | {"answers": answers} | ({"title": f"article {i % 7}"} if title else {})

    return row


def nested(i: int) -> Row:
    """Return a file of IndicQA: every third question has no answer, one start is wrong."""
    asked = []
    for n in range(60):
        answer = {"text": "", "answer_start": None} if n % 3 == 0 else None
        answer = answer or {"text": "oslo", "answer_start": 14 if n % 3 == 1 else 3}
        category = "SHORT" if answer["text"] else "NO"
        asked.append({"id": n, "question": "where ?", "category": category, "answers": [answer]})
    paragraph = {"context": f"anna sings in oslo {i}", "qas": asked}
    return {"version": 1, "data": [{"title": "t", "paragraphs": [paragraph]}]}


def cause(i: int) -> Row:
    """Return a row of COPA."""
    row = {"premise": sentence(i), "choice1": "it rained", "choice2": "the door opens"}
    return row | {"question": ("cause", "effect")[i % 2], "label": i // 2 % 2, "idx": i}


def social(i: int) -> Row:
    """Return a row of Social IQa, which counts answers from 1 and in words."""
    row = {"context": f"anna opens door {i} .", "question": "Why did anna do this?"}
    answers = {f"answer{name}": f"to see the {WORDS[n]}" for n, name in enumerate("ABC")}
    return row | answers | {"label": f"{1 + i % 3}\n"}


def review(i: int) -> Row:
    """Return a row of IndicSentiment; one in ten has no label."""
    label = None if i % 10 == 0 else ("Positive", "Negative")[i % 2]
    return {"CATEGORY": "x", "ENGLISH REVIEW": "fine", "LABEL": label, "INDIC REVIEW": sentence(i)}


def partisan(i: int) -> Row:
    """Return a row of Hyperpartisan as it is outside of the hub."""
    return {"text": sentence(i), "title": "t", "hyperpartisan": i % 3 == 0}


RCT = ("background", "conclusions", "methods", "objective", "results")
TOPICS = ("geography", "health", "science/technology", "travel")

STORED: dict[str, Callable[[int], Row]] = {
    "glue/cola": text(2, "sentence"),
    "glue/sst2": text(2, "sentence"),
    "glue/mrpc": pair("sentence1", "sentence2", 2),
    "glue/qqp": pair("question1", "question2", 2),
    "glue/stsb": lambda i: pair("sentence1", "sentence2", 2)(i) | {"label": (i % 11) / 2},
    "glue/mnli": pair("premise", "hypothesis", 3),
    "glue/mnli-mismatched": pair("premise", "hypothesis", 3),
    "glue/qnli": pair("question", "sentence", 2),
    "glue/rte": pair("sentence1", "sentence2", 2),
    "glue/wnli": pair("sentence1", "sentence2", 2),
    "squad": question(),
    "chemprot": text(13),
    "acl-arc": text(("Background", "Uses", "Future")),
    "scierc": text(7),
    "rct-20k": text(RCT),
    "csabstruct": text(5),
    "hyperpartisan": partisan,
    "ag-news": text(4),
    "imdb": text(2),
    "helpfulness": text(("helpful", "unhelpful")),
    "conll2003": tags(9),
    "conll2003-no-misc": tags(9),
    "ncbi-disease": tags(3),
    "xnli": pair("premise", "hypothesis", 3),
    "paws-x": pair("sentence1", "sentence2", 2, hidden=10),
    "xquad": question(title=False),
    "mlqa": question(title=False),
    "tydiqa": question(prefix="arabic-"),
    "wikiann": tags(7),
    "udpos": parts_of_speech,
    "sib200": lambda i: text(TOPICS, label="category")(i) | {"index_id": i},
    "xsid": slots,
    "xsid-slots": slots,
    "amazon-reviews": text(5),
    "amazon-polarity": text(5),
    "social-iqa": social,
    "copa": cause,
    "xcopa": cause,
    "indicxnli": pair("premise", "hypothesis", 3),
    "naamapadam": tags(7),
    "indicxparaphrase": pair("sentence1", "sentence2", 2),
    "indicsentiment": review,
    "indicqa": nested,
    "indiccopa": cause,
}

#: How many rows a task has of a stored split, where it is not all 120.
KEPT = {
    "paws-x": 108,
    "indicsentiment": 108,
    "amazon-polarity": 96,
    "conll2003-no-misc": 90,
    "indicqa": 80,
}


def stored(name: str) -> list[Row]:
    """Return the stored rows of a split: 120, or the two files of IndicQA."""
    return [STORED[name](i) for i in range(2 if name == "indicqa" else 120)]
