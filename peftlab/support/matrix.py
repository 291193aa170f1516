"""The support matrix: what the tests found, kept in a file and read as tables.

Nothing is checked here: the checks are in :mod:`peftlab.support.checks`, the contract's tests run
them, and ``pytest --support FILE`` writes what came out (``make support``). A cell of the table
sums up all encoder families, attention kernels and versions of transformers that were tested.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from peftlab.errors import RecordError
from peftlab.files import replacing

if TYPE_CHECKING:
    from pandas import DataFrame

#: Inside ``book``.
FILE = "reference/support.json"
YES = "yes"


class Case(NamedTuple):
    """What one outcome is about."""

    method: str
    check: str
    transformers: str
    family: str
    attention: str


@dataclass
class Matrix:
    """Outcomes of the support tests.

    Attributes:
        versions: Release of transformers → when it was tested (``date``), and with what else.
        outcomes: ``"yes"``, ``"no: reason"`` where the method declares it, or ``"fails: reason"``.
    """

    versions: dict[str, dict[str, str]] = field(default_factory=dict)
    outcomes: dict[Case, str] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path) -> Matrix:
        """Read a matrix from its file.

        Raises:
            RecordError: The file is missing or damaged.
        """
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
            return cls(
                data["versions"],
                {
                    Case(method, check, version, family, attention): outcome
                    for method, checks in data["outcomes"].items()
                    for check, releases in checks.items()
                    for version, families in releases.items()
                    for family, kernels in families.items()
                    for attention, outcome in kernels.items()
                },
            )
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise RecordError(
                f"The support matrix {path} cannot be read ({error}): run `make support`."
            ) from error

    def write(self, path: Path) -> None:
        """Write the matrix to its file, which is there whole or not at all."""
        nested: dict[str, dict[str, dict[str, dict[str, dict[str, str]]]]] = {}
        for case, outcome in sorted(self.outcomes.items()):
            checks = nested.setdefault(case.method, {}).setdefault(case.check, {})
            kernels = checks.setdefault(case.transformers, {}).setdefault(case.family, {})
            kernels[case.attention] = outcome
        data = {"versions": dict(sorted(self.versions.items())), "outcomes": nested}
        with replacing(path) as temporary:
            temporary.write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")

    def update(self, newer: Matrix, methods: Collection[str]) -> None:
        """Take over newer outcomes, and keep no method but the given ones."""
        self.versions |= newer.versions
        outcomes = self.outcomes | newer.outcomes
        self.outcomes = {case: o for case, o in outcomes.items() if case.method in methods}

    def table(self, methods: Collection[str], checks: Collection[str]) -> DataFrame:
        """Return one row a method and one column a check, in the given order; see :func:`cell`."""
        import pandas as pd

        groups: dict[tuple[str, str], dict[Case, str]] = {}
        for case, outcome in self.outcomes.items():
            groups.setdefault((case.method, case.check), {})[case] = outcome
        rows = [
            {"method": method} | {check: cell(groups.get((method, check), {})) for check in checks}
            for method in methods
        ]
        return pd.DataFrame(rows, columns=["method", *checks])

    def reasons(self) -> DataFrame:
        """Return why something does not work: ``check, reason, methods``."""
        import pandas as pd

        found: dict[tuple[str, str], dict[str, None]] = {}
        for case, outcome in sorted(self.outcomes.items()):
            if outcome != YES:
                found.setdefault((case.check, outcome), {})[case.method] = None
        rows = [(check, outcome, ", ".join(names)) for (check, outcome), names in found.items()]
        return pd.DataFrame(rows, columns=["check", "reason", "methods"])

    def runs(self) -> DataFrame:
        """Return how many tests gave which outcome, by what they ran on."""
        import pandas as pd

        counts: dict[tuple[str, str, str], Counter[str]] = {}
        for case, outcome in sorted(self.outcomes.items(), key=lambda item: item[0][2:]):
            counts.setdefault(case[2:], Counter())[outcome.partition(":")[0]] += 1
        rows = [
            dict(zip(("transformers", "family", "attention"), where, strict=True))
            | {outcome: count[outcome] for outcome in (YES, "no", "fails")}
            for where, count in counts.items()
        ]
        return pd.DataFrame(rows)


def cell(outcomes: Mapping[Case, str]) -> str:
    """Sum up the outcomes of one method and one check.

    Returns:
        ``"yes"``, ``"no"``, ``"fails"``, ``"partly: not with …"`` or ``"not tested"``.
    """
    if not outcomes:
        return "not tested"
    words = {case: outcome.partition(":")[0] for case, outcome in outcomes.items()}
    kinds = set(words.values())
    if len(kinds) == 1:
        return kinds.pop()
    bad = {case for case, word in words.items() if word != YES}
    if len(bad) == len(words):
        return "fails"
    return f"partly: not with {_where(bad, outcomes)}"


def _where(bad: Collection[Case], every: Collection[Case]) -> str:
    """Say which cases these are, by what sets them apart from the others."""
    parts: dict[str, set[str]] = {}
    for name in ("family", "attention", "transformers"):
        values = {str(getattr(case, name)) for case in bad}
        if values != {getattr(case, name) for case in every}:
            parts[name] = values
    described = {
        case
        for case in every
        if all(getattr(case, name) in values for name, values in parts.items())
    }
    if described == set(bad):
        spoken = {"family": "{}", "attention": "{} attention", "transformers": "transformers {}"}
        return ", ".join(
            spoken[name].format(" or ".join(sorted(values))) for name, values in parts.items()
        )
    return "; ".join(
        f"{case.family}, {case.attention} attention, transformers {case.transformers}"
        for case in sorted(bad)
    )
