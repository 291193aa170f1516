"""How much of their vocabulary two collections of texts share: how near two domains are."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable

from peftlab.errors import DataError

#: Most frequent words of each side that are compared.
MOST = 10_000
WORD = re.compile(r"[^\W\d_]+")


def vocabulary_overlap(
    ours: Iterable[str], theirs: Iterable[str], most: int = MOST
) -> tuple[float, int]:
    r"""Return which share of the most frequent words two collections have in common.

    .. math:: |V_k(A) \cap V_k(B)| \;/\; k

    with the k most frequent words of each, lower-case; k is ``most``, or the size of the smaller
    vocabulary. More text gives more rare words, so compare collections of about the same size.

    Source: Gururangan et al. 2020 (arXiv 2004.10964), who compare domains in this way. Taught in
    the chapter on the third paper.

    Args:
        ours: Texts of A.
        theirs: Texts of B.
        most: Largest k.

    Returns:
        The share, and k.

    Raises:
        DataError: One side has no word.
    """
    counts = [
        Counter(w for text in side for w in WORD.findall(text.lower())) for side in (ours, theirs)
    ]
    k = min(most, *map(len, counts))
    if k == 0:
        raise DataError("A collection has no word, so that its vocabulary cannot be compared.")
    one, other = (_frequent(count, k) for count in counts)
    return len(one & other) / k, k


def _frequent(counts: Counter[str], k: int) -> set[str]:
    """Return the k most frequent words; of equally frequent ones the first by the alphabet."""
    return {word for word, _ in sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:k]}
