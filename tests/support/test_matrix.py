"""The support matrix: the committed one is of this registry, and it says what the tests found."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import transformers

from peftlab import methods
from peftlab.errors import RecordError
from peftlab.support import checks, matrix
from peftlab.support.matrix import Case, Matrix
from tests.conftest import MODEL_TYPES

ROOT = Path(__file__).parents[2]
RUN = "run `make support`"


def pinned(file: str) -> str:
    lines = (ROOT / file).read_text().splitlines()
    return next(line for line in lines if line.startswith("transformers==")).partition("==")[2]


@pytest.fixture(scope="module")
def committed() -> Matrix:
    return Matrix.read(ROOT / "book" / matrix.FILE)


def test_it_has_the_methods_of_the_registry(committed):
    there, here = {case.method for case in committed.outcomes}, set(methods.catalogue())
    assert here - there == set(), f"new: {RUN}"
    assert there - here == set(), f"gone: {RUN}"


def test_it_has_every_check_on_every_family_and_version(committed):
    versions = [pinned("constraints.txt"), pinned("constraints-next.txt")]
    wanted = {
        Case(method, check, version, family, "sdpa")
        for method in methods.catalogue()
        for check in checks.CHECKS
        for version in versions
        for family in MODEL_TYPES
    }
    assert wanted - set(committed.outcomes) == set(), RUN
    assert set(committed.versions) == set(versions)
    assert {case.transformers for case in committed.outcomes} == set(versions)
    assert {case.check for case in committed.outcomes} == set(checks.CHECKS)
    assert {case.attention for case in committed.outcomes} == {"sdpa", "eager"}


def test_it_says_no_exactly_where_a_method_declares_it(committed):
    catalogue = methods.catalogue()
    for case, outcome in committed.outcomes.items():
        reason = checks.declared(catalogue[case.method]).get(case.check)
        assert outcome == ("yes" if reason is None else f"no: {reason}"), f"{case}: {RUN}"


# -- the file and its tables ----------------------------------------------------------------------


def outcomes(bad=lambda case: False, check="merge", method="one") -> dict[Case, str]:
    cases = [
        Case(method, check, version, family, attention)
        for version in ("4.1", "5.1")
        for family in ("bert", "roberta")
        for attention in ("eager", "sdpa")
    ]
    return {case: "no: it is so" if bad(case) else "yes" for case in cases}


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (lambda case: False, "yes"),
        (lambda case: True, "no"),
        (lambda case: case.family == "roberta", "partly: not with roberta"),
        (lambda case: case.attention == "eager", "partly: not with eager attention"),
        (
            lambda case: (case.family, case.transformers) == ("bert", "5.1"),
            "partly: not with bert, transformers 5.1",
        ),
        (
            lambda case: case[2:] in {("4.1", "bert", "sdpa"), ("5.1", "roberta", "eager")},
            "partly: not with bert, sdpa attention, transformers 4.1; "
            "roberta, eager attention, transformers 5.1",
        ),
    ],
)
def test_a_cell_says_where(bad, words):
    assert matrix.cell(outcomes(bad)) == words


def test_a_cell_without_tests_and_one_with_failures():
    assert matrix.cell({}) == "not tested"
    case, *others = outcomes()
    assert matrix.cell({case: "fails: crash"}) == "fails"
    assert matrix.cell(dict.fromkeys(others, "no: x") | {case: "fails: crash"}) == "fails"


def test_tables():
    found = outcomes(lambda case: True) | outcomes(check="save", method="two")
    whole = Matrix({}, found)
    table = whole.table(["two", "one"], ["save", "merge"])
    assert table.to_numpy().tolist() == [
        ["two", "yes", "not tested"],
        ["one", "not tested", "no"],
    ]
    assert whole.reasons().to_numpy().tolist() == [["merge", "no: it is so", "one"]]
    runs = whole.runs()
    assert len(runs) == 8
    assert runs.iloc[0].tolist() == ["4.1", "bert", "eager", 1, 1, 0]


def test_it_comes_back_from_its_file(tmp_path):
    whole = Matrix({"5.1": {"date": "2026-01-01"}}, outcomes(lambda case: case.family == "bert"))
    whole.write(tmp_path / "new" / "support.json")
    assert Matrix.read(tmp_path / "new" / "support.json") == whole


@pytest.mark.parametrize("text", [None, "", "[]", "{}", '{"versions": {}, "outcomes": {"a": 1}}'])
def test_a_damaged_file_is_one_sentence(tmp_path, text):
    if text is not None:
        (tmp_path / "support.json").write_text(text)
    with pytest.raises(RecordError, match="make support"):
        Matrix.read(tmp_path / "support.json")


def test_newer_outcomes_replace_older_ones_and_lost_methods_go():
    old = Matrix({"4.1": {"date": "old"}}, outcomes(lambda case: True) | outcomes(method="lost"))
    fixed = Case("one", "merge", "5.1", "bert", "sdpa")
    old.update(Matrix({"5.1": {"date": "new"}}, {fixed: "yes"}), ["one"])
    assert old.versions == {"4.1": {"date": "old"}, "5.1": {"date": "new"}}
    assert {case.method for case in old.outcomes} == {"one"}
    assert [case for case, outcome in old.outcomes.items() if outcome == "yes"] == [fixed]


# -- what pytest collects -------------------------------------------------------------------------

TESTS = """
import pytest

import peftlab as pl

METHODS = [pl.LoRA(), pl.Adapter()]


@pytest.mark.parametrize("method", METHODS, ids=["lora", "adapter"])
@pytest.mark.parametrize("model_type", ["bert"])
@pytest.mark.parametrize("check", ["padding", "merge", "save"])
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_support(method, model_type, check, attention):
    if check == "save":
        pytest.skip("not here")
    assert (method.name, check, attention) != ("lora", "padding", "eager"), "broken"


@pytest.mark.parametrize("method", METHODS[:1], ids=["lora"])
@pytest.mark.parametrize("dtype", [1, 2, 3])
@pytest.mark.parametrize("model_type", ["bert"])
def test_merge_and_back(method, dtype, model_type):
    assert dtype != 2, "not at 2"


def test_other():
    pass
"""


@pytest.mark.parametrize("workers", ["0", "2"])
def test_outcomes_are_collected(tmp_path, workers):
    (tmp_path / "test_some.py").write_text(TESTS)
    file = tmp_path / "support.json"
    before = outcomes(method="head-only")
    Matrix({}, before).write(file)
    command = ["-m", "pytest", "-q", "-p", "tests.conftest", "-n", workers, "--support", str(file)]
    done = subprocess.run(
        [sys.executable, *command, "-o", f"pythonpath={ROOT}", "-c", "/dev/null", str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 1, done.stdout + done.stderr  # two tests fail on purpose
    found = Matrix.read(file)
    assert set(found.versions) == {transformers.__version__}
    assert set(found.versions[transformers.__version__]) == {"date", "torch", "python"}
    new = {
        (case.method, case.check, case.attention): outcome
        for case, outcome in found.outcomes.items()
        if case not in before
    }
    no = "no: " + checks.declared(methods.get("pfeiffer-16"))["merge"]
    assert new == {
        ("lora-8", "padding", "sdpa"): "yes",
        ("lora-8", "padding", "eager"): "fails: broken",
        ("lora-8", "merge", "sdpa"): "fails: not at 2",
        ("lora-8", "merge", "eager"): "yes",
        ("pfeiffer-16", "padding", "sdpa"): "yes",
        ("pfeiffer-16", "padding", "eager"): "yes",
        ("pfeiffer-16", "merge", "sdpa"): no,
        ("pfeiffer-16", "merge", "eager"): no,
    }
    assert before.keys() <= found.outcomes.keys()
