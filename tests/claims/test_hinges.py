"""A claim hangs on a thing if a cell says yes one way and no the other, and only then."""

from __future__ import annotations

import pytest

from peftlab.claims import hinge_table, swing
from peftlab.claims.hinges import Swing
from peftlab.errors import RecordError
from tests.claims.made import CLAIMS, SMALL, fill, hinge, read, write
from tests.claims.test_verdicts import cell

#: Accuracy of full fine-tuning is 0.7.
HIGH, LOW = 0.9, 0.5


@pytest.mark.parametrize(
    ("lora", "other", "answer", "turned"),
    [
        ((HIGH, HIGH), LOW, "no", 0),  # yes both ways
        ((LOW, LOW), HIGH, "no", 0),  # no both ways
        ((0.8, 0.8), HIGH, "yes", 2),
        ((0.8, 0.7), HIGH, "yes", 1),  # where full fine-tuning ties nothing turns
        ((0.7, 0.7), LOW, "not known", 0),
        ((HIGH, 0.7), LOW, "no", 0),  # half of the cells are decided both ways
    ],
)
def test_the_answer(tmp_path, lora, other, answer, turned):
    scores = {"full": (0.7, 0.7), "lora-8": lora, "other": (other, other)}
    write(tmp_path)
    fill(tmp_path, lambda task, label: scores[label][task == "glue/mrpc"])
    ledger, evidence = read(tmp_path, CLAIMS + hinge())
    found = swing(ledger.hinges[0], evidence)
    assert found.answer == answer
    assert len(found.turned) == turned
    row = hinge_table(ledger, evidence).iloc[0]
    assert row["does it"].startswith(answer)
    assert ("turn" in row["does it"]) == (turned > 0)
    assert "2 cells" in row["finds"]


def test_the_other_way_is_the_one_with_what_differs(tmp_path):
    write(tmp_path)
    ledger, _ = read(tmp_path, CLAIMS + hinge(other="{ what = 'x', against = 'other' }"))
    one, other = ledger.hinges[0].ways
    assert (one.what, one.against, other.what, other.against) == ("score", "full", "x", "other")
    assert {"what", "against"} == {k for k, v in one if v != getattr(other, k)}


def test_one_way_may_be_named_by_what_a_check_compares(tmp_path):
    write(tmp_path)
    claims = CLAIMS.replace("methods =", "rows = 20, beside = true, methods =")
    counts = CLAIMS[CLAIMS.index("    { measure") : CLAIMS.rindex("\n]")].replace('"score"', '"x"')
    claims = claims.replace("\n]", f"\n{counts}\n]")
    ledger, _ = read(tmp_path, claims + hinge(one="'score'"))
    one, other = ledger.hinges[0].ways
    check = ledger.claims[0].checks[0]
    assert one == check.model_copy(update={"beside": False})
    assert other == one.model_copy(update={"against": "other"})


def test_without_records_nothing_is_known(tmp_path):
    write(tmp_path)
    ledger, evidence = read(tmp_path, CLAIMS + hinge())
    assert swing(ledger.hinges[0], evidence).answer == "not known"
    row = hinge_table(ledger, evidence).iloc[0]
    assert (row["finds"], row["does it"]) == ("no record yet", "not known")


def test_a_cell_without_a_record_is_not_called_undecided(tmp_path):
    write(tmp_path)
    seeds = tuple(("glue/mrpc", "lora-8", seed) for seed in range(3))
    fill(tmp_path, lambda task, label: HIGH if label == "lora-8" else LOW, leave_out=seeds)
    row = hinge_table(*read(tmp_path, CLAIMS + hinge())).iloc[0]
    assert row["finds"].endswith("(1 yes, 0 no, 0 undecided, 1 no record yet)")


def test_ways_with_different_cells_are_refused(tmp_path):
    write(tmp_path)
    ledger, evidence = read(tmp_path, CLAIMS + hinge(other="{ tasks = ['glue/mrpc'] }"))
    with pytest.raises(RecordError, match="about the baseline have other cells"):
        swing(ledger.hinges[0], evidence)


def test_ways_on_other_tasks_are_refused_though_as_many(tmp_path):
    write(tmp_path)
    one = SMALL.replace("methods", "tasks = ['glue/sst2'], methods")
    ledger, evidence = read(tmp_path, CLAIMS + hinge(one=one, other="{ tasks = ['glue/mrpc'] }"))
    with pytest.raises(RecordError, match="about the baseline have other cells"):
        swing(ledger.hinges[0], evidence)


@pytest.mark.parametrize(
    ("one", "other", "answer"),
    [
        (["yes"] * 5, ["no"] * 5, "not known"),  # each may be by chance, but none says the same
        (["yes"] * 5, ["yes"] * 4 + ["no"], "not known"),
        (["yes"] * 5, ["yes"] * 3 + ["leans"] * 2, "no"),
        (["yes"] * 5, ["yes"] * 2 + ["leans"] * 3, "not known"),
        (["surely"] * 5, ["yes"] * 4 + ["surely not"], "yes"),
    ],
)
def test_what_may_turn_by_chance_is_not_called_the_same(tmp_path, one, other, answer):
    write(tmp_path)
    (written,) = read(tmp_path, CLAIMS + hinge())[0].hinges
    assert Swing(written, tuple(map(cell, one)), tuple(map(cell, other))).answer == answer
