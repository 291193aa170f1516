"""Examples in prose that no cell runs: what other libraries are told is understood by them."""

from __future__ import annotations

import re
from pathlib import Path

import nbformat
import pytest
import transformers

BOOK = Path(__file__).parents[2] / "book"
LIBRARIES = ("adapters", "peft")
#: Chapters whose example reads files that the reader has, or the hub has.
READ = ("fusion", "language-adapters", "multi-task")


def blocks() -> list[tuple[str, str]]:
    """Return the examples with another library, each with its page."""
    return [
        (path.stem, code)
        for path in sorted(BOOK.rglob("*.ipynb"))
        for cell in nbformat.read(path, as_version=4).cells
        if cell.cell_type == "markdown"
        for code in re.findall(r"```python\n(.*?)```", cell.source, re.DOTALL)
        if path.stem not in READ
        and re.search(rf"(?:import|from) (?:{'|'.join(LIBRARIES)})\b", code)
    ]


def test_there_are_examples_with_both() -> None:
    together = "".join(code for _, code in blocks())
    assert all(f"import {name}" in together or f"from {name}" in together for name in LIBRARIES)


@pytest.mark.parametrize("code", [code for _, code in blocks()], ids=[name for name, _ in blocks()])
def test_another_library_takes_it(code: str) -> None:
    for name in LIBRARIES:
        pytest.importorskip(name)
    config = transformers.BertConfig(
        vocab_size=50,
        hidden_size=128,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=128,
        num_labels=2,
    )
    exec(code, {"model": transformers.BertForSequenceClassification(config), "n": 1})
