"""The pocket tasks: the same everywhere, parallel, well formed, and test unseen in train.

Run as a program, this file freezes the digests of the rows anew.
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from peftlab.errors import DataError, UnknownNameError
from peftlab.tasks import pocket
from peftlab.tasks.pocket.draws import Draw
from peftlab.tasks.pocket.wording import lexicon, word

DIGESTS = Path(__file__).with_name("pocket_digests.json")
ALL = list(itertools.product(pocket.TASKS, pocket.LANGUAGES, pocket.SIZES))
LABELLED = [t for t in pocket.TASKS if "label" in pocket.TASKS[t].fields]

# English words without content of their own, which may stand in train and in test.
FUNCTION_WORDS = """
    a an the this that these some all every everybody everyone of in on at to for from with without
    by as into like about over and or but not no nothing never is are was be am been being has have
    had does do did i we you he she it they his her him my our their me us them who what where when
    which how so very too much many more most there here again out off up down away back something
    will would could can cannot one than yes
    """


def digest(task: str, language: str, split: str) -> str:
    rows = json.dumps(pocket.rows(task, language, split), ensure_ascii=False, sort_keys=True)
    return hashlib.sha256(rows.encode()).hexdigest()


def texts(row: dict[str, Any]) -> list[str]:
    """Return all that is written in a row; a choice's question is a keyword, an id no text."""
    if "tokens" in row:
        return [" ".join(row["tokens"])]
    answers = row["answers"]["text"] if "answers" in row else []
    skip = {"id"} | ({"question"} if "choice1" in row else set())
    return [v for k, v in row.items() if isinstance(v, str) and k not in skip] + answers


def content_words(task: str, split: str) -> set[str]:
    found = {
        word
        for row in pocket.rows(task, "en", split)
        for text in texts(row)
        for word in re.findall(r"[a-z]+", text.lower())
    }
    return found - set(FUNCTION_WORDS.split())


@pytest.mark.parametrize("task", pocket.TASKS)
def test_rows_are_the_frozen_ones(task: str) -> None:
    frozen = json.loads(DIGESTS.read_text())
    for name, language, split in ALL:
        if name == task:
            assert digest(task, language, split) == frozen[f"{task}/{language}/{split}"]


def test_the_stream_of_draws_is_fixed() -> None:
    draw = Draw("seed")
    assert [draw.below(10) for _ in range(8)] == [9, 1, 5, 9, 9, 5, 6, 0]
    assert sorted(draw.some(range(5), 5)) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(("task", "language", "split"), ALL)
def test_rows_are_well_formed(task: str, language: str, split: str) -> None:
    rows = pocket.rows(task, language, split)
    spec = pocket.TASKS[task]
    assert len(rows) == pocket.SIZES[split]
    for row in rows:
        assert tuple(sorted(row)) == tuple(sorted(spec.fields))
        for text in texts(row):
            assert text == text.strip() and text
            assert not re.search(r"[{}|\[\]~\x02\x03]|  |\(|\)", text), text
            stops = "[.,;]" if language == "fr" else "[.,;!?]"
            assert not re.search(f" {stops}", text) or task == "ner", text
            assert not text[0].islower() or task == "qa", text


@pytest.mark.parametrize("task", pocket.TASKS)
def test_languages_are_parallel(task: str) -> None:
    for split in pocket.SIZES:
        english = pocket.rows(task, "en", split)
        for language in pocket.LANGUAGES[1:]:
            other = pocket.rows(task, language, split)
            assert len(other) == len(english)
            for key in {"label", "question", "id"} & set(pocket.TASKS[task].fields):
                if key != "question" or task == "copa":
                    assert [r[key] for r in english] == [r[key] for r in other]
            if task == "ner":
                tags = [
                    [Counter(t for t in r["ner_tags"] if t % 2) for r in rows]
                    for rows in (english, other)
                ]
                assert tags[0] == tags[1]
            assert all(texts(a) != texts(b) for a, b in zip(english, other, strict=True))


@pytest.mark.parametrize("task", LABELLED)
def test_labels_are_balanced(task: str) -> None:
    for split in pocket.SIZES:
        counts = Counter(r["label"] for r in pocket.rows(task, "en", split))
        assert set(counts) == set(range(len(pocket.TASKS[task].labels)))
        assert max(counts.values()) - min(counts.values()) <= 1


@pytest.mark.parametrize(
    ("task", "language"), list(itertools.product(pocket.TASKS, pocket.LANGUAGES))
)
def test_no_row_twice(task: str, language: str) -> None:
    rows = [tuple(texts(r)) for split in pocket.SIZES for r in pocket.rows(task, language, split)]
    questions = [r.get("question") for s in pocket.SIZES for r in pocket.rows(task, language, s)]
    assert len(set(zip(rows, questions, strict=True))) == len(rows)


@pytest.mark.parametrize("task", pocket.TASKS)
def test_test_has_words_of_its_own(task: str) -> None:
    train, test = content_words(task, "train"), content_words(task, "test")
    assert not train & test, f"also in train: {sorted(train & test)}"
    assert len(train) > 40 and len(test) > 30
    assert content_words(task, "dev") <= train


def entries(table: Any, part: str) -> set[tuple[str, ...]]:
    """Return the rows of a lexicon that belong to a part, wherever they stand in it."""
    if isinstance(table, dict):
        inside = [table[part]] if part in table else list(table.values())
        return set().union(*(leaves(v) if part in table else entries(v, part) for v in inside))
    return set()


def leaves(value: Any) -> set[tuple[str, ...]]:
    if isinstance(value, dict):
        return set().union(*map(leaves, value.values()))
    if isinstance(value, list) and value and all(isinstance(v, str) for v in value):
        return {tuple(value)}
    return set().union(*map(leaves, value)) if isinstance(value, list) else set()


@pytest.mark.parametrize(
    "name", ["shared", "nli", "paraphrase", "copa", "sentiment", "topic", "qa"]
)
def test_lexicon_entries_are_complete_and_held_out(name: str) -> None:
    train, test = entries(lexicon(name), "train"), entries(lexicon(name), "test")
    cells = [
        {(i, cell) for row in part if len(row) == 6 for i, cell in enumerate(row)}
        for part in (train, test)
    ]
    shared = {cell for _, cell in cells[0] & cells[1]} - {"{p}"}
    assert not shared, f"in train and in test: {sorted(shared)}"
    for row in train | test:
        if len(row) == 6 and any(row):
            assert all(row), f"a language is missing in {row}"
            fields = {frozenset(re.findall(r"{(\w+)}", c)) - {"v0", "v1", "v"} for c in row}
            assert len(fields) == 1, f"other slots in one of the languages: {row}"


@pytest.mark.parametrize(
    ("language", "split"), list(itertools.product(pocket.LANGUAGES, pocket.SIZES))
)
def test_answers_stand_where_they_should(language: str, split: str) -> None:
    for row in pocket.rows("qa", language, split):
        (text,), (start,) = row["answers"]["text"], row["answers"]["answer_start"]
        assert row["context"][start : start + len(text)] == text
        assert 3 <= len(re.findall(r"\.", row["context"])) <= 4


@pytest.mark.parametrize(
    ("language", "split"), list(itertools.product(pocket.LANGUAGES, pocket.SIZES))
)
def test_tags_are_valid_bio(language: str, split: str) -> None:
    names = pocket.TASKS["ner"].labels
    for row in pocket.rows("ner", language, split):
        tags = [names[t] for t in row["ner_tags"]]
        assert len(tags) == len(row["tokens"]) and any(t != "O" for t in tags)
        for before, tag in zip(["O", *tags], tags, strict=False):
            assert not tag.startswith("I-") or before[1:] == tag[1:]


def test_rows_belong_to_the_caller() -> None:
    pocket.rows("ner", "en", "dev")[0]["tokens"].clear()
    assert pocket.rows("ner", "en", "dev")[0]["tokens"]


def test_names_that_do_not_exist() -> None:
    with pytest.raises(UnknownNameError, match="no pocket task 'sentimental'.*'sentiment'"):
        pocket.rows("sentimental", "en", "train")
    with pytest.raises(UnknownNameError, match="language of the pocket tasks 'it'"):
        pocket.rows("nli", "it", "train")
    with pytest.raises(UnknownNameError, match="split of the pocket tasks 'validation'"):
        pocket.rows("nli", "en", "validation")


def test_a_lexicon_that_is_too_small(monkeypatch: pytest.MonkeyPatch) -> None:
    def one_of_ten(draw: Draw, part: str) -> list[Any]:
        number = draw.below(10)
        return [lambda language: {"text": f"{number} {language}", "label": 0}]

    tiny = dataclasses.replace(pocket.TASKS["topic"], draw=one_of_ten)
    monkeypatch.setitem(pocket.TASKS, "tiny", tiny)
    with pytest.raises(DataError, match="pocket/tiny is too small"):
        pocket.rows("tiny", "en", "train")


@pytest.mark.parametrize(
    ("template", "language", "slots", "expected"),
    [
        ("{p} ist (Arzt|Ärztin).", 1, {"p": "anna"}, "Anna ist Ärztin."),
        ("{p}  kommt {t}.", 1, {"p": "Anna", "t": ""}, "Anna kommt."),
        ("{p} ?", 3, {"p": "qui"}, "Qui ?"),
        ("¿{p}?", 2, {"p": "quién"}, "¿Quién?"),
        ("{p}.", 5, {"p": "ışık"}, "Işık."),
        ("{p}.", 5, {"p": "istanbul"}, "İstanbul."),
        ("fühlt~sich {p}.", 1, {"p": "gut"}, "Fühlt sich gut."),
    ],
)
def test_wording(template: str, language: int, slots: dict[str, str], expected: str) -> None:
    assert word(template, language, "f", **slots) == expected


if __name__ == "__main__":
    frozen = {f"{t}/{lang}/{s}": digest(t, lang, s) for t, lang, s in ALL}
    DIGESTS.write_text(json.dumps(frozen, indent=1) + "\n")
