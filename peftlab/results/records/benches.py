"""What is written down about a benchmark against other libraries: one record, one JSON file."""

from __future__ import annotations

import hashlib
import json
from typing import Literal

from pydantic import AwareDatetime, Field, JsonValue, NonNegativeFloat, PositiveInt
from pydantic import model_validator as checked

from peftlab.results.records.run import Git, Kept, RunId, Strict, now


class Row(Strict):
    """How peftlab compares with a rival in the same run.

    Attributes:
        name: What was measured.
        against: The rival.
        ratio: Ours over the rival's, in ``unit``.
        low: Lower end of the 95 % interval.
        high: Upper end.
        unit: What is compared, and whether more or less of it is better.
    """

    name: str
    against: str
    ratio: NonNegativeFloat
    low: NonNegativeFloat
    high: NonNegativeFloat
    unit: str


class BenchRecord(Kept):
    """One run of a benchmark.

    Attributes:
        schema_version: Of this class.
        id: First 12 hex digits of the sha256 of benchmark, processor and threads; see
            :func:`bench_id`.
        experiment: Name of the benchmark.
        created: When it ended (UTC).
        processor: The CPU's or GPU's name.
        threads: That torch used on a CPU; None on a GPU.
        rows: What came out.
        machine: See :func:`peftlab.timing.machine.describe`.
        versions: Package → version, the rivals' too.
        git: Commit, and whether files differed.
    """

    schema_version: Literal[1] = 1
    id: RunId
    experiment: str
    created: AwareDatetime = Field(default_factory=now)
    processor: str
    threads: PositiveInt | None = None
    rows: list[Row] = Field(min_length=1)
    machine: dict[str, JsonValue] = Field(default={})
    versions: dict[str, str] = Field(default={})
    git: Git = Git()

    @checked(mode="after")
    def _agrees(self) -> BenchRecord:
        """Check the id."""
        wanted = bench_id(self.experiment, self.processor, self.threads)
        if self.id != wanted:
            raise ValueError(f"the id {self.id} is not that of benchmark and machine, {wanted}")
        return self


def bench_id(name: str, processor: str, threads: int | None) -> str:
    """Return the id of a benchmark on a machine: a later run there replaces the earlier one."""
    return hashlib.sha256(json.dumps([name, processor, threads]).encode()).hexdigest()[:12]
