"""What works with a method: the checks behind the support matrix of the book.

Every check runs a real forward or backward pass on a copy of a model and raises if something does
not hold. The tests run the same checks for every method on every family of encoders.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from peftlab.errors import PeftlabError

if TYPE_CHECKING:
    from peftlab.models import Model

Batch = Mapping[str, Any]

#: Largest difference of logits of order 1 after merging, by the type of the weights. In the half
#: types it is the rounding of the merged weights: five times what was measured on tiny encoders.
MERGE_TOLERANCE = {torch.float32: 1e-5, torch.float16: 7e-3, torch.bfloat16: 3e-2}


class Unsupported(PeftlabError):
    """A check found that something does not work with a method."""


def check_padding(model: Model, batch: Batch) -> None:
    """A text alone has the logits that it has in a batch with longer ones (≤ 1e-5)."""
    model.eval()
    together = _logits(model, batch)
    for i, length in enumerate(batch["attention_mask"].sum(1).tolist()):
        alone = _logits(model, {k: v[i : i + 1, :length] for k, v in _inputs(batch).items()})[0]
        _close(alone, together[i][: len(alone)], 1e-5)


def check_merge(model: Model, batch: Batch) -> None:
    """The merged model has the same logits, within the tolerance of its type."""
    model.eval()
    before = _logits(model, batch)
    after = _logits(model.merge(), batch)
    _close(after, before, MERGE_TOLERANCE[next(model.parameters()).dtype])


def check_bf16(model: Model, batch: Batch) -> None:
    """A step under bf16 autocast gives finite gradients in the types of the weights."""
    model.train()
    with torch.autocast(batch["input_ids"].device.type, dtype=torch.bfloat16):
        loss = model(batch).loss
    for name, gradient in _gradients(model, loss).items():
        if not gradient.isfinite().all():
            raise Unsupported(f"The gradient of {name} under bf16 autocast is not finite.")


def check_checkpointing(model: Model, batch: Batch) -> None:
    """Recomputing activations in the backward pass changes no gradient (≤ 1e-6)."""
    model.train()
    gradients = []
    with torch.random.fork_rng(devices=[]):
        for _ in range(2):
            torch.manual_seed(0)  # both passes draw the same dropout
            gradients.append(_gradients(model, model(batch).loss))
            # the older, reentrant kind gives no gradients where the embeddings are frozen
            model.backbone.gradient_checkpointing_enable(  # type: ignore[operator]
                gradient_checkpointing_kwargs={"use_reentrant": False}
            )
    for name, gradient in gradients[0].items():
        _close(gradients[1][name], gradient, 1e-6)


def check_compile(model: Model, batch: Batch) -> None:
    """``torch.compile`` captures the whole forward pass in one graph, with equal logits."""
    model.eval()
    torch.compiler.reset()
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    with torch.no_grad():
        _close(compiled(_inputs(batch)).logits, _logits(model, batch), 1e-6)


CHECKS: dict[str, Callable[[Model, Batch], None]] = {
    "padding": check_padding,
    "merge": check_merge,
    "bf16": check_bf16,
    "checkpointing": check_checkpointing,
    "compile": check_compile,
}


def support(model: Model, batch: Batch) -> dict[str, str]:
    """Find out what works with a model's method.

    Args:
        model: Stays as it is; every check has a copy.
        batch: Labelled texts of different lengths, on the model's device.

    Returns:
        For every check ``"yes"``, or ``"no: "`` and the first line of the reason.
    """
    found = {}
    for name, check in CHECKS.items():
        try:
            check(copy.deepcopy(model), batch)
            found[name] = "yes"
        except Exception as error:  # whatever stops it, the matrix says so
            found[name] = f"no: {str(error).strip().splitlines()[0]}"
    return found


def _inputs(batch: Batch) -> dict[str, Any]:
    return {k: v for k, v in batch.items() if k != "labels"}


@torch.no_grad()
def _logits(model: Model, batch: Batch) -> Tensor:
    return model(_inputs(batch)).logits


def _gradients(model: Model, loss: Tensor) -> dict[str, Tensor]:
    names, parameters = zip(*model.trainable_parameters(), strict=True)
    gradients = torch.autograd.grad(loss, parameters)
    return dict(zip(names, gradients, strict=True))


def _close(found: Tensor, wanted: Tensor, tolerance: float) -> None:
    difference = float((found - wanted).abs().max())
    if not difference <= tolerance:
        raise Unsupported(f"The results differ by {difference:.1e}, more than {tolerance:.0e}.")
