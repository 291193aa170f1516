"""What pretraining reads: texts, translations, the dictionary."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from peftlab.errors import DataError
from peftlab.pretraining.corpus import (
    detokenise,
    plain_english,
    questions,
    read_corpus,
    read_rows,
    sentences,
)
from peftlab.pretraining.dictionary import Dictionary, Entry

LANGUAGES = {"en", "de", "es", "fr", "it", "pt", "nl", "da", "no", "cs", "ru", "tr"}


# --- corpus ---------------------------------------------------------------------------------------


def test_sentences_and_detokenise() -> None:
    text = 'He came in 1990. Then he left. "Why?" Она ушла! Вот и всё.'
    assert sentences(text)[:2] == ["He came in 1990.", "Then he left."]
    assert sentences(text)[-1] == "Вот и всё."
    assert detokenise(" 1 @,@ 000 men 's ( tall ) house . ") == "1,000 men's (tall) house."


def test_unknown_words_and_headings_are_left_out() -> None:
    rows = [{"text": "A <unk> dog ."}, {"text": " = = Career = = "}, {"text": "A dog . A cat ."}]
    assert plain_english(rows) == ["A dog.", "A cat."]


def test_questions_pair_by_id_and_contexts_only_when_counts_match() -> None:
    def row(number: str, context: str, text: str) -> dict[str, object]:
        answer = {"text": [text], "answer_start": [context.index(text)]}
        return {"id": number, "context": context, "question": f"{text}?", "answers": answer}

    english = [row("1", "A dog. Red.", "Red"), row("2", "One. Two.", "Two")]
    german = [row("2", "Eins. Zwei.", "Zwei"), row("9", "Neun.", "Neun")]
    found = questions("de", german, english, parallel_contexts=True)
    assert [(p.text, p.english) for p in found] == [
        ("Zwei?", "Two?"),
        ("Zwei", "Two"),
        ("Eins.", "One."),
        ("Zwei.", "Two."),
    ]
    found = questions("de", german, english, parallel_contexts=False)
    assert ("Zwei.", "Two.") in [(p.text, p.english) for p in found]
    assert ("Eins.", "One.") not in [(p.text, p.english) for p in found]


def test_parallel_rows_and_captions(write_rows: Callable[..., Path]) -> None:
    for language, first, second in (("en", "A dog.", "A cat."), ("de", "Ein Hund.", "Ein Kater.")):
        rows = [{"premise": first, "hypothesis": second}]
        write_rows(f"xnli/{language}/validation", rows)
    write_rows("multi30k/train", [{"en": "A  river.", "de": "Ein Fluss."}])
    write_rows("glue_mnli/train", [{"premise": "One. Two.", "hypothesis": "Three.", "label": 0}])
    sources = {"xnli": ["de"], "multi30k": ["de"], "english": ["glue_mnli/train"]}
    corpus = read_corpus(sources)
    assert [(p.text, p.english) for p in corpus.pairs] == [
        ("Ein Hund.", "A dog."),
        ("Ein Kater.", "A cat."),
        ("Ein Fluss.", "A river."),
    ]
    assert corpus.english == ["A dog.", "A cat.", "A river.", "One.", "Two.", "Three."]
    write_rows("xnli/de/validation", [])
    with pytest.raises(DataError, match="0 rows in 'de' cannot translate 1 English"):
        read_corpus(sources)


def test_missing_data_is_a_sentence(
    monkeypatch: pytest.MonkeyPatch, write_rows: Callable[..., Path]
) -> None:
    with pytest.raises(DataError, match="PEFTLAB_DATA has no tatoeba/deu"):
        read_corpus({"tatoeba": ["deu"]})
    write_rows("tatoeba/deu/validation", []).write_bytes(b"no gzip")
    with pytest.raises(DataError, match="cannot be read"):
        read_rows("tatoeba/deu", "validation")
    with pytest.raises(DataError, match="names a source 'bible'"):
        read_corpus({"bible": ["deu"]})
    monkeypatch.delenv("PEFTLAB_DATA")
    with pytest.raises(DataError, match="set PEFTLAB_DATA to a folder"):
        read_corpus({"tatoeba": ["deu"]})


# --- dictionary -----------------------------------------------------------------------------------


def test_shipped_dictionary_is_well_formed() -> None:
    dictionary = Dictionary.read()
    assert len(dictionary.entries) > 500
    for entry in dictionary.entries:
        assert set(entry.forms) == LANGUAGES
        assert all("\t" not in f and f == f.strip() for fs in entry.forms.values() for f in fs)
    filled = [bool(forms) for entry in dictionary.entries for forms in entry.forms.values()]
    assert np.mean(filled) > 0.99


def test_switching_replaces_known_words_and_keeps_their_places() -> None:
    dictionary = Dictionary(
        [
            Entry({"en": ("to see", "sees"), "de": ("sehen", "schaut an")}),
            Entry({"en": ("dog",), "de": ("Hund", "Köter")}),
            Entry({"en": ("good morning",), "de": ("guten Morgen",)}),
        ]
    )
    rng = np.random.default_rng(0)
    text = dictionary.split("He sees dogma, Dog!")
    found = {dictionary.switch(text, "de", 1.0, rng)[0] for _ in range(30)}
    start = ("he", "schaut", "an", "dogma", ",")
    assert found == {(*start, "hund", "!"), (*start, "koter", "!")}
    assert dictionary.switch(text, "de", 1.0, rng)[1].tolist() == [0, 1, 1, 2, 3, 4, 5]
    for language, rate in (("de", 0.0), ("xx", 1.0)):
        same, places = dictionary.switch(text, language, rate, rng)
        assert same == text and places.tolist() == list(range(6))


@pytest.mark.parametrize(
    ("text", "message"), [("en\tde\na\tb\tc\n", "line 2 has 3 columns"), (None, "holds no dict")]
)
def test_bad_dictionary(tmp_path: Path, text: str | None, message: str) -> None:
    if text is not None:
        (tmp_path / "words.tsv").write_text(text)
    with pytest.raises(DataError, match=message):
        Dictionary.read(tmp_path)
