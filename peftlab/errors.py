"""Errors that people can act on.

Every error that a user of peftlab can cause is one of these. Its message is one sentence that says
what is wrong, where, and what to do. This file holds no checks: each stands where its facts are.
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


class PeftlabError(Exception):
    """Base of all errors raised on purpose; the command line prints it and exits with 2."""


class UnknownNameError(PeftlabError):
    """A model, method, data set or setting has a name that nothing answers to."""


class SettingsError(PeftlabError):
    """A setting has a value that cannot work."""


class DataError(PeftlabError):
    """A file, column, row or label of a data set is not as expected."""


class CheckpointError(PeftlabError):
    """A checkpoint is damaged, incomplete, or belongs to another method or backbone."""


class MergeError(PeftlabError):
    """The method cannot be folded into the backbone's weights."""


class TrainingError(PeftlabError):
    """Training cannot go on."""


class NonFiniteLossError(TrainingError):
    """The loss became infinite or not a number."""


class OutOfMemoryError(TrainingError):
    """The device has too little memory for the batch."""


class OfflineError(PeftlabError):
    """Something would have to come from the hub, and the hub cannot be reached."""


class RecordError(PeftlabError):
    """A record is damaged, or would overwrite a different one."""


class TimingError(PeftlabError):
    """A measurement would not mean what it says."""


def unknown(kind: str, name: object, known: Iterable[str]) -> UnknownNameError:
    """Build the error for a name that is not known, with the nearest known ones.

    Args:
        kind: What the name stands for, in words, for example ``"method"``.
        name: What was asked for.
        known: All the names that would have worked.

    Returns:
        The error, ready to be raised.
    """
    names = sorted(known)
    near = get_close_matches(str(name), names, n=3, cutoff=0.5)
    if near:
        hint = "did you mean " + " or ".join(repr(n) for n in near) + "?"
    else:
        hint = "known are " + ", ".join(repr(n) for n in names[:20]) + "."
    return UnknownNameError(f"There is no {kind} {str(name)!r}: {hint}")
