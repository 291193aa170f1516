"""Tokenizers and made-up rows for the tests of tasks: no downloads, no real data."""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # before huggingface_hub is imported

import numpy as np
import pytest
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from tokenizers.trainers import BpeTrainer

WORDS = (
    "the", "a", "river", "stone", "bright", "quiet", "moves", "stands", "under", "over",
    "bridge", "garden", "who", "what", "where", "is", "in", "sings", "falls", "anna", "oslo",
    "opens", "closes", "door", "window", "because", "so", "it", "rained", "wet", "##s", "##ing",
    "##ed", ",", ".", "?",
)  # fmt: skip
SENTENCE = "the quiet river moves under the bright bridge in oslo"


@pytest.fixture(scope="session")
def bert() -> Any:
    """A word-piece tokenizer as BERT's: lower-casing, token types."""
    from transformers import PreTrainedTokenizerFast

    vocab = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]
    letters = [p + c for c in "abcdefghijklmnopqrstuvwxyz" for p in ("", "##")]
    vocab += [piece for piece in letters if piece not in vocab]
    tokenizer = Tokenizer(models.WordPiece({w: i for i, w in enumerate(vocab)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        model_max_length=128,
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
    )


@pytest.fixture(scope="session")
def roberta() -> Any:
    """A byte-level tokenizer as RoBERTa's: no prefix space, no token types."""
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<s>", "<pad>", "</s>", "<unk>"]
    tokenizer.train_from_iterator(
        [SENTENCE] * 4,
        BpeTrainer(
            vocab_size=320,
            special_tokens=special,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    tokenizer.post_processor = processors.RobertaProcessing(
        ("</s>", 2), ("<s>", 0), add_prefix_space=False
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        unk_token="<unk>",
        cls_token="<s>",
        sep_token="</s>",
        model_max_length=128,
        model_input_names=["input_ids", "attention_mask"],
    )


@pytest.fixture(params=["bert", "roberta"])
def tokenizer(request: pytest.FixtureRequest) -> Any:
    """Each of the two tokenizers."""
    return request.getfixturevalue(request.param)


@pytest.fixture
def peftlab_data() -> Path:
    """The folder of real data; the test is skipped without one."""
    folder = os.environ.get("PEFTLAB_DATA")
    if not folder:
        pytest.skip("PEFTLAB_DATA is not set")
    return Path(folder)


def write(path: Path, rows: list[dict[str, Any]]) -> None:
    """Write rows as JSON lines, gzipped if the name says so."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    if path.suffix == ".gz":
        path.write_bytes(gzip.compress(text.encode()))
    else:
        path.write_text(text, encoding="utf-8")


def right_logits(task: Any, features: list[dict[str, Any]]) -> list[np.ndarray]:
    """Return logits that say what the labels say."""
    result = []
    for feature in features:
        labels, length = feature["labels"], len(feature["input_ids"])
        if task.kind == "regression":
            logits = np.array(labels, dtype=np.float32)
        elif task.kind == "qa":
            logits = np.zeros((length, 2), np.float32)
            logits[labels[0], 0] = logits[labels[1], 1] = 9
        elif task.kind == "tagging":
            logits = np.eye(len(task.labels), dtype=np.float32)[np.maximum(labels, 0)]
        else:
            logits = np.eye(len(task.labels), dtype=np.float32)[labels]
        result.append(logits)
    return result
