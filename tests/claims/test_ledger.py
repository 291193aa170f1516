"""The file of claims: mistakes are one sentence, and the book's says nothing that is computed."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path

import nbformat
import pytest

from peftlab.claims import Claim, Ledger
from peftlab.claims.ledger import FILE
from peftlab.claims.verdicts import VERDICTS
from peftlab.cli import main
from peftlab.errors import PeftlabError
from tests.claims.made import CLAIMS, COST, EXPERIMENT, fill, hinge, read, write

BOOK = Path(__file__).parents[2] / "book"
#: Joint tasks in the experiment.
JOINT = EXPERIMENT.replace(
    "tasks = [", 'tasks = [{ name = "both", of = ["glue/sst2", "pocket/nli"] }, "pocket/nli", '
)


def check(text: str) -> str:
    """Return claims with another check."""
    a, b = CLAIMS.index("    { measure"), CLAIMS.rindex("\n]")
    return CLAIMS[:a] + text + CLAIMS[b:]


SCORE = '{ measure = "score difference", what = "x", claimed = { above = 0 }, '
RUN = SCORE.replace("score difference", "run ratio") + 'experiment = "small", until = "stop", '
STEP = SCORE.replace("score difference", "step ratio")
MISTAKES = {
    "an unknown key": (CLAIMS.replace("protocol", "test_by", 1), "test_by is no known key"),
    "a typed verdict": (
        CLAIMS.replace("protocol =", 'verdict = "reproduced"\nprotocol =', 1),
        "verdict is no known key",
    ),
    "an unknown key of a check": (CLAIMS.replace("what =", "that ="), "that is no known key"),
    "an unknown measure": (CLAIMS.replace("score difference", "score"), "score difference"),
    "an unknown paper": (CLAIMS.replace('paper = "one"', 'paper = "on"'), "did you mean 'one'"),
    "an unknown method": (CLAIMS.replace('["lora-8"]', '["lora-9"]'), "did you mean 'lora-8'"),
    "an unknown task": (
        CLAIMS.replace("methods =", 'tasks = ["glue/sst3"], methods ='),
        "did you mean 'glue/sst2'",
    ),
    "an experiment without a budget": (
        CLAIMS.replace('experiment = "small"', 'experiment = "smalls"'),
        "did you mean 'small'",
    ),
    "an experiment without a file": (
        CLAIMS.replace("small = { minutes = 60 }", "small = { minutes = 60 }\nx = { minutes = 1 }"),
        "no experiment file 'x'",
    ),
    "a claim twice": (CLAIMS + CLAIMS[CLAIMS.index("[[claims]]") :], "is there twice"),
    "a number without a source": (
        CLAIMS.replace("protocol =", 'number = "50 %"\nprotocol =', 1),
        "a number has a source",
    ),
    "no check and no reason": (check(""), "name checks"),
    "no protocol": (CLAIMS.replace('protocol = "Compare."', ""), "say in protocol, or planned"),
    "nobody's claim": (CLAIMS.replace('whose = "summary"', ""), "whose"),
    "a text without a place": (CLAIMS.replace('"summary"', '"text"'), "say in section where"),
    "a region without bounds": (CLAIMS.replace("{ above = 0 }", "{}"), "give equals"),
    "rows that no task has": (
        CLAIMS.replace("methods =", "rows = 30, methods ="),
        "compares nothing",
    ),
    "a generated task": (
        check(SCORE + 'experiment = "small", tasks = ["pocket/nli"], methods = ["lora-8"] }'),
        "cannot speak of a paper",
    ),
    "a transfer without other languages": (
        check(
            SCORE.replace("score", "transfer")
            + 'experiment = "small", tasks = ["glue/sst2"], methods = ["lora-8"] }'
        ),
        "compares transfer, but its task 'glue/sst2' has none",
    ),
    "a generated task in a mixture": (
        check(
            SCORE.replace("score difference", "joint")
            + 'experiment = "small", of = "score", joint = "both", methods = ["full"] }'
        ),
        "cannot speak of a paper",
    ),
    "seconds without a cost": (
        check(RUN + 'unit = "seconds", methods = ["lora-8"] }'),
        "name a cost experiment",
    ),
    "an unknown control": (
        check(RUN + 'unit = "steps", waits = "others", methods = ["lora-8"] }'),
        "did you mean 'other'",
    ),
    "nothing to judge by": (
        CLAIMS.replace("methods =", "beside = true, methods ="),
        "all checks are beside",
    ),
    "a cost with several cells": (
        check(RUN + 'unit = "seconds", cost = "price", methods = ["lora-8"] }'),
        "name it in cell",
    ),
    "a cost experiment as one that trains": (
        check(SCORE + 'experiment = "price", methods = ["lora-8"] }'),
        "trains nothing",
    ),
    "a training as a cost": (
        check(STEP + 'experiment = "small", methods = ["lora-8"] }'),
        "measures no cost",
    ),
    "a cost with several modes": (
        check(STEP + 'experiment = "price", methods = ["lora-8"] }'),
        "name it in mode",
    ),
    "a hinge of no claim": (
        CLAIMS + hinge(claim="C1.3"),
        "did you mean 'C1.1'",
    ),
    "a hinge on an unknown check": (
        CLAIMS + hinge(one="'scores'"),
        "did you mean 'score'",
    ),
    "a hinge whose other way is no table": (
        CLAIMS + hinge(other="3"),
        "hinges.0.other: Input should be a valid dictionary",
    ),
    "a hinge of one way": (
        CLAIMS + hinge().replace("other =", "others ="),
        "others is no known key",
    ),
    "a wrong claim beside a hinge": (
        CLAIMS.replace("protocol", "test_by", 1) + hinge(),
        "test_by is no known key",
    ),
    "a hinge of two questions": (
        CLAIMS + hinge(other="{ claimed = { below = 0 } }"),
        "claim the same region",
    ),
    "a hinge of an unknown method": (
        CLAIMS + hinge(other="{ methods = ['lora-9'] }"),
        "In the claim C1.1: There is no method",
    ),
    "a hinge without a budget": (
        CLAIMS + hinge(other="{ experiment = 'smalls' }"),
        "did you mean 'small'",
    ),
    "an unknown shape": (
        check(
            SCORE.replace("score difference", "count")
            + 'encoders = ["roberta-bas"], methods = ["lora-8"] }'
        ),
        "did you mean 'roberta-base'",
    ),
}


@pytest.mark.parametrize("case", MISTAKES)
def test_a_mistake_is_one_sentence(case, tmp_path):
    claims, words = MISTAKES[case]
    write(tmp_path, JOINT)
    (tmp_path / "experiments" / "price.toml").write_text(COST)
    claims = claims.replace(
        "small = { minutes = 60 }", "small = { minutes = 60 }\nprice = { minutes = 5 }"
    )
    with pytest.raises(PeftlabError) as caught:
        read(tmp_path, claims)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_claims_are_chosen_by_id(tmp_path):
    write(tmp_path)
    ledger, _ = read(tmp_path)
    assert [claim.id for claim in ledger.chosen([])] == ["C1.1"]
    with pytest.raises(PeftlabError, match=r"did you mean 'C1\.1'"):
        ledger.chosen(["C1.2"])


def test_the_command_prints_the_ledger_and_writes_json(tmp_path, monkeypatch, capsys):
    write(tmp_path)
    fill(tmp_path, lambda task, label: 0.9 if label == "lora-8" else 0.7)
    monkeypatch.setattr("peftlab.claims.book_ledger", lambda results: read(tmp_path))
    file = tmp_path / "claims.json"
    assert main(["claims", "C1.1", "--json", str(file)]) == 0
    out = capsys.readouterr().out
    assert out.startswith("C1.1  reproduced      paper's model")
    assert out.endswith("1 reproduced\n")
    (row,) = json.loads(file.read_text())
    assert (row["id"], row["verdict"], row["n"]) == ("C1.1", "reproduced", 3)
    assert main(["claims", "C9.9"]) == 2
    assert "no claim 'C9.9'" in capsys.readouterr().err


# -- the book's own --------------------------------------------------------------------------------


def test_the_book_lists_every_claim_once():
    ledger = Ledger.from_toml(BOOK / FILE)
    counts = {1: 7, 2: 7, 3: 8, 4: 2, 5: 1, 6: 1, 7: 1}
    expected = [f"C{paper}.{n}" for paper, last in counts.items() for n in range(1, last + 1)]
    assert [claim.id for claim in ledger.claims] == expected
    keys = re.findall(r"^@\w+\{([\w-]+),", (BOOK / "references.bib").read_text(), re.MULTILINE)
    assert {paper.cite for paper in ledger.papers.values()} <= set(keys)


def test_the_book_checks_only_what_its_experiments_have():
    """Names are looked up in the files as written: to plan every run takes a minute."""
    ledger = Ledger.from_toml(BOOK / FILE)
    files = {}
    for name in ledger.experiments:
        files[name] = tomllib.loads((BOOK / "experiments" / f"{name}.toml").read_text())
        assert files[name]["name"] == name
    checks = [check for claim in ledger.claims for check in claim.checks]
    checks += [way for turning in ledger.hinges for way in turning.ways]
    for check in checks:
        for name in check.needs[:1]:
            assert set(check.labels) <= set(files[name]["methods"]), check.what


def test_no_verdict_is_typed():
    """Neither the file nor the pages can say one: there is no field for it, and prose has none."""
    assert not {"verdict", "scope", "estimate"} & set(Claim.model_fields)
    pages = [nbformat.read(path, as_version=4) for path in (BOOK / "papers").glob("*.ipynb")]
    assert pages
    prose = [c.source for page in pages for c in page.cells if c.cell_type == "markdown"]
    assert [text for text in prose if typed(text)] == []


def typed(text: str) -> bool:
    """Tell whether a text gives a claim a verdict: an id and a verdict in one sentence."""
    words = "|".join(sorted(VERDICTS, key=len, reverse=True))
    sentences = re.split(r"(?<=[.!?])\s+(?=[A-Z*])|\n\n|\n- ", text)
    return any(re.search(r"\bC\d\.\d\b", s) and re.search(words, s) for s in sentences)


def test_a_typed_verdict_would_be_seen():
    assert typed("Here C1.3 is reproduced on every method.")
    assert typed("We find that claim C2.1 was\nnot reproduced.")
    assert not typed("C1.3 is about latency. A cell is reproduced if its interval is inside.")
