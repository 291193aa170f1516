"""What works with a method: the checks behind the support matrix of the book.

Every check runs a real forward or backward pass and raises if something does not hold. The tests
run them for every method on every family of encoders and hold each method to what it declares
(:func:`verify`); the matrix that they leave behind is in :mod:`peftlab.support.matrix`.

A batch is of one task. Of a model with several heads, its ``task`` says which one is checked.
"""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from peftlab.errors import PeftlabError, unknown
from peftlab.methods.composition import Composed
from peftlab.tasks.multi import Heads, members

if TYPE_CHECKING:
    from peftlab.methods.base import Method
    from peftlab.models import Model

Batch = Mapping[str, Any]

#: Largest difference of logits of order 1 after merging, by the type of the weights. In the half
#: types it is the rounding of the merged weights: twice the most that tiny encoders of width 128
#: showed over four seeds.
MERGE_TOLERANCE = {
    torch.float64: 1e-12,
    torch.float32: 1e-5,
    torch.float16: 1.3e-2,
    torch.bfloat16: 1e-1,
}


class Unsupported(PeftlabError):
    """A check found that something does not work with a method."""


def check_padding(model: Model, batch: Batch) -> None:
    """A text alone has the logits that it has in a batch with longer ones (≤ 1e-5)."""
    model.eval()
    for i, together in enumerate(_logits(model, batch)):
        alone = _logits(model, _alone(batch, i))[0]
        _close(alone, together[tuple(map(slice, alone.shape))], 1e-5)


def check_merge(model: Model, batch: Batch) -> None:
    """The merged model has the same logits, within the tolerance of its type."""
    model.eval()
    before = _logits(model, batch)
    after = _logits(model.merge(), batch)
    _close(after, before, MERGE_TOLERANCE[next(model.parameters()).dtype])


def check_fp32(model: Model, batch: Batch) -> None:
    """A step gives finite gradients."""
    model.train()
    _finite(_gradients(model, batch, model(batch).loss))


def check_bf16(model: Model, batch: Batch) -> None:
    """A step under bf16 autocast gives finite gradients in the types of the weights."""
    model.train()
    with torch.autocast(batch["input_ids"].device.type, dtype=torch.bfloat16):
        loss = model(batch).loss
    _finite(_gradients(model, batch, loss))


def check_checkpointing(model: Model, batch: Batch) -> None:
    """Recomputing activations in the backward pass changes no gradient (≤ 1e-6)."""
    model.train()
    gradients = []
    with torch.random.fork_rng(devices=[]):
        for _ in range(2):
            torch.manual_seed(0)  # both passes draw the same dropout
            gradients.append(_gradients(model, batch, model(batch).loss))
            model.encoder.recompute()
    for name, gradient in gradients[0].items():
        _close(gradients[1][name], gradient, 1e-6)


def check_compile(model: Model, batch: Batch) -> None:
    """``torch.compile`` captures the whole forward pass in one graph, with equal logits."""
    from torch._dynamo.exc import TorchDynamoException

    model.eval()
    torch.compiler.reset()
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    try:
        with torch.no_grad():
            logits = compiled(_inputs(batch)).logits
    except TorchDynamoException as error:
        reason = _first_line(error)
        raise Unsupported(f"torch.compile cannot capture one whole graph: {reason}") from error
    _close(logits, _logits(model, batch), 1e-6)


def check_save(model: Model, batch: Batch) -> None:
    """The model comes back from its checkpoint with the same logits (≤ 1e-6)."""
    from peftlab.checkpoints import load

    model.eval()
    with tempfile.TemporaryDirectory() as folder:
        loaded = load(model.save(folder), task=model.task).to(model.device)
    _close(_logits(loaded, batch), _logits(model, batch), 1e-6)


def check_several(model: Model, batch: Batch) -> None:
    """Two trained states in one encoder give every row the logits of its own (≤ 1e-5).

    Each has one head there: of a model with several, it is that of the batch's task.
    """
    from peftlab.encoders import load_encoder
    from peftlab.serving import several

    model.eval()
    other = copy.deepcopy(model)
    with torch.no_grad():
        for _, parameter in other.trainable_parameters():
            parameter.mul_(0.5)
    both = {"one": model, "other": other}
    wanted = {name: _logits(each, batch) for name, each in both.items()}
    encoder = load_encoder(
        model.encoder.name, attention=model.encoder.backbone.config._attn_implementation
    )
    with tempfile.TemporaryDirectory() as folder:
        folders = {
            name: _with_one_head(each, batch).save(Path(folder) / name)
            for name, each in both.items()
        }
        together = several(encoder, folders).to(model.device)
    names = [("one", "other")[i % 2] for i in range(len(wanted["one"]))]
    with torch.no_grad():
        found = together(_inputs(batch), names)
    for i, name in enumerate(names):
        _close(found[i], wanted[name][i], 1e-5)


#: One column of the support matrix each, in this order.
CHECKS: dict[str, Callable[[Model, Batch], None]] = {
    "fp32": check_fp32,
    "bf16": check_bf16,
    "padding": check_padding,
    "checkpointing": check_checkpointing,
    "compile": check_compile,
    "merge": check_merge,
    "save": check_save,
    "several": check_several,
}


def declared(method: Method) -> dict[str, str]:
    """Return which checks a method says it cannot pass, with the reasons.

    That is its ``cannot``, ``merge`` where it is not mergeable, and for a composition what its
    members cannot.

    Raises:
        UnknownNameError: It names a check that does not exist.
    """
    for check in method.cannot:
        if check not in CHECKS:
            raise unknown(f"support check (in what {method.name!r} cannot)", check, CHECKS)
    reasons: dict[str, str] = {}
    for member, _ in method.parts() if isinstance(method, Composed) else ():
        reasons |= declared(member)
    reasons.pop("merge", None)
    if not method.mergeable:
        reasons["merge"] = "its parts are not linear maps of a layer's input"
    return reasons | dict(method.cannot)


def verify(model: Model, batch: Batch, check: str) -> None:
    """Run one check and hold the model's method to what it declares.

    Args:
        model: Is changed by the check.
        batch: Labelled texts of one task, of different lengths, on the model's device.
        check: One of :data:`CHECKS`.

    Raises:
        Unsupported: The method declares that this cannot work, but it does, or it fails only after
            it has changed weights.
        Exception: What the check raised, if nothing was declared; or, if it was, an error that is
            not one of peftlab's clear ones.
    """
    reason = declared(model.method).get(check)
    if reason is None:
        CHECKS[check](model, batch)
        return
    before = copy.deepcopy(model.state_dict())
    try:
        CHECKS[check](model, batch)
    except PeftlabError:
        after = model.state_dict()
        if after.keys() == before.keys() and all(map(torch.equal, after.values(), before.values())):
            return
        raise Unsupported(
            f"The check {check!r} fails as {model.method.name!r} declares, but only after weights "
            "were changed: refuse earlier."
        ) from None
    raise Unsupported(
        f"The method {model.method.name!r} declares that {check!r} cannot work ({reason}), but it "
        "does: take it out of what the method cannot."
    )


def support(model: Model, batch: Batch) -> dict[str, str]:
    """Find out what works with a model's method.

    Args:
        model: Stays as it is; every check has a copy.
        batch: Labelled texts of one task, of different lengths, on the model's device.

    Returns:
        For every check ``"yes"``, or ``"no: "`` and the first line of the reason.
    """
    found = {}
    for name, check in CHECKS.items():
        try:
            check(copy.deepcopy(model), batch)
            found[name] = "yes"
        except Exception as error:  # whatever stops it, the matrix says so
            found[name] = f"no: {_first_line(error)}"
    return found


def _inputs(batch: Batch) -> dict[str, Any]:
    return {k: v for k, v in batch.items() if k != "labels"}


def _alone(batch: Batch, i: int) -> dict[str, Any]:
    """Return the i-th row (with all its choices) without the padding to longer ones."""
    count = batch.get("num_choices", 1)
    rows = slice(i * count, (i + 1) * count)
    length = int(batch["attention_mask"][rows].sum(1).max())
    inputs = _inputs(batch).items()
    return {k: v[rows, :length] if isinstance(v, Tensor) else v for k, v in inputs}


def _with_one_head(model: Model, batch: Batch) -> Model:
    """Return the model with the head of the batch's task alone; the weights are shared."""
    from peftlab.models import Model

    if not isinstance(model.head, Heads):
        return model
    (task,) = (task for task in members(model.task) if task.name == batch["task"])
    head = model.head.of(task.name)
    return Model(
        model.encoder, model.method, head, task, seed=model.seed, options=model.options
    ).train(model.training)


@torch.no_grad()
def _logits(model: Model, batch: Batch) -> Tensor:
    return model(_inputs(batch)).logits


def _gradients(model: Model, batch: Batch, loss: Tensor) -> dict[str, Tensor]:
    trained = dict(model.trainable_parameters())
    if isinstance(model.head, Heads):  # the heads of other tasks have none
        own = {id(parameter) for parameter in model.head.of(batch["task"]).parameters()}
        heads = {id(parameter) for parameter in model.head.parameters()}
        trained = {n: p for n, p in trained.items() if id(p) in own or id(p) not in heads}
    names, parameters = zip(*trained.items(), strict=True)
    gradients = torch.autograd.grad(loss, parameters, allow_unused=model.method.partial)
    return {n: g for n, g in zip(names, gradients, strict=True) if g is not None}


def _finite(gradients: Mapping[str, Tensor]) -> None:
    for name, gradient in gradients.items():
        if not gradient.isfinite().all():
            raise Unsupported(f"The gradient of {name} is not finite.")


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _close(found: Tensor, wanted: Tensor, tolerance: float) -> None:
    difference = float((found - wanted).abs().max())
    if not difference <= tolerance:
        raise Unsupported(f"The results differ by {difference:.1e}, more than {tolerance:.0e}.")
