"""The largest batch whose training step fits into a budget: by trying, and from a straight line.

Each method is built on an encoder of its own, so that nothing else is in memory.
"""

from __future__ import annotations

import torch

from peftlab.costs.step import TASK, Pass, encoder_of, parameters, random_batch
from peftlab.errors import TimingError
from peftlab.models import Model, model
from peftlab.results.records.costs import Candidate, CostSettings, Largest
from peftlab.tasks import task
from peftlab.timing import capacity, memory

#: The line goes through the memory of the smallest batch and of twice as many texts; that of four
#: times as many checks it.
TIMES = (1, 2, 4)


def largest_batches(settings: CostSettings) -> dict[str, Candidate]:
    """Find the largest batch of each method, one after the other.

    Args:
        settings: Of a capacity; ``batch`` is the smallest that is tried.

    Returns:
        Label → how large its batch can be; with an error where not even the line's batches fit.
    """
    return {label: _candidate(settings, label) for label in settings.methods}


def _candidate(settings: CostSettings, label: str) -> Candidate:
    built = model(encoder_of(settings), task(TASK), settings.methods[label], seed=0)
    counted = parameters(built)
    try:
        line, reason = _by_line(settings, built)
        largest = Largest(searched=_by_search(settings, built), line=line, reason=reason)
    except RuntimeError as error:
        if not capacity.out_of_memory(error):
            raise
        capacity.release(error)
        return Candidate(parameters=counted, error=str(error).splitlines()[0])
    return Candidate(parameters=counted, largest=largest)


def _run(settings: CostSettings, built: Model, batch: int) -> Pass:
    built.zero_grad(set_to_none=True)  # what a guess that did not fit has left
    return Pass(built, random_batch(built.encoder, batch, settings.length), settings.precision)


def _by_line(settings: CostSettings, built: Model) -> tuple[int | None, str]:
    """Return the largest batch by the line and ``""``; or None and why there is no line."""
    measured = {}
    for batch in (times * settings.batch for times in TIMES):
        run = _run(settings, built, batch)
        split = memory.split(run.forward, run.optimiser, built, run.batch.values())
        measured[batch] = split.total
    try:
        return capacity.Line.through(measured).largest(_bytes(settings)), ""
    except TimingError as error:
        return None, str(error)


def _by_search(settings: CostSettings, built: Model) -> int | None:
    """Return the largest batch of which two steps run within the budget; None on a CPU."""
    if built.device.type != "cuda":
        return None

    def fits(batch: int) -> bool:
        run = _run(settings, built, batch)
        for _ in range(2):  # the optimiser's state is there only after the first
            run()
        torch.cuda.synchronize()
        return True

    with capacity.budget(_bytes(settings), built.device):
        return capacity.largest_batch(fits, settings.batch)


def _bytes(settings: CostSettings) -> float:
    assert settings.budget_gb is not None
    return 1e9 * settings.budget_gb
