"""What the parity tests share: the same weights here and in another library, compared."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
import torch

import peftlab as pl
from peftlab.checkpoints.foreign import _pieces, _renamed, bare
from peftlab.encoders import Encoder
from peftlab.methods.base import Method
from peftlab.tasks.base import Task


def trained(make_encoder: Any, model_type: str, task: Any, method: Method) -> Any:
    """A model whose method has moved away from its start."""
    model = pl.model(make_encoder(model_type), task, method)
    torch.manual_seed(2)
    with torch.no_grad():
        for _, parameter in model.trainable_parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return model


def states_and_gradients(
    backbone: Any, inputs: dict[str, Any], scale: float = 1.0
) -> tuple[Any, dict[str, Any]]:
    """Run a forward and backward pass; the loss weighs every state differently."""
    states = backbone(**inputs).last_hidden_state * inputs["attention_mask"].unsqueeze(-1)
    weights = torch.linspace(-1, 1, states.numel()).view_as(states)
    (scale * (states * weights).mean()).backward()
    gradients = {n: p.grad for n, p in backbone.named_parameters() if p.grad is not None}
    return states.detach(), gradients


def assert_equal(
    model: Any,
    theirs: Any,
    inputs: Any,
    library: Any,
    rename: Any,
    record: Any,
    scale: float = 1.0,
) -> None:
    """Compare states and gradients, and note the largest differences for the parity table.

    ``scale`` is a factor on the loss, for methods whose gradients are small.
    """
    own_states, own = states_and_gradients(model.backbone, inputs, scale)
    states, gradients = states_and_gradients(theirs, inputs, scale)
    written = model.method.to_library(library, model.encoder.anatomy)
    pieces = _pieces(written, "default")
    packed = written.pack({_renamed(bare(name), pieces): grad for name, grad in own.items()})
    renamed = {rename(name.replace("{name}", "default")): g for name, g in packed.items()}
    # `adapters` has the prefixes of all layers under each of them too
    gradients = {
        re.sub(r"^.*prefix_tuning\.pool", "prefix_tuning", n): g for n, g in gradients.items()
    }
    assert renamed.keys() == gradients.keys()
    assert max(float(g.abs().max()) for g in renamed.values()) > 1e-4, "nothing to compare"
    of_states = float((states - own_states).abs().max())
    of_gradients = max(float((renamed[n] - gradients[n]).abs().max()) for n in renamed)
    note(record, model.method.name, library, states=of_states, gradients=of_gradients)
    assert of_states <= 1e-5
    assert of_gradients <= 1e-5
    largest = max(float(g.abs().max()) for g in gradients.values())
    for name, gradient in gradients.items():  # and in proportion, for most are far below 1
        allowed = 1e-3 * float(gradient.abs().max()) + 1e-4 * largest
        assert (renamed[name] - gradient).abs().max() <= allowed, name


def loaded_by_adapters(theirs: Any, folder: Any) -> Any:
    """Let `adapters` load what we have written into a bare encoder, ready to train."""
    adapters = pytest.importorskip("adapters")
    adapters.init(theirs)
    theirs.load_adapter(str(folder), use_safetensors=True)
    theirs.train_adapter("default")
    return theirs.eval()


def check_adapters_reads(
    model: Any, theirs: Any, inputs: Any, folder: Any, record: Any, scale: float = 1.0
) -> None:
    """Save a model in the format of `adapters`, let it load that into a bare encoder, compare."""
    model.save(folder, format="adapters")
    loaded_by_adapters(theirs, folder)
    assert_equal(model, theirs, inputs, "adapters", lambda name: name, record, scale)


def check_peft_reads(
    model: Any,
    theirs: Any,
    inputs: Any,
    folder: Any,
    record: Any,
    rename: Callable[[str], str],
    scale: float = 1.0,
) -> None:
    """Save a model in the format of `peft`, let it load that into a bare encoder, compare.

    ``rename`` makes of the name of a tensor that we write the name of the parameter in `peft`.
    """
    peft = pytest.importorskip("peft")
    model.save(folder, format="peft")
    prompts = peft.PeftConfig.from_pretrained(str(folder)).is_prompt_learning
    theirs = peft.PeftModel.from_pretrained(theirs, str(folder), is_trainable=not prompts).eval()
    if prompts:  # what it loads of this kind is frozen
        theirs.prompt_encoder.requires_grad_(True)
    assert_equal(model, theirs, inputs, "peft", rename, record, scale)


def check_we_read_adapters(
    theirs: Any,
    encoder: Encoder,
    task: Task,
    inputs: Any,
    folder: Any,
    config: str,
    settings: dict[str, Any],
    safe: bool = False,
    *,
    padding: bool = True,
) -> Any:
    """Let `adapters` make and save an adapter, load that into another encoder, compare.

    Args:
        theirs: A bare encoder, or a model of `adapters` around one.
        encoder: With the same weights.
        task: Of the model that is loaded.
        inputs: Of the forward pass.
        folder: Where it saves.
        config: Name of a class of `adapters`.
        settings: Of that class.
        safe: Whether it saves as safetensors.
        padding: Whether states at padding are compared, too.

    Returns:
        The model that we have loaded.
    """
    adapters = pytest.importorskip("adapters")
    adapters.init(theirs)
    theirs.add_adapter("mine", config=getattr(adapters, config)(**settings))
    theirs.train_adapter("mine")
    wanted = shaken(theirs.base_model, inputs)
    theirs.save_adapter(str(folder), "mine", use_safetensors=safe)
    return check_we_read(folder, encoder, task, inputs, wanted, padding=padding)


def check_we_read_peft(
    theirs: Any,
    encoder: Encoder,
    task: Task,
    inputs: Any,
    folder: Any,
    config: str,
    settings: dict[str, Any],
    safe: bool,
    *,
    padding: bool = True,
) -> Any:
    """Let `peft` make and save an adapter; else as :func:`check_we_read_adapters`."""
    peft = pytest.importorskip("peft")
    theirs = peft.get_peft_model(theirs, getattr(peft, config)(**settings))
    wanted = shaken(theirs, inputs)
    theirs.save_pretrained(str(folder), safe_serialization=safe)
    return check_we_read(folder, encoder, task, inputs, wanted, padding=padding)


def check_we_read(
    folder: Any,
    encoder: Encoder,
    task: Task,
    inputs: Any,
    wanted: torch.Tensor,
    *,
    padding: bool = True,
) -> Any:
    """Load what another library has saved; its states must be those that it had there (≤ 1e-5)."""
    model = pl.load(folder, encoder=encoder, task=task)
    differences = own_states(model, inputs) - wanted
    if not padding:
        differences = differences[inputs["attention_mask"].bool()]
    assert differences.abs().max() <= 1e-5
    return model


def note(record: Any, method: str, library: str, **found: Any) -> None:
    """Note a row of the parity table.

    Args:
        record: pytest's ``record_property``.
        method: Name in the registry.
        library: ``adapters`` or ``peft``.
        **found: ``states`` and ``gradients``, the largest differences; or ``fails``, one sentence
            that says what the reference gets wrong, and ``differs``, by how much.
    """
    record("parity", {"method": method, "library": library} | found)


def own_states(model: Any, inputs: Any) -> torch.Tensor:
    with torch.no_grad():
        return model.backbone(**inputs).last_hidden_state


def shaken(theirs: Any, inputs: Any) -> torch.Tensor:
    """Move the other library's trained weights; return its states."""
    torch.manual_seed(3)
    theirs.eval()
    with torch.no_grad():
        for parameter in theirs.parameters():
            if parameter.requires_grad:
                parameter.add_(0.2 * torch.randn_like(parameter))
        return theirs(**inputs).last_hidden_state
