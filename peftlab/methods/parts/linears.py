"""The linear maps of a layer: how wide they are, and how ``peft`` finds them.

Shared by the methods that stand at linear maps; none of them is here.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from peftlab.encoders import Anatomy

T = TypeVar("T")

#: The linear maps of a layer as `peft` finds them: by the path inside the layer.
PATHS = {
    "query": "attention.self.query",
    "key": "attention.self.key",
    "value": "attention.self.value",
    "attention_output": "attention.output.dense",
    "intermediate": "intermediate.dense",
    "output": "output.dense",
}


def widths(anatomy: Anatomy, target: str) -> tuple[int, int]:
    """Return d_in and d_out of a linear map."""
    d, wide = anatomy.hidden_size, anatomy.intermediate_size
    return {"intermediate": (d, wide), "output": (wide, d)}.get(target, (d, d))


def path(layer: int, target: str) -> str:
    """Return the path of a linear map in the backbone."""
    return f"encoder.layer.{layer}.{PATHS[target]}"


def pattern(layers: Iterable[int], targets: Iterable[str]) -> str:
    """Return the pattern by which `peft` finds linear maps; a list could not tell them apart.

    In a list, ``output.dense`` would be found at the end of ``attention.output.dense`` too.
    """
    paths = "|".join(re.escape(PATHS[target]) for target in targets)
    return rf".*\.layer\.({'|'.join(map(str, layers))})\.({paths})"


def finds(asked: str | Iterable[str], path: str) -> bool:
    """Whether `peft` finds the module at a path; its rule for ``target_modules``."""
    if isinstance(asked, str):
        return asked == "all-linear" or re.fullmatch(asked, path) is not None
    return any(path == end or path.endswith(f".{end}") for end in asked)


def chosen(patterns: Mapping[str, T] | None, path: str, otherwise: T) -> T:
    """Return what `peft` takes for the module at a path; its rule for ``rank_pattern``."""
    for end, value in (patterns or {}).items():
        if re.match(rf"(.*\.)?({end})$", path):
            return value
    return otherwise
