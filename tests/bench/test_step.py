"""The step bench: both sides do the same work, or nothing is timed."""

from __future__ import annotations

import pytest
import torch

from peftlab.bench import step
from peftlab.costs import Pass, random_batch
from peftlab.encoders import shape
from peftlab.errors import TrainingError
from peftlab.methods import get

LIBRARIES = ("adapters", "peft")


@pytest.fixture(scope="module")
def encoder():
    torch.manual_seed(0)
    return shape(step.SHAPE, "cpu")


@pytest.mark.parametrize(
    ("name", "library"),
    [("pfeiffer-16", "adapters"), ("prompt-10", "adapters"), ("lora-8", "peft"), ("ia3", "peft")],
)
def test_both_sides_train_the_same_and_have_one_loss(encoder, name, library):
    pytest.importorskip(library)
    method = {label: m for label, m, _ in step._pairs(library)}[name]
    batch = random_batch(encoder, 2, 8)
    ours, theirs = step.both(encoder, method, library)
    step._check_same(name, library, ours, theirs, batch)
    counts = [
        sum(p.numel() for p in each.parameters() if p.requires_grad) for each in (ours, theirs)
    ]
    assert counts[0] == counts[1]
    for each in (ours, theirs):
        Pass(each, batch)()


def test_other_work_is_not_timed(encoder):
    pytest.importorskip("peft")
    ours, theirs = step.both(encoder, get("lora-8"), "peft")
    with torch.no_grad():
        for name, parameter in theirs.named_parameters():
            if "lora_B" in name:
                parameter.add_(0.5)
    with pytest.raises(TrainingError, match="not be the same work"):
        step._check_same("lora-8", "peft", ours, theirs, random_batch(encoder, 2, 8))


@pytest.mark.parametrize("library", LIBRARIES)
def test_every_shared_method_is_a_pair(library):
    labels = {label for label, _, _ in step._pairs(library)}
    expected = {
        "adapters": {"pfeiffer-16", "houlsby-16", "lora-8", "compacter", "mam", "unipelt-flat"},
        "peft": {"lora-8", "ia3", "prefix-30", "prompt-10", "layernorm"},
    }
    assert expected[library] <= labels


@pytest.mark.filterwarnings("ignore::peftlab.timing.NoisyTiming")
def test_rows_are_ours_over_theirs(monkeypatch):
    pytest.importorskip("peft")
    monkeypatch.setattr(step, "LIBRARIES", ("peft",))
    monkeypatch.setattr(step, "_pairs", lambda library: [("lora-8", get("lora-8"), library)])
    monkeypatch.setattr(step, "BATCH", 1)
    monkeypatch.setattr(step, "LENGTH", 4)
    (row,) = step.run(rounds=3)
    assert (row.name, row.against) == ("lora-8", "peft")
    assert row.low <= row.ratio <= row.high
    assert "less is better" in row.unit
