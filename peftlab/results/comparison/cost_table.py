"""Cost records as tables: medians, ratios with intervals, and a step taken apart.

Statistics of the timing itself are in :mod:`peftlab.timing.compare`; this file only arranges them.
"""

from __future__ import annotations

from collections.abc import Iterable
from statistics import median
from typing import TYPE_CHECKING, Any

from peftlab.results.records.costs import AGAIN, Candidate, CostRecord
from peftlab.timing.ceilings import Ceilings
from peftlab.timing.compare import Comparison
from peftlab.timing.intervals import significant

if TYPE_CHECKING:
    from pandas import DataFrame

#: The parts of a step, in the order in which they happen.
PARTS = ("forward", "activation_gradient", "weight_gradient", "optimiser")
#: Where the memory of a training step goes.
MEMORY = ("weights", "gradients", "optimiser", "activations")
COLUMNS = [
    *("encoder", "mode", "batch", "length", "precision", "processor", "method", "trainable"),
    *("median_ms", "iqr_ms", "ratio", "low", "high", "tie"),
    *(f"{part}_ms" for part in PARTS),
    *("gflops", "flop_ratio", "hugging_face_ratio", "share", "joules"),
    *(f"{part}_mb" for part in MEMORY),
    *("memory_mb", "memory_ratio", "largest_batch", "largest_batch_line", "busy", "error"),
]


def comparison(record: CostRecord) -> Comparison | None:
    """Return the timings of a record; None if nothing was timed."""
    timed = {label: c for label, c in record.candidates.items() if c.seconds}
    if record.settings.baseline not in timed:
        return None
    return Comparison(
        {label: list(c.seconds) for label, c in timed.items()},
        {label: list(c.warmup) for label, c in timed.items()},
        record.settings.baseline,
        {label: c.calls for label, c in timed.items()},
        {label: c.busy for label, c in timed.items()},
    )


def is_tie(timings: Comparison, label: str, against: str | None = None) -> bool:
    """Say whether a method cannot be told from another one, by default the baseline.

    Its interval holds 1, or lies within that of the baseline against itself.
    """
    ratio, again = timings.ratio(label, against), timings.baseline + AGAIN
    if ratio.tie or again not in timings.seconds:
        return ratio.tie
    noise = timings.ratio(again)
    return noise.low <= ratio.low and ratio.high <= noise.high


def parts(candidate: Candidate) -> dict[str, float]:
    """Take a training step apart, in seconds.

    Forward, backward and optimiser are medians over the calls. The activation gradient is what a
    pass that stops at the lowest trained tensor takes beyond the forward pass; the weight gradient
    is the rest of the backward pass. Where noise would make one negative, it is 0.

    Args:
        candidate: Of a training record.

    Returns:
        The seconds of each of :data:`PARTS`; empty if the phases were not noted.
    """
    if not candidate.phases or not candidate.activation:
        return {}
    forward, backward, optimiser = (
        median(candidate.phases[phase]) for phase in ("forward", "backward", "optimiser")
    )
    activation = min(max(median(candidate.activation) - forward, 0.0), backward)
    return dict(zip(PARTS, (forward, activation, backward - activation, optimiser), strict=True))


def cost_table(records: Iterable[CostRecord]) -> DataFrame:
    """Return one row a method and cell.

    Args:
        records: Of cost experiments.

    Returns:
        Columns ``encoder, mode, batch, length, precision, processor, method, trainable``; of the
        time ``median_ms, iqr_ms, ratio, low, high, tie``; of a training step the parts in
        milliseconds (:data:`PARTS` with ``_ms``); ``gflops`` (closed form), ``flop_ratio`` and
        ``hugging_face_ratio`` to the baseline; ``share``, the FLOP/s of a call over those of the
        product of large matrices on that machine; ``joules`` of a call; the memory in MB
        (:data:`MEMORY` with ``_mb``), ``memory_mb`` (the whole step), ``memory_ratio``;
        ``largest_batch`` by trying and ``largest_batch_line``; ``busy`` and ``error``. What was
        not measured is NaN.
    """
    import pandas as pd

    rows = []
    for record in records:
        settings, timings = record.settings, comparison(record)
        base = record.candidates[settings.baseline]
        for label, candidate in record.candidates.items():
            row: dict[str, object] = {
                "encoder": settings.encoder,
                "mode": settings.mode,
                "batch": settings.batch,
                "length": settings.length,
                "precision": settings.precision,
                "processor": settings.processor,
                "method": label,
                "trainable": candidate.parameters.trainable if candidate.parameters else None,
            }
            if timings is not None and candidate.seconds:
                ratio = timings.ratio(label)
                row |= {
                    "median_ms": 1000 * timings.median(label),
                    "iqr_ms": 1000 * timings.iqr(label),
                    "ratio": ratio.ratio,
                    "low": ratio.low,
                    "high": ratio.high,
                    "tie": is_tie(timings, label),
                }
            row |= {f"{part}_ms": 1000 * seconds for part, seconds in parts(candidate).items()}
            if candidate.flops and base.flops:
                row |= {
                    "gflops": candidate.flops.expected / 1e9,
                    "flop_ratio": candidate.flops.expected / base.flops.expected,
                }
                if base.flops.hugging_face and candidate.flops.hugging_face:
                    row["hugging_face_ratio"] = (
                        candidate.flops.hugging_face / base.flops.hugging_face
                    )
            if candidate.flops and timings is not None and candidate.seconds and record.ceilings:
                limits: Any = record.ceilings
                row["share"] = Ceilings(**limits).share(
                    candidate.flops.expected, timings.median(label), settings.precision
                )
            if candidate.largest:
                row["largest_batch"] = candidate.largest.searched
                row["largest_batch_line"] = candidate.largest.line
            if candidate.memory and base.memory:
                row |= {f"{part}_mb": candidate.memory[part] / 1e6 for part in MEMORY}
                total = candidate.memory["total"]
                row |= {"memory_mb": total / 1e6, "memory_ratio": total / base.memory["total"]}
            rows.append(
                row | {"joules": candidate.joules, "busy": candidate.busy, "error": candidate.error}
            )
    return pd.DataFrame(rows, columns=COLUMNS)


def text(record: CostRecord) -> str:
    """Return a record as a table for a terminal, with no more digits than the noise allows.

    A ratio whose interval holds 1 is marked ``=``; a method that takes longer than the baseline is
    marked ``slower``.
    """
    if record.settings.mode == "capacity":
        return _capacities(record)
    settings, timings = record.settings, comparison(record)
    width = max(map(len, record.candidates))
    lines = [f"{'':{width}} {'ms':>9} {'ratio to ' + settings.baseline:>24} {'FLOPs':>6} {'MB':>7}"]
    table = cost_table([record]).set_index("method")
    for label, candidate in record.candidates.items():
        if candidate.error is not None:
            lines.append(f"{label:{width}} {candidate.error}")
            continue
        row = table.loc[label]
        milliseconds, told = "", ""
        if timings is not None:
            ratio = timings.ratio(label)
            mark = "=" if row["tie"] else ("slower" if ratio.ratio > 1 else "")
            milliseconds = significant(row["median_ms"], row["iqr_ms"])
            told = f"{ratio} {mark}".rstrip()
        size = "" if row["memory_mb"] != row["memory_mb"] else f"{row['memory_mb']:.0f}"
        lines.append(
            f"{label:{width}} {milliseconds:>9} {told:>24} {row['flop_ratio']:>6.2f} {size:>7}"
        )
    return "\n".join(lines)


def _capacities(record: CostRecord) -> str:
    """Return the largest batches as a table for a terminal."""
    width = max(map(len, record.candidates))
    budget = f"largest batch in {record.settings.budget_gb:g} GB"
    lines = [f"{'':{width}} {budget:>24} {'by the line':>12}"]
    for label, candidate in record.candidates.items():
        if candidate.largest is None:
            lines.append(f"{label:{width}} {candidate.error}")
            continue
        searched, line = (
            "-" if batch is None else str(batch)
            for batch in (candidate.largest.searched, candidate.largest.line)
        )
        lines.append(f"{label:{width}} {searched:>24} {line:>12}")
    return "\n".join(lines)
