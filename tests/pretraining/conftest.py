"""A made-up corpus of a few sentences and a recipe that is trained on it in seconds."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

RECIPE = """
seed = 3
languages = ["de"]
relatives = 0.5
teacher = "{teacher}"
teacher_layer = 1

[encoder]
vocabulary = 300
hidden_size = 64
layers = [0, 1]
intermediate_size = 24
max_length = 48
english_share = 0.5
from_teacher = true

[bag]
steps = 12
batch = 24
learning_rate = 1e-2
warmup = 0.1
token_dropout = 0.1
temperature = 0.05
contrast = 0.1
shares = {{ english = 1, translation = 1, switched = 1, word = 1 }}

[encoder_stage]
steps = 20
tokens = 64
learning_rate = 1e-3
embedding_learning_rate = 1e-3
warmup = 0.1
mask_rate = 0.15
sentence = 1.0
words = 1.0
masked = 0.2
temperature = 0.05
contrast = 0.1
max_length = 32
shares = {{ english = 1, translation = 1, switched = 1, word = 1, pair = 1, paragraph = 1 }}

[sources]
tatoeba = ["deu", "swe"]
xquad = ["de"]
english = ["wikitext2/test"]
"""

GERMAN = {"the": "der", "dog": "Hund", "cat": "Kater", "sees": "sieht", "finds": "findet"}
GERMAN |= {"old": "alte", "new": "neue", "river": "Fluss", "a": "ein", "song": "Gesang"}


def sentence(i: int, words: dict[str, str]) -> str:
    """Make the i-th sentence of a tiny grammar."""
    nouns, sizes, verbs = ["dog", "cat", "river", "song"], ["old", "new"], ["sees", "finds"]
    chosen = ["the", sizes[i % 2], nouns[i % 4], verbs[i // 4 % 2], "a", nouns[i // 8 % 4]]
    return " ".join(words.get(word, word) for word in chosen).capitalize() + "."


def question(i: int, words: dict[str, str]) -> dict[str, Any]:
    """Make a row with a question whose answer lies in the second sentence of its context."""
    context = f"{sentence(i, words)} {sentence(i + 5, words)}"
    start = len(sentence(i, words)) + 1
    answer = context[start:].split()[0]
    return {
        "id": str(i),
        "context": context,
        "question": sentence(i + 3, words)[:-1] + "?",
        "answers": {"text": [answer], "answer_start": [start]},
    }


@pytest.fixture
def write_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Return a function that writes one split into a fresh PEFTLAB_DATA."""
    monkeypatch.setenv("PEFTLAB_DATA", str(tmp_path / "data"))

    def write(place: str, rows: list[dict[str, Any]]) -> Path:
        path = tmp_path / "data" / f"{place}.jsonl.gz"
        path.parent.mkdir(parents=True, exist_ok=True)
        with gzip.open(path, "wt", encoding="utf-8") as file:
            file.writelines(json.dumps(row) + "\n" for row in rows)
        return path

    return write


@pytest.fixture
def recipe(
    write_rows: Callable[..., Path], tiny_folder: Callable[[str], Path], tmp_path: Path
) -> Path:
    """A recipe file; its sources and its teacher (random) are there."""
    for code, words in (("deu", GERMAN), ("swe", {})):
        write_rows(
            f"tatoeba/{code}/validation",
            [
                {"source_sentence": sentence(i, words), "target_sentence": sentence(i, {})}
                for i in range(32)
            ],
        )
    write_rows("xquad/en/validation", [question(i, {}) for i in range(8)])
    write_rows("xquad/de/validation", [question(i, GERMAN) for i in range(8)])
    write_rows("wikitext2/test", [{"text": " = Heading = "}, {"text": " The dog 's song . "}])
    path = tmp_path / "recipe.toml"
    path.write_text(RECIPE.format(teacher=tiny_folder("bert").as_posix()))
    return path
