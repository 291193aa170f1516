"""A record of a measurement that contradicts itself is refused."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from peftlab.results.comparison.cost_table import cost_table
from peftlab.results.records.costs import CostRecord
from tests.results.made import candidate, cost_record

FEWER = candidate("lora", 8).model_copy(update={"seconds": [0.1]})


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"id": "0" * 12}, "is not that of the settings"),
        ({"candidates": {}}, "do not name the same methods"),
        ({"candidates": cost_record().candidates | {"lora": FEWER}}, "different numbers of rounds"),
    ],
)
def test_a_record_that_contradicts_itself_is_refused(change: dict[str, Any], words: str) -> None:
    made = cost_record()
    fields = {name: getattr(made, name) for name in CostRecord.model_fields}
    with pytest.raises(ValidationError, match=words):
        CostRecord(**fields | change)


def test_a_baseline_that_was_not_measured_is_refused() -> None:
    made = cost_record()
    settings = made.settings.model_copy(update={"baseline": "fill"})
    with pytest.raises(ValidationError, match="'fill' is no candidate"):
        CostRecord(id=settings.id, settings=settings, candidates=made.candidates)


def test_the_table_has_ratios_over_the_baseline_and_megabytes() -> None:
    made = cost_record()
    lora = made.candidates["lora"]
    assert lora.flops is not None
    less = lora.model_copy(
        update={
            "memory": lora.memory | {"total": 2 * 10**6},
            "flops": lora.flops.model_copy(update={"hugging_face": 300}),
        }
    )
    made = made.model_copy(update={"candidates": made.candidates | {"lora": less}})
    row = cost_table([made]).set_index("method").loc["lora"]
    assert (row["memory_mb"], row["memory_ratio"], row["hugging_face_ratio"]) == (2, 0.4, 0.5)
    assert row["ratio"] == pytest.approx(0.7, rel=0.05)
    assert row["flop_ratio"] == pytest.approx((100 + 70 + 70) / 300)
    assert row["gflops"] == pytest.approx(8 * 240 / 1e9)
