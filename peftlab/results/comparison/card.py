"""The card of a method: what is recorded about it, beside full fine-tuning, and what is not yet.

It draws on records alone and repeats what the statistics say; it measures nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from peftlab.results.comparison.cost_table import comparison, is_tie
from peftlab.results.comparison.statistics import Place, summarise
from peftlab.results.records.costs import CostRecord
from peftlab.results.records.run import Record

if TYPE_CHECKING:
    from pandas import DataFrame

NOTHING = "no record yet"
STEP = "time of a training step, ratio"
MEMORY = "memory of a training step"
FORWARD = "time of a forward pass, median and 95th percentile"
#: Property, where, method, value.
Row = tuple[str, str, str, str]
BYTES = 4  # a parameter is stored in fp32


def card(
    records: Iterable[Record],
    label: str,
    baseline: str = "full",
    costs: Iterable[CostRecord] = (),
    floors: Mapping[Place, float] | None = None,
) -> DataFrame:
    """Return the card of a method.

    Args:
        records: Of an experiment, all methods, rates and seeds.
        label: What the experiment calls the method.
        baseline: Label of the method to compare with.
        costs: Records of cost; of each encoder and processor the largest cell counts, and for a
            forward pass a single text, too.
        floors: Noise floors, see :func:`peftlab.results.comparison.noise.floors`.

    Returns:
        One row a property: ``property``, ``on`` (the task and encoder), and one column for each of
        the two methods. Scores are means with 95 % intervals at the rate that the development split
        chose. What has no record says so.
    """
    import pandas as pd

    columns = ["property", "on", label] + ([baseline] if baseline != label else [])
    table = summarise(records, baseline, floors=floors)
    table = table[~table["random_weights"].astype(bool) & table["method"].isin(columns[2:])]
    rows: list[Row] = []
    for line in table.itertuples():
        place = f"{line.task}, {line.encoder.rpartition('/')[2]}"
        score = f"{line.mean:.3f}"
        if line.low == line.low:  # not NaN
            score += f" ({line.low:.3f} to {line.high:.3f})"
        score += f", {line.seeds} seed{'s' if line.seeds > 1 else ''}"
        rows.append((f"{line.metric}, test", place, line.method, score))
        if line.verdict in ("better", "worse", "tie"):
            change = f"{line.difference:+.3f} ({line.difference_low:+.3f} to "
            change += f"{line.difference_high:+.3f}): {line.verdict}"
            if line.floor == line.floor:  # not NaN
                change += f"; noise of seeds {line.floor:.3f}"
            rows.append((f"difference to {baseline}", place, line.method, change))
        rows.append(("learning rate, chosen on dev", place, line.method, f"{line.learning_rate:g}"))
        if line.stored == line.stored:
            name = line.encoder.rpartition("/")[2]
            rows.append(("trainable parameters", name, line.method, f"{line.trainable:,.0f}"))
            stored = f"{line.stored * BYTES / 1e6:,.2f} MB"
            rows.append(("stored in fp32, without the head", name, line.method, stored))
    keys = dict.fromkeys((what, place) for what, place, _, _ in rows)
    order = sorted(keys, key=lambda key: key[1], reverse=True) or [("score", "")]
    rows += (priced := _costs(costs, columns[2:]))
    priced += [(what, "", label, NOTHING) for what in (STEP, MEMORY, FORWARD) if _lacks(rows, what)]
    order += dict.fromkeys((what, place) for what, place, _, _ in priced)
    values = {(what, place, method): value for what, place, method, value in rows}
    found = [
        {"property": what, "on": place}
        | {
            method: values.get(
                (what, place, method),
                "–" if what == f"difference to {baseline}" and method == baseline else NOTHING,
            )
            for method in columns[2:]
        }
        for what, place in order
    ]
    return pd.DataFrame(found, columns=columns)


def _costs(records: Iterable[CostRecord], labels: Sequence[str]) -> list[Row]:
    """Return the rows of what methods cost."""
    known = sorted(
        (r for r in records if r.settings.device != "meta"),
        key=lambda r: (r.settings.tokens, r.settings.length),
    )
    largest = {_where(r): r for r in known}
    single = {_where(r): r for r in known if r.settings.batch == 1}
    rows: list[Row] = []
    for record in {r.id: r for r in (*single.values(), *largest.values())}.values():
        settings, timings = record.settings, comparison(record)
        place = (
            f"{settings.encoder}, {settings.batch} × {settings.length} tokens, "
            f"{settings.precision}, {settings.processor}"
        )
        for label in labels:
            candidate = record.candidates.get(label)
            if candidate is None or timings is None or not candidate.seconds:
                continue
            if settings.mode == "inference":
                median, late = np.percentile(candidate.seconds, [50, 95])
                rows.append((FORWARD, place, label, f"{1e3 * median:.3g} ms, {1e3 * late:.3g} ms"))
            elif record is largest[_where(record)]:
                ratio = timings.ratio(label)
                told = f"{ratio}{' tie' * is_tie(timings, label)}"
                rows.append((STEP, place, label, "1" if label == settings.baseline else told))
                rows.append((MEMORY, place, label, f"{candidate.memory['total'] / 1e6:,.0f} MB"))
    return rows


def _where(record: CostRecord) -> tuple[str, ...]:
    settings = record.settings
    return settings.encoder, settings.mode, settings.processor, settings.precision


def _lacks(rows: Iterable[Row], what: str) -> bool:
    return all(row[0] != what for row in rows)
