"""The list of all methods, by name, and of the settings that papers use, by preset name.

A file in :mod:`peftlab.methods` puts its method here with ``@register`` and its published settings
with ``preset``. Nothing else has to be told that a method exists.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, fields
from typing import Any, TypeVar

from peftlab.errors import SettingsError, unknown
from peftlab.methods.base import Method

M = TypeVar("M", bound=type[Method])

_methods: dict[str, type[Method]] = {}
_presets: dict[str, Method] = {}


def register(cls: M) -> M:
    """Put a settings class into the registry under its ``name``."""
    _methods[cls.name] = cls
    return cls


def preset(name: str, method: Method) -> None:
    """Give ready settings a name, for experiment files and the command line."""
    _presets[name] = method


def names() -> tuple[str, ...]:
    """Return the names of all methods."""
    return tuple(sorted(_methods))


def classes() -> dict[str, type[Method]]:
    """Return all settings classes by method name."""
    return dict(_methods)


def defaults() -> dict[str, Method]:
    """Return every method without any setting, by name; those that need one are missing."""
    return {
        name: cls()
        for name, cls in _methods.items()
        if all(f.default is not MISSING for f in fields(cls))
    }


def presets() -> dict[str, Method]:
    """Return all presets by name."""
    return dict(_presets)


def catalogue() -> dict[str, Method]:
    """Return what a table of methods lists: every preset, and every method that is no preset."""
    plain = {name: m for name, m in defaults().items() if m not in _presets.values()}
    return presets() | plain


def get(method: Method | str | Mapping[str, Any]) -> Method:
    """Turn a preset name, a method name or plain settings into a method.

    Args:
        method: A method (returned unchanged), ``"lora-8"``, ``"lora"``, or
            ``{"name": "lora", "rank": 8}``; the name in a mapping may be a preset, whose settings
            the other keys then override.

    Returns:
        The method's settings.

    Raises:
        UnknownNameError: No method or preset has that name.
        SettingsError: The method has no such setting, or a value cannot work.
    """
    if isinstance(method, Method):
        return method
    if isinstance(method, str):
        method = {"name": method}
    changes = dict(method)
    name = str(changes.pop("name", ""))
    if name in _presets:
        base = _presets[name].settings()
        cls = _methods[base.pop("name")]
        changes = base | changes
    elif name in _methods:
        cls = _methods[name]
    else:
        raise unknown("method", name, {*_methods, *_presets})
    allowed = {f.name for f in fields(cls)}
    for key in changes:
        if key not in allowed:
            raise SettingsError(
                f"The method {cls.name!r} has no setting {key!r}; it has "
                f"{', '.join(sorted(allowed)) or 'none'}."
            )
    return cls(**{key: _value(value) for key, value in changes.items()})


def _value(value: Any) -> Any:
    """Turn a plain setting into what a method holds: tuples for lists, methods inside methods."""
    if isinstance(value, list | tuple):
        return tuple(_value(item) for item in value)
    if isinstance(value, Mapping) and "name" in value:
        return get(value)
    return value
