"""The closed form of a step's matrix products is what a real step multiplies, method by method."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import peftlab as pl
from peftlab import methods
from peftlab.encoders import Encoder, encoder_from, shape
from peftlab.errors import SettingsError
from peftlab.methods.work import Work, work
from peftlab.tasks.heads import HEADS, Head
from peftlab.timing.flops import Flops, count
from tests.conftest import tiny_backbone

CATALOGUE = methods.catalogue()
#: What no preset has: parts that read what a member below has changed, and what leaves parts out.
OTHERS = {
    "houlsby with a gate": pl.Adapter(placement="houlsby", gate="real"),
    "bapna with a gate": pl.Adapter(placement="bapna", gate="all", leave_out=(0,)),
    "houlsby, parallel": pl.Adapter(placement="houlsby", parallel=True, leave_out=(1,)),
    "lora everywhere": pl.LoRA(
        targets=("query", "key", "value", "attention_output", "intermediate", "output"),
        ranks=(0, 3, 2),
        gate="real",
    ),
    "ia3 with gates": pl.IA3(gate="all", leave_out=(0,)),
    "ia3 of inputs": pl.IA3(outputs=(), inputs=("key", "intermediate")),
    "one bias a layer": methods.get({"name": "bitfit", "terms": ["value", "intermediate"]}),
    "norms above": methods.get({"name": "layernorm", "norms": ["output_layernorm"]}),
    "one layer": methods.get({"name": "top-layers", "layers": 1}),
    "prefix above": pl.Prefix(leave_out=(0, 1), gate="real", reparameterised=True),
    "words first": pl.Prompt(place="before"),
    "fused houlsby": methods.get(
        {"name": "adapterfusion", "adapter": {"name": "adapter", "placement": "houlsby"}}
    ),
    "norms and adapters": pl.Union(
        methods.get({"name": "layernorm", "norms": ["attention_layernorm"]}), pl.Adapter()
    ),
    "words, coupling, prompt": pl.Union(
        pl.Prompt(place="before"), methods.get("invertible"), pl.Prefix(), pl.LoRA()
    ),
    "coupling below a prompt": pl.Union(methods.get("invertible"), pl.Prompt()),
    "stack": pl.Stack(pl.Adapter(parallel=True), pl.Adapter(gate="real"), pl.Adapter()),
}
METHODS = {
    name: method
    for name, method in (CATALOGUE | OTHERS).items()
    if method.name != "adapterdrop-robust"  # its steps differ; they are below
}
TEXTS, LENGTH = 2, 7


@pytest.fixture
def batch() -> dict[str, Any]:
    """Two texts, one of them padded."""
    mask = torch.ones(TEXTS, LENGTH, dtype=torch.long)
    mask[1, 4:] = 0
    ids = torch.randint(5, 20, (TEXTS, LENGTH), generator=torch.Generator().manual_seed(0))
    return {"input_ids": ids, "attention_mask": mask, "labels": torch.tensor([0, 1])}


def predicted(model: Any, **options: Any) -> Work:
    return work(model.encoder.anatomy, model.method, TEXTS, LENGTH, head=model.head, **options)


def test_the_catalogue_is_covered():
    assert {"adapterdrop-robust"} == CATALOGUE.keys() - METHODS.keys()


@pytest.mark.parametrize("name", METHODS)
def test_a_training_step(make_encoder, toy_task, batch, name):
    """With dropout attention is two products, each of whose operands has a gradient or not."""
    model = pl.model(make_encoder(), toy_task, METHODS[name]).train()
    found, closed = count(lambda: model(batch).loss), predicted(model)
    assert found == Flops(closed.forward, closed.backward)
    assert closed.total == found.total > 0


@pytest.mark.parametrize("name", METHODS)
def test_a_training_step_with_fused_attention(toy_task, batch, name):
    """Without dropout the kernel is one, and its backward pass has all gradients or none."""
    backbone = tiny_backbone("bert", attention_probs_dropout_prob=0.0)
    model = pl.model(encoder_from(backbone, None), toy_task, METHODS[name]).train()
    closed = predicted(model, kernel="fused")
    assert count(lambda: model(batch).loss) == Flops(closed.forward, closed.backward)


@pytest.mark.parametrize("name", CATALOGUE | METHODS)
def test_serving(make_encoder, toy_task, batch, name):
    model = pl.model(make_encoder(), toy_task, (CATALOGUE | METHODS)[name])
    closed = predicted(model, training=False)
    model.flatten()
    with torch.inference_mode():
        found = count(lambda: model(batch).logits)
    assert found == Flops(closed.forward, 0) == Flops(closed.forward, closed.backward)


@pytest.mark.parametrize(
    "method",
    [
        CATALOGUE["adapterdrop-robust"],
        methods.get({"name": "adapterdrop-robust", "draw": "paper"}),
        methods.get({"name": "adapterdrop-robust", "adapter": pl.Adapter(leave_out=(1, 2))}),
        pl.Union(methods.get("adapterdrop-robust"), pl.LoRA()),
    ],
    ids=["released", "paper", "only the lowest adapter", "in a union"],
)
def test_steps_that_differ_by_chance(make_encoder, toy_task, batch, method):
    """Each step is one of the draws, and the closed form is their mean."""
    model = pl.model(make_encoder(), toy_task, method).train()
    anatomy = model.encoder.anatomy
    steps = [
        work(anatomy, drawn, TEXTS, LENGTH, head=model.head) for drawn in method.draws(anatomy)
    ]
    torch.manual_seed(0)
    found = {count(lambda: model(batch).loss) for _ in range(20)}
    assert found == {Flops(step.forward, step.backward) for step in steps}
    assert len(steps) == len(found) > 1
    assert predicted(model).total == pytest.approx(sum(s.total for s in steps) / len(steps), abs=2)


@pytest.mark.parametrize("kind", HEADS)
@pytest.mark.parametrize("layers", [1, 2])
def test_heads(make_encoder, batch, kind, layers):
    encoder = make_encoder()
    encoder.backbone.requires_grad_(False)
    methods.get("lora").attach(encoder)
    encoder.backbone.train()
    head = HEADS[kind](encoder.anatomy.hidden_size, 2, layers=layers)
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}

    def step() -> torch.Tensor:
        hidden = encoder.backbone(**inputs).last_hidden_state
        return head(hidden, inputs | {"num_choices": 2})

    closed = work(encoder.anatomy, methods.get("lora"), TEXTS, LENGTH, head=head)
    assert count(step) == Flops(closed.forward, closed.backward)


def test_a_head_without_a_closed_form_is_refused(make_encoder):
    class Own(Head):
        kind = "own"

        def forward(self, hidden, batch):
            return hidden

        def loss(self, logits, batch):
            return logits.sum()

    with pytest.raises(SettingsError, match="own head have no closed form: count them"):
        work(make_encoder().anatomy, None, TEXTS, LENGTH, head=Own())


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("name", METHODS)
def test_a_training_step_on_a_gpu(make_encoder, toy_task, batch, name):
    """Its kernels are fused with dropout too."""
    model = pl.model(make_encoder(), toy_task, METHODS[name]).cuda().train()
    inputs = {key: value.cuda() for key, value in batch.items()}
    closed = predicted(model, kernel="fused")
    assert count(lambda: model(inputs).loss) == Flops(closed.forward, closed.backward)


def on_meta(encoder: Encoder, method: methods.Method, texts: int, length: int) -> Flops:
    """Count a step of an encoder without weights, whose output stands for the loss."""
    encoder.backbone.requires_grad_(False)
    encoder.backbone.config.pad_token_id = None  # or transformers looks for padding among the ids
    with torch.device("meta"):
        method.attach(encoder)
        ids = torch.ones(texts, length, dtype=torch.long)
    encoder.backbone.train()
    return count(lambda: encoder.backbone(ids).last_hidden_state)


@pytest.mark.parametrize("name", ["full", "full-frozen-embeddings", "lora-8", "unipelt", "prompt"])
def test_a_true_shape(name):
    encoder, method = shape("bert-base", attention="eager"), methods.get(name)
    closed = work(encoder.anatomy, method, 2, 128)
    assert on_meta(encoder, method, 2, 128) == Flops(closed.forward, closed.backward)


def test_shares_of_full_fine_tuning():
    """All gradients are twice the forward pass; without those of frozen weights, once."""
    anatomy = shape("bert-base").anatomy
    steps = {
        name: work(anatomy, methods.get(name), 32, 128)
        for name in ("full", "full-frozen-embeddings", "lora-8", "head-only")
    }
    bare = work(anatomy, None, 32, 128, training=False)
    full = steps["full"]
    assert steps["head-only"] == bare == Work(full.forward, 0, 0)
    assert full.total == 3 * full.forward
    lowest = 3 * 2 * 32 * 128 * 768**2  # the input gradients of query, key and value
    assert full.total - steps["full-frozen-embeddings"].total == lowest
    assert steps["lora-8"].total / full.total == pytest.approx(2 / 3, abs=0.02)
