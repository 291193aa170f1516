"""Every method, one file a family: settings, modules, mathematics.

The files of this folder register themselves; a new method is a new file and nothing else.
"""

from importlib import import_module
from pkgutil import iter_modules

from peftlab.methods.base import Counts, Method, Part
from peftlab.methods.registry import (
    catalogue,
    classes,
    defaults,
    get,
    names,
    preset,
    presets,
    register,
)

__all__ = [
    "Counts",
    "Method",
    "Part",
    "catalogue",
    "classes",
    "defaults",
    "get",
    "names",
    "preset",
    "presets",
    "register",
]

for _module in iter_modules(__path__):
    import_module(f"{__name__}.{_module.name}")
