"""Where records are kept: one folder, one JSON file a record, ``<experiment>/<id>.json``.

A record is written whole or not at all, and never silently replaced by a different one.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Generic, TypeVar

from peftlab.errors import RecordError
from peftlab.files import replacing
from peftlab.results.records.benches import BenchRecord
from peftlab.results.records.costs import CostRecord
from peftlab.results.records.run import Kept, Record

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pandas import DataFrame

ALONE = "single-runs"

R = TypeVar("R", bound=Kept)


class Store(Generic[R]):
    """A folder of records of one kind.

    Args:
        folder: Made when the first record is saved. A run without an experiment goes to
            ``single-runs``.
        kind: Class of the records.
    """

    def __init__(self, folder: str | Path, kind: type[R] = Record) -> None:  # type: ignore[assignment]
        self.folder = Path(folder)
        self.kind = kind

    def path(self, experiment: str, run_id: str) -> Path:
        """Return where a record is or would be."""
        return self.folder / (experiment or ALONE) / f"{run_id}.json"

    def has(self, experiment: str, run_id: str) -> bool:
        """Say whether a run is recorded, whatever its status."""
        return self.path(experiment, run_id).is_file()

    def save(self, record: R, *, overwrite: bool = False) -> Path:
        """Write a record: temporary file, fsync, rename.

        Args:
            record: Saving one that is there already with equal content does nothing.
            overwrite: Replace one with other content, for example a failure by a later success.

        Returns:
            The file.

        Raises:
            RecordError: Another record has that id in this experiment and ``overwrite`` is off.
        """
        path = self.path(record.experiment, record.id)
        text = record.to_json()
        if path.is_file() and not overwrite:
            if path.read_text(encoding="utf-8") == text:
                return path
            raise RecordError(
                f"{path} holds a different record of the same run: delete it, or save with "
                "overwrite=True, if the new one is to replace it."
            )
        with replacing(path) as temporary:
            temporary.write_text(text, encoding="utf-8")
        return path

    def load(self, experiment: str, run_id: str) -> R:
        """Read one record.

        Raises:
            RecordError: It is not there, or it is damaged.
        """
        path = self.path(experiment, run_id)
        if not path.is_file():
            raise RecordError(f"There is no record {path}: run its experiment first.")
        return read(path, self.kind)

    def load_all(self, experiment: str | None = None) -> list[R]:
        """Read the records of one experiment, or all, in order of experiment and id.

        Raises:
            RecordError: One of them is damaged; the sentence names the file.
        """
        pattern = f"{experiment or ALONE}/*.json" if experiment is not None else "*/*.json"
        paths = filter(_visible, sorted(self.folder.glob(pattern)))
        return [read(path, self.kind) for path in paths]


def frame(records: Iterable[Record]) -> DataFrame:
    """Return one row a record: what was run, how it scored, what it took.

    Columns ``dev`` and ``test`` are the main metric, every other split or transfer task is
    ``score:<name>``; times are in seconds; what a run does not have is NaN or None.
    """
    import pandas as pd

    rows = []
    for record in records:
        settings = record.settings
        row: dict[str, object] = {
            "id": record.id,
            "experiment": record.experiment,
            "status": record.status,
            "encoder": settings.encoder,
            "random_weights": settings.random_weights,
            "task": settings.task,
            "method": settings.method_label or settings.method.get("name"),
            "learning_rate": settings.learning_rate,
            "seed": settings.seed,
            "main_metric": record.main_metric,
            "dev": None,
            "test": None,
        }
        for split, metrics in record.metrics.items():
            name = split if split in ("dev", "test", "train") else f"score:{split}"
            row[name] = metrics.get(record.main_metric)
        if record.sizes is not None:
            row |= {f"{split}_rows": n for split, n in record.sizes.model_dump().items()}
        if record.parameters is not None:
            row |= record.parameters.model_dump()
        row |= {f"seconds_{phase}": s for phase, s in record.seconds.items()}
        row |= {
            "best_step": record.best_step,
            "device": record.device,
            "precision": record.precision,
            "processor": processor(record),
        }
        rows.append(row)
    return pd.DataFrame(rows)


def processor(record: Record) -> str:
    """Return what a run computed on: the GPU's name, else the CPU's."""
    gpu = record.machine.get("gpu")
    if isinstance(gpu, dict) and record.device != "cpu":
        return str(gpu.get("name", ""))
    return str(record.machine.get("cpu", ""))


def read(path: Path, kind: type[R]) -> R:
    """Read one file, checking that it is named after the record that it holds.

    Raises:
        RecordError: It is damaged, or bears another record's name.
    """
    try:
        text = path.read_bytes()
    except OSError as error:
        raise RecordError(f"{path} cannot be read ({error.strerror}): check the file.") from None
    record = kind.from_json(text, str(path))
    if path.stem != record.id:
        raise RecordError(f"{path} holds the record {record.id}: rename the file to its id.")
    return record


def cost_store(results: str | Path) -> Store[CostRecord]:
    """Return the records of cost in a folder of results; they lie apart, in ``cost``."""
    return Store(Path(results) / "cost", CostRecord)


def bench_store(results: str | Path) -> Store[BenchRecord]:
    """Return the records of benchmarks in a folder of results; they lie apart, in ``bench``."""
    return Store(Path(results) / "bench", BenchRecord)


def book_results(start: str | Path | None = None) -> Path:
    """Return the book's records: ``book/results`` in a folder or the nearest one above it.

    Args:
        start: Where to look first; by default the working folder, so that chapters find the records
            wherever inside the repository they are run.

    Raises:
        RecordError: There is none.
    """
    first = Path(start or Path.cwd()).resolve()
    for folder in (first, *first.parents):
        if (folder / "book" / "results").is_dir():
            return folder / "book" / "results"
    raise RecordError(
        f"There is no book/results in {first} or above it: run this inside the repository."
    )


def _visible(path: Path) -> bool:
    """Say whether a path is a record, not a file that is being written or work in progress."""
    return not (path.name.startswith(".") or path.parent.name.startswith("."))
