"""Open the data sets that lie under PEFTLAB_DATA with their loaders, and write what they have.

Every row is checked as the loader checks it. A page of the book shows what was found; a test finds
the same again.

    PEFTLAB_DATA=folder python -m tools.datasets
"""

import json
import os
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from peftlab import tasks
from peftlab.errors import DataError
from peftlab.files import replacing
from peftlab.tasks.catalog import ROWS, DataSet
from peftlab.tasks.files import candidates
from tools.owner import ROOT

FOUND = ROOT / "book" / "reference" / "datasets.json"


def configs(row: DataSet, data: Path) -> list[str | None]:
    """Return the configs of a data set that lie in a folder; None stands for the only one."""
    folder = data / row.folder
    if row.generated or not folder.is_dir():
        return []
    if row.configs:
        return sorted(path.name for path in folder.iterdir() if path.is_dir())
    last = row.splits.get("test", row.splits.get("train", ""))
    return [None] if any(candidates(folder, (last,))) else []


def found(row: DataSet, data: Path) -> dict[str, Any]:
    """Read every split of a data set in every language.

    Returns:
        ``configs``, how many there are; ``rows`` by stored split, over all configs; ``hidden``, the
        stored splits without labels.
    """
    there, rows, hidden = configs(row, data), Counter[str](), set[str]()
    for config in there:
        task = tasks.task(f"{row.name}/{config}" if config else row.name)
        for split in task.splits:
            # a dev split that is not stored is cut from train
            stored = row.splits.get(split, row.splits.get("train", split))
            try:
                rows[stored] += len(task.rows(split))
            except DataError as error:
                if "labels of this split are hidden" not in str(error):
                    raise
                hidden.add(stored)
    return {"configs": len(there), "rows": dict(sorted(rows.items())), "hidden": sorted(hidden)}


def main() -> None:
    """Write what was found."""
    data = Path(os.environ.get("PEFTLAB_DATA", ""))
    if not os.environ.get("PEFTLAB_DATA") or not data.is_dir():
        sys.exit("PEFTLAB_DATA names no folder: set it to where the data sets lie.")
    every = {row.name: found(row, data) for row in ROWS if configs(row, data)}
    with replacing(FOUND) as temporary:
        temporary.write_text(json.dumps(every, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
