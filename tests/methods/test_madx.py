"""MAD-X: language adapters, task adapters on them, swapped languages; the same in `adapters`."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import peftlab as pl
from peftlab.checkpoints.languages import load_task_adapter, swap_language
from peftlab.encoders import encoder_from
from peftlab.errors import CheckpointError, SettingsError
from peftlab.training.batches import collate
from tests.methods.parity import (
    check_adapters_reads,
    check_we_read_adapters,
    note,
    own_states,
    states_and_gradients,
    trained,
)

SMALL = {"name": "madx-language", "adapter": {"name": "adapter", "reduction_factor": 4}}
HOUSES = {
    "name": "madx-language",
    "adapter": {"name": "houlsby-16", "reduction_factor": 2},
    "invertible": {"name": "invertible", "activation": "swish"},
}
SETTINGS = pl.TrainSettings(epochs=8, learning_rate=3e-3, precision="fp32", max_length=32)


@pytest.fixture
def language(make_encoder, model_type, toy_task, tmp_path):
    """A folder with a trained language adapter."""
    return trained(make_encoder, model_type, toy_task, "madx-language").save(tmp_path / "language")


def moved(model: Any) -> Any:
    """Move what trains, as training would."""
    torch.manual_seed(4)
    with torch.no_grad():
        for _, parameter in model.trainable_parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return model


def logits(model: Any, rows: Any) -> torch.Tensor:
    features = model.task.encode(rows, model.encoder.tokenizer, 64)
    batch = collate(features, model.encoder.tokenizer.pad_token_id)
    with torch.no_grad():
        return model({k: v for k, v in batch.items() if k != "labels"}).logits


# --- size and formula -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("encoder", "method", "trainable", "stored"),
    [
        ("bert-base", "madx-language", 7_387_776, 7_387_776),
        ("xlm-roberta-base", "madx-task", 894_528, 8_282_304),
        ("bert-large", "madx-task", 3_171_840, 28_900_352),
    ],
)
def test_the_closed_form(meta_encoder, encoder, method, trainable, stored):
    from peftlab import methods

    made, method = meta_encoder(encoder), methods.get(method)
    made.backbone.requires_grad_(False)
    before = sum(p.numel() for p in made.backbone.parameters())
    method.attach(made)
    parameters = list(made.backbone.parameters())
    assert sum(p.numel() for p in parameters if p.requires_grad) == trainable
    assert sum(p.numel() for p in parameters) - before == stored
    counts = method.counts(made.anatomy)
    assert (counts.trainable, counts.stored, counts.inference) == (trainable, stored, stored)
    if method.name == "madx-language":
        n, d = len(made.anatomy.layers), made.anatomy.hidden_size
        assert stored == n * (d * d + 3 * d // 2) + d * d // 2 + 3 * d // 2


def test_the_task_adapter_works_on_what_the_language_adapter_leaves(make_encoder, toy_task):
    model = trained(make_encoder, "bert", toy_task, "madx-task")
    site = model.backbone.encoder.layer[1].output
    h, x = torch.randn(2, 5, site.original.dense.in_features), torch.randn(2, 5, 128)
    block: Any = site.original
    language, task = site.before["adapter"], site.before["adapter-task"]

    def bn(part: Any, z: torch.Tensor) -> torch.Tensor:
        return part.up(torch.relu(part.down(z)))

    with torch.no_grad():
        result = block.dense(h)
        one = result + bn(language, block.LayerNorm(result + x))
        two = one + bn(task, block.LayerNorm(one + x))
        assert torch.allclose(site(h, x), block.LayerNorm(two + x), atol=1e-6)


def test_only_the_task_adapter_trains(make_encoder, toy_task):
    model = pl.model(make_encoder("bert"), toy_task, "madx-task")
    names = [name for name, _ in model.trainable_parameters()]
    assert all(".adapter-task." in name or name.startswith("head.") for name in names)
    assert pl.summary(model).lowest_trained_layer == 0


@pytest.mark.parametrize(
    "method",
    [
        {"name": "madx-language", "adapter": {"name": "lora"}},
        {"name": "madx-language", "invertible": None},
        {"name": "madx-task", "language": {"name": "lora"}},
        {"name": "madx-task", "task": "pfeiffer-16"},
    ],
    ids=str,
)
def test_members_of_another_kind_are_refused(make_encoder, toy_task, method):
    with pytest.raises(SettingsError, match=r"give (Adapter|Invertible|LanguageAdapter)\(…\)"):
        pl.model(make_encoder("bert"), toy_task, method)


# --- swapping -------------------------------------------------------------------------------------


def test_languages_are_swapped_and_swapped_back(
    make_encoder, model_type, toy_task, rows, language, tmp_path
):
    other = moved(pl.model(make_encoder(model_type), toy_task, "madx-language", seed=8))
    other.save(tmp_path / "other")
    model = pl.model(make_encoder(model_type), toy_task, "madx-task")
    assert swap_language(model, language) is model
    first = model.options["language"]
    moved(model)
    before = logits(model, rows)
    task = {n: t.clone() for n, t in model.method_state().items() if "adapter-task" in n}
    swap_language(model, tmp_path / "other")
    assert model.options["language"] != first
    assert (logits(model, rows) - before).abs().max() > 1e-3
    state = model.method_state()
    assert all(torch.equal(state[name], tensor) for name, tensor in task.items())
    swap_language(model, language)
    assert torch.equal(logits(model, rows), before)
    assert model.options["language"] == first


def test_the_language_is_that_of_the_checkpoint(
    make_encoder, model_type, toy_task, inputs, language
):
    """A task adapter that does nothing leaves what the language adapter alone computes."""
    alone = pl.load(language, encoder=make_encoder(model_type), task=toy_task)
    method = pl.TaskAdapter(task=pl.Adapter(init="zero"))
    model = swap_language(pl.model(make_encoder(model_type), toy_task, method), language)
    assert (own_states(model, inputs) - own_states(alone, inputs)).abs().max() <= 1e-6


def test_a_language_adapter_may_have_no_invertible_part(make_encoder, toy_task, inputs, tmp_path):
    plain = pl.Adapter(reduction_factor=2)
    alone = trained(make_encoder, "bert", toy_task, plain)
    folder = alone.save(tmp_path / "plain")
    method = pl.TaskAdapter(language=plain, task=pl.Adapter(init="zero"))
    model = pl.model(make_encoder("bert"), toy_task, method)
    assert not any("invertible" in name for name in model.method_state())
    assert {name for name, _ in model.trainable_parameters() if "-task" not in name} == {
        name for name, _ in model.trainable_parameters() if name.startswith("head")
    }
    swap_language(model, folder)
    assert (own_states(model, inputs) - own_states(alone, inputs)).abs().max() <= 1e-6
    with pytest.raises(CheckpointError, match="takes 'madx-language'"):
        swap_language(pl.model(make_encoder("bert"), toy_task, "madx-task"), folder)


def test_a_checkpoint_has_both_adapters(make_encoder, model_type, toy_task, rows, language):
    model = moved(
        swap_language(pl.model(make_encoder(model_type), toy_task, "madx-task"), language)
    )
    folder = model.save(language.parent / "task")
    loaded = pl.load(folder, encoder=make_encoder(model_type), task=toy_task)
    assert torch.equal(logits(loaded, rows), logits(model, rows))
    for a, b in zip(loaded.backbone.parameters(), model.backbone.parameters(), strict=True):
        assert a.requires_grad == b.requires_grad


def test_what_does_not_fit_is_refused(make_encoder, toy_task, tmp_path):
    model = pl.model(make_encoder("bert"), toy_task, "madx-task")
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    small = trained(make_encoder, "bert", toy_task, SMALL).save(tmp_path / "small")
    lora = trained(make_encoder, "bert", toy_task, "lora-8").save(tmp_path / "lora")
    elsewhere = make_encoder("bert")
    with torch.no_grad():
        elsewhere.backbone.embeddings.word_embeddings.weight[7] += 1
    elsewhere = encoder_from(elsewhere.backbone, elsewhere.tokenizer, "elsewhere")
    other = pl.model(elsewhere, toy_task, "madx-language").save(tmp_path / "other")
    for folder, message in [
        (small, "adapter.bottleneck_size 32, but .* 64: train one"),
        (lora, "'lora'.* but the model takes 'madx-language'"),
        (other, "other weights of 'elsewhere'"),
        (tmp_path, "holds no checkpoint"),
    ]:
        with pytest.raises(CheckpointError, match=message) as refused:
            swap_language(model, folder)
        assert str(refused.value).count(". ") == 0, "one sentence"
    with pytest.raises(CheckpointError, match="but the model takes 'adapter'"):
        load_task_adapter(model, lora)
    assert all(torch.equal(t, before[name]) for name, t in model.state_dict().items())
    with pytest.raises(SettingsError, match="build it with the method 'madx-task'"):
        swap_language(pl.model(make_encoder("bert"), toy_task, "pfeiffer-16"), small)


# --- the same in `adapters` -----------------------------------------------------------------------


@pytest.mark.parametrize("method", ["madx-language", SMALL, HOUSES], ids=str)
def test_adapters_reads_our_language_adapter(
    make_encoder, model_type, toy_task, inputs, tmp_path, method, record_property
):
    from peftlab import methods

    method = methods.get(method)
    model = trained(make_encoder, model_type, toy_task, method)
    if method.adapter.activation != method.invertible.activation:
        with pytest.raises(CheckpointError, match="cannot hold the method"):
            model.save(tmp_path, format="adapters")
        return
    check_adapters_reads(
        model, make_encoder(model_type).backbone, inputs, tmp_path, record_property
    )


@pytest.mark.parametrize("safe", [True, False], ids=["safetensors", "bin"])
@pytest.mark.parametrize(
    ("config", "settings"),
    [
        ("SeqBnInvConfig", {"reduction_factor": 2}),
        ("SeqBnInvConfig", {"non_linearity": "gelu", "leave_out": [2]}),
        ("DoubleSeqBnInvConfig", {"inv_adapter_reduction_factor": 8}),
    ],
    ids=str,
)
def test_we_read_their_language_adapter(
    make_encoder, model_type, toy_task, inputs, tmp_path, config, settings, safe
):
    theirs, encoder = make_encoder(model_type).backbone, make_encoder(model_type)
    model = check_we_read_adapters(
        theirs, encoder, toy_task, inputs, tmp_path, config, settings, safe
    )
    assert model.method.name == "madx-language"


def their_stack(make_encoder: Any, model_type: str, tmp_path: Any) -> Any:
    """A language and a task adapter of `adapters`, stacked and saved one by one."""
    adapters = pytest.importorskip("adapters")
    from adapters.composition import Stack

    theirs = make_encoder(model_type).backbone
    adapters.init(theirs)
    theirs.add_adapter("en", config=adapters.SeqBnInvConfig(reduction_factor=2))
    theirs.add_adapter("topic", config=adapters.SeqBnConfig())
    theirs.train_adapter(["en", "topic"])
    torch.manual_seed(3)
    with torch.no_grad():
        for parameter in theirs.parameters():
            if parameter.requires_grad:
                parameter.add_(0.2 * torch.randn_like(parameter))
    for name in ("en", "topic"):
        theirs.save_adapter(str(tmp_path / name), name, use_safetensors=True)
    theirs.train_adapter("topic")
    theirs.set_active_adapters(Stack("en", "topic"))
    return theirs.eval()


def test_a_stack_of_theirs_is_ours(
    make_encoder, model_type, toy_task, inputs, tmp_path, record_property
):
    theirs = their_stack(make_encoder, model_type, tmp_path)
    model = pl.model(make_encoder(model_type), toy_task, "madx-task")
    load_task_adapter(swap_language(model, tmp_path / "en"), tmp_path / "topic")
    states, gradients = states_and_gradients(theirs, inputs)
    own, found = states_and_gradients(model.backbone, inputs)
    pieces = {".before.adapter-task.down.": ".adapters.topic.adapter_down.0."}
    pieces |= {".before.adapter-task.up.": ".adapters.topic.adapter_up."}
    renamed = {}
    for name, gradient in found.items():
        for ours, other in pieces.items():
            name = name.replace(ours, other)
        renamed[name] = gradient
    assert renamed.keys() == gradients.keys(), "the same tensors train"
    of_states = float((states - own).abs().max())
    of_gradients = max(float((renamed[n] - gradients[n]).abs().max()) for n in renamed)
    note(record_property, "madx-task", "adapters", states=of_states, gradients=of_gradients)
    assert max(float(g.abs().max()) for g in renamed.values()) > 1e-4
    assert of_states <= 1e-5
    assert of_gradients <= 1e-5


def test_adapters_stacks_what_we_write(make_encoder, model_type, toy_task, inputs, tmp_path):
    adapters = pytest.importorskip("adapters")
    from adapters.composition import Stack

    language = trained(make_encoder, model_type, toy_task, "madx-language")
    task = trained(make_encoder, model_type, toy_task, "pfeiffer-16")
    model = pl.model(make_encoder(model_type), toy_task, "madx-task")
    swap_language(model, language.save(tmp_path / "ours"))
    load_task_adapter(model, task.save(tmp_path / "top"))
    assert model.options.keys() == {"language", "task_adapter"}, "records tell its start"
    saved = pl.load(model.save(tmp_path / "both"), encoder=make_encoder(model_type), task=toy_task)
    assert saved.options == model.options
    theirs = make_encoder(model_type).backbone
    adapters.init(theirs)
    for name, made in (("en", language), ("topic", task)):
        made.save(tmp_path / name, format="adapters")
        theirs.load_adapter(str(tmp_path / name), load_as=name, use_safetensors=True)
    theirs.set_active_adapters(Stack("en", "topic"))
    theirs.eval()
    with torch.no_grad():
        wanted = theirs(**inputs).last_hidden_state
    assert (own_states(model, inputs) - wanted).abs().max() <= 1e-5
    assert model.method.to_library("adapters", model.encoder.anatomy) is None


def test_reference_trains_the_language_adapter_of_a_stack(
    make_encoder, model_type, toy_task, inputs, tmp_path, record_property
):
    """`train_adapter(Stack(language, task))` of adapters unfreezes what MAD-X keeps frozen."""
    pytest.importorskip("adapters")
    from adapters.composition import Stack

    theirs = their_stack(make_encoder, model_type, tmp_path)
    theirs.train_adapter(Stack("en", "topic"))
    unfrozen = {n for n, p in theirs.named_parameters() if p.requires_grad and ".en." in n}
    assert any("invertible_adapters" in name for name in unfrozen)
    model = pl.model(make_encoder(model_type), toy_task, "madx-task")
    frozen = {n for n in model.method_state() if "adapter-task" not in n}
    trains = {name for name, _ in model.trainable_parameters()}
    assert len(unfrozen) == len(frozen)
    assert not {f"backbone.{name}" for name in frozen} & trains
    note(
        record_property,
        "madx-task",
        "adapters",
        fails="train_adapter(Stack(language, task)) trains the language adapter too.",
        differs=sum(p.numel() for n, p in theirs.named_parameters() if n in unfrozen),
    )


# --- masked words ---------------------------------------------------------------------------------


@pytest.fixture
def words(rows) -> Any:
    texts = [{"text": row["text"]} for row in rows]
    splits = {"train": texts, "dev": texts, "test": texts}
    return pl.task(splits, kind="language-model", name="words")


def test_the_inverse_stands_before_the_words(make_encoder, model_type, words, rows):
    model = trained(make_encoder, model_type, words, "madx-language")
    features = words.encode(rows, model.encoder.tokenizer, 64)
    batch = collate(features, model.encoder.tokenizer.pad_token_id)
    inputs = {k: v for k, v in batch.items() if k not in ("labels", "targets")}
    head: Any = model.head
    with torch.no_grad():
        hidden = model.backbone(**inputs).last_hidden_state
        states = head.norm(nn.functional.gelu(head.dense(hidden)))
        table = model.backbone.embeddings.word_embeddings.weight
        undone = model.backbone.embeddings.states["invertible"].inverse(states)
        wanted = undone @ table.T + head.bias
        assert torch.allclose(model(inputs).logits, wanted, atol=1e-4)
        assert (wanted - (states @ table.T + head.bias)).abs().max() > 0.1


@pytest.mark.parametrize("kind", ["AutoAdapterModel", "AutoModelForMaskedLM"])
def test_words_of_adapters(
    make_encoder, tiny_folder, model_type, words, rows, tmp_path, kind, record_property
):
    """adapters' own head undoes the invertible adapter; transformers' head under init does not."""
    adapters = pytest.importorskip("adapters")
    import transformers

    model = trained(make_encoder, model_type, words, "madx-language")
    model.save(tmp_path, format="adapters")
    head: Any = model.head
    own = getattr(adapters, kind, None) or getattr(transformers, kind)
    theirs = own.from_pretrained(tiny_folder(model_type))
    if kind == "AutoAdapterModel":
        theirs.add_masked_lm_head("words", activation_function="gelu")
        dense, _, norm, decoder = theirs.heads["words"].children()
        decoder.bias.data.copy_(head.bias)
    else:
        adapters.init(theirs)
        bert = model_type == "bert"
        block = theirs.cls.predictions.transform if bert else theirs.lm_head
        dense, norm = block.dense, block.LayerNorm if bert else block.layer_norm
        theirs.get_output_embeddings().bias.data.copy_(head.bias)
    dense.load_state_dict(head.dense.state_dict())
    norm.load_state_dict(head.norm.state_dict())
    norm.eps = head.norm.eps
    theirs.load_adapter(str(tmp_path), load_as="mine", use_safetensors=True, set_active=True)
    theirs.eval()
    features = words.encode(rows, model.encoder.tokenizer, 64)
    batch = collate(features, model.encoder.tokenizer.pad_token_id)
    inputs = {k: v for k, v in batch.items() if k not in ("labels", "targets")}
    real = inputs["attention_mask"].bool()
    with torch.no_grad():
        found, wanted = model(inputs).logits[real], theirs(**inputs).logits[real]
        # the last layer's states do not depend on the head
        inverse = model.backbone.embeddings.inverse
        states = head.norm(head.activation(head.dense(own_states(model, inputs))))[real]
        table = model.backbone.embeddings.word_embeddings.weight
        plain = inverse(states) @ table.T + head.bias
    assert (found - plain).abs().max() <= 1e-4
    differs = float((found - wanted).abs().max())
    if kind == "AutoAdapterModel":
        note(record_property, "madx-language", "adapters", logits=differs)
        assert differs <= 1e-4
    else:
        fails = "adapters.init(AutoModelForMaskedLM) does not apply the inverse before the words."
        note(record_property, "madx-language", "adapters", fails=fails, differs=differs)
        assert differs > 0.1
        assert (wanted - (states @ table.T + head.bias)).abs().max() <= 1e-4


def test_a_language_is_learnt_and_a_task_on_it(make_encoder, tmp_path):
    """The whole way: text, language adapter, task adapter, another language and back."""
    animals, things = ("dog", "cat", "child"), ("house", "book", "river")

    def texts(verb: str, last: str) -> list[dict[str, str]]:
        found = [f"the {a} {verb} the {t} {last}" for a in animals for t in things] * 3
        return [{"text": text} for text in found]

    def corpus(name: str, *words: str) -> Any:
        rows = texts(*words)
        splits = {"train": rows, "dev": rows[:9], "test": rows[:9]}
        return pl.task(splits, kind="language-model", name=name)

    def learnt(task: Any) -> Any:
        model = pl.model(make_encoder("bert"), task, "madx-language")
        before = {n: t.clone() for n, t in make_encoder("bert").backbone.state_dict().items()}
        first = pl.evaluate(model, task, max_length=32).metrics["loss"]
        pl.train(model, task, settings=SETTINGS)
        assert pl.evaluate(model, task, max_length=32).metrics["loss"] < 0.7 * first
        state = model.backbone.state_dict()
        kept = {name.replace(".original", ""): tensor for name, tensor in state.items()}
        assert all(torch.equal(kept[name], tensor) for name, tensor in before.items())
        return model.save(tmp_path / task.name)

    one = learnt(corpus("one", "sees", "."))
    two = learnt(corpus("two", "walks", "and"))
    label = [{"text": r["text"], "label": r["text"].split()[1]} for r in texts("sees", ".")]
    task = pl.task({"train": label, "dev": label, "test": label}, kind="classification", name="who")
    model = swap_language(pl.model(make_encoder("bert"), task, "madx-task"), one)
    language = {n: t.clone() for n, t in model.method_state().items() if "-task" not in n}
    record = pl.train(model, task, settings=SETTINGS, epochs=16)
    assert record.metrics["test"]["accuracy"] > 0.8  # by chance 0.33
    assert record.settings.model_options["language"] == model.options["language"]
    state = model.method_state()
    assert all(torch.equal(state[name], tensor) for name, tensor in language.items())
    before = logits(model, label[:9])
    assert not torch.equal(logits(swap_language(model, two), label[:9]), before)
    assert torch.equal(logits(swap_language(model, one), label[:9]), before)
