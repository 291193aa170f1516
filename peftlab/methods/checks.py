"""Checks of settings that several methods share. Each raises a SettingsError or does nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from peftlab.errors import SettingsError, unknown

if TYPE_CHECKING:
    from peftlab.encoders import Anatomy


def check_rate(name: str, value: float) -> None:
    """Check a dropout rate."""
    if not 0 <= value < 1:
        raise SettingsError(f"{name} is {value!r}: give a rate from 0 up to, but not including, 1.")


def check_whole(name: str, value: int) -> None:
    """Check a number of things."""
    if not isinstance(value, int) or value < 1:
        raise SettingsError(f"{name} is {value!r}: give a whole number of 1 or more.")


def check_names(setting: str, names: tuple[str, ...], known: tuple[str, ...], what: str) -> None:
    """Check a choice of one or more things out of a list; ``what`` says what they are."""
    if not names or isinstance(names, str):
        raise SettingsError(
            f"{setting} is {names!r}: give a tuple with one or more of {', '.join(known)}."
        )
    for name in names:
        if name not in known:
            raise unknown(what, name, known)
    if len(set(names)) < len(names):
        raise SettingsError(f"{setting} names a {what} twice: {', '.join(names)}.")


def check_leave_out(layers: tuple[int, ...], anatomy: Anatomy) -> None:
    """Check indices of layers that get no parts; one layer at least must get some."""
    there = range(len(anatomy.layers))
    for index in layers:
        if index not in there or layers.count(index) > 1:
            raise SettingsError(
                f"leave_out names layer {index!r}: name each layer from 0 to {there[-1]} at most "
                "once."
            )
    if len(layers) == len(there):
        raise SettingsError(
            f"leave_out names all {len(there)} layers: keep one, or use the method head-only."
        )
