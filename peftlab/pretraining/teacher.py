"""The teacher: sentence embeddings of English, computed once, and their fixed projection.

The student's mean pool is to equal a *fixed* linear map of the teacher's embedding. A learned map
would let part of the alignment of languages hide in it, where the encoder itself lacks it.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from peftlab.errors import DataError, SettingsError
from peftlab.files import replacing
from peftlab.training.precision import autocast, resolve

if TYPE_CHECKING:
    from peftlab.encoders import Encoder

CHUNK = 4096  # sentences a cache file
BATCH_TOKENS = 4096
MAX_LENGTH = 128


def mean_pool(hidden: Tensor, mask: Tensor) -> Tensor:
    """Average the states of the real tokens: [B, L, d] and [B, L] → [B, d]."""
    weights = mask.unsqueeze(-1).to(hidden.dtype)
    return (hidden * weights).sum(1) / weights.sum(1)


def embed(encoder: Encoder, texts: list[str], max_length: int = MAX_LENGTH) -> Tensor:
    """Compute mean-pooled sentence embeddings.

    Args:
        encoder: Any encoder with a tokenizer.
        texts: Sentences.
        max_length: Tokens kept of each.

    Returns:
        float32 [len(texts), d], in the order of the texts.
    """
    assert encoder.tokenizer is not None
    encoded = encoder.tokenizer(texts, truncation=True, max_length=max_length)["input_ids"]
    order = sorted(range(len(texts)), key=lambda i: len(encoded[i]))
    result = torch.empty(len(texts), encoder.anatomy.hidden_size)
    device = next(encoder.backbone.parameters()).device
    start = 0
    with torch.inference_mode(), autocast(resolve("auto", device), device):
        while start < len(order):
            stop = start + 1
            while (
                stop < len(order) and len(encoded[order[stop]]) * (stop + 1 - start) <= BATCH_TOKENS
            ):
                stop += 1
            ids = pad([encoded[i] for i in order[start:stop]], -1).to(device)
            mask = ids >= 0
            hidden = encoder.backbone(ids.clamp(min=0), attention_mask=mask.long())
            pooled = mean_pool(hidden.last_hidden_state.float(), mask)
            result[order[start:stop]] = pooled.cpu()
            start = stop
    return result


class Teacher:
    """Sentence embeddings of a teacher model, kept in a folder so that each is computed once.

    Args:
        encoder: The teacher.
        folder: Cache; one safetensors file for each few thousand sentences. A killed run loses at
            most the file it was writing.
    """

    def __init__(self, encoder: Encoder, folder: Path) -> None:
        self.encoder = encoder
        self.folder = folder / encoder.fingerprint[:12]

    def __call__(self, texts: list[str]) -> Tensor:
        """Return the unit-length embeddings of texts, float32 [len(texts), d_teacher]."""
        wanted = _hashes(texts)
        keys, vectors = self._cached()
        missing = np.flatnonzero(~np.isin(wanted, keys))
        missing = missing[np.unique(wanted[missing], return_index=True)[1]]
        for start in range(0, len(missing), CHUNK):
            part = missing[start : start + CHUNK]
            found = embed(self.encoder, [texts[i] for i in part])
            found = torch.nn.functional.normalize(found, dim=-1).half()
            self._write(wanted[part], found)
            keys, vectors = np.concatenate([keys, wanted[part]]), torch.cat([vectors, found])
        order = np.argsort(keys)
        return vectors[order[np.searchsorted(keys, wanted, sorter=order)]].float()

    def _cached(self) -> tuple[np.ndarray, Tensor]:
        from safetensors.torch import load_file

        keys = [np.empty(0, dtype=np.int64)]
        vectors = [torch.empty(0, self.encoder.anatomy.hidden_size, dtype=torch.float16)]
        for path in sorted(self.folder.glob("*.safetensors")):
            part = load_file(path)
            keys.append(part["keys"].numpy())
            vectors.append(part["vectors"])
        return np.concatenate(keys), torch.cat(vectors)

    def _write(self, keys: np.ndarray, vectors: Tensor) -> None:
        from safetensors.torch import save_file

        name = hashlib.sha256(keys.tobytes()).hexdigest()[:16]
        with replacing(self.folder / f"{name}.safetensors") as temporary:
            save_file({"keys": torch.from_numpy(keys), "vectors": vectors}, temporary)


def principal_axes(embeddings: Tensor, dimensions: int) -> tuple[Tensor, Tensor]:
    """Fit the fixed projection: principal component analysis of the teacher's embeddings.

    t = (e − μ) W with W [d_teacher, d] the leading eigenvectors of the covariance, so that t keeps
    as much of the variance as d dimensions can.

    Args:
        embeddings: [N, d_teacher], N ≥ d.
        dimensions: d, the student's width.

    Returns:
        μ [d_teacher] and W [d_teacher, d]; the sign of each axis is fixed, so the result does not
        depend on the machine.

    Raises:
        SettingsError: The student is wider than the teacher.
        DataError: There are fewer sentences than dimensions.
    """
    if dimensions > embeddings.shape[1]:
        raise SettingsError(
            f"The student's width {dimensions} is above the teacher's {embeddings.shape[1]}: "
            "choose a narrower student or a wider teacher."
        )
    if len(embeddings) < dimensions:
        raise DataError(
            f"{len(embeddings)} English sentences cannot fix {dimensions} principal axes: "
            "name more sources in the recipe."
        )
    mean = embeddings.mean(0)
    centred = (embeddings - mean).double()
    _, vectors = torch.linalg.eigh(centred.T @ centred / len(centred))
    axes = vectors.flip(1)[:, :dimensions]
    largest = axes.gather(0, axes.abs().argmax(0, keepdim=True))
    return mean, (axes * largest.sign()).float()


def pad(rows: list[list[int]], value: int = 0) -> Tensor:
    """Put rows of different lengths into one tensor, int64 [B, L]."""
    result = np.full((len(rows), max(map(len, rows))), value, dtype=np.int64)
    for i, row in enumerate(rows):
        result[i, : len(row)] = row
    return torch.from_numpy(result)


def _hashes(texts: list[str]) -> np.ndarray:
    digests = (hashlib.sha256(text.encode()).digest()[:8] for text in texts)
    return np.array([int.from_bytes(d, "little", signed=True) for d in digests], dtype=np.int64)
