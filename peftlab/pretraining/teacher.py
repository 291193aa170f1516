"""The teacher: what it says about English texts, computed once and kept in files.

Of each text it says two things: one vector for the sentence (the mean of its last states) and one
for each word (a state of a middle layer, where a trained encoder keeps what the word is and does
in the sentence; the last layer of a sentence encoder has lost some of it).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from peftlab.files import replacing
from peftlab.training.precision import autocast, resolve

if TYPE_CHECKING:
    from peftlab.encoders import Encoder

Words = tuple[str, ...]

CHUNK = 4096  # texts a cache file
BATCH_TOKENS = 4096
MAX_LENGTH = 128


def mean_pool(hidden: Tensor, mask: Tensor) -> Tensor:
    """Average the states of the real tokens: [B, L, d] and [B, L] → [B, d]."""
    weights = mask.unsqueeze(-1).to(hidden.dtype)
    return (hidden * weights).sum(1) / weights.sum(1)


def word_means(hidden: Tensor, owners: Tensor, number: int) -> Tensor:
    """Average the states of each word's pieces.

    Args:
        hidden: [B, L, d].
        owners: [B, L], the word that each piece belongs to, 0 … number − 1, or -1 for none.
        number: How many words there are in the batch.

    Returns:
        [number, d].
    """
    owned = owners >= 0
    sums = hidden.new_zeros(number, hidden.shape[-1]).index_add_(0, owners[owned], hidden[owned])
    return sums / torch.bincount(owners[owned], minlength=number).clamp(min=1).unsqueeze(1)


@torch.inference_mode()
def read(encoder: Encoder, texts: Sequence[Words], layer: int = -1) -> tuple[Tensor, list[Tensor]]:
    """Let an encoder read texts.

    Args:
        encoder: Any encoder with a tokenizer.
        texts: Texts as words.
        layer: Whose states the words get: 0 is the embedding layer, -1 the last.

    Returns:
        Mean-pooled sentence vectors, float32 [len(texts), d], and for each text the states of its
        words, float16 [words, d]; words beyond 128 tokens have none.
    """
    assert encoder.tokenizer is not None
    encoded = encoder.tokenizer(
        [list(words) for words in texts],
        is_split_into_words=True, truncation=True, max_length=MAX_LENGTH,
    )  # fmt: skip
    ids = encoded["input_ids"]
    order = sorted(range(len(texts)), key=lambda i: len(ids[i]))
    sentences = torch.empty(len(texts), encoder.anatomy.hidden_size)
    states: list[Tensor] = [torch.empty(0)] * len(texts)
    device = next(encoder.backbone.parameters()).device
    precision = resolve("auto", device)
    start = 0
    while start < len(order):
        stop = start + 1
        while stop < len(order) and len(ids[order[stop]]) * (stop + 1 - start) <= BATCH_TOKENS:
            stop += 1
        batch = order[start:stop]
        owners, counts = _owners([encoded.word_ids(i) for i in batch])
        padded = pad([ids[i] for i in batch], -1).to(device)
        mask = padded >= 0
        with autocast(precision, device):
            found = encoder.backbone(
                padded.clamp(min=0), attention_mask=mask.long(), output_hidden_states=True
            )
        sentences[batch] = mean_pool(found.last_hidden_state.float(), mask).cpu()
        words = word_means(found.hidden_states[layer].float(), owners.to(device), sum(counts))
        for i, part in zip(batch, words.half().cpu().split(counts), strict=True):
            states[i] = part
        start = stop
    return sentences, states


@dataclass(frozen=True)
class Lessons:
    """What the teacher says about a list of texts.

    Attributes:
        sentences: [N, d_teacher], of length 1.
        chunks: Word states as they lie in the cache files, each float16 [words, d_teacher].
        places: int64 [N, 3]: in which chunk the states of a text are, from where, how many.
    """

    sentences: Tensor
    chunks: list[Tensor]
    places: np.ndarray

    def states(self, text: int, words: np.ndarray) -> Tensor:
        """Return the states of some words of a text, [len(words), d_teacher]."""
        chunk, start, _ = self.places[text]
        return self.chunks[chunk][torch.from_numpy(start + words)]


class Teacher:
    """What a teacher says, kept in a folder so that no text is read twice.

    Args:
        encoder: The teacher.
        layer: Whose states its words get.
        folder: Cache; one safetensors file for each few thousand texts. A killed run loses at
            most the file it was writing.
    """

    def __init__(self, encoder: Encoder, layer: int, folder: Path) -> None:
        self.encoder, self.layer = encoder, layer
        self.folder = folder / f"{encoder.fingerprint[:12]}-{layer}"

    def __call__(self, texts: Sequence[Words]) -> Lessons:
        """Return what the teacher says about texts, in their order."""
        from safetensors.torch import load_file

        wanted = _hashes(texts)
        missing = np.flatnonzero(~np.isin(wanted, self._known()))
        missing = missing[np.unique(wanted[missing], return_index=True)[1]]
        for start in range(0, len(missing), CHUNK):
            part = missing[start : start + CHUNK]
            self._write(wanted[part], *read(self.encoder, [texts[i] for i in part], self.layer))
        # the word states stay on the disk: safetensors maps the files into memory
        files = [load_file(path) for path in sorted(self.folder.glob("*.safetensors"))]
        keys = np.concatenate([file["keys"].numpy() for file in files])
        order = np.argsort(keys)
        rows = order[np.searchsorted(keys, wanted, sorter=order)]
        counts = [file["counts"].numpy() for file in files]
        places = np.concatenate(
            [np.stack([np.full_like(n, i), np.cumsum(n) - n, n], 1) for i, n in enumerate(counts)]
        )
        sentences = torch.cat([file["sentences"] for file in files])[rows].float()
        return Lessons(
            torch.nn.functional.normalize(sentences, dim=-1),
            [file["words"] for file in files],
            places[rows],
        )

    def _known(self) -> np.ndarray:
        from safetensors import safe_open

        keys = [np.empty(0, dtype=np.int64)]
        for path in self.folder.glob("*.safetensors"):
            with safe_open(path, framework="np") as file:
                keys.append(file.get_tensor("keys"))
        return np.concatenate(keys)

    def _write(self, keys: np.ndarray, sentences: Tensor, states: list[Tensor]) -> None:
        from safetensors.torch import save_file

        name = hashlib.sha256(keys.tobytes()).hexdigest()[:16]
        tensors = {
            "keys": torch.from_numpy(keys),
            "sentences": sentences.half(),
            "counts": torch.tensor([len(part) for part in states]),
            "words": torch.cat(states),
        }
        with replacing(self.folder / f"{name}.safetensors") as temporary:
            save_file(tensors, temporary)


def pad(rows: list[list[int]], value: int = 0) -> Tensor:
    """Put rows of different lengths into one tensor, int64 [B, L]."""
    result = np.full((len(rows), max(map(len, rows))), value, dtype=np.int64)
    for i, row in enumerate(rows):
        result[i, : len(row)] = row
    return torch.from_numpy(result)


def _owners(word_ids: list[list[int | None]]) -> tuple[Tensor, list[int]]:
    """Number the words of a batch one after the other; return their numbers and counts a text."""
    counts = [1 + max((w for w in row if w is not None), default=-1) for row in word_ids]
    starts = np.cumsum(counts) - counts
    rows = [
        [-1 if w is None else int(start) + w for w in row]
        for row, start in zip(word_ids, starts, strict=True)
    ]
    return pad(rows, -1), counts


def _hashes(texts: Sequence[Words]) -> np.ndarray:
    digests = (hashlib.sha256(" ".join(words).encode()).digest()[:8] for words in texts)
    return np.array([int.from_bytes(d, "little", signed=True) for d in digests], dtype=np.int64)
