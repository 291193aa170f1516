"""Every notebook of the book keeps what CONTRIBUTING.md promises of it."""

import ast
import copy

import pytest
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from tests.book.reading import code_cells, fault_of_name, names_used, python, typed_results
from tools.strip import is_set_up, set_up, stripped


def test_is_stored_without_outputs(page: NotebookNode) -> None:
    assert stripped(page, set_up()) == page


def test_first_code_cell_is_the_set_up(page: NotebookNode) -> None:
    first, *others = code_cells(page)
    assert first.source == set_up()
    assert not any(is_set_up(cell) for cell in others)


def test_opens_with_a_title(page: NotebookNode) -> None:
    assert page.cells[0].cell_type == "markdown"
    assert page.cells[0].source.startswith("# ")
    titles = [
        line for cell in page.cells if cell.cell_type == "markdown" for line in titles_in(cell)
    ]
    assert len(titles) == 1, "one page, one title of the first level"


def titles_in(cell: NotebookNode) -> list[str]:
    outside = cell.source.split("```")[::2]
    return [line for part in outside for line in part.splitlines() if line.startswith("# ")]


def test_has_no_typed_results(page: NotebookNode) -> None:
    assert typed_results(page) == []


def test_uses_public_names(page: NotebookNode) -> None:
    assert [fault for name in sorted(names_used(page)) if (fault := fault_of_name(name))] == []


def test_every_figure_has_alt_text(page: NotebookNode) -> None:
    assert [cell.source for cell in code_cells(page) if draws_without_alt(cell)] == []


def draws_without_alt(cell: NotebookNode) -> bool:
    """Tell whether a cell draws with matplotlib or seaborn itself and says nothing about it."""
    alt = cell.metadata.get("mystnb", {}).get("image", {}).get("alt", "")
    drawing = ("plt.", "sns.", "matplotlib", "seaborn", ".plot(", ".hist(")
    return any(word in cell.source for word in drawing) and not alt.strip()


def test_second_code_cell_holds_the_knobs(chapter: NotebookNode) -> None:
    first, *others = code_cells(chapter)[1:]
    assert knobs(first), "the second code cell assigns no knob in capitals"
    assert {name for cell in others for name in knobs(cell)} == set(), "knobs further down"


def knobs(cell: NotebookNode) -> set[str]:
    """Return the names in capitals that a cell assigns; one or two letters are mathematics."""
    return {
        node.id
        for node in ast.walk(python(new_notebook(cells=[cell])))
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
        if node.id.isupper() and len(node.id) > 2
    }


def test_is_short(chapter: NotebookNode) -> None:
    assert len(code_cells(chapter)) <= 25


# The checks themselves: each must see its fault.


def notebook(prose: str = "", code: str = "") -> NotebookNode:
    return new_notebook(cells=[new_markdown_cell(prose), new_code_cell(code)])


@pytest.mark.parametrize(
    "prose",
    ["LoRA reaches 0.87 here", "it saves 30 % of the time", "1.9x as fast", "scores 87.3 points"],
)
def test_typed_results_are_seen(prose: str) -> None:
    assert typed_results(notebook(prose))
    marked = notebook(prose)
    marked.cells[0].metadata.tags = ["typed-numbers"]
    assert typed_results(marked) == []


@pytest.mark.parametrize(
    "prose",
    [
        "three seeds, 12 layers, 1,000 examples",
        "$x = 0.5$ and `alpha=0.1`",
        "Python 3.11, transformers 4.57 or SQuAD 1.1",
        "[a link](https://arxiv.org/abs/2106.09685)",
        "```\n0.87\n```",
    ],
)
def test_other_numbers_are_left_alone(prose: str) -> None:
    assert typed_results(notebook(prose)) == []


@pytest.mark.parametrize(
    ("code", "word"),
    [
        ("from peftlab.models import _secret", "private"),
        ("import peftlab as pl\npl._WHERE", "private"),
        ("import peftlab as pl\npl.nonsense(1)", "exist"),
        ("from peftlab.methods import iter_modules", "__all__"),
    ],
)
def test_other_names_are_seen(code: str, word: str) -> None:
    (fault,) = [f for name in names_used(notebook(code=code)) if (f := fault_of_name(name))]
    assert word in fault


@pytest.mark.parametrize(
    "code", ["import peftlab as pl\npl.LoRA(rank=8)", "from peftlab.results import Store"]
)
def test_public_names_are_left_alone(code: str) -> None:
    names = names_used(notebook(code=code))
    assert names
    assert [fault_of_name(name) for name in names] == [None] * len(names)


def test_figure_without_alt_text_is_seen() -> None:
    cell = new_code_cell("plt.plot(x)")
    assert draws_without_alt(cell)
    cell.metadata.mystnb = {"image": {"alt": "A falling curve"}}
    assert not draws_without_alt(cell)


def test_knobs_are_seen() -> None:
    assert knobs(new_code_cell("RATE: float = 1e-3\nSEED, A, x = 0, 1, 2")) == {"RATE", "SEED"}


def test_outputs_and_old_set_up_are_taken_out() -> None:
    old = new_notebook(
        metadata={"language_info": {"name": "python", "version": "3.9"}},
        cells=[
            new_code_cell("# Set-up. An older one."),
            new_code_cell("1", outputs=[new_output("stream", text="1")], execution_count=3),
        ],
    )
    before = copy.deepcopy(old)
    new = stripped(old, set_up())
    assert old == before
    assert new.cells[0].source == set_up()
    assert new.cells[1].outputs == []
    assert new.cells[1].execution_count is None
    assert "version" not in new.metadata.language_info
