"""The tools of the book do what the Makefile relies on."""

import importlib.util
import shutil
from pathlib import Path
from types import ModuleType

import nbformat
import pandas as pd
import pytest
from docutils import nodes
from docutils.utils import new_document
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from tools import chapters, site
from tools.owner import ROOT


def extension(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / "book" / "_ext" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def book(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a small book of two notebooks, with the tools pointed at it."""
    (tmp_path / "_toc.yml").write_text(
        "root: book/index\nparts:\n- chapters:\n  - file: book/one\n"
    )
    (tmp_path / "peftlab").mkdir()
    (tmp_path / "peftlab" / "code.py").write_text("x = 1\n")
    (tmp_path / "book").mkdir()
    for name in ("index", "one"):
        cells = [new_markdown_cell(f"# {name}"), new_code_cell(f"print('{name}')")]
        nbformat.write(new_notebook(cells=cells), tmp_path / "book" / f"{name}.ipynb")
    monkeypatch.setattr(chapters, "ROOT", tmp_path)
    monkeypatch.setattr(chapters, "CACHE", tmp_path / "_build" / "cache")
    monkeypatch.setattr(chapters.notebooks, "__defaults__", (tmp_path,))
    return tmp_path


def execute(folder: Path) -> list[str]:
    """Do what nbmake does to the copies in a folder, without a kernel."""
    done = sorted(folder.rglob("*.ipynb"))
    for path in done:
        notebook = nbformat.read(path, as_version=4)
        cell = notebook.cells[1]
        cell.outputs = [new_output("stream", text="done\n")]
        cell.metadata["execution"] = {
            "iopub.status.busy": "2026-01-01T00:00:00.000000Z",
            "shell.execute_reply": "2026-01-01T00:00:02.500000Z",
        }
        nbformat.write(notebook, path)
    return [path.stem for path in done]


def test_what_was_executed_is_not_executed_again(book: Path) -> None:
    folder = book / "_executed"
    chapters.copy(folder, missing=True, first_of_part=False)
    assert execute(folder) == ["index", "one"]
    assert len({path.parent for path in folder.rglob("*.ipynb")}) == 2, "a folder for each"
    chapters.keep(folder)
    chapters.copy(folder, missing=True, first_of_part=False)
    assert execute(folder) == []

    cache = chapters.open_cache()
    record = cache.match_cache_notebook(nbformat.read(book / "book/one.ipynb", as_version=4))
    assert record.data["execution_seconds"] == 2.5

    notebook = nbformat.read(book / "book/one.ipynb", as_version=4)
    notebook.cells[1].source = "print('changed')"
    nbformat.write(notebook, book / "book/one.ipynb")
    chapters.copy(folder, missing=True, first_of_part=False)
    assert execute(folder) == ["one"]
    chapters.keep(folder)

    (book / "peftlab" / "code.py").write_text("x = 2\n")
    chapters.copy(folder, missing=True, first_of_part=False)
    assert execute(folder) == ["index", "one"], "a change of the package counts for all"


def test_a_notebook_that_changed_meanwhile_is_refused(book: Path) -> None:
    folder = book / "_executed"
    chapters.copy(folder, missing=False, first_of_part=False)
    execute(folder)
    notebook = nbformat.read(book / "book/one.ipynb", as_version=4)
    notebook.cells[1].source = "print('changed')"
    nbformat.write(notebook, book / "book/one.ipynb")
    with pytest.raises(SystemExit, match="changed while it was executed"):
        chapters.keep(folder)


GOOD = (
    '<html><body><h2 id="here">x</h2><a href="#here">x</a><img src="a" alt="A curve"></body></html>'
)


@pytest.mark.parametrize(
    ("body", "fault"),
    [
        ('<img src="x.png">', "alt text"),
        ('<img src="x.png" alt=" ">', "alt text"),
        ('<a href="gone.html">x</a>', "nowhere"),
        ('<a href="#gone">x</a>', "no such place"),
        ('<script src="https://example.org/x.js"></script>', "network"),
        ('<a href="https://github.com/other/peftlab">x</a>', "another owner"),
    ],
)
def test_faults_of_a_page_are_seen(tmp_path: Path, body: str, fault: str) -> None:
    (tmp_path / "index.html").write_text(GOOD)
    assert site.faults(tmp_path) == []
    (tmp_path / "index.html").write_text(GOOD.replace("</body>", f"{body}</body>"))
    (found,) = site.faults(tmp_path)
    assert fault in found


def test_times_are_said_as_measured() -> None:
    run_times = extension("run_times")
    gpu = {"machine": "Tesla T4", "gpu": True, "mode": "full", "seconds": 610.0}
    assert run_times.spoken(0.2) == "1 s"
    assert run_times.spoken(61.4) == "61 s"
    assert run_times.spoken(610) == "10 min"
    assert "not yet measured on a GPU" in run_times.sentences(12.0, [])
    assert run_times.sentences(None, [gpu]) == ["10 min on Tesla T4 (full mode)"]


def test_a_table_that_pandas_has_styled_is_drawn_as_the_others() -> None:
    html = pd.DataFrame({"a": [1]}).style.hide().to_html()
    document = new_document("page")
    document += [nodes.raw("", html, format="html"), nodes.raw("", "<p>none</p>", format="html")]
    extension("styled_tables").name_tables(None, document)
    table, other = (raw.astext() for raw in document.findall(nodes.raw))
    assert '<table class="dataframe" id="T_' in table
    assert other == "<p>none</p>"


def test_mathjax_is_local() -> None:
    source = extension("local_mathjax").source()
    assert source is not None
    assert source.stat().st_size > 1_000_000


@pytest.mark.skipif(shutil.which("make") is None, reason="needs make")
def test_help_lists_the_commands() -> None:
    import subprocess

    done = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True)
    for command in ("make test", "make book", "make env", "make clean"):
        assert command in done.stdout
