"""The card of a method: what is recorded about it, beside full fine-tuning, and what is not yet.

It draws on records alone and repeats what the statistics say; it measures nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from peftlab.results.record import Record
from peftlab.results.statistics import summarise

if TYPE_CHECKING:
    from pandas import DataFrame

NOTHING = "no record yet"
#: What a card of a method must one day say, and no record says so far.
NOT_MEASURED = ("training time, ratio to full fine-tuning", "training memory", "inference latency")
BYTES = 4  # a parameter is stored in fp32


def card(records: Iterable[Record], label: str, baseline: str = "full") -> DataFrame:
    """Return the card of a method.

    Args:
        records: Of an experiment, all methods, rates and seeds.
        label: What the experiment calls the method.
        baseline: Label of the method to compare with.

    Returns:
        One row a property: ``property``, ``on`` (the task and encoder), and one column for each of
        the two methods. Scores are means with 95 % intervals at the rate that the development split
        chose. What has no record says so.
    """
    import pandas as pd

    columns = ["property", "on", label] + ([baseline] if baseline != label else [])
    table = summarise(records, baseline)
    table = table[~table["random_weights"].astype(bool) & table["method"].isin(columns[2:])]
    rows: list[tuple[str, str, str, str]] = []  # property, on, method, value
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
            rows.append((f"difference to {baseline}", place, line.method, change))
        rows.append(("learning rate, chosen on dev", place, line.method, f"{line.learning_rate:g}"))
        if line.stored == line.stored:
            name = line.encoder.rpartition("/")[2]
            rows.append(("trainable parameters", name, line.method, f"{line.trainable:,.0f}"))
            stored = f"{line.stored * BYTES / 1e6:,.2f} MB"
            rows.append(("stored in fp32, without the head", name, line.method, stored))
    keys = dict.fromkeys((what, place) for what, place, _, _ in rows)
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
        for what, place in sorted(keys, key=lambda key: key[1], reverse=True)
    ]
    if not found:
        found = [{"property": "score", "on": ""} | dict.fromkeys(columns[2:], NOTHING)]
    found += [
        {"property": what, "on": ""} | dict.fromkeys(columns[2:], NOTHING) for what in NOT_MEASURED
    ]
    return pd.DataFrame(found, columns=columns)
