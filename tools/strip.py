"""Bring notebooks into the form they have in git: no outputs, one kernel, the same set-up cell.

It changes no other cell. The form is checked by ``--check`` and in tests/book.

    python -m tools.strip            rewrite
    python -m tools.strip --check    say which notebooks differ, and fail
"""

import argparse
import copy
import sys
from pathlib import Path

import nbformat
from nbformat import NotebookNode, from_dict

from tools.owner import ROOT, repository

# The lexer is what lets the book colour lines that begin with ! or %.
METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python", "pygments_lexer": "ipython3"},
}
KEPT = ("tags", "mystnb")
SET_UP = """\
# Set-up. On Colab this installs peftlab; torch, numpy and transformers stay.
import os

if "COLAB_RELEASE_TAG" in os.environ:
    %cd -q /content
    !test -d {name} || git clone -q --depth 1 https://github.com/{owner}/{name}
    %pip install -q ./{name}
    %cd -q {name}"""


def set_up(root: Path = ROOT) -> str:
    """Return the source of the first code cell of every notebook."""
    owner, name = repository(root)
    return SET_UP.format(owner=owner, name=name)


def is_set_up(cell: NotebookNode) -> bool:
    """Tell whether this is the set-up cell, whichever version of it."""
    return cell.cell_type == "code" and cell.source.startswith("# Set-up.")


def stripped(notebook: NotebookNode, first: str) -> NotebookNode:
    """Return a copy as it should stand in git; ``first`` is the set-up cell's source."""
    notebook = copy.deepcopy(notebook)
    notebook.metadata = from_dict(METADATA)
    for cell in notebook.cells:
        cell.metadata = NotebookNode({k: v for k, v in cell.metadata.items() if k in KEPT})
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
        if is_set_up(cell):
            cell.source = first
    return notebook


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true")
    arguments = parser.parse_args()
    different = []
    for path in sorted((ROOT / "book").rglob("*.ipynb")):
        if ".ipynb_checkpoints" in path.parts:
            continue
        notebook = nbformat.read(path, as_version=4)
        wanted = stripped(notebook, set_up())
        if wanted != notebook:
            different.append(str(path.relative_to(ROOT)))
            if not arguments.check:
                nbformat.write(wanted, path)
    if different and arguments.check:
        sys.exit(f"not as notebooks stand in git: {', '.join(different)}: run `make strip`")


if __name__ == "__main__":
    main()
