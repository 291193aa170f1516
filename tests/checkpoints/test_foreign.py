"""Foreign checkpoints that peftlab cannot honour in full are refused; heads are named, not read.

That right ones are read and written right is in tests/methods/test_parity.py.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import peftlab as pl
from peftlab.errors import CheckpointError


@pytest.fixture
def written(make_encoder, toy_task, tmp_path):
    """Return a function that writes a LoRA in another library's format."""

    def write(library: str) -> Path:
        model = pl.model(make_encoder(), toy_task, pl.LoRA(alpha=4))
        return model.save(tmp_path / library, format=library)

    return write


def edit(folder: Path, **changes: object) -> None:
    path = folder / "adapter_config.json"
    config = json.loads(path.read_text())
    config.get("config", config).update(changes)
    path.write_text(json.dumps(config))


@pytest.mark.parametrize(
    ("library", "changes", "words"),
    [
        ("peft", {"use_rslora": True}, "sets use_rslora to True"),
        ("peft", {"use_dora": True}, "sets use_dora to True"),
        ("peft", {"init_lora_weights": "pissa"}, "sets init_lora_weights to 'pissa'"),
        ("peft", {"init_lora_weights": "olora"}, "sets init_lora_weights to 'olora'"),
        ("peft", {"bias": "all"}, "sets bias to 'all'"),
        ("peft", {"rank_pattern": {"query": 2}}, "rank_pattern gives the maps of layer 0"),
        ("peft", {"peft_type": "VERA"}, "of a method of peft"),
        ("peft", {"r": 4}, "another shape"),
        ("peft", {"target_modules": ["query"]}, "against expectation"),
        ("peft", {"target_modules": ["classifier"]}, "cannot be read"),
        ("adapters", {"composition_mode": "scale"}, "sets r to 8"),
        ("adapters", {"use_gating": True}, "lacks the tensor"),
        ("adapters", {"architecture": "reft"}, "of a method of adapters"),
        ("adapters", {"attn_matrices": ["q", "k", "v"]}, "lacks the tensor"),
        ("adapters", {"r": 0}, "rank is 0"),
    ],
    ids=str,
)
def test_settings_that_are_not_ours(make_encoder, toy_task, written, library, changes, words):
    folder = written(library)
    edit(folder, **changes)
    with pytest.raises(CheckpointError, match=words):
        pl.load(folder, encoder=make_encoder(), task=toy_task)


@pytest.mark.parametrize(
    ("config", "settings"),
    [
        ("AdapterPlusConfig", {"stochastic_depth": 0.0}),
        ("CompacterConfig", {"reduction_factor": 2}),
        ("IA3Config", {"alpha": 2}),
        ("LoReftConfig", {}),
        ("VeraConfig", {}),
    ],
)
def test_adapters_that_are_not_ours(make_encoder, toy_task, tmp_path, config, settings):
    adapters = pytest.importorskip("adapters")
    theirs = make_encoder().backbone
    adapters.init(theirs)
    theirs.add_adapter("mine", config=getattr(adapters, config)(**settings))
    theirs.save_adapter(str(tmp_path), "mine")  # a .bin: safetensors refuses their shared tensors
    with pytest.raises(CheckpointError):
        pl.load(tmp_path, encoder=make_encoder(), task=toy_task)


def test_loras_before_adapters_1_1_ignored_alpha(make_encoder, toy_task, written):
    folder = written("adapters")
    assert pl.load(folder, encoder=make_encoder(), task=toy_task).method.alpha == 4
    path = folder / "adapter_config.json"
    path.write_text(path.read_text().replace("adapters.1.3.0", "adapters.1.0.1"))
    assert pl.load(folder, encoder=make_encoder(), task=toy_task).method.alpha == 8


def test_a_head_is_named_and_not_read(make_encoder, toy_task, written):
    folder = written("peft")
    path = folder / "adapter_model.safetensors"
    tensors = load_file(path)
    tensors = {name.replace(".encoder.", ".bert.encoder."): t for name, t in tensors.items()}
    save_file(tensors | {"base_model.model.classifier.weight": torch.zeros(2, 32)}, path)
    with pytest.warns(UserWarning, match=r"base_model\.model\.classifier\.weight"):
        model = pl.load(folder, encoder=make_encoder(), task=toy_task, seed=7)
    fresh = pl.model(make_encoder(), toy_task, pl.LoRA(alpha=4), seed=7)
    assert torch.equal(model.head.out.weight, fresh.head.out.weight)


def test_encoder_and_task_must_be_given(written, make_encoder):
    folder = written("peft")
    with pytest.raises(CheckpointError, match="give encoder=… and task=…"):
        pl.load(folder)
    with pytest.raises(CheckpointError, match="give encoder=… and task=…"):
        pl.load(folder, encoder=make_encoder())


@pytest.mark.parametrize(
    ("method", "library"),
    [
        (pl.Full(), "adapters"),
        (pl.Full(), "peft"),
        (pl.Adapter(), "peft"),
        (pl.LoRA(targets=("attention_output",)), "adapters"),
    ],
    ids=str,
)
def test_methods_that_the_library_does_not_have(make_encoder, toy_task, tmp_path, method, library):
    model = pl.model(make_encoder(), toy_task, method)
    with pytest.raises(CheckpointError, match="cannot hold"):
        model.save(tmp_path / "x", format=library)
    assert not (tmp_path / "x").exists()


def test_an_unknown_format(make_encoder, toy_task, tmp_path):
    model = pl.model(make_encoder(), toy_task, pl.LoRA())
    with pytest.raises(CheckpointError, match="choose one of peftlab, adapters, peft"):
        model.save(tmp_path / "x", format="onnx")


class Intruder:
    """Would run code when it is unpickled."""

    def __reduce__(self) -> tuple[object, tuple[str, ...]]:
        return (print, ("unpickled",))


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda f: (f / "adapter_model.safetensors").unlink(), "holds neither"),
        (lambda f: (f / "adapter_model.safetensors").write_bytes(b"short"), "damaged"),
        (lambda f: (f / "adapter_config.json").write_text("{"), "neither of adapters nor of peft"),
        (lambda f: (f / "adapter_config.json").write_text("{}"), "neither of adapters nor of peft"),
    ],
)
def test_damage(make_encoder, toy_task, written, damage, words):
    folder = written("peft")
    damage(folder)
    with pytest.raises(CheckpointError, match=words):
        pl.load(folder, encoder=make_encoder(), task=toy_task)


def test_code_in_a_bin_file_does_not_run(make_encoder, toy_task, written, capsys):
    folder = written("peft")
    (folder / "adapter_model.safetensors").unlink()
    torch.save({"weight": Intruder()}, folder / "adapter_model.bin")
    with pytest.raises(CheckpointError, match="more than tensors"):
        pl.load(folder, encoder=make_encoder(), task=toy_task)
    assert "unpickled" not in capsys.readouterr().out
