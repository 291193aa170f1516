"""What ``pytest --support FILE`` and ``pytest --parity FILE`` do: collect what tests find.

It asserts nothing. A test counts if it is one of those below; its parameters say which method,
check, encoder family and attention kernel it was about.
"""

from __future__ import annotations

import platform
from collections.abc import Iterator
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from peftlab import methods
from peftlab.support import checks, parity
from peftlab.support.matrix import YES, Case, Matrix

#: Name of a test → the check that it is part of; None where a parameter says it.
TESTS = {"test_support": None, "test_merge_and_back": "merge"}
RANK = {YES: 0, "no": 1, "fails": 2}


class SupportRecorder:
    """A plugin of pytest. Under xdist the workers make the reports and the controller writes."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.found: dict[Case, str] = {}

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self, item: Any, call: Any) -> Iterator[None]:
        """Put what a support test says into its report."""
        report: Any = yield
        name = getattr(item, "originalname", None)
        if name in TESTS and (report.when == "call" or report.failed):
            report.user_properties.extend(("support", row) for row in rows(item, report, call))
        return report

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Collect; of several tests of one case the worst outcome stands."""
        for kind, row in report.user_properties:
            if kind == "support":
                case, outcome = Case(*row[:-1]), row[-1]
                rank = RANK[outcome.partition(":")[0]]
                if rank >= RANK[self.found.get(case, YES).partition(":")[0]]:
                    self.found[case] = outcome

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Merge what was found into the file."""
        if hasattr(session.config, "workerinput") or not self.found:
            return
        matrix = Matrix.read(self.path) if self.path.exists() else Matrix()
        release = {
            "date": datetime.now(UTC).date().isoformat(),
            "torch": torch.__version__.partition("+")[0],
            "python": platform.python_version(),
        }
        newer = Matrix({transformers.__version__: release}, self.found)
        matrix.update(newer, methods.catalogue())
        matrix.write(self.path)


def rows(item: Any, report: Any, call: Any) -> list[list[str]]:
    """Return the cases of one test, each followed by its outcome; one for each name of a method."""
    parameters = item.callspec.params
    method = parameters["method"]
    check = TESTS[item.originalname] or parameters["check"]
    if report.skipped:
        return []
    reason = checks.declared(method).get(check)
    if report.failed:
        outcome = f"fails: {(str(call.excinfo.value).strip() or 'no reason').splitlines()[0]}"
    else:
        outcome = YES if reason is None else f"no: {reason}"
    where = transformers.__version__, parameters["model_type"], parameters.get("attention", "sdpa")
    names = (name for name, one in methods.catalogue().items() if one == method)
    return [[name, check, *where, outcome] for name in names]


class ParityRecorder:
    """A plugin of pytest that collects what the parity tests note (``tests/methods/parity.py``)."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.found: list[dict[str, Any]] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Collect what a test that passed has noted."""
        if report.when == "call" and report.passed:
            self.found += [row for kind, row in report.user_properties if kind == "parity"]

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Write the file anew."""
        if hasattr(session.config, "workerinput") or not self.found:
            return
        packages = ("adapters", "peft", "torch", "transformers")
        versions = {name: version(name).partition("+")[0] for name in packages}
        parity.write(self.path, parity.summed_up(self.found), versions)
