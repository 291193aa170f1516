"""The texts that a multilingual encoder learns from: English sentences, translations, paragraphs.

Everything is read from the folder that ``PEFTLAB_DATA`` names, in the layout
``<dataset>[/<config>]/<split>.jsonl.gz``. This file knows where sentences come from, not what is
learned from them.
"""

from __future__ import annotations

import gzip
import json
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from peftlab.errors import DataError

Row = dict[str, Any]

# Tatoeba names languages by three letters; relatives of the encoder's languages keep theirs.
TATOEBA = {
    "deu": "de", "spa": "es", "fra": "fr", "ita": "it", "por": "pt", "nld": "nl",
    "dan": "da", "nob": "no", "ces": "cs", "rus": "ru", "tur": "tr", "ron": "ro", "bul": "bg",
}  # fmt: skip
SENTENCE_END = re.compile(r"(?<=[.!?])[\"'»”)]*\s+(?=[\"'«„“(]?[A-ZÀ-ÝА-ЯЁÇĞİÖŞÜ0-9])")
MAX_WORDS = 60
PLAIN = ("text", "premise", "hypothesis", "question1", "question2", "sentence1", "sentence2")


@dataclass(frozen=True)
class Pair:
    """A text in some language and the English text that means the same."""

    language: str
    text: str
    english: str


@dataclass
class Corpus:
    """What the recipe's sources hold, without repetitions.

    Attributes:
        english: English sentences, for distillation.
        pairs: Translations; their English sides are in ``english`` too.
        paragraphs: Longer texts by language, for masked language modelling only.
    """

    english: list[str] = field(default_factory=list)
    pairs: list[Pair] = field(default_factory=list)
    paragraphs: dict[str, list[str]] = field(default_factory=dict)

    def texts(self) -> Iterator[tuple[str, str]]:
        """Yield every text with its language; the tokenizer learns from them."""
        yield from (("en", text) for text in self.english)
        yield from ((pair.language, pair.text) for pair in self.pairs)
        for language, texts in self.paragraphs.items():
            yield from ((language, text) for text in texts)


def read_rows(dataset: str, split: str) -> list[Row]:
    """Read one split of one data set.

    Args:
        dataset: Folder under ``PEFTLAB_DATA``, for example ``"xquad/de"``.
        split: ``"train"``, ``"validation"`` or ``"test"``.

    Raises:
        DataError: ``PEFTLAB_DATA`` is not set, or the file is missing or damaged.
    """
    root = os.environ.get("PEFTLAB_DATA")
    if not root:
        raise DataError(
            "Pretraining needs its corpora: set PEFTLAB_DATA to a folder that holds "
            f"{dataset}/{split}.jsonl.gz and the other sources of the recipe."
        )
    path = Path(root) / dataset / f"{split}.jsonl.gz"
    try:
        with gzip.open(path, "rt", encoding="utf-8") as file:
            return [json.loads(line) for line in file]
    except FileNotFoundError as error:
        raise DataError(
            f"PEFTLAB_DATA has no {dataset}/{split}.jsonl.gz: put it there, "
            "or take it out of the recipe's sources."
        ) from error
    except (OSError, EOFError, ValueError) as error:
        raise DataError(
            f"{dataset}/{split}.jsonl.gz in PEFTLAB_DATA cannot be read ({error}): fetch it again."
        ) from error


def read_corpus(sources: dict[str, list[str]]) -> Corpus:
    """Read the sources that a recipe names.

    Args:
        sources: ``tatoeba``: three-letter codes. ``xquad``, ``mlqa``, ``xnli`` (its validation
            split), ``multi30k``: languages beside English. ``english``: ``dataset/split`` of plain
            English data. ``paragraphs``: ``language: dataset/split`` of data with a ``context``.

    Returns:
        The corpus, in an order that depends on the sources only.

    Raises:
        DataError: A source is not known, missing or damaged.
    """
    pairs: list[Pair] = []
    english: list[str] = []
    paragraphs: dict[str, list[str]] = {}
    for name, items in sources.items():
        if name == "tatoeba":
            for code in items:
                pairs += tatoeba(code)
        elif name in ("xquad", "mlqa"):
            rows = read_rows(f"{name}/en", "validation")
            english += _questions_and_sentences(rows)
            for language in items:
                other = read_rows(f"{name}/{language}", "validation")
                pairs += questions(language, other, rows, parallel_contexts=name == "xquad")
                paragraphs.setdefault(language, []).extend(_contexts(other))
        elif name == "xnli":
            rows = read_rows("xnli/en", "validation")
            for language in items:
                other = read_rows(f"xnli/{language}", "validation")
                pairs += parallel(language, other, rows, ("premise", "hypothesis"))
        elif name == "multi30k":
            rows = read_rows("multi30k", "train")
            pairs += [
                Pair(language, clean(row[language]), clean(row["en"]))
                for language in items
                for row in rows
            ]
        elif name == "english":
            for item in items:
                rows = read_rows(*_split(item))
                english += plain_english(rows)
                paragraphs.setdefault("en", []).extend(_contexts(rows))
        elif name == "paragraphs":
            for item in items:
                language, _, place = item.partition(": ")
                rows = read_rows(*_split(place))
                paragraphs.setdefault(language, []).extend(_contexts(rows))
        else:
            raise DataError(
                f"The recipe names a source {name!r}: known are tatoeba, xquad, mlqa, xnli, "
                "multi30k, english and paragraphs."
            )
    pairs = [pair for pair in dict.fromkeys(pairs) if pair.text and pair.english]
    english = [pair.english for pair in pairs] + english
    return Corpus(
        english=list(dict.fromkeys(text for text in english if text)),
        pairs=pairs,
        paragraphs={k: list(dict.fromkeys(v)) for k, v in paragraphs.items()},
    )


def tatoeba(code: str) -> list[Pair]:
    """Read Tatoeba's sentence pairs of one language with English."""
    return [
        Pair(TATOEBA.get(code, code), clean(row["source_sentence"]), clean(row["target_sentence"]))
        for row in read_rows(f"tatoeba/{code}", "validation")
    ]


def questions(
    language: str, rows: list[Row], english: list[Row], *, parallel_contexts: bool
) -> list[Pair]:
    """Pair the questions and answers of a translated SQuAD-like data set by their ids.

    Where contexts are translations too (XQuAD), their sentences are paired if both have the same
    number. Where only one sentence of them is (MLQA), it is the one with the answer.
    """
    by_id = {row["id"]: row for row in english}
    pairs = []
    for row in rows:
        source = by_id.get(row["id"])
        if source is None:
            continue
        texts = [(row["question"], source["question"])]
        texts += zip(row["answers"]["text"][:1], source["answers"]["text"][:1], strict=True)
        if parallel_contexts:
            ours, theirs = sentences(row["context"]), sentences(source["context"])
            texts += zip(ours, theirs, strict=True) if len(ours) == len(theirs) else []
        else:
            texts.append((_answer_sentence(row), _answer_sentence(source)))
        pairs += [Pair(language, clean(a), clean(b)) for a, b in texts if re.search(r"[^\W\d]", a)]
    return pairs


def parallel(
    language: str, rows: list[Row], english: list[Row], names: Iterable[str]
) -> list[Pair]:
    """Pair the fields of two lists of rows that are translations in the same order.

    Raises:
        DataError: One list is longer.
    """
    if len(rows) != len(english):
        raise DataError(
            f"{len(rows)} rows in {language!r} cannot translate {len(english)} English ones: "
            "fetch both files again."
        )
    both = list(zip(rows, english, strict=True))
    return [Pair(language, clean(a[name]), clean(b[name])) for name in names for a, b in both]


def plain_english(rows: list[Row]) -> list[str]:
    """Return the sentences of rows with a question and a context, or with other texts."""
    if rows and "context" in rows[0]:
        return _questions_and_sentences(rows)
    found = (row[name] for row in rows for name in PLAIN if name in row)
    texts = (detokenise(text) for text in found if "<unk>" not in text)
    return [s for text in texts if "= =" not in text for s in sentences(text)]


def detokenise(text: str) -> str:
    """Undo the tokenisation of WikiText: ``1 @,@ 000 men 's ( tall )`` → ``1,000 men's (tall)``."""
    text = re.sub(r" @(.)@ ", r"\1", text)
    text = re.sub(r" ([.,;:!?)\]%]|'s\b|n't\b|'\w+)", r"\1", text)
    return clean(re.sub(r"([(\[$£]) ", r"\1", text))


def sentences(text: str) -> list[str]:
    """Split a paragraph after sentence ends; sentences of more than 60 words are cut there."""
    return [" ".join(s.split()[:MAX_WORDS]) for s in SENTENCE_END.split(text.strip()) if s]


def clean(text: str) -> str:
    """Replace runs of white space by one blank."""
    return " ".join(text.split())


def _questions_and_sentences(rows: list[Row]) -> list[str]:
    contexts = dict.fromkeys(row["context"] for row in rows)
    found = [clean(row["question"]) for row in rows]
    return found + [clean(s) for context in contexts for s in sentences(context)]


def _answer_sentence(row: Row) -> str:
    start, end = row["answers"]["answer_start"][0], 0
    for match in [*SENTENCE_END.finditer(row["context"]), None]:
        begin, end = end, match.end() if match else len(row["context"])
        if start < end:
            return " ".join(row["context"][begin:end].split()[:MAX_WORDS])
    return ""


def _contexts(rows: Iterable[Row]) -> list[str]:
    return list(dict.fromkeys(clean(row["context"]) for row in rows if "context" in row))


def _split(place: str) -> tuple[str, str]:
    dataset, _, split = place.rpartition("/")
    return dataset, split
