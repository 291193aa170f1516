"""The calls of a pass run in other ways than eagerly: compiled, or as a CUDA graph.

Both come back only where they give the loss, or the logits, and the gradients of the eager call.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from peftlab.costs.step import Batch, Pass
from peftlab.models import Model
from peftlab.results.records.costs import COMPILED, GRAPHED
from peftlab.timing.variants import compiled, graphed

#: The whole forward pass in one graph, for the shape of this batch.
OPTIONS: dict[str, Any] = {"fullgraph": True, "dynamic": False}
#: Largest difference to the eager call, by number format.
TOLERANCES = {"fp32": 1e-3, "bf16": 3e-2}


def way_of(label: str) -> str:
    """Return the end of a label that names another way; "" is the eager one."""
    return next((way for way in (COMPILED, GRAPHED) if label.endswith(way)), "")


def unmasked(model: Model, batch: Batch) -> Batch:
    """Let a model attend to all tokens, and return a batch without its mask; no row is padded.

    Whether a mask masks anything is asked of the GPU, which a graph cannot do; some releases of
    transformers then make a mask of ones, and attention runs in another kernel than eagerly.
    """
    backbone: Any = model.backbone
    if hasattr(backbone, "_create_attention_masks"):  # of transformers 5
        backbone._create_attention_masks = _no_masks
    return {name: tensor for name, tensor in batch.items() if name != "attention_mask"}


def _no_masks(*_: object, **__: object) -> tuple[None, None]:
    """Return no mask, for the tokens and for those of another model."""
    return None, None


def other_way(run: Pass, way: str, *, training: bool) -> Callable[[], object]:
    """Return the call of a pass in another way.

    Args:
        run: On an unmasked batch; its model is compiled in place.
        way: :data:`COMPILED`: the model is; backward pass and optimiser are called by the step.
            :data:`GRAPHED`: the whole call is one graph.
        training: A step; else a forward pass.

    Raises:
        SettingsError: It cannot be run in this way, or gives something else then.
    """
    call = run.step if training else run.infer
    trained = dict(run.model.trainable_parameters()) if training else {}
    checks: dict[str, Any] = {"gradients": trained, "tolerance": TOLERANCES[run.precision]}
    if way == COMPILED:
        return compiled(call, module=run.model, alike=run.without_dropout, **checks, **OPTIONS)
    for group in run.optimiser.param_groups:
        group["capturable"] = True
    return graphed(call, **checks)
