"""Encoders: where they come from, their anatomy, and what goes wrong on the way."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import nn

from peftlab.encoders import (
    LINEARS,
    describe,
    encoder_from,
    language_model_head,
    load_encoder,
    resolve,
)
from peftlab.errors import DataError, OfflineError, SettingsError
from tests.conftest import tiny_backbone


def test_a_folder_is_an_encoder(tiny_folder, model_type):
    encoder = load_encoder(str(tiny_folder(model_type)))
    out = encoder.backbone(**encoder.tokenizer("the old dog", return_tensors="pt"))
    assert out.last_hidden_state.shape[-1] == encoder.anatomy.hidden_size == 128
    assert not encoder.backbone.training
    assert encoder.backbone.pooler is None


def test_the_anatomy_finds_every_linear_map(encoder):
    anatomy = encoder.anatomy
    assert [layer.index for layer in anatomy.layers] == [0, 1, 2]
    for layer in anatomy.layers:
        linears = {name: slot.get() for name, slot in layer.linears().items()}
        assert tuple(linears) == LINEARS
        shapes = {name: tuple(linear.weight.shape) for name, linear in linears.items()}
        assert shapes["query"] == shapes["value"] == shapes["attention_output"] == (128, 128)
        assert shapes["intermediate"] == (192, 128)
        assert shapes["output"] == (128, 192)
    in_layers = {id(m) for layer in anatomy.layers for m in layer.module.modules()}
    every = [m for m in encoder.backbone.encoder.modules() if isinstance(m, nn.Linear)]
    assert len(every) == 18
    assert all(id(m) in in_layers for m in every)


def test_the_longest_input_really_fits(encoder):
    longest = encoder.anatomy.max_length
    assert longest == 64
    encoder.backbone(input_ids=torch.full((1, longest), 5))
    with pytest.raises((IndexError, RuntimeError)):
        encoder.backbone(input_ids=torch.full((1, longest + 1), 5))


def test_a_slot_replaces_a_module(encoder):
    slot = encoder.anatomy.layers[1].query
    slot.set(nn.Identity())
    assert isinstance(encoder.backbone.encoder.layer[1].attention.self.query, nn.Identity)


def test_the_fingerprint_is_of_the_weights(tiny_folder, make_encoder):
    encoder = make_encoder("bert")
    assert encoder.fingerprint == make_encoder("bert").fingerprint
    with torch.no_grad():
        encoder.backbone.embeddings.word_embeddings.weight[0, 0] += 1
    assert encoder_from(encoder.backbone, None).fingerprint != encoder.fingerprint


@pytest.mark.parametrize(
    ("family", "begins"),
    [
        ("bert", "b827ea7e4e13"),
        ("roberta", "01dd909b4c3f"),
        ("xlm-roberta", "01dd909b4c3f"),
        ("camembert", "01dd909b4c3f"),
    ],
)
def test_the_fingerprint_is_the_same_under_every_release_of_transformers(family, begins):
    backbone = tiny_backbone(family)
    with torch.no_grad():
        for i, (_, tensor) in enumerate(sorted(backbone.named_parameters())):
            tensor.copy_((torch.arange(tensor.numel()) % 97 + i).reshape(tensor.shape))
    assert encoder_from(backbone, None).fingerprint.startswith(begins)


@pytest.mark.parametrize("kind", ["relative_key", "relative_key_query"])
def test_relative_positions_are_refused(kind):
    with pytest.raises(SettingsError, match=f"has '{kind}' positions"):
        encoder_from(tiny_backbone("bert", position_embedding_type=kind), None)


def test_random_weights_follow_torchs_seed(tiny_folder):
    def fingerprint(seed: int) -> str:
        torch.manual_seed(seed)
        return load_encoder(str(tiny_folder("bert")), random_weights=True).fingerprint

    assert fingerprint(1) == fingerprint(1) != fingerprint(2)


def test_pooling_is_read_from_beside_the_weights(tiny_folder, tmp_path, make_encoder):
    import shutil

    assert make_encoder("bert").pooling == "cls"
    folder = shutil.copytree(tiny_folder("bert"), tmp_path / "model")
    (folder / "1_Pooling").mkdir()
    note = json.dumps({"pooling_mode_mean_tokens": True})
    (folder / "1_Pooling" / "config.json").write_text(note)
    assert load_encoder(str(folder)).pooling == "mean"


def test_local_models_come_before_the_hub(tiny_folder, tmp_path, monkeypatch):
    (tmp_path / "owner").mkdir()
    (tmp_path / "owner" / "name").symlink_to(tiny_folder("bert"))
    monkeypatch.setenv("PEFTLAB_MODELS", str(tmp_path))
    assert load_encoder("owner/name").name == "owner/name"
    assert resolve("owner/other") == "owner/other"


def test_the_pocket_encoder_ships_with_the_package(monkeypatch):
    monkeypatch.delenv("PEFTLAB_MODELS", raising=False)
    encoder = load_encoder("pocket")
    assert encoder.pooling == "mean"
    assert encoder.tokenizer.tokenize("Гулять")
    assert language_model_head(encoder) is not None
    shipped = (path for path in Path(encoder.source).rglob("*") if path.is_file())
    assert sum(path.stat().st_size for path in shipped) <= 16e6


def test_the_pocket_tokenizer_marks_ends_and_pairs():
    """It must say so itself: transformers 4 adds nothing to a tokenizer that does not."""
    tokenizer = load_encoder("pocket").tokenizer
    first, second = (
        tokenizer(text, add_special_tokens=False)["input_ids"] for text in ("one", "два")
    )
    pair = tokenizer("one", "два")
    cls, sep = tokenizer.cls_token_id, tokenizer.sep_token_id
    assert pair["input_ids"] == [cls, *first, sep, *second, sep]
    assert pair["token_type_ids"] == [0] * (len(first) + 2) + [1] * (len(second) + 1)
    assert tokenizer("one")["input_ids"] == [cls, *first, sep]


def test_an_unknown_name_says_how_to_work_offline(monkeypatch):
    monkeypatch.delenv("PEFTLAB_MODELS", raising=False)
    with pytest.raises(OfflineError, match=r"'no-such/model'.*PEFTLAB_MODELS"):
        load_encoder("no-such/model")


def test_a_folder_without_a_model_is_named(tmp_path):
    with pytest.raises(DataError, match=r"config\.json is missing"):
        load_encoder(str(tmp_path))


def test_a_truncated_weights_file_is_named(tiny_folder, tmp_path):
    import shutil

    folder = shutil.copytree(tiny_folder("bert"), tmp_path / "model")
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(DataError, match="cannot be read"):
        load_encoder(str(folder))


def test_missing_weights_are_no_reason_to_guess(tiny_folder, tmp_path):
    import shutil

    from safetensors.torch import load_file, save_file

    folder = shutil.copytree(tiny_folder("bert"), tmp_path / "model")
    tensors = load_file(folder / "model.safetensors")
    del tensors["encoder.layer.2.output.dense.weight"]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(DataError, match=r"encoder\.layer\.2\.output\.dense\.weight"):
        load_encoder(str(folder))


def test_unknown_attention_is_refused():
    with pytest.raises(SettingsError, match="choose one of sdpa, eager"):
        load_encoder("pocket", attention="flash")


def test_another_architecture_is_refused():
    from transformers import AutoConfig, AutoModel

    gpt = AutoModel.from_config(
        AutoConfig.for_model("gpt2", n_layer=1, n_embd=8, n_head=2, vocab_size=11)
    )
    with pytest.raises(SettingsError, match="use a BERT, RoBERTa or XLM-RoBERTa encoder"):
        describe(gpt)


def spoil_json(folder, name, **changes):
    settings = json.loads((folder / name).read_text())
    (folder / name).write_text(json.dumps(settings | changes))


@pytest.mark.parametrize(
    "spoil",
    [
        lambda folder: (folder / "tokenizer.json").write_text('{"version": "1.0", "trunc'),
        lambda folder: (folder / "tokenizer.json").write_text(""),
        lambda folder: [file.unlink() for file in folder.glob("*token*")],
        lambda folder: (folder / "config.json").write_text('{"model_type": "be'),
        lambda folder: spoil_json(folder, "config.json", intermediate_size=48),
        lambda folder: spoil_json(folder, "config.json", model_type="unheard-of"),
    ],
    ids=["tokenizer cut", "tokenizer empty", "no tokenizer", "config cut", "sizes", "architecture"],
)
def test_a_damaged_folder_is_one_sentence(tiny_folder, tmp_path, spoil):
    import shutil

    folder = shutil.copytree(tiny_folder("bert"), tmp_path / "model")
    spoil(folder)
    with pytest.raises(DataError, match="cannot be read") as error:
        load_encoder(str(folder))
    assert "\n" not in str(error.value)


def test_positions_of_every_family_are_counted_right():
    from transformers import AutoModel

    from tests.conftest import tiny_config

    # built like RoBERTa, without its name
    camembert = AutoModel.from_config(tiny_config("camembert", pad_token_id=1))
    assert describe(camembert).max_length == 64


def test_layers_that_normalise_before_are_refused():
    from transformers import AutoConfig, AutoModel

    sizes = {"vocab_size": 11, "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = AutoConfig.for_model("xlm-roberta-xl", intermediate_size=16, **sizes)
    with pytest.raises(SettingsError, match="not built as BERT's are"):
        describe(AutoModel.from_config(config))
