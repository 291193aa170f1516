"""The figure of learned activations."""

from __future__ import annotations

import numpy as np
import pytest

from peftlab.errors import RecordError
from peftlab.plots.activations import activations, curve
from peftlab.results.records.run import LearnedActivation, Record
from tests.results import made


def learned(layer: int, slope: float, **changes: object) -> LearnedActivation:
    """x times a slope, over 1 + |x|."""
    numerator = [0.0, slope, 0.0, 0.0, 0.0, 0.0]
    fields = {"version": "A", "denominator": [1.0, 0.0, 0.0, 0.0], "given": [-1.0, 0.5, 3.0]}
    return LearnedActivation.model_validate(
        {"layer": layer, "numerator": numerator} | fields | changes
    )


def run(task: str, seed: int, rows: int, slopes: dict[int, float]) -> Record:
    record = made.record(task=task, seed=seed)
    assert record.sizes is not None
    return record.replaced(
        sizes=record.sizes.model_copy(update={"train": rows}),
        activations=[learned(layer, slope) for layer, slope in slopes.items()],
    )


def test_the_curve_is_the_quotient_over_what_was_given() -> None:
    for version in ("A", "B"):
        x, y = curve(learned(0, 2.0, version=version))
        assert (x[0], x[-1]) == (-1.0, 3.0)
        assert y == pytest.approx(2 * np.array(x) / (1 + np.abs(x)))


def test_a_panel_for_each_layer_task_and_size() -> None:
    runs = [
        run("two", 0, 75, {0: 1.0, 3: 2.0}),
        run("one", 0, 375, {0: 1.0}),
        run("one", 1, 375, {0: 3.0}),
        run("one", 0, 75, {0: 1.0, 3: 2.0}),
    ]
    plot = activations([*runs, made.record()])
    panels = np.array(plot.figure.get_axes()).reshape(3, 2)
    assert [axis.get_title() for axis in panels[0]] == ["layer 0", "layer 3"]
    names = ["one\n75 rows", "one\n375 rows", "two\n75 rows"]
    assert [row[0].get_ylabel() for row in panels] == names
    # the dashed line and one line a run; layer 3 has no switch on with many rows
    assert [[len(axis.get_lines()) for axis in row] for row in panels] == [[2, 2], [3, 1], [2, 2]]
    low, high = sorted(float(line.get_ydata()[-1]) for line in panels[1][0].get_lines()[1:])
    assert high == pytest.approx(3 * low)
    assert "one, 375 rows, layer 0: -1.00 to 1.50" in plot.alt
    assert set(plot.table["layer"]) == {0, 3}
    told = plot.table.groupby(["task", "run", "layer"])["x"].agg(["min", "max", "size"])
    assert told.drop_duplicates().to_numpy().tolist() == [[-1.0, 3.0, 5.0]]


def test_without_an_activation_nothing_is_drawn() -> None:
    with pytest.raises(RecordError, match="No record has a learned activation"):
        activations([made.record()])
