"""Saving a method and its head: nothing silently missing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from peftlab.checkpoints import foreign, setups
from peftlab.checkpoints.format import FILE, NOTE, header, stored
from peftlab.errors import CheckpointError
from peftlab.files import replacing
from peftlab.methods.fusion import AdapterFusion

if TYPE_CHECKING:
    from peftlab.models import Model

Format = Literal["peftlab", "adapters", "peft"]


def save(model: Model, folder: str | Path, format: Format = "peftlab") -> Path:
    """Save what a model has learned.

    An older checkpoint in the folder is replaced at once: a kill leaves the old or the new one.

    Args:
        model: An unmerged model.
        folder: Where; made if missing.
        format: ``"peftlab"``: method and head. ``"adapters"`` or ``"peft"``: the method alone, as
            that library reads it with ``load_adapter(folder, use_safetensors=True)`` or
            ``PeftModel.from_pretrained(AutoModel, folder)``; a fusion as ``adapters`` reads it
            with ``load_adapter_setup``.

    Returns:
        The folder.

    Raises:
        CheckpointError: The model is merged, or the other library does not have its method.
    """
    folder = Path(folder)
    if model.merged:
        raise CheckpointError(
            "A merged model has no method left to save: call unmerge() first, or save the merged "
            "encoder with backbone.save_pretrained(folder)."
        )
    if format not in ("peftlab", *foreign.LIBRARIES):
        raise CheckpointError(
            f"format is {format!r}: choose one of peftlab, {', '.join(foreign.LIBRARIES)}."
        )
    if format == "adapters" and isinstance(model.method, AdapterFusion):
        return setups.write(model, model.method, folder)
    if format != "peftlab":
        return foreign.write(model, folder, format)
    from safetensors.torch import save_file

    text = json.dumps(header(model), indent=2, ensure_ascii=False)
    tensors = {name: t.detach().cpu().clone() for name, t in stored(model).items()}
    with replacing(folder / FILE) as temporary:
        save_file(tensors, temporary, metadata={"peftlab": text})
    with replacing(folder / NOTE) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")
    return folder
