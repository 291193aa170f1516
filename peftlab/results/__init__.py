"""Records of runs: their schema, where they are kept, and the statistics of comparing them."""

from peftlab.results.comparison.selection import best_rate, selected
from peftlab.results.comparison.statistics import (
    Interval,
    crossed_interval,
    difference,
    score,
    summarise,
)
from peftlab.results.records.run import (
    CurvePoint,
    EvaluationPoint,
    Git,
    Parameters,
    Record,
    RunSettings,
    Sizes,
    Tokens,
)
from peftlab.results.records.store import Store, bench_store, book_results, cost_store, frame

__all__ = [
    "CurvePoint",
    "EvaluationPoint",
    "Git",
    "Interval",
    "Parameters",
    "Record",
    "RunSettings",
    "Sizes",
    "Store",
    "Tokens",
    "bench_store",
    "best_rate",
    "book_results",
    "cost_store",
    "crossed_interval",
    "difference",
    "frame",
    "score",
    "selected",
    "summarise",
]
