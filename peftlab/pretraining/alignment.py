"""Which words of a translation belong to which English words, learned from the pairs alone.

IBM model 1 (Brown et al. 1993) with the diagonal prior of fast_align (Dyer et al. 2013), trained by
expectation maximisation. With t(f|e) the probability that e is translated by f, the word f_j of a
pair comes from e_i with the posterior ::

    p(i | j) = t(f_j|e_i) q(i, j) / Σ_i' t(f_j|e_i') q(i', j),   q(i, j) = exp(−λ |i/m − j/n|).

Words are linked where the posteriors of both directions, multiplied, are the best choice of both.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from peftlab.pretraining.teacher import Words

ITERATIONS = 6
UNIFORM = 3  # the first ones go without q, so that other orders get a chance
DIAGONAL = 4.0  # λ, as fast_align sets it
SURE = 0.3  # a link's product of posteriors
NONE = -1


def align(pairs: Sequence[tuple[Words, Words]]) -> list[np.ndarray]:
    """Align the words of translations.

    Args:
        pairs: (foreign words, English words) of one language.

    Returns:
        For each pair int64 [foreign words]: the place of the English word, -1 for none.
    """
    foreign, english = (_number([pair[side] for pair in pairs]) for side in (0, 1))
    lengths = np.array([[len(f), len(e)] for f, e in pairs]).reshape(-1, 2)
    starts = np.cumsum(lengths, 0) - lengths
    # one entry for each foreign word with each English word of its pair
    j = np.concatenate([np.repeat(np.arange(n), m) for n, m in lengths])
    i = np.concatenate([np.tile(np.arange(m), n) for n, m in lengths])
    pair = np.repeat(np.arange(len(lengths)), lengths.prod(1))
    f_token, e_token = starts[pair, 0] + j, starts[pair, 1] + i
    n, m = lengths[pair, 0], lengths[pair, 1]
    prior = np.exp(-DIAGONAL * np.abs((i + 0.5) / m - (j + 0.5) / n))
    f, e = foreign[f_token], english[e_token]
    kind = np.unique(f * (english.max(initial=0) + 1) + e, return_inverse=True)[1]
    score = _posterior(kind, e, f_token, prior) * _posterior(kind, f, e_token, prior)
    best_f, best_e = np.zeros(len(foreign)), np.zeros(len(english))
    np.maximum.at(best_f, f_token, score)
    np.maximum.at(best_e, e_token, score)
    sure = (score >= SURE) & (score == best_f[f_token]) & (score == best_e[e_token])
    links = np.full(len(foreign), NONE, dtype=np.int64)
    links[f_token[sure]] = i[sure]
    return np.split(links, starts[1:, 0])


def _posterior(
    kind: np.ndarray, given: np.ndarray, token: np.ndarray, prior: np.ndarray
) -> np.ndarray:
    """Run expectation maximisation; return p(entry | its token), one for each entry.

    Args:
        kind: Which (f, e) types an entry has.
        given: The type that generates.
        token: The generated token.
        prior: q.
    """
    owner = np.zeros(kind.max(initial=0) + 1, dtype=np.int64)
    owner[kind] = given
    table = np.ones(len(owner))
    for iteration in range(ITERATIONS):
        weight = table[kind] * (prior if iteration >= UNIFORM else 1.0)
        posterior = weight / np.bincount(token, weight)[token]
        counts = np.bincount(kind, posterior)
        table = counts / np.bincount(owner, counts)[owner]
    return posterior


def _number(texts: Sequence[Words]) -> np.ndarray:
    numbers: dict[str, int] = {}
    return np.array(
        [numbers.setdefault(word, len(numbers)) for text in texts for word in text], dtype=np.int64
    )
