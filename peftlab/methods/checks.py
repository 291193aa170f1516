"""Checks of settings that methods share. Each raises a SettingsError or does nothing."""

from __future__ import annotations

import math
from dataclasses import fields
from functools import cache
from inspect import isabstract
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Any, Literal, Union, get_args, get_origin, get_type_hints

from peftlab.errors import SettingsError, unknown

if TYPE_CHECKING:
    from peftlab.encoders import Anatomy
    from peftlab.methods.base import Method

#: What a type is called in an error: one of them, and many.
WORDS: dict[Any, tuple[str, str]] = {
    int: ("a whole number", "whole numbers"),
    float: ("a number", "numbers"),
    bool: ("True or False", "True or False"),
    str: ("a string", "strings"),
    NoneType: ("None", "None"),
}


def check_types(method: Method) -> None:
    """Check that every setting is of the type that its field declares.

    Whole numbers are numbers; True and False are neither.

    Raises:
        SettingsError: One is not; or it is none of the choices of a ``Literal``.
    """
    hints = _hints(type(method))
    for field in fields(method):
        value, kind = getattr(method, field.name), hints[field.name]
        if not _fits(value, kind):
            raise SettingsError(
                f"{field.name} is {value!r} in the method {method.name!r}: give {_expected(kind)}."
            )


@cache
def _hints(cls: type) -> dict[str, Any]:
    return get_type_hints(cls)


def _fits(value: Any, kind: Any) -> bool:
    """Say whether a value is of a type, as the fields of methods declare types."""
    origin, args = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):
        return any(_fits(value, each) for each in args)
    if origin is Literal:
        return isinstance(value, str) and value in args
    if origin is tuple:
        return isinstance(value, tuple) and all(_fits(each, args[0]) for each in value)
    if isinstance(value, bool):
        return kind is bool
    return isinstance(value, int | float if kind is float else kind)


def _expected(kind: Any, *, many: bool = False) -> str:
    """Say in words what :func:`_fits` asks for."""
    origin, args = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):
        return " or ".join(_expected(each) for each in args)
    if origin is Literal:
        return f"one of {', '.join(map(repr, args))}"
    if origin is tuple:
        return f"a tuple of {_expected(args[0], many=True)}"
    if isabstract(kind):
        return f"{'methods' if many else 'a method'} such as LoRA(rank=8)"
    return WORDS[kind][many] if kind in WORDS else f"{kind.__name__}(…)"


def check_rate(name: str, value: float) -> None:
    """Check a dropout rate."""
    if not 0 <= value < 1:
        raise SettingsError(f"{name} is {value!r}: give a rate from 0 up to, but not including, 1.")


def check_positive(name: str, value: float) -> None:
    """Check a number that must be above 0 and finite."""
    if not 0 < value < math.inf:
        raise SettingsError(f"{name} is {value!r}: give a number above 0.")


def check_whole(name: str, value: int) -> None:
    """Check a number of things."""
    if value < 1:
        raise SettingsError(f"{name} is {value!r}: give a whole number of 1 or more.")


def check_names(setting: str, names: tuple[str, ...], known: tuple[str, ...], what: str) -> None:
    """Check a choice of one or more things out of a list; ``what`` says what they are."""
    if not names:
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
