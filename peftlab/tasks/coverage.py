"""Whether a tokenizer can represent the texts of a task: the share of unknown pieces."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from peftlab.tasks.base import Task
from peftlab.tasks.fields import Feature

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

#: The share of unknown pieces above which a warning is due.
MOST_UNKNOWN = 0.05


def unknown_share(features: Iterable[Feature], tokenizer: PreTrainedTokenizerBase) -> float:
    """Return the share of pieces that the tokenizer does not know, special tokens aside.

    Args:
        features: Encoded rows.
        tokenizer: What they were encoded with; one without an unknown piece knows all.

    Returns:
        A fraction; 0 where there is no piece.
    """
    unknown = tokenizer.unk_token_id
    if unknown is None:
        return 0.0
    special = set(tokenizer.all_special_ids) - {unknown}
    pieces = [piece for feature in features for piece in _ids(feature) if piece not in special]
    return pieces.count(unknown) / len(pieces) if pieces else 0.0


def warn_of_unknown(
    task: Task, features: Iterable[Feature], tokenizer: PreTrainedTokenizerBase, encoder: str
) -> None:
    """Warn if more than a twentieth of the pieces of a task are unknown to the tokenizer.

    Such texts are in a script, or have characters, that the encoder never saw in pretraining.

    Args:
        task: Whose rows they are.
        features: Encoded rows.
        tokenizer: What they were encoded with.
        encoder: Whose tokenizer it is.
    """
    share = unknown_share(features, tokenizer)
    if share > MOST_UNKNOWN:
        warnings.warn(
            f"{share:.0%} of the pieces of {task.name!r} (language {task.language!r}) are unknown "
            f"to the tokenizer of {encoder!r}: choose an encoder that was trained on its script.",
            stacklevel=_outside(),
        )


def _outside() -> int:
    """Return the level of the stack at which our caller was called from outside the package."""
    frame, level = sys._getframe(1), 1
    while frame.f_back and frame.f_globals["__name__"].startswith("peftlab."):
        frame, level = frame.f_back, level + 1
    return level


def _ids(feature: Feature) -> list[int]:
    """Return the pieces of a feature; those of its choices one after the other."""
    ids: list[Any] = feature["input_ids"]
    nested = bool(ids) and isinstance(ids[0], list)
    return [piece for choice in ids for piece in choice] if nested else ids
