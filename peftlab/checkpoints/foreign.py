"""Checkpoints of the libraries ``adapters`` and ``peft``: the folder, its files, and the names.

How a single method is written there is said by the method itself (``to_library`` and
``from_library``); this file holds what all methods share. Neither library is needed.
"""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from peftlab import methods
from peftlab.errors import CheckpointError, SettingsError
from peftlab.files import replacing
from peftlab.methods.base import Foreign, Library, Method

if TYPE_CHECKING:
    from peftlab.encoders import Anatomy, Encoder
    from peftlab.models import Model

CONFIG = "adapter_config.json"
#: Our file first; the other one is what older releases wrote.
WEIGHTS: dict[Library, tuple[str, str]] = {
    "adapters": ("adapter.safetensors", "pytorch_adapter.bin"),
    "peft": ("adapter_model.safetensors", "adapter_model.bin"),
}
LIBRARIES = tuple(WEIGHTS)
#: The adapter's name in what we write, and the release of `adapters` whose format it is.
NAME = "default"
ADAPTERS_RELEASE = "adapters.1.3.0"

#: Settings of theirs that change nothing once the weights are loaded …
MOOT = {
    *("auto_mapping", "base_model_name_or_path", "dtype", "ensure_weight_tying", "inference_mode"),
    *("init_ia3_weights", "init_weights", "init_weights_seed"),
    *("megatron_core", "peft_version"),
    *("qalora_group_size", "revision", "task_type"),
    *("prompt_init", "prompt_init_text", "prompt_tuning_init", "prompt_tuning_init_text"),
    *("tokenizer_kwargs", "tokenizer_name_or_path"),
    # … or nothing in an encoder, or where its outputs stand …
    *("combine", "cross_prefix", "encoder_prefix", "num_transformer_submodules"),
    *("factorized_phm_W", "factorized_phm_rule", "hypercomplex_nonlinearity", "learn_phm"),
    *("phm_bias", "phm_c_init", "phm_dim", "phm_init_range", "phm_rank"),
    *("shared_W_phm", "shared_phm_rule"),
    # … or say which tensors there are, which is checked by the tensors
    *("attn_matrices", "exclude_modules", "layers_pattern", "layers_to_transform"),
    *("encoder_hidden_size", "feedforward_modules", "modules_to_save", "prefix_projection"),
    *("target_modules",),
    # … or are refused by the method where they say what it does not have
    *("alpha_pattern", "rank_pattern"),
}
#: … or nothing at these values: other ways to begin a LoRA change the encoder's own weights.
MOOT_VALUES: dict[str, tuple[Any, ...]] = {
    "init_lora_weights": (True, False, "gaussian", "orthogonal", "eva"),
}
#: … or nothing in an adapter that is parallel to a sublayer and so reads neither result nor norm.
MOOT_IN_PARALLEL = {"adapter_residual_before_ln", "original_ln_before", "residual_before_ln"}


def write(model: Model, folder: Path, library: Library) -> Path:
    """Write a model's method as another library reads it; see :func:`peftlab.checkpoints.save`."""
    return write_method(model.encoder, model.method.flat, model.method_state(), folder, library)


def write_method(
    encoder: Encoder,
    method: Method,
    state: Mapping[str, Tensor],
    folder: Path,
    library: Library,
    name: str = NAME,
) -> Path:
    """Write a method with its tensors, by their paths in the backbone, under a name."""
    from safetensors.torch import save_file

    written = method.to_library(library, encoder.anatomy)
    if written is None:
        raise CheckpointError(
            f"The library {library} cannot hold the method {method}: save it in another format."
        )
    config: Any = written.config
    if library == "adapters":
        config = described(encoder, name) | {"config": config}
        prefix = ""
    else:
        config = {"base_model_name_or_path": encoder.name} | config
        prefix = "base_model.model."
    names = _pieces(written, name)
    packed = written.pack({_renamed(prefix + bare(name), names): t for name, t in state.items()})
    tensors = {
        path.replace("{name}", name): tensor.detach().cpu().clone()
        for path, tensor in packed.items()
    }
    with replacing(folder / WEIGHTS[library][0]) as temporary:
        save_file(tensors, temporary, metadata={"format": "pt"})
    with replacing(folder / CONFIG) as temporary:
        temporary.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    return folder


def described(encoder: Encoder, name: str) -> dict[str, Any]:
    """Return what ``adapters`` says of the encoder beside an adapter's settings."""
    backbone: Any = encoder.backbone.config
    return {
        "hidden_size": backbone.hidden_size,
        "model_class": type(encoder.backbone).__name__,
        "model_name": encoder.name,
        "model_type": backbone.model_type,
        "name": name,
        "version": ADAPTERS_RELEASE,
    }


def read(folder: Path, anatomy: Anatomy) -> tuple[Method, dict[str, Tensor]]:
    """Read the checkpoint of another library.

    Args:
        folder: What ``save_adapter`` of ``adapters`` or ``save_pretrained`` of ``peft`` wrote.
        anatomy: Of the encoder that it shall be loaded into.

    Returns:
        The method in its flat form, and its tensors under our names, made :func:`bare`. Tensors
        outside the encoder's layers and embeddings, such as a head, are left out with a warning.

    Raises:
        CheckpointError: The files are damaged, or the method or one of its settings is not ours.
    """
    try:
        whole = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        library: Library = "peft" if "peft_type" in whole else "adapters"
        config = whole if library == "peft" else dict(whole["config"])
        name = whole.get("name", NAME)
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"{folder / CONFIG} is neither of adapters nor of peft ({error!r})."
        ) from error
    if config.get("architecture") == "lora" and _ignored_alpha(whole):
        config["alpha"] = config["r"]  # as adapters itself does
    method, written = _method(library, config, anatomy, folder)
    back = {theirs: ours for ours, theirs in _pieces(written, name).items()}
    weights = weights_in(folder, WEIGHTS[library])
    try:
        unpacked = written.unpack(weights)
    except (KeyError, RuntimeError) as error:  # a tensor is missing, or has another size
        raise CheckpointError(f"The checkpoint {folder} is damaged ({error}).") from error
    tensors, others = {}, []
    for key, tensor in unpacked.items():
        path = _renamed(key, back)
        inside = re.search(r"(?:^|\.)((?:encoder\.layer\.\d+|embeddings)\..+)$", path)
        if inside:
            tensors["backbone." + inside[1]] = tensor
        else:
            others.append(key)
    if others:
        warnings.warn(
            f"Not read from {folder}, because it is no part of the encoder: "
            f"{', '.join(sorted(others))}",
            stacklevel=3,
        )
    return method.flat, tensors


def _method(
    library: Library, config: Mapping[str, Any], anatomy: Anatomy, folder: Path
) -> tuple[Method, Foreign]:
    """Find the method of a configuration, and make sure that it says all that the other says."""
    try:
        found = [cls.from_library(library, config, anatomy) for cls in methods.classes().values()]
        method = next(m for m in found if m is not None)
    except StopIteration:
        kind = config.get("peft_type") or config.get("architecture")
        raise CheckpointError(
            f"The checkpoint {folder} is of a method of {library} that peftlab does not read "
            f"({kind!r}); it reads {', '.join(methods.names())}."
        ) from None
    except (KeyError, TypeError, SettingsError) as error:
        raise CheckpointError(
            f"The settings in {folder / CONFIG} cannot be read ({error})."
        ) from error
    written = method.to_library(library, anatomy)
    if written is None:
        raise CheckpointError(
            f"The checkpoint {folder} joins methods of one kind, which peftlab cannot tell "
            f"apart in it: save them one by one in {library}."
        )
    unknown = _unsaid(config, written.config)
    if unknown is not None:
        raise CheckpointError(
            f"The checkpoint {folder} sets {unknown} to {config.get(unknown)!r}, which peftlab's "
            f"{method.name!r} does not have: merge it in {library}, or train again."
        )
    return method, written


def _unsaid(config: Mapping[str, Any], written: Mapping[str, Any]) -> str | None:
    """Return the first setting of theirs that our way of writing the method does not say."""
    for key, value in config.items():
        if key == "configs":
            pairs = zip(value, written["configs"], strict=True)
            unknown = next((u for u in (_unsaid(*pair) for pair in pairs) if u is not None), None)
            if unknown is not None:
                return unknown
            continue
        off = value in (None, False, [], {}, 0)
        moot = MOOT | MOOT_IN_PARALLEL if config.get("is_parallel") else MOOT
        fine = key in moot or value in MOOT_VALUES.get(key, ())
        if not (fine or (value == written[key] if key in written else off)):
            return key
    return None


def weights_in(folder: Path, names: tuple[str, str]) -> dict[str, Tensor]:
    """Read the tensors in a folder; its file has the first name, or the second if pickled."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    safe, pickled = (folder / name for name in names)
    path = safe if safe.is_file() else pickled
    try:
        if path == safe:
            return load_file(path)
        return dict(torch.load(path, map_location="cpu", weights_only=True))
    except FileNotFoundError:
        raise CheckpointError(
            f"The folder {folder} holds neither {safe.name} nor {pickled.name}."
        ) from None
    except (SafetensorError, OSError, RuntimeError, ValueError, EOFError) as error:
        raise CheckpointError(f"The checkpoint {path} is damaged ({error}).") from error
    except Exception as error:  # torch's unpickler has no common class for what it refuses
        raise CheckpointError(f"The checkpoint {path} holds more than tensors: {error}") from error


def bare(path: str) -> str:
    """Return a path as it is without sites, which only one of the libraries has at a place."""
    return path.replace(".original.", ".")


def _pieces(written: Foreign, name: str) -> dict[str, str]:
    return {ours: theirs.replace("{name}", name) for ours, theirs in written.names.items()}


def _renamed(path: str, pieces: Mapping[str, str]) -> str:
    for old, new in pieces.items():
        path = path.replace(old, new)
    return path


def _ignored_alpha(whole: Mapping[str, Any]) -> bool:
    """Whether a release of `adapters` wrote this in which a LoRA's alpha had no effect (< 1.1)."""
    found = re.match(r"adapters\.(\d+)\.(\d+)", whole.get("version") or "")
    return found is not None and tuple(map(int, found.groups())) < (1, 1)
