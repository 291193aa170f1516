"""A fusion of adapters in the format of ``adapters``: one folder a member, one for the fusion.

That library calls it an *adapter setup*. Single methods are in :mod:`peftlab.checkpoints.foreign`.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from peftlab.checkpoints import foreign
from peftlab.errors import CheckpointError
from peftlab.files import replacing
from peftlab.methods.bottleneck import Adapter
from peftlab.methods.fusion import AdapterFusion

if TYPE_CHECKING:
    from peftlab.encoders import Encoder
    from peftlab.models import Model

SETUP = "adapter_setup.json"
CONFIG = "adapter_fusion_config.json"
WEIGHTS = ("model_adapter_fusion.safetensors", "pytorch_model_adapter_fusion.bin")
#: What a fusion of theirs must be to be ours; it changes nothing on which side of the sum V stands.
SAME = {
    "key": True,
    "query": True,
    "value": True,
    "query_before_ln": False,
    "residual_before": False,
    "temperature": False,
}
OURS = f".before.{AdapterFusion.name}."


def write(model: Model, method: AdapterFusion, folder: Path) -> Path:
    """Write what ``load_adapter_setup(folder, use_safetensors=True)`` reads."""
    from safetensors.torch import save_file

    names = [f"adapter{k}" for k in range(method.members)]
    fused = ",".join(names)
    state = model.method_state()
    for k, name in enumerate(names):
        place = f"{OURS}members.{k}."
        own = {
            path.replace(place, f".before.{method.adapter.name}."): tensor
            for path, tensor in state.items()
            if place in path
        }
        foreign.write_method(model.encoder, method.adapter, own, folder / name, "adapters", name)
    tensors = {
        path.replace(OURS, f".adapter_fusion_layer.{fused}."): tensor.detach().cpu().clone()
        for path, tensor in state.items()
        if f"{OURS}members." not in path
    }
    with replacing(folder / fused / WEIGHTS[0]) as temporary:
        save_file(tensors, temporary, metadata={"format": "pt"})
    settings = SAME | {
        "dropout_prob": method.dropout,
        "regularization": method.regularization > 0,
        "value_before_softmax": True,
        "value_initialized": True,
    }
    whole = foreign.described(model.encoder, fused)
    _write_json(folder / fused / CONFIG, whole | {"adapter_names": names, "config": settings})
    children = [{"type": "single", "children": [name]} for name in names]
    setup = {"type": "Fuse", "children": children}
    written = {"adapter_setup": setup, "head_setup": None, "version": foreign.ADAPTERS_RELEASE}
    _write_json(folder / SETUP, written)
    return folder


def read(folder: Path, encoder: Encoder) -> tuple[AdapterFusion, dict[str, Tensor]]:
    """Read what ``save_adapter_setup(folder, Fuse(…))`` wrote.

    Args:
        folder: With the setup's file.
        encoder: That it shall be loaded into.

    Returns:
        The method, and its tensors under our names.

    Raises:
        CheckpointError: The files are damaged, or it is no fusion that is ours.
    """
    setup = _read_json(folder / SETUP).get("adapter_setup", {})
    children = [child.get("children") for child in setup.get("children", [])]
    if setup.get("type") != "Fuse" or any(len(names or ()) != 1 for names in children):
        raise CheckpointError(
            f"The adapter setup {folder} is no fusion of single adapters: load its adapters one by "
            "one, and stack them here."
        )
    names = [name for (name,) in children]
    found = [foreign.read(folder / name, encoder.anatomy) for name in names]
    adapter = found[0][0]
    if not isinstance(adapter, Adapter) or any(other != adapter for other, _ in found):
        raise CheckpointError(
            f"The adapters in {folder} differ in their settings: fuse adapters of one size and "
            "place."
        )
    fused = ",".join(names)
    settings = _read_json(folder / fused / CONFIG).get("config", {})
    for key, value in SAME.items():
        if settings.get(key) != value:
            raise CheckpointError(
                f"The fusion {folder / fused} sets {key} to {settings.get(key)!r}, but peftlab's "
                f"has {value!r}: train it again."
            )
    config: Any = encoder.backbone.config
    dropout = settings.get("dropout_prob")
    if dropout is None:
        dropout = config.attention_probs_dropout_prob
    tensors = {
        path.replace(f".before.{adapter.name}.", f"{OURS}members.{k}."): tensor
        for k, (_, own) in enumerate(found)
        for path, tensor in own.items()
    }
    places = {path.partition(OURS)[0] for path in tensors}
    for path, tensor in foreign.weights_in(folder / fused, WEIGHTS).items():
        inside = path[path.find("encoder.layer.") :]
        place, _, name = f"backbone.{inside}".partition(f".adapter_fusion_layer.{fused}.")
        if place in places:  # theirs also makes fusions, without use, where adapters are left out
            tensors[f"{place}{OURS}{name}"] = tensor
    fusion = AdapterFusion(len(names), adapter, dropout)
    if not settings.get("regularization", True):
        fusion = replace(fusion, regularization=0.0)
    return fusion, tensors


def _write_json(path: Path, content: dict[str, Any]) -> None:
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _read_json(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise CheckpointError(f"{path} is missing or damaged ({error}).") from error
