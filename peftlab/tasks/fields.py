"""Fields of a row: what is in them, what should be, and what to say when it is not.

Every kind of task checks its rows with these, so that every complaint names the row and the field.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from peftlab.errors import DataError, SettingsError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Row = dict[str, Any]
Feature = dict[str, Any]

#: What :func:`require` calls the label of a class.
LABEL = "a label"
#: Rows that are tokenised in one call; bounds the memory for offsets.
CHUNK = 1000


def require(row: Row, name: str, kinds: type | tuple[type, ...], where: str, meant: str) -> Any:
    """Return a field of a row, or say what is wrong with it.

    Args:
        row: The row.
        name: The field.
        kinds: Types that are right.
        where: The row in words, for the error.
        meant: What the field should hold, in words.

    Returns:
        The value.

    Raises:
        DataError: The field is missing or holds something else.
    """
    if name not in row:
        raise DataError(
            f"{where} has no field {name!r}: it should hold {meant}; the row has "
            f"{', '.join(map(repr, row)) or 'no fields'}."
        )
    value = row[name]
    if not isinstance(value, kinds) or isinstance(value, bool):
        none = hidden(value) if meant == LABEL else ""
        raise DataError(
            f"{where}: the field {name!r} is {short(value)}, but should be {meant}{none}."
        )
    return value


class Labels:
    """A label set: names in the order of the logits, and the index of every way to write one."""

    def __init__(self, names: Iterable[str], keys: Iterable[Hashable] | None = None) -> None:
        self.names = tuple(names)
        self._index: dict[Hashable, int] = {name: i for i, name in enumerate(self.names)}
        self._index.update({key: i for i, key in enumerate(keys or range(len(self.names)))})

    @classmethod
    def found(cls, values: Iterable[Any], where: str) -> Labels:
        """Make a label set of the strings or whole numbers that occur, sorted."""
        there = set(values)
        if any(isinstance(v, bool) or not isinstance(v, (str, int)) for v in there):
            odd = next(v for v in there if isinstance(v, bool) or not isinstance(v, (str, int)))
            raise DataError(f"{where}: the label {short(odd)} is neither text nor a whole number.")
        numbers = all(isinstance(v, int) for v in there)
        keys = sorted(there) if numbers else sorted(there, key=str)
        return cls(map(str, keys), keys)

    def index(self, value: Any, where: str) -> int:
        """Return the position of a label, or raise a DataError that names it."""
        if isinstance(value, Hashable) and value in self._index and not isinstance(value, bool):
            return self._index[value]
        known = ", ".join(map(repr, self.names[:8])) + (" …" if len(self.names) > 8 else "")
        raise DataError(
            f"{where}: the label {short(value)} is not in the label set {known}{hidden(value)}."
        )


def hidden(label: object) -> str:
    """Return what to add to a complaint about a label that stands for none."""
    if label not in (None, -1, ""):
        return ""
    return " (labels of this split are hidden: score another, or cut a test split with held_out)"


def check_length(max_length: int, tokenizer: PreTrainedTokenizerBase) -> None:
    """Raise a SettingsError if ``max_length`` is more than the tokenizer's model takes."""
    if max_length > tokenizer.model_max_length:
        raise SettingsError(
            f"max_length is {max_length}, but the model takes {tokenizer.model_max_length} tokens: "
            f"set max_length to {tokenizer.model_max_length} or less."
        )


def inputs(encoded: Mapping[str, Any], i: int) -> Feature:
    """Return what the model needs of the i-th encoding."""
    return {k: encoded[k][i] for k in ("input_ids", "token_type_ids") if k in encoded}


def short(value: Any) -> str:
    """Return a value as it is written in Python, at most 60 characters of it."""
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
