"""Regions, verdicts and their rows: each verdict can be reached, and each edge is where it is."""

from __future__ import annotations

import json
import math

import pytest

from peftlab.claims import Estimate, Region, findings
from peftlab.claims.checks import Cell
from peftlab.claims.tables import cell_table, claim_table, commands, ours, text
from peftlab.claims.verdicts import VERDICTS, middle, scope, verdict
from peftlab.errors import SettingsError
from peftlab.results.comparison.noise import power
from peftlab.results.records.store import Store
from tests.claims.made import CLAIMS, fill, read, write

YES, NO, TIE = "reproduced", "not reproduced", "undecided"
#: What an estimate says, to the claim that it is above 0. In the first two by chance, if it is one
#: of many; in the next two whatever it is one of.
SAYS = {
    "yes": (0.1, 4.1),
    "no": (-4.1, -0.1),
    "surely": (2.9, 3.1),
    "surely not": (-3.1, -2.9),
    "leans": (-1, 2),
    "leans away": (-2, 1),
}


def between(low: float, high: float, ratio: bool = False) -> Estimate:
    return Estimate((low + high) / 2, low, high, 3, "seeds", ratio)


def cell(says: str | None) -> Cell:
    """A cell of a claim that something is above 0."""
    found = None if says is None else between(*SAYS[says])
    return Cell(str(says), "lora-8", Region(above=0), found, "tiny", True, ())


@pytest.mark.parametrize(
    ("region", "low", "high", "judgement"),
    [
        ({"above": 1}, 1.01, 2, YES),
        ({"above": 1}, 1, 2, TIE),  # the bound itself is not above it
        ({"above": 1}, 0.5, 1, NO),
        ({"above": 1}, 1, 1, NO),
        ({"above": 1}, 0.9, 1.1, TIE),
        ({"above": 1}, 1.2, math.inf, YES),
        ({"below": 1}, 0, 0.9, YES),
        ({"below": 1}, 0.9, math.inf, TIE),
        ({"above": -0.01, "below": 0.01}, -0.009, 0.009, YES),
        ({"above": -0.01, "below": 0.01}, -0.011, 0.009, TIE),
        ({"above": -0.01, "below": 0.01}, 0.01, 0.02, NO),
        ({"above": -0.01, "below": 0.01}, 0.009, math.inf, TIE),
        ({"equals": 7680}, 7680, 7680, YES),
        ({"equals": 7680}, 7681, 7681, NO),
        ({"equals": 7680}, 7000, 8000, TIE),
        ({"above": 0}, math.nan, math.nan, TIE),
    ],
)
def test_an_interval_lies_inside_outside_or_across_the_edge(region, low, high, judgement):
    assert Region(**region).judge(between(low, high)) == judgement


@pytest.mark.parametrize("region", [{}, {"above": 1, "equals": 1}, {"above": 1, "below": 1}])
def test_a_region_that_says_nothing_is_refused(region):
    with pytest.raises(ValueError, match="give equals|nothing lies"):
        Region(**region)


@pytest.mark.parametrize(
    ("checks", "expected"),
    [
        ([["yes", "yes"]], "reproduced"),
        ([["no", "no"]], "not reproduced"),
        ([["surely", "surely not"]], "partly"),
        ([["leans", "leans"]], "undecided"),
        ([[None, None]], "open"),
        ([[]], "open"),
        ([["yes", None]], "reproduced"),  # half of the cells are enough
        ([["yes", "leans"]], "reproduced"),
        ([["yes", "yes", "leans away"]], "undecided"),  # what is not shown may still be no
        ([["no", "no", "leans away"]], "not reproduced"),
        ([["no", "no", "leans"]], "undecided"),
        ([["yes", "leans", None]], "undecided"),
        ([["yes"] * 9, [None]], "undecided"),  # many cells of one check do not settle another
        ([["yes"] * 9, ["surely not", None, None]], "partly"),
        ([["yes"] * 9, ["no", None, None]], "undecided"),  # one of eleven is no by chance
        ([["no"] * 9, ["surely"]], "partly"),
        ([["no"] * 9, ["yes"]], "undecided"),
        ([["surely", "leans"], ["surely not", None]], "partly"),
        ([["surely", "leans"], ["surely not", None, None]], "undecided"),  # too few are decided
        ([["yes"], []], "undecided"),  # a part that needs a GPU is not there
        ([["no"], []], "not reproduced"),
    ],
)
def test_the_rule(checks, expected):
    assert verdict([[cell(says) for says in check] for check in checks]) == expected


def test_a_claim_is_not_reproduced_while_a_part_is_not_asked():
    assert verdict([[cell("yes")]], whole=False) == "undecided"
    assert verdict([[cell("no")]], whole=False) == "not reproduced"
    assert verdict([[cell("surely"), cell("surely not")]], whole=False) == "partly"


def test_the_part_that_is_not_asked_is_told(tmp_path):
    write(tmp_path)
    fill(tmp_path, lambda task, label: 0.9 if label == "lora-8" else 0.7)
    claims = CLAIMS.replace('protocol = "', 'open_parts = "Half of it."\nprotocol = "')
    ledger, evidence = read(tmp_path, claims)
    (found,) = findings(ledger, evidence)
    assert found.verdict == "undecided"
    assert "      Half of it." in text([found], ledger).splitlines()


def test_a_method_that_failed_at_a_seed_is_not_judged_by_the_others(tmp_path):
    write(tmp_path)
    fill(tmp_path, lambda task, label: 0.9 if label == "lora-8" else 0.7)
    store = Store(tmp_path / "results")
    (lost,) = (
        r
        for r in store.load_all("small")
        if (r.settings.task, r.settings.method_label, r.settings.seed) == ("glue/mrpc", "lora-8", 2)
    )
    store.save(lost.replaced(status="failed", error="the loss is NaN"), overwrite=True)
    ledger, evidence = read(tmp_path)
    (found,) = findings(ledger, evidence)
    assert [cell.judgement for cell in found.cells] == [YES, None]
    assert found.missing == ("small",)


def test_out_of_reach_is_only_what_has_no_record():
    assert verdict([[cell(None)]], out_of_reach=True) == "out of reach"
    assert verdict([[cell("yes")]], out_of_reach=True) == "reproduced"


def test_an_interval_for_many_cells_is_wider_and_an_exact_one_is_not():
    found = Estimate(2.0, 1.0, 4.0, 3, "seeds", ratio=True)
    assert found.among(1) == found
    many = found.among(5)  # t with two degrees of freedom: 9.925 at 0.995, 4.303 at 0.975
    further = 9.925 / 4.303
    assert (many.low, many.high) == pytest.approx((2 * 2**-further, 2 * 2**further), rel=1e-3)
    less = Estimate(0.5, 0.4, 0.7, 3, "seeds").among(5)
    expected = (0.5 - 0.1 * further, 0.5 + 0.2 * further)
    assert (less.low, less.high) == pytest.approx(expected, rel=1e-3)
    assert Estimate.exact(3.0).among(9) == Estimate.exact(3.0)
    endless = Estimate(math.inf, 1.2, math.inf, 3, "seeds", ratio=True)
    assert math.isnan(endless.among(2).low)


def test_one_seed_decides_nothing():
    assert Region(above=0).judge(Estimate(1.0, 0.9, 1.1, 1, "examples")) == TIE
    assert Region(above=0).judge(Estimate(1.0, 0.9, 1.1, 2, "seeds")) == YES


@pytest.mark.parametrize(
    ("sst2", "mrpc", "expected"),
    [
        (0.9, 0.9, "reproduced"),
        (0.5, 0.5, "not reproduced"),
        (0.9, 0.5, "partly"),
        (0.7, 0.7, "undecided"),
        (0.9, 0.71, "reproduced"),
        (0.9, 0.7, "undecided"),  # as high is not higher
    ],
)
def test_a_verdict_follows_the_records(tmp_path, sst2, mrpc, expected):
    scores = {"glue/sst2": sst2, "glue/mrpc": mrpc}
    write(tmp_path)
    fill(tmp_path, lambda task, label: scores[task] if label == "lora-8" else 0.7)
    (found,) = findings(*read(tmp_path))
    assert found.verdict == expected
    assert found.scope == "paper's model"
    assert found.missing == ()
    row = found.row()
    assert row["n"] == 3
    assert len(row["records"]) == 12  # two tasks, two methods, three seeds
    middle = (sst2 + mrpc) / 2 - 0.7
    assert row["estimate"] == pytest.approx(middle, abs=1e-9)
    assert row["low"] < middle < row["high"]


def test_without_records_a_claim_is_open_and_says_what_to_run(tmp_path):
    write(tmp_path)
    ledger, evidence = read(tmp_path)
    (found,) = findings(ledger, evidence)
    assert found.verdict == "open"
    assert commands(found, ledger) == [
        "peftlab run book/experiments/small.toml  (about 60 minutes of two CPU cores)"
    ]
    assert commands(found, ledger)[0] in text([found], ledger)
    assert found.row() == {
        "id": "C1.1",
        "verdict": "open",
        "scope": "",
        **dict.fromkeys(("estimate", "low", "high", "n")),
        "records": [],
    }


def test_a_cell_without_all_its_seeds_has_no_estimate(tmp_path):
    write(tmp_path)
    gone = (("glue/mrpc", "lora-8", 2), ("glue/sst2", "other", 0))
    fill(tmp_path, lambda task, label: 0.9 if label == "lora-8" else 0.7, gone)
    (found,) = findings(*read(tmp_path))
    assert [cell.judgement for cell in found.cells] == [YES, None]
    assert found.missing == ("small",)
    assert {cell.name: bool(cell.records) for cell in found.cells} == {
        "glue/sst2 (10 rows), lora-8": True,
        "glue/mrpc (20 rows), lora-8": False,
    }


def test_what_is_beside_a_claim_is_shown_and_never_counts(tmp_path):
    write(tmp_path)
    fill(tmp_path, lambda task, label: {"lora-8": 0.9, "other": 0.5}.get(label, 0.7))
    line = next(line for line in CLAIMS.splitlines() if "measure" in line)
    less = line.replace("lora-8", "other").replace('what = "score"', 'what = "less"')
    beside = less.replace("methods =", "beside = true, methods =")
    for added, expected, count in ((less, "partly", 4), (beside, "reproduced", 2)):
        ledger, evidence = read(tmp_path, CLAIMS.replace(line, f"{added}\n{line}"))
        (found,) = findings(ledger, evidence)
        assert found.verdict == expected
        assert [cell.judgement for cell in found.cells] == [NO, NO, YES, YES]
        (row,) = claim_table([found]).to_dict("records")
        assert (row["yes"] + row["no"], row["undecided"]) == (count, 0)
    assert found.first is not None
    assert found.first.check.what == "score"
    assert found.row()["estimate"] == pytest.approx(0.2)
    assert cell_table(found)["claimed to be"].tolist() == ["above 0 (beside)"] * 2 + ["above 0"] * 2


def test_each_method_may_have_a_rival_of_its_own(tmp_path):
    write(tmp_path)
    fill(tmp_path, lambda task, label: {"lora-8": 0.9, "other": 0.5}.get(label, 0.7))
    both = 'methods = ["lora-8", "other"], against = ["other", "full"]'
    (found,) = findings(*read(tmp_path, CLAIMS.replace('methods = ["lora-8"]', both)))
    estimates = [cell.estimate.value for cell in found.cells]
    assert estimates == pytest.approx([0.4, -0.2, 0.4, -0.2])
    with pytest.raises(SettingsError, match="one for each of the methods"):
        read(tmp_path, CLAIMS.replace('methods = ["lora-8"]', both.replace(', "full"', "")))


def test_what_only_a_check_beside_the_claim_lacks_would_settle_nothing(tmp_path):
    write(tmp_path)
    fill(tmp_path, lambda task, label: 0.7, (("glue/mrpc", "other", 2),))
    line = next(line for line in CLAIMS.splitlines() if "measure" in line)
    beside = line.replace("lora-8", "other").replace("methods =", "beside = true, methods =")
    for added, missing in ((beside, ()), (beside.replace("true", "false"), ("small",))):
        ledger, evidence = read(tmp_path, CLAIMS.replace(line, f"{added}\n{line}"))
        (found,) = findings(ledger, evidence)
        assert (found.verdict, found.missing) == ("undecided", missing)
        assert ("more seeds, rows or tasks" in text([found], ledger)) == (not missing)


def test_cells_that_need_a_gpu_do_not_count_until_they_are_recorded(tmp_path):
    write(tmp_path)
    fill(
        tmp_path,
        lambda task, label: 0.9 if label == "lora-8" else 0.7,
        (("glue/mrpc", "lora-8", 2),),
    )
    ledger, evidence = read(tmp_path, CLAIMS.replace("minutes = 60", "minutes = 60, gpu = true"))
    (found,) = findings(ledger, evidence)
    assert len(found.cells) == 1
    assert "a GPU" in commands(found, ledger)[0]


def test_rows_and_tasks_choose_cells(tmp_path):
    write(tmp_path)
    for chosen in ("rows = 20", 'tasks = ["glue/mrpc"]'):
        (found,) = findings(*read(tmp_path, CLAIMS.replace("methods =", f"{chosen}, methods =")))
        assert [cell.name for cell in found.cells] == ["glue/mrpc (20 rows), lora-8"]


def test_rows_are_json_with_a_verdict_of_the_list(tmp_path):
    write(tmp_path)
    fill(tmp_path, lambda task, label: 0.7)
    (row,) = json.loads(json.dumps([f.row() for f in findings(*read(tmp_path))], allow_nan=False))
    assert set(row) == {"id", "verdict", "scope", "estimate", "low", "high", "n", "records"}
    assert row["verdict"] in VERDICTS


def test_what_is_not_known_is_left_out_of_the_middle():
    unknown = between(math.nan, math.nan)
    estimates = [between(0.6, 0.8), unknown, between(0.5, 0.7), between(0.4, 0.6), unknown]
    cells = [
        Cell("x", "lora-8", Region(above=0), each, "tiny", True, ())
        for order in (estimates, estimates[::-1])
        for each in order
    ]
    for some in (cells[:5], cells[5:]):
        found = middle(some)
        assert found is not None
        assert (found.value, found.low, found.high, found.n) == pytest.approx((0.6, 0.4, 0.8, 3))
        assert ours(some) == "0.60 [0.40, 0.80], 5 cells"
    assert ours(cells[1:2]) == "not known"
    assert middle([]) is None
    assert ours([]) == ""


@pytest.mark.parametrize(
    ("value", "low", "high", "text"),
    [
        (math.inf, 1.465, math.inf, "above 1.4"),
        (math.inf, 1.4, math.inf, "above 1.4"),
        (math.inf, 0.0697, math.inf, "above 0.069"),
        (math.inf, 146.5, math.inf, "above 140"),
        (0.0, 0.0, 0.25, "below 0.25"),
        (0.0, 0.0, 0.251, "below 0.26"),
        (-math.inf, -math.inf, -0.123, "below -0.12"),
        (-math.inf, -math.inf, 0.0, "below 0"),
        (math.nan, 0.0, math.inf, "not known"),
        (math.inf, 0.0, math.inf, "not known"),
        (1.5, 1.2, math.inf, "1.5 [1.2, ∞]"),
    ],
)
def test_what_has_no_bound_is_told_in_words(value, low, high, text):
    found = Estimate(value, low, high, 3, "seeds", ratio=True)
    assert str(found) == text
    cell = Cell("x", "lora-8", Region(above=1), found, "tiny", True, ())
    inside = "" if math.isfinite(value) else f", {2 * (low > 1)} of them above 1"
    assert ours([cell, cell]) == f"{text}, 2 cells{inside}"


def test_the_scope_is_computed(tmp_path):
    write(tmp_path)
    fill(tmp_path, lambda task, label: 0.7)
    (found,) = findings(*read(tmp_path, CLAIMS.replace('["tiny"]', '["large"]')))
    assert found.scope == "small encoder"
    count = (
        '{ measure = "count", what = "x", encoders = ["roberta-base"], methods = ["pt-unipelt"], '
        'against = "unipelt", claimed = { equals = 7680 } }'
    )
    a, b = CLAIMS.index("    { measure"), CLAIMS.rindex("]")
    claims = CLAIMS[:a] + count + CLAIMS[b:]
    (found,) = findings(*read(tmp_path, claims.replace('["tiny"]', '["roberta-base"]')))
    assert (found.scope, found.verdict) == ("shape only", "reproduced")
    assert found.row()["n"] == 0
    assert scope(found.cells[0], []) == "small encoder"
    beside = CLAIMS[a:b].replace("methods =", "beside = true, methods =")
    (found,) = findings(*read(tmp_path, CLAIMS[:a] + beside + count + CLAIMS[b:]))
    assert (found.scope, len(found.cells)) == ("small encoder", 3)
    named = ["tiny", "roberta-base"]
    assert {scope(cell, named) for cell in found.cells} == {"paper's model", "shape only"}


def test_power_is_that_of_the_interval():
    # half-width 0.02: a difference of 0.02 is seen every second time, of 0.032 four of five times
    assert between(-0.02, 0.02).detectable == pytest.approx(0.02 * power(3, "seeds"))
    assert between(0.5, 2, ratio=True).detectable == pytest.approx(2 ** power(3, "seeds"))
    assert Estimate.exact(3).detectable == 0
    assert math.isnan(between(0.5, math.inf, ratio=True).detectable)
    assert math.isnan(between(0, 2, ratio=True).detectable)
