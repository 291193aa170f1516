"""Language adapters in a model of MAD-X: loaded, and swapped for those of another language.

How they compute is in :mod:`peftlab.methods.madx`; they are trained as any method is, on a task of
kind ``"language-model"``.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor

from peftlab import methods
from peftlab.checkpoints import foreign, format
from peftlab.encoders import Encoder
from peftlab.errors import CheckpointError, SettingsError
from peftlab.methods.base import Method
from peftlab.methods.bottleneck import Adapter
from peftlab.methods.madx import ON_TOP, LanguageAdapter, TaskAdapter
from peftlab.models import Model


def swap_language(model: Model, folder: str | Path) -> Model:
    """Put a trained language adapter into a model, in the place of the one that is there.

    The task adapter and the head stay as they are. So a model is trained on a task in one language
    and used in another; with the first one swapped back it is bitwise what it was. Source: Pfeiffer
    et al. 2020, MAD-X (arXiv 2005.00052). Taught in the chapter on language adapters.

    Args:
        model: Of the method ``madx-task``; is changed.
        folder: Checkpoint of a model of the method ``madx-language`` with the same encoder, or of
            such an adapter of the library ``adapters``.

    Returns:
        The model itself. Its ``options["language"]`` is a digest of the adapter's weights, so that
        a record says with which one it was trained.

    Raises:
        CheckpointError: The checkpoint is damaged, or of another encoder, method or size. The model
            is unchanged then.
        SettingsError: The model is of another method.
    """
    _put(model, Path(folder), _stack(model).language, "")
    model.options["language"] = format.digest(_places(model, ""))
    return model


def load_task_adapter(model: Model, folder: str | Path) -> Model:
    """Put a trained task adapter on the language adapter of a model; the head stays as it is.

    Args:
        model: Of the method ``madx-task``; is changed.
        folder: Checkpoint of a model of the method ``adapter`` with the same encoder, or of a task
            adapter of the library ``adapters``.

    Returns:
        The model itself. Its ``options["task_adapter"]`` is a digest of the adapter's weights.

    Raises:
        CheckpointError: The checkpoint is damaged, or of another encoder, method or size. The model
            is unchanged then.
        SettingsError: The model is of another method.
    """
    _put(model, Path(folder), _stack(model).task, ON_TOP)
    model.options["task_adapter"] = format.digest(_places(model, ON_TOP))
    return model


def _stack(model: Model) -> TaskAdapter:
    if not isinstance(model.method, TaskAdapter):
        raise SettingsError(
            f"The model has the method {model.method.name!r}, in which no adapter is stacked on "
            "that of a language: build it with the method 'madx-task'."
        )
    return model.method


def _put(model: Model, folder: Path, wanted: Method, suffix: str) -> None:
    """Copy an adapter's weights from a checkpoint into a model."""
    found, tensors = _read(folder, model.encoder)
    d = model.encoder.anatomy.hidden_size
    theirs, ours = (_flat(_plain(method, d).settings()) for method in (found, wanted))
    for key in ("name", *ours):
        if theirs.get(key) != ours[key]:
            raise CheckpointError(
                f"The checkpoint {folder} is of the method {found.name!r} with {key} "
                f"{theirs.get(key)!r}, but the model takes {wanted.name!r} with {key} "
                f"{ours[key]!r}: train one with the model's settings, or build the model with its."
            )
    format.fill(_places(model, suffix), tensors, folder)


def _read(folder: Path, encoder: Encoder) -> tuple[Method, dict[str, Tensor]]:
    """Read the method and its tensors from a checkpoint of peftlab or of another library."""
    if not (folder / format.FILE).is_file() and (folder / foreign.CONFIG).is_file():
        return foreign.read(folder, encoder.anatomy)
    header, tensors = format.read(folder)
    if header["encoder"]["fingerprint"] != encoder.fingerprint:
        raise CheckpointError(
            f"The checkpoint {folder} was made with other weights of {header['encoder']['name']!r} "
            f"than those of the encoder {encoder.name!r} here: train it with this encoder."
        )
    parts = {name: tensor for name, tensor in tensors.items() if name.startswith("backbone.")}
    return methods.get(header["method"]), parts


def _places(model: Model, suffix: str) -> dict[str, Tensor]:
    """Return a model's language adapter (no suffix) or task adapter, named as in a checkpoint."""
    on_top = f".{Adapter.name}{ON_TOP}."
    return {
        f"backbone.{name.replace(on_top, f'.{Adapter.name}.')}": tensor
        for name, tensor in model.method_state().items()
        if (on_top in name) == (suffix == ON_TOP)
    }


def _flat(settings: dict[str, Any]) -> dict[str, Any]:
    """Return settings of methods inside methods under dotted names."""
    flat: dict[str, Any] = {}
    for key, value in settings.items():
        inside = _flat(value) if isinstance(value, dict) else {}
        flat |= {f"{key}.{name}": each for name, each in inside.items()} or {key: value}
    return flat


def _plain(method: Method, d: int) -> Method:
    """Return settings without what changes nothing once the weights are trained."""
    if isinstance(method, LanguageAdapter):
        adapter = _plain(method.adapter, d)
        assert isinstance(adapter, Adapter)
        return replace(method, adapter=adapter)
    if isinstance(method, Adapter):
        size = method.size(d)
        return replace(method, reduction_factor=1, bottleneck_size=size, dropout=0, init="bert")
    return method
