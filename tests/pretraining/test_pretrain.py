"""The whole of pretraining on a tiny scale: what it writes, and that it survives being killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from peftlab.encoders import language_model_head, load_encoder
from peftlab.errors import CheckpointError, NonFiniteLossError
from peftlab.pretraining import pretrain
from peftlab.pretraining.stage import Stage

FILES = {
    "config.json",
    "model.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
    "1_Pooling/config.json",
}


def written(folder: Path) -> set[str]:
    return {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}


def test_writes_an_encoder_that_loads_and_learned(recipe: Path, tmp_path: Path) -> None:
    out = tmp_path / "encoder"
    out.mkdir()
    (out / "README.md").write_text("the card")
    report = pretrain(recipe, out, tmp_path / "work")
    assert written(out) == FILES | {"README.md"}
    encoder = load_encoder(str(out))
    assert encoder.pooling == "mean"
    assert encoder.anatomy.hidden_size == 64 and encoder.anatomy.max_length == 48
    assert encoder.tokenizer.tokenize("DER ALTE HÜND") == encoder.tokenizer.tokenize(
        "der alte hund"
    )
    assert encoder.tokenizer.model_max_length == 48
    ids = encoder.tokenizer("Der alte Hund.", return_tensors="pt")
    assert torch.isfinite(encoder.backbone(**ids).last_hidden_state).all()
    bag = [entry["cosine"] for entry in report["curves"]["bag"]]
    assert sum(bag[-3:]) > sum(bag[:3])
    assert report["parameters"] == sum(p.numel() for p in encoder.backbone.parameters())
    head = language_model_head(encoder)
    assert head is not None
    # begins at the logarithm of how often a piece occurs, not at 0 as a fresh one does
    assert head["bias"].std() > 0.5


def test_same_recipe_same_weights(recipe: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):
        pretrain(recipe, tmp_path / name, tmp_path / f"work-{name}")
    weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("one", "two")]
    assert weights[0] == weights[1]


@pytest.mark.parametrize(("stage", "step"), [("bag", 7), ("encoder", 17)])
def test_resumes_to_the_same_curve(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: str, step: int
) -> None:
    whole = pretrain(recipe, tmp_path / "whole", tmp_path / "work-whole")
    save = Stage._save

    def interrupt(self: Stage) -> None:
        save(self)
        if self.name == stage and self.step == step:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Stage, "_save", interrupt)
        with pytest.raises(KeyboardInterrupt):
            pretrain(recipe, tmp_path / "cut", tmp_path / "work-cut", checkpoint_s=0)
    assert not (tmp_path / "cut").exists()
    resumed = pretrain(recipe, tmp_path / "cut", tmp_path / "work-cut")
    assert resumed["curves"] == whole["curves"]
    weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("whole", "cut")]
    assert weights[0] == weights[1]


def test_survives_sigkill(recipe: Path, tmp_path: Path) -> None:
    """A process killed while it trains leaves what the next one goes on from."""
    code = (
        "import sys; from peftlab.pretraining import pretrain; "
        "pretrain(sys.argv[1], sys.argv[2], sys.argv[3], checkpoint_s=0)"
    )
    recipe.write_text(recipe.read_text().replace("steps = 20", "steps = 60"))
    out, work = tmp_path / "out", tmp_path / "work"
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(recipe), str(out), str(work)],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )
    while not list(work.glob("*/encoder.safetensors")) and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not out.exists()
    report = pretrain(recipe, out, work)
    assert len(report["curves"]["encoder"]) == 60
    assert written(out) == FILES


def test_damaged_checkpoint_is_named(recipe: Path, tmp_path: Path) -> None:
    pretrain(recipe, tmp_path / "out", tmp_path / "work")
    checkpoint = next((tmp_path / "work").glob("*/bag.safetensors"))
    checkpoint.write_bytes(checkpoint.read_bytes()[:100])
    with pytest.raises(CheckpointError, match="bag.safetensors cannot be read"):
        pretrain(recipe, tmp_path / "out", tmp_path / "work")


def test_divergence_stops(recipe: Path, tmp_path: Path) -> None:
    text = recipe.read_text().replace("masked = 0.2", "masked = 1e39")
    recipe.write_text(text)
    with pytest.raises(NonFiniteLossError, match="encoder stage is inf at step"):
        pretrain(recipe, tmp_path / "out", tmp_path / "work")
    assert not (tmp_path / "out").exists()
