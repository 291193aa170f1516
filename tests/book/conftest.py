"""What the checks of the book share: its notebooks, read once."""

from pathlib import Path

import nbformat
import pytest
from nbformat import NotebookNode

from tools.chapters import notebooks
from tools.owner import ROOT

NOTEBOOKS = [page for part in notebooks() for page in part]
# Pages that draw records and have nothing to turn; everything else is a chapter.
PAGES = ("book/index", "book/reference/")


def name(path: Path) -> str:
    return str(path.relative_to(ROOT).with_suffix(""))


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "page" in metafunc.fixturenames:
        metafunc.parametrize("page", NOTEBOOKS, ids=name, indirect=True)
    if "chapter" in metafunc.fixturenames:
        chapters = [path for path in NOTEBOOKS if not name(path).startswith(PAGES)]
        metafunc.parametrize("chapter", chapters, ids=name, indirect=True)


@pytest.fixture
def page(request: pytest.FixtureRequest) -> NotebookNode:
    """Return a notebook of the book."""
    return nbformat.read(request.param, as_version=4)


@pytest.fixture
def chapter(request: pytest.FixtureRequest) -> NotebookNode:
    """Return a notebook that teaches something."""
    return nbformat.read(request.param, as_version=4)
