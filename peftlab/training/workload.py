"""What a run has multiplied: batches are counted by shape, and a shape has FLOPs in closed form.

So the FLOPs of a whole run are exact and cost it nothing. Only training steps count: evaluations
are another phase.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from peftlab.errors import SettingsError
from peftlab.methods.work import Kernel, work
from peftlab.tasks.heads import IGNORED
from peftlab.tasks.multi import Heads

if TYPE_CHECKING:
    from peftlab.models import Model
    from peftlab.tasks.heads import Batch, Head
    from peftlab.training.state import Progress


def note(progress: Progress, model: Model, batch: Batch) -> None:
    """Count a batch that a training step is made on."""
    texts, length = batch["input_ids"].shape
    task = batch.get("task", "")
    shape = f"{texts} {length} {task}"
    progress.shapes[shape] = progress.shapes.get(shape, 0) + 1
    if _head(model, task).labelled_only:
        found = int((batch["labels"] != IGNORED).sum())
        progress.labelled[task] = progress.labelled.get(task, 0) + found


def total(model: Model, progress: Progress) -> int | None:
    """Return the FLOPs of all training steps so far, forward and backward, in closed form.

    Args:
        model: That is trained.
        progress: Its batches, as :func:`note` counted them.

    Returns:
        2 × multiply-accumulates of matrix products, padding included; None if the head is the
        reader's own and has no closed form.
    """
    anatomy, kernel = model.encoder.anatomy, attention_kernel(model)
    found = 0
    try:
        for shape, batches in progress.shapes.items():
            texts, length, task = shape.split(" ", 2)
            head = _head(model, task)
            step = work(
                anatomy,
                model.method,
                int(texts),
                int(length),
                head=head,
                asked=0 if head.labelled_only else None,
                kernel=kernel,
            )
            found += batches * step.total
        for task, labelled in progress.labelled.items():
            more, less = (
                work(
                    anatomy, model.method, 1, 1, head=_head(model, task), asked=n, kernel=kernel
                ).total
                for n in (labelled, 0)
            )
            found += more - less
    except SettingsError:
        return None
    return found


def attention_kernel(model: Model) -> Kernel:
    """Return how attention is computed in training: on a CPU with dropout it is two products."""
    config = model.encoder.backbone.config
    fused = model.device.type == "cuda" and config._attn_implementation == "sdpa"
    return "fused" if fused else "math"


def _head(model: Model, task: str) -> Head:
    return model.head.of(task) if isinstance(model.head, Heads) else model.head
