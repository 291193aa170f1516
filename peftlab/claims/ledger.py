"""The file of claims: what papers say, in our words, and which checks would settle it.

It holds no verdict: verdicts are computed from records, in :mod:`peftlab.claims.verdicts`.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, PositiveInt, ValidationInfo, field_validator, model_validator

from peftlab.claims.built import AddedTask, SelectedLayers, TrainingRatio
from peftlab.claims.evidence import Evidence
from peftlab.claims.priced import Count, StepRatio
from peftlab.claims.trained import (
    Joint,
    RunRatio,
    ScoreDifference,
    SizeRatio,
    TransferDifference,
)
from peftlab.errors import PeftlabError, unknown
from peftlab.results.records.run import Strict
from peftlab.results.records.store import book_results

FILE = "papers/claims.toml"
Whose = Literal["text", "inferred", "summary", "count", "ours"]
#: Whose a claim is, as tables write it.
WHOSE: dict[Whose, str] = {
    "text": "its text, at least in part",
    "inferred": "inferred from its text or code",
    "summary": "summaries by others",
    "count": "a count of its settings",
    "ours": "our control",
}
#: Where a claim stands that names no section.
TOLD = "told of the paper by summaries of others, not read in it"

Check = Annotated[
    ScoreDifference
    | TransferDifference
    | SizeRatio
    | RunRatio
    | TrainingRatio
    | Joint
    | AddedTask
    | SelectedLayers
    | StepRatio
    | Count,
    Field(discriminator="measure"),
]


class Paper(Strict):
    """A paper.

    Attributes:
        title: Short, as the page calls it.
        cite: Key in the bibliography.
        encoders: Names of the encoders and shapes that it uses: what is measured on them speaks of
            the paper's model.
    """

    title: str = Field(min_length=1)
    cite: str
    encoders: list[str] = Field(default=[])


class Budget(Strict):
    """What an experiment takes.

    Attributes:
        minutes: From nothing to all records, about.
        gpu: Whether it needs one; else two CPU cores do.
    """

    minutes: PositiveInt
    gpu: bool = False

    def __str__(self) -> str:
        """Say it in words."""
        time = f"{self.minutes} minutes" if self.minutes < 120 else f"{self.minutes / 60:.0f} hours"
        return f"about {time} of {'a GPU' if self.gpu else 'two CPU cores'}"


class Claim(Strict):
    """One claim.

    Attributes:
        id: For example ``"C1.1"``.
        paper: Key of :attr:`Ledger.papers`.
        whose: Whether the text at hand says it, we infer it, a summary by others tells it, it
            follows by counting, or it is a control of this book and no statement of the paper.
        section: Where the paper says it.
        claim: In our words.
        number: The paper's figure; empty where it is not available.
        source: Where the number comes from.
        unconfirmed: What a summary by others says about the number, where the paper's own text was
            not available; it decides nothing.
        protocol: How it is tested here; empty if it is not.
        planned: How it is to be tested on a GPU, where that differs.
        confounds: What else could make the difference.
        checks: What would settle it.
        open_parts: What of the claim no check asks yet, and why: it is not reproduced before.
        out_of_reach: Why it cannot be tested at small scale; empty if it can.
    """

    id: str = Field(pattern=r"^C\d+\.\d+$")
    paper: str
    whose: Whose
    section: str = ""
    claim: str = Field(min_length=1)
    number: str = ""
    source: Literal["", "paper", "code", "derived"] = ""
    unconfirmed: str = ""
    protocol: str = ""
    planned: str = ""
    confounds: str = ""
    checks: list[Check] = Field(default=[])
    open_parts: str = ""
    out_of_reach: str = ""

    @model_validator(mode="after")
    def _agrees(self) -> Claim:
        if bool(self.number) != bool(self.source):
            raise ValueError("a number has a source, and a source a number")
        if not (self.protocol or self.planned):
            raise ValueError("say in protocol, or planned, how it is tested")
        if self.whose in ("text", "inferred", "count") and not self.section:
            raise ValueError("say in section where it stands, or what it follows from")
        if not self.checks and not (self.out_of_reach or self.open_parts):
            raise ValueError("name checks, or say in open_parts or out_of_reach why there are none")
        if self.checks and all(check.beside for check in self.checks):
            raise ValueError("all checks are beside the claim: leave one to judge it by")
        return self

    @property
    def said(self) -> str:
        """Where the paper says it; empty for a control of ours."""
        return "" if self.ours else self.section or TOLD

    @property
    def ours(self) -> bool:
        """Whether it is a control of this book."""
        return self.whose == "ours"

    @property
    def experiments(self) -> list[str]:
        """All experiments that it names, each once, in order."""
        return list(dict.fromkeys(name for check in self.checks for name in check.needs))


class Hinge(Strict):
    """A claim asked in two ways that differ in one thing: does the answer hang on it?

    Attributes:
        claim: Its id.
        on: What differs, such as ``"the learning rate"``.
        one: One way: in the file a check, or what a check of the claim compares.
        other: The other; in the file what differs from the one. Both claim the same region.
    """

    claim: str
    on: str = Field(min_length=1)
    one: Check
    other: Check

    @model_validator(mode="after")
    def _agrees(self) -> Hinge:
        if self.one.claimed != self.other.claimed:
            raise ValueError("both ways of a hinge claim the same region: give them one")
        return self

    @property
    def ways(self) -> tuple[Check, Check]:
        """Both ways."""
        return self.one, self.other

    @staticmethod
    def written_out(hinge: dict[str, Any], claims: Iterable[Claim]) -> dict[str, Any]:
        """Return an entry of the file with both ways whole.

        Raises:
            UnknownNameError: There is no such claim, or no such check of it.
        """
        there = {claim.id: claim for claim in claims}
        claim_id, one, other = (hinge.get(key) for key in ("claim", "one", "other"))
        if claim_id not in there:
            raise unknown(f"claim (that may hang on {hinge.get('on')})", str(claim_id), there)
        if isinstance(one, str):
            checks = {check.what: check for check in there[claim_id].checks}
            if one not in checks:
                raise unknown(
                    f"check of {claim_id} (that may hang on {hinge.get('on')})", one, checks
                )
            one = checks[one].model_dump(mode="json", exclude_unset=True, exclude={"beside"})
        if isinstance(one, dict) and isinstance(other, dict):
            other = one | other
        return hinge | {"one": one, "other": other}


class Ledger(Strict):
    """All claims.

    Attributes:
        papers: By key.
        experiments: What each of the experiments takes.
        claims: In the order of the page.
        hinges: What some of them may hang on.
    """

    papers: dict[str, Paper]
    experiments: dict[str, Budget]
    claims: list[Claim] = Field(min_length=1)
    hinges: list[Hinge] = Field(default=[])

    @field_validator("hinges", mode="before")
    @classmethod
    def _written_out(cls, hinges: Any, info: ValidationInfo) -> Any:
        # without claims one of them is wrong, and said to be
        claims = info.data.get("claims")
        return [Hinge.written_out(hinge, claims) for hinge in hinges] if claims else []

    @model_validator(mode="after")
    def _agrees(self) -> Ledger:
        ids = [claim.id for claim in self.claims]
        needed = [(claim.id, name) for claim in self.claims for name in claim.experiments]
        for claim in self.claims:
            if ids.count(claim.id) > 1:
                raise ValueError(f"the claim {claim.id} is there twice")
            if claim.paper not in self.papers:
                raise unknown(f"paper (of claim {claim.id})", claim.paper, self.papers)
        for hinge in self.hinges:
            needed += [(hinge.claim, name) for way in hinge.ways for name in way.needs]
        for claim_id, name in needed:
            if name not in self.experiments:
                raise unknown(f"budget of an experiment (of {claim_id})", name, self.experiments)
        return self

    def verify(self, evidence: Evidence) -> None:
        """Check that experiments, methods and tasks are there that claims name.

        Raises:
            PeftlabError: The sentence names the claim.
        """
        for name in self.experiments:
            evidence.experiment(name)
        asked = [(claim.id, check) for claim in self.claims for check in claim.checks]
        asked += [(hinge.claim, way) for hinge in self.hinges for way in hinge.ways]
        for name, check in asked:
            try:
                check.verify(evidence)
            except PeftlabError as error:
                raise type(error)(f"In the claim {name}: {error}") from None

    def chosen(self, ids: list[str]) -> list[Claim]:
        """Return the claims of these ids, or all if none is named.

        Raises:
            UnknownNameError: There is no such claim.
        """
        there = {claim.id: claim for claim in self.claims}
        for name in ids:
            if name not in there:
                raise unknown("claim", name, there)
        return [there[name] for name in ids] or self.claims


def book_ledger(results: str | Path | None = None) -> tuple[Ledger, Evidence]:
    """Read and check the book's claims.

    Args:
        results: Folder of the records; by default the book's.

    Returns:
        The claims, and what there is to judge them by.

    Raises:
        PeftlabError: A file is missing or wrong; the sentence names it.
    """
    book = book_results().parent
    ledger = Ledger.from_toml(book / FILE)
    evidence = Evidence(book / "experiments", results or book / "results")
    ledger.verify(evidence)
    return ledger, evidence
