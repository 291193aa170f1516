"""The tokenizer: lower-case WordPiece, learned from a sample in which no language dominates."""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from peftlab.pretraining.recipe import EncoderSizes, Recipe

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

NORMALISED = {"lowercase": True, "strip_accents": True}
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
ALPHABET = 400  # letters; rarer ones become [UNK]


class Splitter:
    """Splits texts into words, lower-case and without accents, as the tokenizer does before pieces.

    What is known about a word (its pieces, its teacher state, the word it translates) is kept by
    word, so every other part of pretraining handles lists of words.
    """

    def __init__(self) -> None:
        from tokenizers.normalizers import BertNormalizer
        from tokenizers.pre_tokenizers import BertPreTokenizer

        self._normalise, self._split = BertNormalizer(**NORMALISED), BertPreTokenizer()

    def __call__(self, text: str) -> tuple[str, ...]:
        """Return the words of a text."""
        found = self._split.pre_tokenize_str(self._normalise.normalize_str(text))
        return tuple(sys.intern(word) for word, _ in found)


def ready_tokenizer(
    folder: Path, texts: Iterable[tuple[str, str]], recipe: Recipe
) -> PreTrainedTokenizerBase:
    """Load the tokenizer that an earlier attempt left in a folder, or learn and leave it there.

    Args:
        folder: Belongs to one recipe and its data.
        texts: (language, text).
        recipe: Its sizes and seed.
    """
    from transformers import BertTokenizerFast

    if not folder.is_dir():
        temporary = folder.with_name(f".{folder.name}.{os.getpid()}")
        save_tokenizer(train_tokenizer(texts, recipe.encoder, recipe.seed), temporary)
        os.replace(temporary, folder)
    return BertTokenizerFast.from_pretrained(folder)


def train_tokenizer(
    texts: Iterable[tuple[str, str]], sizes: EncoderSizes, seed: int
) -> PreTrainedTokenizerBase:
    """Learn a WordPiece vocabulary.

    Text is lower-cased and loses its accents (as in multilingual BERT, uncased): languages then
    share more pieces. Languages other than English get the same number of characters each, by
    repetition; English gets ``english_share`` of all.

    Args:
        texts: (language, text).
        sizes: Vocabulary (special tokens included), longest input, share of English.
        seed: Fixes the sample.
    """
    from tokenizers import BertWordPieceTokenizer
    from transformers import BertTokenizerFast

    by_language: dict[str, list[str]] = {}
    for language, text in texts:
        by_language.setdefault(language, []).append(text)
    sample = _balance(by_language, sizes.english_share, np.random.default_rng(seed))
    learner = BertWordPieceTokenizer(**NORMALISED)
    letters = Counter(c for text in sample for c in learner.normalize(text) if not c.isspace())
    alphabet = sorted(sorted(letters, key=lambda c: (-letters[c], c))[:ALPHABET])
    # The trainer numbers inner letters in the order of a hash table, and the numbers decide ties;
    # named as special they get fixed numbers, and the vocabulary does not depend on the run.
    inner = [f"##{letter}" for letter in alphabet]
    learner.train_from_iterator(
        sample,
        vocab_size=sizes.vocabulary,
        initial_alphabet=alphabet,
        limit_alphabet=len(alphabet),
        special_tokens=SPECIAL + inner,
        show_progress=False,
    )
    pieces = learner.get_vocab()
    rest = sorted(set(pieces) - set(SPECIAL), key=lambda piece: pieces[piece])
    vocabulary = {piece: number for number, piece in enumerate(SPECIAL + rest)}
    return BertTokenizerFast(
        tokenizer_object=BertWordPieceTokenizer(vocabulary, **NORMALISED)._tokenizer,
        do_lower_case=True,
        strip_accents=True,
        model_max_length=sizes.max_length,
    )


def save_tokenizer(tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Write ``tokenizer.json`` and ``tokenizer_config.json``, and nothing that repeats them."""
    tokenizer.save_pretrained(folder)
    for extra in ("special_tokens_map.json", "vocab.txt"):
        (folder / extra).unlink(missing_ok=True)


def _balance(
    by_language: dict[str, list[str]], english_share: float, rng: np.random.Generator
) -> list[str]:
    sizes = {language: sum(map(len, texts)) for language, texts in by_language.items()}
    others = [language for language in sizes if language != "en"]
    budget = max((sizes[language] for language in others), default=0)
    quota = dict.fromkeys(others, budget)
    quota["en"] = int(english_share / (1 - english_share) * budget * len(others)) or sizes["en"]
    sample: list[str] = []
    for language, texts in by_language.items():
        left = quota[language]
        while left > 0:
            for i in rng.permutation(len(texts)):
                sample.append(texts[i])
                left -= len(texts[i])
                if left <= 0:
                    break
    return sample
