"""What scores in other languages have cost: rows, tokens, FLOPs, seconds, bytes for one more.

All of it is read off the records of the runs, and of the language adapters that they were built
from; adapters that are fused are not counted. Labelled rows of the target language are no column:
in a transfer there are none.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from peftlab.errors import RecordError
from peftlab.results.comparison.card import BYTES
from peftlab.results.comparison.selection import cell_of
from peftlab.results.records.run import Record
from peftlab.results.records.store import processor
from peftlab.results.transfer.retention import summary
from peftlab.results.transfer.zero_shot import Transfer, transfers

if TYPE_CHECKING:
    from pandas import DataFrame

PLACE = ["encoder", "random_weights", "task", "method"]
#: Phases of a run that are training; the others load, or score the trained model.
TRAINING = ("tokenise", "warm-up", "train", "validation")


def budgets(records: Sequence[Record]) -> DataFrame:
    """Return what each method was given: one row a method and task.

    Args:
        records: Of experiments, all rates and seeds, with the language adapters' runs.

    Returns:
        Columns ``encoder, random_weights, task, method, rates, seeds, source_rows, source_dev_rows,
        source_tokens, source_text_tokens, target_rows, target_text_rows, target_text_tokens``.
        Tokens are those that training steps saw, every epoch anew; ``source_tokens`` is a mean over
        seeds. Texts are those without labels that the language adapters were trained on, of the
        target languages together. ``rates`` is the number of learning rates that were tried.

    Raises:
        RecordError: The run of a language adapter is missing.
    """
    import pandas as pd

    known = {record.id: record for record in records}
    tried: dict[Any, set[float | None]] = {}
    for record in records:
        tried.setdefault(cell_of(record), set()).add(record.settings.learning_rate)
    rows = []
    for each in transfers(records):
        sizes = each.runs[0].sizes
        assert sizes is not None
        source, targets = (list(group.values()) for group in adapters(each, known))
        trains = each.runs[0].settings.learning_rate is not None
        rows.append(
            _place(each)
            | {
                "rates": len(tried[cell_of(each.runs[0])]) if trains else 0,
                "seeds": len(each.runs),
                "source_rows": sizes.train,
                "source_dev_rows": sizes.dev,
                "source_tokens": float(np.mean([_tokens(run) for run in each.runs])),
                "source_text_tokens": sum(map(_tokens, source)),
                "target_rows": 0,
                "target_text_rows": sum(r.sizes.train for r in targets if r.sizes is not None),
                "target_text_tokens": sum(map(_tokens, targets)),
            }
        )
    columns = ["rates", "seeds", "source_rows", "source_dev_rows", "source_tokens"]
    columns += ["source_text_tokens", "target_rows", "target_text_rows", "target_text_tokens"]
    return pd.DataFrame(rows, columns=PLACE + columns)


def trade_off(records: Sequence[Record], baseline: str = "full") -> DataFrame:
    """Return quality, retention, training time and stored bytes: one row a method and task.

    Args:
        records: As for :func:`budgets`.
        baseline: Label of the method to compare with.

    Returns:
        Columns ``encoder, random_weights, task, method, tasks, languages, metric, average, low,
        high, verdict, retention, inflated, seconds, flops, bytes, language_seconds, language_flops,
        language_bytes, processor``. ``tasks`` is how many tasks the one model does: ``seconds``,
        ``flops`` and ``bytes`` are for all of them, the source's language adapter included.
        ``seconds`` is the time of training and its validation, a mean over seeds. ``flops`` are
        those of the training steps, in closed form, NaN where a record has no count. ``bytes`` is
        what is stored in fp32, the head included. Those that begin with ``language_`` are for one
        more language without labels: those of its language adapter on average, and 0 for a method
        that has none.

    Raises:
        RecordError: The run of a language adapter is missing.
    """
    import pandas as pd

    known = {record.id: record for record in records}
    said = summary(records, baseline).set_index(PLACE)
    rows = []
    for each in transfers(records):
        line = said.loc[tuple(_place(each).values())]
        source, targets = (list(group.values()) for group in adapters(each, known))
        counts = each.runs[0].parameters
        assert counts is not None
        rows.append(
            _place(each)
            | {"tasks": len(each.runs[0].settings.members) or 1}
            | {name: line[name] for name in ("languages", "metric", "average", "low", "high")}
            | {name: line[name] for name in ("verdict", "retention", "inflated")}
            | {
                "seconds": float(np.mean([seconds(run) for run in each.runs]))
                + sum(map(seconds, source)),
                "flops": float(np.mean([flops(run) for run in each.runs]))
                + sum(map(flops, source)),
                "bytes": BYTES * (counts.stored + counts.head),
                "language_seconds": _mean([seconds(run) for run in targets]),
                "language_flops": _mean([flops(run) for run in targets]),
                "language_bytes": _mean([BYTES * _stored(run) for run in targets]),
                "processor": processor(each.runs[0]),
            }
        )
    columns = ["tasks", "languages", "metric", "average", "low", "high", "verdict", "retention"]
    columns += ["inflated", "seconds", "flops", "bytes", "language_seconds", "language_flops"]
    columns += ["language_bytes", "processor"]
    return pd.DataFrame(rows, columns=PLACE + columns)


def language_adapters(records: Sequence[Record]) -> DataFrame:
    """Return what is recorded of the language adapters that transfers were built from.

    Args:
        records: As for :func:`budgets`.

    Returns:
        Columns ``encoder, texts, method, rows, tokens, seconds, flops, bytes, metric, score``: one
        row an adapter, ordered by encoder, texts and method. ``score`` is that of guessing hidden
        words on its test split.
    """
    import pandas as pd

    known = {record.id: record for record in records}
    found = {
        record.id: record
        for each in transfers(records)
        for group in adapters(each, known)
        for record in group.values()
    }
    rows = [
        {
            "encoder": record.settings.encoder,
            "texts": record.settings.task,
            "method": record.settings.method["name"],
            "rows": record.sizes.train if record.sizes else 0,
            "tokens": _tokens(record),
            "seconds": seconds(record),
            "flops": flops(record),
            "bytes": BYTES * _stored(record),
            "metric": record.main_metric,
            "score": record.score(),
        }
        for record in found.values()
    ]
    columns = ["encoder", "texts", "method", "rows", "tokens", "seconds", "flops", "bytes"]
    columns += ["metric", "score"]
    return pd.DataFrame(rows, columns=columns).sort_values(["encoder", "texts", "method"])


def adapters(
    transfer: Transfer, known: dict[str, Record]
) -> tuple[dict[str, Record], dict[str, Record]]:
    """Return the runs of the source's language adapter and of the target languages', by language.

    Args:
        transfer: Of a method that may use some; those of its first seed are taken.
        known: Records by id.

    Raises:
        RecordError: One of them is missing.
    """
    run = transfer.runs[0]
    uses = run.settings.model_options.get("uses")
    uses = uses if isinstance(uses, dict) else {}
    languages = uses.get("languages")
    languages = languages if isinstance(languages, dict) else {}
    source = {transfer.source: uses["language"]} if "language" in uses else {}
    targets = {code: languages[code] for code in transfer.targets if code in languages}
    for wanted in (*source.values(), *targets.values()):
        if wanted not in known:
            raise RecordError(
                f"Record {run.id} was built from the run {wanted}, which is not among the records: "
                "load all records of its experiment."
            )
    one, other = ({c: known[str(i)] for c, i in ids.items()} for ids in (source, targets))
    return one, other


def seconds(record: Record) -> float:
    """Return the seconds of training, with tokenising and validation."""
    return sum(record.seconds.get(phase, 0.0) for phase in TRAINING)


def flops(record: Record) -> float:
    """Return the FLOPs of the training steps in closed form; 0 without any, NaN without a count."""
    if record.settings.trains_nothing:
        return 0.0
    counted = None if record.flops is None else record.flops.closed_form
    return float("nan") if counted is None else float(counted)


def _place(transfer: Transfer) -> dict[str, Any]:
    return dict(zip(PLACE, (*transfer.place, transfer.method), strict=True))


def _tokens(record: Record) -> int:
    return record.tokens.real if record.tokens else 0


def _stored(record: Record) -> int:
    return record.parameters.stored if record.parameters else 0


def _mean(values: Iterable[float]) -> float:
    found = list(values)
    return float(np.mean(found)) if found else 0.0
