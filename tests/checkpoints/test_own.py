"""Checkpoints: what is saved comes back in a fresh process, and nothing else is accepted."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import peftlab as pl
from peftlab import checkpoints, methods
from peftlab.checkpoints.format import FILE
from peftlab.errors import CheckpointError
from peftlab.files import replacing
from peftlab.training.batches import collate
from peftlab.training.run import run_settings

MODEL_TYPES = ("bert", "roberta", "xlm-roberta")
METHODS = {method: name for name, method in methods.catalogue().items()}  # each once


def trained(encoder: Any, task: Any, method: Any) -> Any:
    """A model whose trained weights have moved away from their start."""
    model = pl.model(encoder, task, method)
    torch.manual_seed(2)
    with torch.no_grad():
        for _, parameter in model.trainable_parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def logits(model: Any, rows: Any) -> torch.Tensor:
    features = model.task.encode(rows, model.encoder.tokenizer, 64)
    batch = collate(features, model.encoder.tokenizer.pad_token_id)
    with torch.no_grad():
        return model({k: v for k, v in batch.items() if k != "labels"}).logits


def rewrite(folder: Path, change: Any) -> None:
    """Let ``change(tensors, header)`` edit a checkpoint."""
    path = folder / FILE
    with safe_open(path, framework="pt") as file:
        header = json.loads(file.metadata()["peftlab"])
    tensors = load_file(path)
    change(tensors, header)
    save_file(tensors, path, metadata={"peftlab": json.dumps(header)})


@pytest.fixture
def saved(make_encoder, toy_task, tmp_path) -> Path:
    """A saved LoRA."""
    return trained(make_encoder(), toy_task, pl.LoRA()).save(tmp_path / "lora")


FRESH = """
import json, sys
import torch
import peftlab as pl
from peftlab.training.batches import collate

rows = json.loads(sys.argv[1])
task = pl.task({"train": rows}, kind="classification", name="toy")
found = {}
for folder in sys.argv[3:]:
    model = pl.load(folder, task=task)
    features = model.task.encode(rows, model.encoder.tokenizer, 64)
    batch = collate(features, model.encoder.tokenizer.pad_token_id)
    batch.pop("labels")
    with torch.no_grad():
        found[folder] = model(batch).logits
torch.save(found, sys.argv[2])
"""


def test_round_trip_in_a_fresh_process(make_encoder, toy_task, rows, tmp_path):
    """Every method on every family: bitwise the same logits where only the folder is known."""
    wanted = {}
    for model_type in MODEL_TYPES:
        for method, name in METHODS.items():
            model = trained(make_encoder(model_type), toy_task, method)
            wanted[str(model.save(tmp_path / model_type / name))] = logits(model, rows)
    out = tmp_path / "logits.pt"
    subprocess.run(
        [sys.executable, "-c", FRESH, json.dumps(rows), str(out), *wanted],
        check=True,
        cwd=Path(__file__).parents[2],
        env=os.environ | {"OMP_NUM_THREADS": str(torch.get_num_threads())},
    )
    found = torch.load(out, weights_only=True)
    assert found.keys() == wanted.keys()
    for folder in wanted:
        assert torch.equal(found[folder], wanted[folder]), folder


def test_the_folder(make_encoder, toy_task, tmp_path):
    model = trained(make_encoder(), toy_task, pl.LoRA(rank=2))
    folder = model.save(tmp_path / "new" / "lora")
    assert sorted(p.name for p in folder.iterdir()) == ["model.safetensors", "peftlab.json"]
    note = json.loads((folder / "peftlab.json").read_text())
    assert note["method"] == pl.LoRA(rank=2).settings()
    assert note["encoder"]["fingerprint"] == model.encoder.fingerprint
    assert note["task"] == {"name": "toy", "kind": "classification", "labels": ["bad", "good"]}
    tensors = load_file(folder / "model.safetensors")
    counts = pl.summary(model)
    assert sum(t.numel() for t in tensors.values()) == counts.stored + counts.head
    (folder / "peftlab.json").unlink()  # for people only
    assert pl.load(folder, task=toy_task).method == pl.LoRA(rank=2)


def test_saving_again_replaces(make_encoder, toy_task, rows, tmp_path):
    trained(make_encoder(), toy_task, pl.LoRA()).save(tmp_path)
    second = trained(make_encoder(), toy_task, pl.Adapter())
    second.save(tmp_path)
    assert torch.equal(logits(pl.load(tmp_path, task=toy_task), rows), logits(second, rows))


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "file"
    path.write_text("old")

    def write_half() -> None:
        with replacing(path) as temporary:
            temporary.write_text("half")
            raise RuntimeError("power cut")

    with pytest.raises(RuntimeError, match="power cut"):
        write_half()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_the_type_of_the_weights_comes_back(make_encoder, toy_task, rows, tmp_path):
    model = trained(make_encoder(), toy_task, pl.LoRA()).to(torch.bfloat16)
    found = pl.load(model.save(tmp_path), task=toy_task)
    assert next(found.parameters()).dtype == torch.bfloat16
    assert torch.equal(logits(found, rows), logits(model, rows))


def test_an_encoder_that_is_given_keeps_its_type(make_encoder, toy_task, tmp_path):
    model = pl.model(make_encoder("bert"), toy_task, "lora-8")
    with torch.no_grad():
        for _, tensor in model.trainable_parameters():
            tensor.add_(torch.rand_like(tensor))
    model.save(tmp_path)
    half = make_encoder("bert")
    half.fingerprint  # noqa: B018  # of the weights as loaded
    half.backbone.to(torch.bfloat16)
    found = pl.load(tmp_path, encoder=half, task=toy_task)
    assert {p.dtype for p in found.parameters()} == {torch.bfloat16}
    whole = pl.load(tmp_path, encoder=make_encoder("bert"), task=toy_task).state_dict()
    assert all(torch.equal(whole[name], tensor) for name, tensor in model.state_dict().items())


def test_attention_kernel_and_pooling_come_back(make_encoder, toy_task, tmp_path):
    model = pl.model(make_encoder(attention="eager"), toy_task, pl.LoRA(), pooling="mean")
    found = pl.load(model.save(tmp_path), task=toy_task)
    assert found.backbone.config._attn_implementation == "eager"
    assert found.head.pooling == "mean"
    assert found.options == model.options == {"attention": "eager", "pooling": "mean"}


def test_a_record_tells_where_training_began(make_encoder, toy_task, tmp_path):
    """A loaded model has the run ids of the one that was saved; a foreign one ids of its own."""
    settings = pl.TrainSettings()
    model = pl.model(make_encoder(), toy_task, pl.LoRA())

    def run(model: Any) -> str:
        return run_settings(model, toy_task, settings, (), "").id

    found = pl.load(model.save(tmp_path / "ours"), task=toy_task)
    assert run(found) == run(model)
    ids = [run(model)]
    for k in range(2):
        other = pl.model(make_encoder(), toy_task, pl.LoRA(), seed=k)
        folder = other.save(tmp_path / f"{k}", format="peft")
        ids += [run(pl.load(folder, encoder=make_encoder(), task=toy_task)) for _ in range(2)]
    assert ids[1] == ids[2] != ids[3] == ids[4]
    assert ids[0] not in ids[1:]


def test_the_length_of_the_inputs_comes_back(make_encoder, toy_task, tmp_path):
    model = pl.model(make_encoder(), toy_task, pl.LoRA())
    for length, asked in enumerate((None, 6, 9)):
        model.max_length = asked
        folder = model.save(tmp_path / str(length))
        assert pl.load(folder, task=toy_task).max_length == asked
    folders = [tmp_path / str(k) for k in range(3)]
    assert pl.average(folders, task=toy_task).max_length == 9
    assert pl.average(folders[:1] * 2, task=toy_task).max_length is None


def test_a_merged_model_is_not_saved(make_encoder, toy_task, tmp_path):
    model = pl.model(make_encoder(), toy_task, pl.LoRA()).merge()
    with pytest.raises(CheckpointError, match=r"unmerge\(\)"):
        model.save(tmp_path / "merged")
    assert not (tmp_path / "merged").exists()


def test_nothing_there(tmp_path):
    with pytest.raises(CheckpointError, match=r"model\.safetensors is missing"):
        pl.load(tmp_path)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda t, h: t.pop("head.out.bias"), r"lacks the tensor 'head\.out\.bias'"),
        (lambda t, h: t.update(extra=torch.zeros(1)), "against expectation, the tensor 'extra'"),
        (lambda t, h: t.update({"head.out.bias": torch.zeros(3)}), "another shape"),
        (lambda t, h: h["encoder"].update(fingerprint="0"), "other weights"),
        (lambda t, h: h["method"].update(rank=4), "another shape"),
        (lambda t, h: h["task"].update(labels=["no", "yes"]), "with labels"),
        (lambda t, h: h["task"].update(kind="tagging"), "with kind"),
        (lambda t, h: h["head"].update(layers=2), "with layers"),
        (lambda t, h: h.update(format=2), "newer"),
        (lambda t, h: h["encoder"].update(random_weights=True), "random weights"),
    ],
)
def test_what_does_not_fit_is_refused(saved, toy_task, change, words):
    rewrite(saved, change)
    with pytest.raises(CheckpointError, match=words):
        pl.load(saved, task=toy_task)


def test_damage(saved, toy_task):
    path = saved / FILE
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match="damaged"):
        pl.load(saved, task=toy_task)


def test_a_file_of_somebody_else(tmp_path):
    save_file({"weight": torch.zeros(2)}, tmp_path / FILE)
    with pytest.raises(CheckpointError, match="not written by peftlab"):
        pl.load(tmp_path)


def test_another_backbone(saved, make_encoder, toy_task):
    encoder = make_encoder("roberta")
    with pytest.raises(CheckpointError, match="other weights"):
        pl.load(saved, encoder=encoder, task=toy_task)


def test_another_task(saved, rows):
    other = pl.task(
        {"train": [{"text": r["text"], "label": r["label"] + "!"} for r in rows]},
        kind="classification",
    )
    with pytest.raises(CheckpointError, match="made for the task 'toy'"):
        pl.load(saved, task=other)


def test_own_data_must_be_given(saved):
    with pytest.raises(CheckpointError, match="give it with task="):
        pl.load(saved)


def test_restore_refuses_another_method_and_changes_nothing(saved, make_encoder, toy_task):
    model = pl.model(make_encoder(), toy_task, pl.LoRA(rank=4))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(CheckpointError, match=r"rank=8.*but the model has.*rank=4"):
        checkpoints.restore(model, saved)
    assert all(torch.equal(t, before[name]) for name, t in model.state_dict().items())


def test_restore(saved, make_encoder, toy_task, rows):
    model = pl.model(make_encoder(), toy_task, pl.LoRA(), seed=5)
    checkpoints.restore(model, saved)
    assert torch.equal(logits(model, rows), logits(pl.load(saved, task=toy_task), rows))
