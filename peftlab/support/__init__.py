"""What works with a method, how near other libraries are: checks, and what the tests found."""

from peftlab.support.checks import (
    CHECKS,
    MERGE_TOLERANCE,
    Unsupported,
    declared,
    support,
    verify,
)
from peftlab.support.matrix import Matrix

__all__ = [
    "CHECKS",
    "MERGE_TOLERANCE",
    "Matrix",
    "Unsupported",
    "declared",
    "support",
    "verify",
]
