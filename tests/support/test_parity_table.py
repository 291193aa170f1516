"""The parity table: how what the tests find is summed up, and the table that is committed."""

from __future__ import annotations

import pytest

from peftlab import methods
from peftlab.errors import RecordError
from peftlab.results import book_results
from peftlab.support import parity

FOUND = [
    {"method": "lora", "library": "peft", "states": 1e-7, "gradients": 3e-8},
    {"method": "lora", "library": "peft", "states": 4e-7, "gradients": 1e-8},
    {"method": "ia3", "library": "adapters", "fails": "It forgets the bias.", "differs": 0.03},
    {"method": "ia3", "library": "adapters", "fails": "It raises an error."},
    {"method": "ia3", "library": "adapters", "states": 2e-7},
]


def test_the_largest_differences_stand(tmp_path):
    rows = parity.summed_up(FOUND)
    parity.write(tmp_path / "parity.json", rows, {"peft": "1"})
    assert parity.read(tmp_path / "parity.json") == (rows, {"peft": "1"})
    agree = parity.agreements(rows).set_index("method")
    assert agree.loc["lora", "largest difference of states"] == "4.0e-07"
    assert agree.loc["lora", "of gradients"] == "3.0e-08"
    assert agree.loc["lora", "tests"] == 2
    assert agree.loc["ia3", "of gradients"] == "not compared"
    faults = parity.faults(rows)
    assert list(faults["off by"]) == ["3.0e-02", "error"]


@pytest.mark.parametrize("text", [None, "", "[]", '{"rows": []}'])
def test_a_damaged_table(tmp_path, text):
    path = tmp_path / "parity.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(RecordError, match="make support"):
        parity.read(path)


def test_the_committed_table():
    rows, versions = parity.read(book_results().parent / parity.FILE)
    assert {"adapters", "peft", "transformers"} <= versions.keys()
    assert {row["method"] for row in rows} <= set(methods.classes())
    compared = [row for row in rows if not row["fails"]]
    assert max(row["states"] for row in compared) <= 1e-5
    assert max(row.get("gradients", 0.0) for row in compared) <= 1e-5
    assert {"adapter", "lora", "ia3", "prefix", "prompt", "unipelt", "compacter"} <= {
        row["method"] for row in compared if row["library"] == "adapters"
    }
    assert {"lora", "ia3", "prefix", "prompt", "layernorm"} <= {
        row["method"] for row in compared if row["library"] == "peft"
    }
