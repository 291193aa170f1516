"""Execute every notebook of the book once: tests and book share the outputs.

Pytest executes copies, each in a folder of its own; their outputs then go into the cache that
Jupyter Book reads. The cache is emptied when the package, the records or the versions change,
because by itself it looks at the notebook's cells only. Nothing here executes anything.

    python -m tools.chapters copy FOLDER [--missing | --first-of-part]
    python -m tools.chapters keep FOLDER      outputs into the cache
    python -m tools.chapters record FOLDER    times and machine into book/chapters.json
"""

import argparse
import hashlib
import json
import os
import shutil
import sys
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import nbformat
import yaml
from nbformat import NotebookNode

from tools.owner import ROOT

CACHE = ROOT / "_build" / ".jupyter_cache"
TIMES = ROOT / "book" / "chapters.json"
INPUTS = (
    "peftlab",
    "book/results",
    "book/experiments",
    "book/papers/claims.toml",
    "book/reference/datasets.json",
    "book/reference/parity.json",
    "book/reference/support.json",
    "constraints.txt",
)


def contents(root: Path = ROOT) -> list[list[Path]]:
    """Return the book's pages, part by part, as _toc.yml lists them; the front page comes first."""

    def files(node: dict[str, Any]) -> Iterator[Path]:
        if "file" in node:
            found = [root / f"{node['file']}{end}" for end in (".ipynb", ".md")]
            yield next((path for path in found if path.exists()), found[0])
        for below in (*node.get("chapters", ()), *node.get("sections", ())):
            yield from files(below)

    toc = yaml.safe_load((root / "_toc.yml").read_text())
    return [list(files({"file": toc["root"]})), *(list(files(part)) for part in toc["parts"])]


def notebooks(root: Path = ROOT) -> list[list[Path]]:
    """Return the pages that are notebooks, part by part."""
    return [[page for page in part if page.suffix == ".ipynb"] for part in contents(root)]


def key() -> str:
    """Return a digest of everything but the notebooks that their outputs depend on."""
    digest = hashlib.sha256(os.environ.get("PEFTLAB_MODE", "pocket").encode())
    files = (file for name in INPUTS for file in (ROOT / name, *(ROOT / name).rglob("*")))
    for file in sorted(files):
        parts = file.relative_to(ROOT).parts
        # locks and checkpoints of a grid lie in a hidden folder beside the records
        hidden = any(part.startswith(".") or part == "__pycache__" for part in parts)
        if file.is_file() and not hidden:
            digest.update("/".join(parts).encode() + b"\0")
            digest.update(hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()


def open_cache() -> Any:
    """Open the cache of outputs, emptied first if what they depend on has changed."""
    from jupyter_cache import get_cache

    stamp = CACHE / "made-from"
    if not stamp.exists() or stamp.read_text() != key():
        shutil.rmtree(CACHE, ignore_errors=True)
        CACHE.mkdir(parents=True)
        stamp.write_text(key())
    return get_cache(CACHE)


def place(folder: Path, page: Path) -> Path:
    """Return where the copy of a page stands: in a folder of its own."""
    return folder / "--".join(page.relative_to(ROOT).with_suffix("").parts) / page.name


def copy(folder: Path, missing: bool, first_of_part: bool) -> None:
    """Copy the notebooks into ``folder``, emptied first."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    cache = open_cache() if missing else None
    for part in notebooks():
        for page in part[:1] if first_of_part else part:
            if cache is not None:
                try:
                    cache.match_cache_notebook(nbformat.read(page, as_version=4))
                    continue
                except KeyError:
                    pass
            target = place(folder, page)
            target.parent.mkdir()
            shutil.copy(page, target)


def seconds(executed: NotebookNode) -> float:
    """Return how long the cells took, from the first one's start to the last one's end."""
    times = [
        datetime.fromisoformat(cell.metadata.execution[name])
        for cell in executed.cells
        for name in ("iopub.status.busy", "shell.execute_reply")
        if name in cell.metadata.get("execution", {})
    ]
    return (max(times) - min(times)).total_seconds() if times else 0.0


def keep(folder: Path) -> None:
    """Put the outputs of the executed copies in ``folder`` into the cache."""
    from jupyter_cache.base import CacheBundleIn

    cache = open_cache()
    spent = {}
    for page in (page for part in notebooks() for page in part):
        if not place(folder, page).exists():
            continue
        executed = nbformat.read(place(folder, page), as_version=4)
        spent[page] = seconds(executed)
        # The executor leaves times in the metadata, which would change the cache's key.
        notebook = nbformat.read(page, as_version=4)
        for cell, done in zip(notebook.cells, executed.cells, strict=True):
            if cell.source != done.source:
                sys.exit(f"{page} changed while it was executed: run the command again")
            if cell.cell_type == "code":
                cell.outputs, cell.execution_count = done.outputs, done.execution_count
        bundle = CacheBundleIn(notebook, str(page), data={"execution_seconds": spent[page]})
        cache.cache_notebook_bundle(bundle, check_validity=False, overwrite=True)
    for page, spent_here in sorted(spent.items(), key=lambda item: -item[1]):
        print(f"{spent_here:8.1f} s  {page.relative_to(ROOT)}")


def record(folder: Path) -> None:
    """Write how long the executed copies in ``folder`` took, and on which machine."""
    from peftlab.timing.machine import describe

    found = describe()
    row = {
        "machine": found["gpu"]["name"] if found["gpu"] else found["cpu"],
        "gpu": found["gpu"] is not None,
        "mode": os.environ.get("PEFTLAB_MODE", "pocket"),
    }
    times = json.loads(TIMES.read_text()) if TIMES.exists() else {}
    for page in (page for part in notebooks() for page in part):
        if place(folder, page).exists():
            executed = nbformat.read(place(folder, page), as_version=4)
            name = str(page.relative_to(ROOT).with_suffix(""))
            others = [old for old in times.get(name, []) if row.items() - old.items()]
            times[name] = [*others, row | {"seconds": round(seconds(executed), 1)}]
    TIMES.write_text(json.dumps(times, indent=1, sort_keys=True) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("action", choices=["copy", "keep", "record"])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--missing", action="store_true", help="only those not in the cache")
    parser.add_argument("--first-of-part", action="store_true", help="one of each part")
    arguments = parser.parse_args()
    folder = arguments.folder.resolve()
    if arguments.action == "copy":
        copy(folder, arguments.missing, arguments.first_of_part)
    elif arguments.action == "keep":
        keep(folder)
    else:
        record(folder)


if __name__ == "__main__":
    main()
