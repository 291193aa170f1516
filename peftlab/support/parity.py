"""The parity table: how far peftlab is from ``adapters`` and ``peft``, as the tests found it.

Nothing is compared here: the parity tests do that, and ``pytest --parity FILE`` writes what came
out (``make support``).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peftlab.errors import RecordError
from peftlab.files import replacing

if TYPE_CHECKING:
    from pandas import DataFrame

#: Inside ``book``.
FILE = "reference/parity.json"
Row = dict[str, Any]


def summed_up(found: Iterable[Mapping[str, Any]]) -> list[Row]:
    """Sum up what single tests found.

    Args:
        found: ``method`` and ``library``; and ``states`` and ``gradients``, the largest differences
            in fp32 with the same weights, or ``fails``, what the reference gets wrong, in a
            sentence, and ``differs``, by how much (None where it is no number).

    Returns:
        One row for each method and library with the largest differences of all its tests and their
        number, and one for each fault of a reference.
    """
    rows: dict[tuple[str, ...], Row] = {}
    for one in found:
        key = (one["method"], one["library"], one.get("fails", ""))
        row = rows.setdefault(key, dict(zip(("method", "library", "fails"), key, strict=True)))
        row["tests"] = row.get("tests", 0) + 1
        for name in ("states", "gradients", "differs"):
            if one.get(name) is not None:
                row[name] = max(row.get(name, 0.0), one[name])
    return [rows[key] for key in sorted(rows)]


def write(path: Path, rows: list[Row], versions: Mapping[str, str]) -> None:
    """Write the table to its file, which is there whole or not at all."""
    with replacing(path) as temporary:
        data = {"versions": dict(versions), "rows": rows}
        temporary.write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")


def read(path: Path) -> tuple[list[Row], dict[str, str]]:
    """Read the rows, and the versions that were compared.

    Raises:
        RecordError: The file is missing or damaged.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        return list(data["rows"]), dict(data["versions"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RecordError(
            f"The parity table {path} cannot be read ({error}): run `make support`."
        ) from error


def agreements(rows: Iterable[Row]) -> DataFrame:
    """Return the rows in which the libraries agree, as a table."""
    import pandas as pd

    return pd.DataFrame(
        {
            "method": row["method"],
            "reference": row["library"],
            "largest difference of states": f"{row['states']:.1e}",
            "of gradients": f"{row['gradients']:.1e}" if "gradients" in row else "not compared",
            "tests": row["tests"],
        }
        for row in rows
        if not row["fails"]
    )


def faults(rows: Iterable[Row]) -> DataFrame:
    """Return the rows in which the reference fails, as a table."""
    import pandas as pd

    return pd.DataFrame(
        {
            "method": row["method"],
            "reference": row["library"],
            "the reference fails": row["fails"],
            "off by": f"{row['differs']:.1e}" if "differs" in row else "error",
        }
        for row in rows
        if row["fails"]
    )
