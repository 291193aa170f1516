"""Records of runs: their schema, where they are kept, and the statistics of comparing them."""

from peftlab.results.record import (
    CurvePoint,
    EvaluationPoint,
    Git,
    Parameters,
    Record,
    RunSettings,
    Sizes,
    Tokens,
)

__all__ = [
    "CurvePoint",
    "EvaluationPoint",
    "Git",
    "Parameters",
    "Record",
    "RunSettings",
    "Sizes",
    "Tokens",
]
