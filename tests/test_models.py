"""Model: building, counting, and what may not be combined. Methods have their own contract."""

from __future__ import annotations

import pytest
import torch

import peftlab as pl
from peftlab.errors import MergeError, SettingsError, UnknownNameError


def test_a_batch_gives_logits_and_loss(make_encoder, toy_task):
    from peftlab.training.batches import collate

    model = pl.model(make_encoder("bert"), toy_task, "lora-8")
    features = toy_task.encode(toy_task.rows("train"), model.encoder.tokenizer, 32)
    logits, loss = model(collate(features, 0))
    assert logits.shape == (6, 2)
    expected = torch.nn.functional.cross_entropy(
        logits, torch.tensor([f["labels"] for f in features])
    )
    assert torch.equal(loss, expected)
    without = [{k: v for k, v in f.items() if k != "labels"} for f in features]
    assert model(collate(without, 0)).loss is None


def test_building_leaves_the_random_state_alone(make_encoder, toy_task):
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    pl.model(make_encoder("bert"), toy_task, "lora-8", seed=5)
    assert torch.equal(torch.rand(2), expected)


def test_building_touches_no_generator_of_a_gpu(make_encoder, toy_task, monkeypatch):
    def refuse(seed):
        raise AssertionError(f"the generators of all GPUs were seeded with {seed}")

    monkeypatch.setattr(torch.cuda, "manual_seed_all", refuse)
    model = pl.model(make_encoder("bert"), toy_task, "lora-8", seed=7)
    other = pl.task({"train": toy_task.rows("train")}, kind="classification", name="other")
    pl.add_task(model, other)


@pytest.mark.parametrize(
    ("method", "depth", "words"),
    [
        ("full", -1, "into the embeddings"),
        ({"name": "full", "freeze_embeddings": True}, 0, "down to layer 0"),
        ({"name": "top-layers", "layers": 1}, 2, "down to layer 2"),
        ("head-only", 3, "into the head only"),
        ("lora-8", 0, "down to layer 0"),
    ],
)
def test_the_summary_says_how_deep_the_gradient_goes(make_encoder, toy_task, method, depth, words):
    summary = pl.summary(pl.model(make_encoder("bert"), toy_task, method))
    assert summary.lowest_trained_layer == depth
    assert words in str(summary)


def test_head_and_method_are_counted_apart(make_encoder, toy_task):
    bare = sum(p.numel() for p in make_encoder("bert").backbone.parameters())
    summary = pl.summary(pl.model(make_encoder("bert"), toy_task, "lora-8"))
    assert summary.head == 128 * 2 + 2
    assert summary.backbone == bare
    assert summary.trainable == summary.stored == summary.inference == 3 * 2 * 8 * (128 + 128)


def test_an_encoder_carries_one_method(make_encoder, toy_task):
    encoder = make_encoder("bert")
    pl.model(encoder, toy_task, "lora-8")
    with pytest.raises(SettingsError, match="carries a method already"):
        pl.model(encoder, toy_task, "lora-8")


def test_an_encoder_is_free_again_after_settings_that_do_not_work(make_encoder, toy_task):
    encoder = make_encoder("bert")
    with pytest.raises(SettingsError, match="one number for each"):
        pl.model(encoder, toy_task, pl.LoRA(ranks=(8,)))
    model = pl.model(encoder, toy_task, "lora-8")
    fresh = pl.model(make_encoder("bert"), toy_task, "lora-8")
    assert model.state_dict().keys() == fresh.state_dict().keys()


def test_unknown_methods_and_settings_are_named(make_encoder, toy_task):
    with pytest.raises(UnknownNameError, match="did you mean 'lora"):
        pl.model(make_encoder("bert"), toy_task, "lorra")
    with pytest.raises(SettingsError, match="no setting 'rang'"):
        pl.model(make_encoder("bert"), toy_task, {"name": "lora", "rang": 4})


def test_a_merged_model_has_no_summary(make_encoder, toy_task):
    model = pl.model(make_encoder("bert"), toy_task, "lora-8").merge()
    with pytest.raises(MergeError, match="call unmerge"):
        pl.summary(model)


def test_importing_is_quick_and_public_names_are_there():
    import subprocess
    import sys

    code = (
        "import sys, peftlab; heavy = {'torch', 'transformers', 'pandas', 'datasets', 'pydantic',"
        " 'matplotlib', 'sklearn', 'scipy'} & set(sys.modules); assert not heavy, heavy;"
        " missing = [n for n in peftlab.__all__ if not hasattr(peftlab, n)]; assert not missing"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    with pytest.raises(AttributeError):
        pl.no_such_name  # noqa: B018


@pytest.mark.parametrize("method", ["full", "head-only", "lora-8"])
def test_an_encoder_serves_one_model(make_encoder, toy_task, method):
    encoder = make_encoder("bert")
    model = pl.model(encoder, toy_task, method)
    if method == "lora-8":
        model.merge()  # no part is left in the encoder, but its weights are others
    with pytest.raises(SettingsError, match="load it again"):
        pl.model(encoder, toy_task, "lora-8")


def test_a_merged_model_may_move_before_it_is_unmerged(make_encoder, toy_task):
    model = pl.model(make_encoder("bert"), toy_task, pl.LoRA(dropout=0.5)).merge()
    model.to(torch.bfloat16).train()
    model.unmerge()
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}
    assert all(module.training for module in model.backbone.encoder.layer[0].modules())
    model.eval()(toy_batch(model, toy_task))


def toy_batch(model, task):
    from peftlab.training.batches import collate

    return collate(task.encode(task.rows("train"), model.encoder.tokenizer, 32), 0)
