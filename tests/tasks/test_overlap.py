"""Vocabulary overlap: what it counts, and that the book's shares are found again."""

from __future__ import annotations

import json

import pytest

from peftlab.errors import DataError
from peftlab.tasks.overlap import vocabulary_overlap
from tools import overlap


def test_the_share_of_frequent_words() -> None:
    ours = ["the cat sees the dog", "The dog!"]  # the 3, dog 2, cat 1, sees 1
    theirs = ["the dog walks and walks, the end", "the bird"]  # the 3, walks 2, and, bird, dog ...
    assert vocabulary_overlap(ours, ours) == (1.0, 4)
    assert vocabulary_overlap(ours, theirs, most=1) == (1.0, 1)
    assert vocabulary_overlap(ours, theirs, most=2) == (0.5, 2)
    assert vocabulary_overlap(ours, theirs) == vocabulary_overlap(theirs, ours)


def test_numbers_and_signs_are_no_words_and_letters_of_all_scripts_are() -> None:
    assert vocabulary_overlap(["ёж 12 a_b"], ["Ёж 13 b a"]) == (1.0, 3)


def test_without_words_there_is_nothing_to_compare() -> None:
    with pytest.raises(DataError, match="has no word"):
        vocabulary_overlap(["one"], ["1, 2, 3"])


@pytest.mark.data
def test_the_shares_of_the_book_are_found_again(peftlab_data: str) -> None:
    shown = json.loads(overlap.FOUND.read_text(encoding="utf-8"))
    assert overlap.found() == shown, "run python -m tools.overlap"
