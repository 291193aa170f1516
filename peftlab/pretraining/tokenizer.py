"""The tokenizer: lower-case WordPiece, learned from a sample in which no language dominates."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


def train_tokenizer(
    texts: Iterable[tuple[str, str]],
    vocabulary: int,
    max_length: int,
    english_share: float,
    seed: int,
    folder: Path,
) -> PreTrainedTokenizerBase:
    """Learn a WordPiece vocabulary and write the tokenizer.

    Text is lower-cased and loses its accents (as in multilingual BERT, uncased): languages then
    share more pieces. Languages other than English get the same number of characters each, by
    repetition; English gets ``english_share`` of all.

    Args:
        texts: (language, text).
        vocabulary: Number of pieces, special tokens included.
        max_length: Longest input in tokens.
        english_share: Part of the sample that is English.
        seed: Fixes the sample.
        folder: Where ``tokenizer.json`` and ``tokenizer_config.json`` go.
    """
    from tokenizers import BertWordPieceTokenizer
    from transformers import BertTokenizerFast

    by_language: dict[str, list[str]] = {}
    for language, text in texts:
        by_language.setdefault(language, []).append(text)
    sample = _balance(by_language, english_share, np.random.default_rng(seed))
    model = BertWordPieceTokenizer(lowercase=True, strip_accents=True)
    model.train_from_iterator(
        sample,
        vocab_size=vocabulary,
        limit_alphabet=400,
        special_tokens=SPECIAL,
        show_progress=False,
    )
    tokenizer = BertTokenizerFast(
        tokenizer_object=model._tokenizer,
        do_lower_case=True,
        strip_accents=True,
        model_max_length=max_length,
    )
    tokenizer.save_pretrained(folder)
    for extra in ("special_tokens_map.json", "vocab.txt"):  # tokenizer.json holds both
        (folder / extra).unlink(missing_ok=True)
    return tokenizer


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
