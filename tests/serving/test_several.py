"""Several adapters in one encoder give what each gives alone."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import peftlab as pl
from peftlab import methods
from peftlab.errors import CheckpointError, DataError, SettingsError, UnknownNameError
from peftlab.training.batches import collate
from tests.methods.parity import note

CATALOGUE = methods.catalogue()


@pytest.fixture
def batch(make_encoder, model_type, toy_task, rows) -> dict[str, Any]:
    tokenizer = make_encoder(model_type).tokenizer
    return collate(toy_task.encode(rows, tokenizer, 64), tokenizer.pad_token_id)


@pytest.fixture
def save(make_encoder, model_type, toy_task, tmp_path):
    """Return a function: make a model whose method has moved away from its start, and save it."""

    def saved(name: str, method: Any, task: Any = toy_task, seed: int = 1) -> Any:
        model = pl.model(make_encoder(model_type), task, method, seed=seed)
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            torch.manual_seed(seed)
            for _, parameter in model.trainable_parameters():
                parameter.add_(0.1 * torch.randn_like(parameter))
        model.save(tmp_path / name)
        return model

    return saved


@torch.no_grad()
def alone(model: Any, batch: dict[str, Any]) -> torch.Tensor:
    return model({k: v for k, v in batch.items() if k != "labels"}).logits


def distance(found: Any, wanted: Any) -> float:
    return max(float((a - b).abs().max()) for a, b in zip(found, wanted, strict=True))


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_every_row_has_its_adapter(make_encoder, model_type, batch, save, tmp_path, attention):
    models = {
        "a": save("a", pl.Adapter()),
        "b": save("b", pl.LoRA(targets=("query", "intermediate")), seed=2),
        "c": save("c", pl.Adapter(leave_out=(0,), bottleneck_size=5), seed=3),
        "d": save("d", "head-only", seed=4),
        "prefix": save("prefix", pl.Prefix(prefix_length=3, gate="real"), seed=5),
        "shifted": save("shifted", pl.Prefix(prefix_length=5, shift_positions=True), seed=6),
        "prompt": save("prompt", pl.Prompt(prompt_length=4), seed=7),
        "words": save("words", pl.Prompt(prompt_length=2, place="before"), seed=8),
    }
    encoder = make_encoder(model_type, attention=attention)
    several = pl.several(encoder, {name: tmp_path / name for name in models})
    wanted = {name: alone(model, batch) for name, model in models.items()}
    for names in (
        ["c", "a", "d", "b", "a", "c"],
        ["words", "prefix", "a", "prompt", "shifted", "prefix"],
        ["d", "shifted", "prompt", "b", "words", "prompt"],
        ["a"] * 6,
    ):
        with torch.no_grad():
            found = several(batch, names)
        assert distance(found, [wanted[name][i] for i, name in enumerate(names)]) <= 1e-5
    with torch.no_grad():
        parallel = several.parallel(batch)
        assert list(parallel) == list(models)
        for name, logits in parallel.items():
            assert distance([logits], [wanted[name]]) <= 1e-5
            assert distance([several[name](batch)], [wanted[name]]) <= 1e-5
    apart = [distance([wanted["a"]], [wanted[name]]) for name in models if name != "a"]
    assert min(apart) > 1e-3, "the adapters are alike"


@pytest.mark.parametrize("name", CATALOGUE)
@pytest.mark.parametrize("model_type", ["roberta"])
def test_every_method(make_encoder, toy_task, batch, save, tmp_path, name):
    """Two of a method and an adapter; what changes the shared weights is refused and harmless."""
    method = CATALOGUE[name]
    first = save("first", method)
    second, adapter = save("second", method, seed=2), save("adapter", pl.Adapter(), seed=3)
    several = pl.several(make_encoder("roberta"), {"adapter": tmp_path / "adapter"})
    shared = dict(make_encoder("roberta").backbone.named_parameters())
    if first.method_state().keys() & shared.keys():
        before = alone(adapter, batch)
        with pytest.raises(CheckpointError, match="changes weights of the encoder"):
            several.add("first", tmp_path / "first")
        assert several.names == ("adapter",)
        with torch.no_grad():
            assert torch.equal(several["adapter"](batch), before)
            assert distance(several(batch, ["adapter"] * 6), before) <= 1e-6
        return
    several.add("first", tmp_path / "first")
    several.add("second", tmp_path / "second")
    wanted = {"adapter": alone(adapter, batch), "first": alone(first, batch)}
    wanted["second"] = alone(second, batch)
    names = ["second", "adapter", "first", "first", "adapter", "second"]
    with torch.no_grad():
        found, parallel = several(batch, names), several.parallel(batch)
    assert distance(found, [wanted[n][i] for i, n in enumerate(names)]) <= 1e-5
    assert distance(parallel.values(), [wanted[n] for n in parallel]) <= 1e-5


def test_heads_of_different_tasks(make_encoder, model_type, rows, batch, save, tmp_path):
    tags = [{"words": ["a", "dog"], "tags": ["x", "y"]}, {"words": ["the"], "tags": ["z"]}]
    tagging = pl.task({"train": tags, "dev": tags, "test": tags}, kind="tagging", name="tags")
    models = {"classes": save("classes", pl.LoRA()), "tags": save("tags", pl.Adapter(), tagging)}
    several = pl.several(make_encoder(model_type), {name: tmp_path / name for name in models})
    assert several["tags"].labels == tagging.labels
    names = ["tags", "classes", "classes", "tags", "tags", "classes"]
    with torch.no_grad():
        found = several(batch, names)
    for i, name in enumerate(names):
        assert distance([found[i]], [alone(models[name], batch)[i]]) <= 1e-5
    assert found[0].shape == (batch["input_ids"].shape[1], 3)
    assert found[1].shape == (2,)


@pytest.mark.parametrize("model_type", ["bert"])
def test_choices(make_encoder, model_type, save, tmp_path):
    """Several texts a row: one adapter a row."""
    rows = [
        {"premise": "the dog", "one": "is good .", "two": "sings", "label": 0},
        {"premise": "a cat", "one": "walks and sees", "two": "reads", "label": 1},
        {"premise": "the old river", "one": "was", "two": "finds a song", "label": 0},
    ]
    data = {"train": rows, "dev": rows, "test": rows}
    task = pl.task(data, kind="choice", choices=("one", "two"), name="choices")
    models = {n: save(n, m, task, s) for n, m, s in (("a", "adapter", 1), ("b", pl.Prompt(), 2))}
    encoder = make_encoder(model_type)
    features = task.encode(task.rows("dev"), encoder.tokenizer, 64)
    batch = collate(features, encoder.tokenizer.pad_token_id)
    several = pl.several(encoder, {name: tmp_path / name for name in models})
    with torch.no_grad():
        found = several(batch, ["b", "a", "b"])
        parallel = several.parallel(batch)
    wanted = {name: alone(model, batch) for name, model in models.items()}
    assert distance(found, [wanted["b"][0], wanted["a"][1], wanted["b"][2]]) <= 1e-5
    assert distance(parallel.values(), wanted.values()) <= 1e-5


@pytest.mark.parametrize("model_type", ["bert"])
def test_adding_and_removing(make_encoder, batch, save, tmp_path):
    lora, adapter = save("lora", pl.LoRA()), save("adapter", pl.Adapter())
    several = pl.several(make_encoder("bert"), {"lora": tmp_path / "lora"})
    bare = make_encoder("bert").backbone
    size = sum(p.numel() for p in bare.parameters())
    for _ in range(2):
        several.add("adapter", tmp_path / "adapter")
        with torch.no_grad():
            found = several(batch, ["adapter", "lora"] * 3)
        assert distance(found[::2], alone(adapter, batch)[::2]) <= 1e-5
        assert distance(found[1::2], alone(lora, batch)[1::2]) <= 1e-5
        one_backbone = sum(p.numel() for p in several.parameters()) - size
        own = [pl.summary(m) for m in (lora, adapter)]
        assert one_backbone == sum(s.stored + s.head for s in own)
        several.remove("adapter")
    assert several.names == ("lora",)
    several.remove("lora")
    tree = [(n, type(m)) for n, m in several.encoder.backbone.named_modules()]
    assert tree == [(n, type(m)) for n, m in bare.named_modules()]


@pytest.mark.parametrize("model_type", ["bert"])
def test_half_precision_and_gradients(make_encoder, batch, save, tmp_path):
    """The wrapper keeps the type of the weights, and the gradient of each row goes to its own."""
    for name, method in (("a", pl.Adapter()), ("b", pl.Prompt())):
        save(name, method)
    several = pl.several(make_encoder("bert"), {n: tmp_path / n for n in ("a", "b")})
    several(batch, ["a", "b", "b", "b", "b", "b"])[0].sum().backward()
    assert all(p.grad is not None for n, p in several["a"].named_parameters() if "before" in n)
    assert not any(p.grad.any() for n, p in several["b"].named_parameters() if "prompts" in n)
    several.to(torch.bfloat16)
    found = several(batch, ["a", "b"] * 3)
    assert {logits.dtype for logits in found} == {torch.bfloat16}


@pytest.mark.parametrize("model_type", ["bert"])
def test_what_cannot_be_put_together(make_encoder, toy_task, batch, save, tmp_path):
    save("a", pl.Adapter())
    several = pl.several(make_encoder("bert"), {"a": tmp_path / "a"})
    with pytest.raises(SettingsError, match="already an adapter 'a'"):
        several.add("a", tmp_path / "a")
    with pytest.raises(UnknownNameError, match="There is no adapter"):
        several(batch, ["b"] * 6)
    with pytest.raises(UnknownNameError, match="There is no adapter"):
        several.remove("b")
    with pytest.raises(DataError, match="2 names for 6 rows"):
        several(batch, ["a", "a"])
    with pytest.raises(CheckpointError, match="other weights"):
        pl.several(make_encoder("roberta"), {"a": tmp_path / "a"})
    with pytest.raises(SettingsError, match="carries a method already"):
        pl.several(pl.model(make_encoder("bert"), toy_task, "lora").encoder, {})
    other = pl.task(
        {"train": toy_task.rows("train"), "dev": [], "test": []}, kind="classification", name="o"
    )
    pl.model(make_encoder("bert"), [toy_task, other], "adapter").save(tmp_path / "two")
    with pytest.raises(CheckpointError, match="heads for several tasks"):
        several.add("two", tmp_path / "two")
    texts = {"train": [{"text": "the dog"}], "dev": [], "test": []}
    words = pl.task(texts, kind="language-model", name="words")
    pl.model(make_encoder("bert"), words, "madx-language").save(tmp_path / "words")
    with pytest.raises(CheckpointError, match=r"words is a language model, .* by itself\.$"):
        several.add("words", tmp_path / "words")
    assert several.names == ("a",)


@pytest.mark.parametrize("model_type", ["bert"])
def test_tokens_have_the_positions_that_no_prompt_takes(make_encoder, save, tmp_path):
    for length in (5, 9):
        save(f"{length}", pl.Prompt(prompt_length=length, place="before"))
    save("full", pl.Full())
    several = pl.several(make_encoder("bert"), {"5": tmp_path / "5"})
    tokenizer: Any = several.encoder.tokenizer
    for _ in range(8):  # each time anew
        assert tokenizer.model_max_length == 64 - 5
        several.add("9", tmp_path / "9")
        with pytest.raises(CheckpointError, match="changes weights"):
            several.add("full", tmp_path / "full")
        assert tokenizer.model_max_length == 64 - 9
        several.remove("9")
    several.remove("5")
    assert tokenizer.model_max_length == 64


def ready(adapters: Any, backbone: Any, configs: dict[str, Any]) -> Any:
    """Return a backbone with trained adapters of the library, none active."""
    adapters.init(backbone)
    for name, config in configs.items():
        backbone.add_adapter(name, config=config)
    backbone.train_adapter(next(iter(configs)))
    for parameter in backbone.parameters():
        parameter.requires_grad_(False)
    with torch.no_grad():
        torch.manual_seed(3)
        for name, parameter in backbone.named_parameters():
            if any(f".{each}." in name for each in configs):
                parameter.add_(0.2 * torch.randn_like(parameter))
    return backbone.eval()


@pytest.mark.parametrize("model_type", ["bert"])
def test_the_reference_splits_no_prompts(make_encoder, inputs, record_property):
    """BatchSplit of `adapters` runs the first prompt on all rows."""
    adapters = pytest.importorskip("adapters")
    from adapters.composition import BatchSplit

    config = adapters.PromptTuningConfig(prompt_length=4)
    backbone = ready(
        adapters, make_encoder("bert", attention="eager").backbone, {"a": config, "b": config}
    )
    backbone.set_active_adapters("b")
    with torch.no_grad():
        wanted = backbone(**inputs).last_hidden_state[3:]
        backbone.set_active_adapters("a")
        first = backbone(**inputs).last_hidden_state[3:]
        backbone.set_active_adapters(BatchSplit("a", "b", batch_sizes=[3, 3]))
        found = backbone(**inputs).last_hidden_state[3:]
    assert (found - first).abs().max() == 0
    differs = float((found - wanted).abs().max())
    assert differs > 1e-2
    words = "BatchSplit runs only the first of several prompts, on all rows, without an error"
    note(record_property, "prompt", "adapters", fails=words, differs=differs)


@pytest.mark.parametrize("model_type", ["bert"])
def test_the_reference_repeats_no_input_for_prompts(make_encoder, inputs, record_property):
    """Parallel of `adapters` should return all rows of "a", then all of "b"."""
    adapters = pytest.importorskip("adapters")
    from adapters.composition import Parallel

    config = adapters.PromptTuningConfig(prompt_length=4)
    backbone = ready(
        adapters, make_encoder("bert", attention="eager").backbone, {"a": config, "b": config}
    )
    with torch.no_grad():
        backbone.set_active_adapters("a")
        first = backbone(**inputs).last_hidden_state
        backbone.set_active_adapters(Parallel("a", "b"))
        found = backbone(**inputs).last_hidden_state
    assert torch.equal(found, first), "there would be twice as many rows"
    words = "Parallel runs only the first of several prompts, without an error"
    note(record_property, "prompt", "adapters", fails=words)


@pytest.mark.parametrize(
    ("method", "config"), [("adapter", "ParBnConfig"), ("unipelt", "UniPELTConfig")]
)
@pytest.mark.parametrize("model_type", ["bert"])
def test_the_reference_raises(make_encoder, inputs, record_property, method, config):
    """Parallel of `adapters` with adapters that work alone."""
    adapters = pytest.importorskip("adapters")
    from adapters.composition import Parallel

    settings = {name: getattr(adapters, config)() for name in "ab"}
    backbone = ready(adapters, make_encoder("bert").backbone, settings)
    with torch.no_grad():
        for name in settings:
            backbone.set_active_adapters(name)
            backbone(**inputs)
        backbone.set_active_adapters(Parallel("a", "b"))
        with pytest.raises(RuntimeError, match="must match"):
            backbone(**inputs)
    note(record_property, method, "adapters", fails=f"Parallel of two {config} raises an error")
