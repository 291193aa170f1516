"""Prompt tuning: against the plain formula, `adapters` and `peft`; heads see tokens only."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch

import peftlab as pl
from peftlab.errors import CheckpointError, SettingsError
from peftlab.methods import sites
from peftlab.training.batches import collate
from tests.methods.parity import (
    check_adapters_reads,
    check_peft_reads,
    check_we_read,
    check_we_read_adapters,
    check_we_read_peft,
    loaded_by_adapters,
    note,
    own_states,
    trained,
)

PLACES = ("after", "before")


def prompt(model: Any) -> Any:
    ((_, part),) = sites.parts(model.backbone)
    return part


def cut(backbone: Any, extra: int, first: int = 0) -> Any:
    """Let another library's model return the states of tokens only; ``first`` of them lead."""

    def hook(_: Any, __: Any, output: Any) -> Any:
        states = output.last_hidden_state
        output.last_hidden_state = torch.cat([states[:, :first], states[:, first + extra :]], 1)
        return output

    backbone.register_forward_hook(hook)
    return backbone


@torch.no_grad()
def by_hand(
    bare: Any, vectors: torch.Tensor, place: str, ids: torch.Tensor, types: Any = None
) -> torch.Tensor:
    """States of one unpadded text with a prompt before it, through the bare encoder's modules."""
    p, embeddings = len(vectors), bare.embeddings
    types = torch.zeros_like(ids) if types is None else types
    if place == "after":
        start = torch.cat([vectors, embeddings(input_ids=ids[None], token_type_ids=types[None])[0]])
    else:
        first = 0 if embeddings.position_embeddings.padding_idx is None else 2
        positions = torch.arange(first, first + p + len(ids))
        types = torch.cat([torch.zeros(p, dtype=torch.long), types])
        start = embeddings.LayerNorm(
            torch.cat([vectors, embeddings.word_embeddings.weight[ids]])
            + embeddings.position_embeddings.weight[positions]
            + embeddings.token_type_embeddings.weight[types]
        )
    return bare.encoder(start[None]).last_hidden_state[0, p:]


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("place", PLACES)
def test_equation(make_encoder, model_type, toy_task, inputs, place, attention):
    method = pl.Prompt(prompt_length=4, place=place)
    model = pl.model(make_encoder(model_type, attention=attention), toy_task, method)
    bare = make_encoder(model_type, attention=attention).backbone
    states = own_states(model, inputs)
    assert states.shape[:2] == inputs["input_ids"].shape
    for i, length in enumerate(inputs["attention_mask"].sum(1)):
        wanted = by_hand(bare, prompt(model).vectors, place, inputs["input_ids"][i, :length])
        assert torch.allclose(states[i, :length], wanted, atol=1e-5)


def test_published_number(meta_encoder):
    encoder, method = meta_encoder("roberta-base"), pl.methods.get("prompt-10")
    method.attach(encoder)
    ((_, part),) = sites.parts(encoder.backbone)
    assert sum(p.numel() for p in part.parameters()) == 7_680
    assert method.counts(encoder.anatomy) == pl.methods.Counts(7_680, 7_680, 7_680)


def test_starts(make_encoder, toy_task):
    def start(**settings: Any) -> torch.Tensor:
        return prompt(pl.model(make_encoder(), toy_task, pl.Prompt(**settings), seed=3)).vectors

    uniform = start(prompt_length=50)
    assert uniform.abs().max() <= 0.5
    assert uniform.std().item() == pytest.approx(1 / 12**0.5, rel=0.05)
    encoder = make_encoder()
    words = encoder.backbone.embeddings.word_embeddings.weight
    drawn = start(prompt_length=6, init="vocabulary")
    assert all((words == vector).all(1).any() for vector in drawn)
    assert torch.equal(drawn, start(prompt_length=6, init="vocabulary"))
    ids = encoder.tokenizer("the good film", add_special_tokens=False)["input_ids"]
    told = start(prompt_length=5, init="text", init_text="the good film")
    assert torch.equal(told, words[[*ids, *ids[:2]]])


@pytest.mark.parametrize("place", PLACES)
def test_two_prompts_stand_side_by_side(make_encoder, model_type, toy_task, inputs, place):
    one = pl.Prompt(prompt_length=2, place=place)
    model = pl.model(make_encoder(model_type), toy_task, pl.Stack(one, one))
    parts = [part for _, part in sites.parts(model.backbone)]
    bare = make_encoder(model_type).backbone
    ids = inputs["input_ids"][0, : inputs["attention_mask"][0].sum()]
    both = torch.cat([part.vectors for part in parts])
    states = own_states(model, {"input_ids": ids[None]})[0]
    assert torch.allclose(states, by_hand(bare, both, place, ids), atol=1e-5)


@pytest.mark.parametrize("place", PLACES)
def test_a_prompt_with_a_prefix(make_encoder, model_type, toy_task, inputs, place):
    """Padding stays invisible where both lengthen what attention sees."""
    method = pl.Union(pl.Prompt(prompt_length=3, place=place), pl.Prefix(prefix_length=2))
    model = pl.model(make_encoder(model_type), toy_task, method)
    together = own_states(model, inputs)
    for i, length in enumerate(inputs["attention_mask"].sum(1)):
        alone = own_states(model, {name: t[i : i + 1, :length] for name, t in inputs.items()})
        assert torch.allclose(alone[0], together[i, :length], atol=1e-5)


@pytest.mark.parametrize("place", PLACES)
def test_all_that_is_returned_is_about_the_tokens(
    make_encoder, model_type, toy_task, inputs, place
):
    method = pl.Prompt(prompt_length=3, place=place)
    model = pl.model(make_encoder(model_type, attention="eager"), toy_task, method)
    with torch.no_grad():
        output = model.backbone(**inputs, output_attentions=True, output_hidden_states=True)
    batch, length = inputs["input_ids"].shape
    assert torch.equal(output.hidden_states[-1], output.last_hidden_state)
    assert len(output.hidden_states) == 4
    assert all(states.shape == (batch, length, 128) for states in output.hidden_states)
    assert len(output.attentions) == 3
    for weights in output.attentions:
        assert weights.shape == (batch, 4, length, 3 + length)
        assert torch.allclose(weights.sum(-1), torch.ones(()), atol=1e-5)


@pytest.mark.parametrize("kind", ["tagging", "qa"])
@pytest.mark.parametrize("place", PLACES)
def test_labels_of_tokens_stay_where_they_are(make_encoder, model_type, kind, place):
    """Tagging and question heads have the loss that they have on states computed by hand."""
    rows: list[dict[str, Any]] = [
        {"tokens": ["the", "red", "dog", "sees"], "tags": ["O", "O", "B-X", "O"]},
        {"tokens": ["a", "cat"], "tags": ["O", "B-X"]},
    ]
    if kind == "qa":
        context = "the old dog sees the small cat ."
        answers = (
            {"text": ["small cat"], "answer_start": [21]},
            {"text": ["dog"], "answer_start": [8]},
        )
        rows = [
            {"question": question, "context": context, "answers": answer}
            for question, answer in zip(("the cat", "old"), answers, strict=True)
        ]
    task = pl.task({"train": rows, "dev": rows, "test": rows}, kind=kind, name="toy")
    encoder = make_encoder(model_type)
    model = pl.model(encoder, task, pl.Prompt(prompt_length=3, place=place))
    features = task.encode(task.rows("train"), encoder.tokenizer, 40)
    batch = collate(features, encoder.tokenizer.pad_token_id)
    bare, states = make_encoder(model_type).backbone, torch.zeros(*batch["input_ids"].shape, 128)
    for i, length in enumerate(batch["attention_mask"].sum(1)):
        types = batch["token_type_ids"][i, :length] if "token_type_ids" in batch else None
        ids = batch["input_ids"][i, :length]
        states[i, :length] = by_hand(bare, prompt(model).vectors, place, ids, types)
    with torch.no_grad():
        found = model(batch)
        wanted = model.head.loss(model.head(states, batch), batch)
    assert found.logits.shape[1] == batch["input_ids"].shape[1]
    assert torch.allclose(found.loss, wanted, atol=1e-5)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"prompt_length": 0}, "prompt_length is 0"),
        ({"place": "inside"}, "place is 'inside'"),
        ({"init": "zero"}, "init is 'zero'"),
        ({"init": "text"}, "a text to start from"),
        ({"init": "text", "init_text": " "}, "a text to start from"),
        ({"init_text": "the film"}, "a text to start from"),
    ],
)
def test_settings_that_cannot_work(settings, words):
    with pytest.raises(SettingsError, match=words):
        pl.Prompt(**settings)


def test_words_before_the_text_need_room(make_encoder, toy_task):
    model = pl.model(make_encoder(), toy_task, pl.Prompt(prompt_length=60, place="before"))
    assert model.encoder.tokenizer.model_max_length == 4
    with pytest.raises(SettingsError, match="max_length is 10"):
        toy_task.encode([], model.encoder.tokenizer, 10)
    with pytest.raises(SettingsError, match="62 vectors before the tokens leave no room"):
        pl.model(make_encoder(), toy_task, pl.Prompt(prompt_length=62, place="before"))
    free = pl.model(make_encoder(), toy_task, pl.Prompt(prompt_length=62))
    assert free.encoder.tokenizer.model_max_length == 64


def test_a_text_to_start_from_needs_a_tokenizer(meta_encoder):
    with pytest.raises(SettingsError, match="no tokenizer"):
        pl.Prompt(init="text", init_text="the film").attach(meta_encoder("bert-base"))


# --- the same in adapters


def test_adapters_reads_what_we_write(
    make_encoder, model_type, toy_task, inputs, tmp_path, record_property
):
    def make(model_type: str) -> Any:
        return make_encoder(model_type, attention="eager")

    model = trained(make, model_type, toy_task, pl.Prompt(prompt_length=4))
    theirs = cut(make(model_type).backbone, 4, first=1)
    check_adapters_reads(model, theirs, inputs, tmp_path, record_property, 100)


@pytest.mark.parametrize("safe", [True, False], ids=["safetensors", "bin"])
@pytest.mark.parametrize("combine", ["prefix", "prefix_after_bos"])
def test_we_read_what_adapters_writes(
    make_encoder, model_type, toy_task, inputs, tmp_path, combine, safe
):
    theirs, encoder = (make_encoder(model_type, attention="eager") for _ in range(2))
    check_we_read_adapters(
        cut(theirs.backbone, 6, first=int(combine == "prefix_after_bos")),
        encoder,
        toy_task,
        inputs,
        tmp_path,
        "PromptTuningConfig",
        {"prompt_length": 6, "combine": combine},
        safe,
        padding=False,
    )


def test_adapters_lets_a_prompt_see_padding_under_sdpa(
    make_encoder, model_type, toy_task, inputs, tmp_path, record_property
):
    model = trained(make_encoder, model_type, toy_task, pl.Prompt(prompt_length=4))
    model.save(tmp_path, format="adapters")
    theirs = loaded_by_adapters(cut(make_encoder(model_type).backbone, 4, first=1), tmp_path)
    with torch.no_grad():
        padded = theirs(**inputs).last_hidden_state
    bare = make_encoder(model_type).backbone
    differs, ours = 0.0, own_states(model, inputs)
    for i, length in enumerate(inputs["attention_mask"].sum(1)):
        ids = inputs["input_ids"][i, :length]
        wanted = by_hand(bare, prompt(model).vectors, "after", ids)
        assert torch.allclose(ours[i, :length], wanted, atol=1e-5)
        differs = max(differs, float((padded[i, :length] - wanted).abs().max()))
    assert differs > 1e-3
    fails = "under sdpa the prompt attends to padding, so a text's states depend on its batch"
    note(record_property, "prompt", "adapters", fails=fails, differs=differs)


def test_adapters_loses_a_prompt_under_another_name(
    make_encoder, model_type, toy_task, inputs, tmp_path, record_property
):
    adapters = pytest.importorskip("adapters")

    def make(model_type: str) -> Any:
        return make_encoder(model_type, attention="eager")

    model = trained(make, model_type, toy_task, pl.Prompt(prompt_length=4))
    model.save(tmp_path, format="adapters")
    wanted, real = own_states(model, inputs), inputs["attention_mask"].bool()
    differs = {}
    for name in ("default", "mine"):
        theirs = cut(make(model_type).backbone, 4, first=1)
        adapters.init(theirs)
        theirs.load_adapter(str(tmp_path), load_as=name, use_safetensors=True, set_active=True)
        with torch.no_grad():
            states = theirs.eval()(**inputs).last_hidden_state
        differs[name] = float((states - wanted)[real].abs().max())
    assert differs["default"] <= 1e-5 < 1e-1 < differs["mine"]
    check_we_read(tmp_path, make(model_type), toy_task, inputs, wanted)
    fails = "load_adapter(load_as=...) leaves the prompt at its random start, without an error"
    note(record_property, "prompt", "adapters", fails=fails, differs=differs["mine"])


def test_adapters_does_not_shift_answers_behind_a_prompt(
    make_encoder, tiny_folder, model_type, tmp_path, record_property
):
    """Its question head scores the prompt, too, but counts the answer's positions without it."""
    adapters = pytest.importorskip("adapters")
    answers = {"text": ["small cat"], "answer_start": [21]}
    row = {"question": "the cat", "context": "the old dog sees the small cat .", "answers": answers}
    task = pl.task({"train": [row], "dev": [row]}, kind="qa", name="toy")
    model = trained(make_encoder, model_type, task, pl.Prompt(prompt_length=4))
    model.save(tmp_path, format="adapters")
    theirs = adapters.AutoAdapterModel.from_pretrained(tiny_folder(model_type))
    theirs.add_qa_head("toy")
    theirs.heads["toy"][1].load_state_dict(model.head.out.state_dict())
    theirs.load_adapter(str(tmp_path), use_safetensors=True, set_active=True)
    theirs.eval()
    batch = collate(task.encode([row], model.encoder.tokenizer, 40), 0)
    texts = {key: batch[key] for key in batch if key != "labels"}

    def found(shift: int) -> Any:
        start, end = (batch["labels"] + shift).unbind(1)
        return theirs(**texts, start_positions=start, end_positions=end)

    with torch.no_grad():
        ours, unshifted, shifted = model(batch), found(0), found(4)
        logits = torch.stack([shifted.start_logits, shifted.end_logits], -1)
        tokens = torch.cat([logits[:, :1], logits[:, 5:]], 1)  # the prompt is behind the first
        wanted = model.head.loss(tokens, batch)
    assert (ours.logits - tokens).abs().max() <= 1e-5
    assert abs(ours.loss - wanted) <= 1e-5
    differs = abs(float(unshifted.loss - shifted.loss))
    assert differs > 1e-2
    fails = "the question head counts an answer's positions without the prompt, so it learns others"
    note(record_property, "prompt", "adapters", fails=fails, differs=differs)


# --- the same in peft


def test_peft_reads_what_we_write(
    make_encoder, model_type, toy_task, inputs, tmp_path, record_property
):
    method = pl.Prompt(prompt_length=4, place="before")
    model = trained(make_encoder, model_type, toy_task, method)
    theirs = cut(make_encoder(model_type).backbone, 4)
    inputs.pop("token_type_ids", None)  # one segment; it warns that it ignores them

    def rename(name: str) -> str:
        there = "prompt_encoder.default.embedding.weight"
        return name.replace("embeddings.words.prompt.vectors", there)

    check_peft_reads(model, theirs, inputs, tmp_path, record_property, rename, 100)


@pytest.mark.parametrize("safe", [True, False], ids=["safetensors", "bin"])
@pytest.mark.parametrize("init", ["RANDOM", "SAMPLE_VOCAB"])
def test_we_read_what_peft_writes(make_encoder, model_type, toy_task, inputs, tmp_path, init, safe):
    inputs.pop("token_type_ids", None)
    settings = {"num_virtual_tokens": 5, "prompt_tuning_init": init}
    model = check_we_read_peft(
        cut(make_encoder(model_type).backbone, 5),
        make_encoder(model_type),
        toy_task,
        inputs,
        tmp_path,
        "PromptTuningConfig",
        {"task_type": "FEATURE_EXTRACTION", **settings},
        safe,
        padding=False,
    )
    assert model.method.place == "before"


def test_peft_drops_the_segments_of_a_pair(make_encoder, toy_task, tmp_path, record_property):
    peft = pytest.importorskip("peft")
    method = pl.Prompt(prompt_length=4, place="before")
    model = trained(make_encoder, "bert", toy_task, method)
    model.save(tmp_path, format="peft")
    theirs = peft.PeftModel.from_pretrained(make_encoder("bert").backbone, str(tmp_path)).eval()
    pair = dict(model.encoder.tokenizer("the film", "is good .", return_tensors="pt"))
    assert pair["token_type_ids"].any()
    first = {**pair, "token_type_ids": torch.zeros_like(pair["token_type_ids"])}
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        seen = theirs(**pair).last_hidden_state[:, 4:]
    assert torch.allclose(seen, own_states(model, first), atol=1e-5)
    differs = float((seen - own_states(model, pair)).abs().max())
    assert differs > 0.1
    fails = "with a prompt the segments of a text pair are dropped (it warns), so BERT sees one"
    note(record_property, "prompt", "peft", fails=fails, differs=differs)


@pytest.mark.parametrize(("place", "library"), [("after", "peft"), ("before", "adapters")])
def test_what_a_library_cannot_hold_is_refused(make_encoder, toy_task, tmp_path, place, library):
    with pytest.raises(CheckpointError, match="cannot hold"):
        pl.model(make_encoder(), toy_task, pl.Prompt(place=place)).save(tmp_path, format=library)
