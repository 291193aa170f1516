"""Where the encoder starts: alignment of words, the exchanged vocabulary, the pruned teacher."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from peftlab.encoders import Encoder
from peftlab.errors import SettingsError
from peftlab.pretraining.alignment import align
from peftlab.pretraining.batches import Batches, Pieces
from peftlab.pretraining.corpus import Corpus, Pair
from peftlab.pretraining.dictionary import Dictionary, Entry
from peftlab.pretraining.examples import Source
from peftlab.pretraining.recipe import EncoderSizes, Recipe
from peftlab.pretraining.start import english_shares, piece_vectors, prune
from peftlab.pretraining.teacher import Teacher

TEXTS = ["the dog sees a cat", "the old river", "a new song finds the old dog"]


def whole(encoder: Encoder) -> EncoderSizes:
    """Return the sizes that keep everything."""
    config = encoder.backbone.config
    return EncoderSizes(
        vocabulary=config.vocab_size,
        hidden_size=config.hidden_size,
        layers=list(range(config.num_hidden_layers)),
        intermediate_size=config.intermediate_size,
        max_length=config.max_position_embeddings,
        english_share=0.5,
        from_teacher=True,
    )


# --- alignment ------------------------------------------------------------------------------------


def test_alignment_finds_words_in_another_order() -> None:
    """Subjects and verbs change places; only counting which words go together can tell."""
    nouns = {"dog": "inu", "cat": "neko", "bird": "tori", "fish": "sakana"}
    verbs = {"runs": "hashiru", "sleeps": "neru", "eats": "taberu", "sings": "utau"}
    pairs = [((verbs[v], nouns[n]), (n, v)) for n in nouns for v in verbs]
    assert [links.tolist() for links in align(pairs)] == [[1, 0]] * len(pairs)


def test_a_word_without_partner_stays_alone() -> None:
    pairs = [(("der", n), (n.upper(),)) for n in "abcdefgh"]
    for links in align(pairs):
        assert links.tolist() == [-1, 0]


# --- vocabulary -----------------------------------------------------------------------------------


def test_english_shares() -> None:
    counts = {"en": torch.tensor([8.0, 2, 0, 0]), "de": torch.tensor([0.0, 1, 9, 0])}
    counts["fr"] = torch.tensor([0.0, 4, 6, 0])
    expected = [1.0, 0.2 / (0.2 + 0.4), 0.0, 0.0]
    assert torch.allclose(english_shares(counts), torch.tensor(expected))


def test_english_pieces_keep_their_vectors_and_others_get_their_neighbours(
    make_encoder: Callable[..., Encoder],
) -> None:
    teacher = make_encoder("bert")
    tokenizer = teacher.tokenizer
    table = teacher.backbone.get_input_embeddings().weight
    torch.manual_seed(0)
    bag, english = torch.randn(len(tokenizer), 16), torch.ones(len(tokenizer))
    dog, cat = tokenizer.convert_tokens_to_ids(["dog", "cat"])
    bag[cat], english[cat] = bag[dog], 0.0
    found = piece_vectors(bag, english, tokenizer, teacher)
    others = [i for i in range(len(tokenizer)) if i != cat]
    assert torch.allclose(found[others], table[others], atol=1e-6)
    likeness = F.cosine_similarity(found[cat], table, dim=-1)
    assert likeness.argmax() == dog


# --- pruning --------------------------------------------------------------------------------------


def test_pruning_nothing_changes_nothing(make_encoder: Callable[..., Encoder]) -> None:
    teacher = make_encoder("bert", attention="eager")  # as the student
    table = teacher.backbone.get_input_embeddings().weight
    encoder, kept = prune(teacher, TEXTS, table, whole(teacher))
    assert kept.tolist() == list(range(table.shape[1]))
    inputs = teacher.tokenizer(TEXTS, padding=True, return_tensors="pt")
    with torch.no_grad():
        wanted = teacher.backbone(**inputs).last_hidden_state
        found = encoder.eval()(**inputs).last_hidden_state
    assert torch.allclose(found, wanted, atol=1e-6)


def test_pruning_keeps_what_is_active(make_encoder: Callable[..., Encoder]) -> None:
    """Neurons that say nothing go first, and what is left then says the same."""
    teacher = make_encoder("bert", attention="eager")  # as the student
    sizes = whole(teacher)
    silent = range(0, sizes.intermediate_size, 2)
    with torch.no_grad():
        for layer in teacher.backbone.encoder.layer:
            layer.output.dense.weight[:, list(silent)] = 0
    table = teacher.backbone.get_input_embeddings().weight
    half = replace(sizes, intermediate_size=sizes.intermediate_size // 2, max_length=40)
    encoder, _ = prune(teacher, TEXTS, table, half)
    inputs = teacher.tokenizer(TEXTS, padding=True, return_tensors="pt")
    with torch.no_grad():
        wanted = teacher.backbone(**inputs).last_hidden_state
        found = encoder.eval()(**inputs).last_hidden_state
    assert torch.allclose(found, wanted, atol=1e-6)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hidden_size": 20}, "must be a multiple of the width of the teacher's heads"),
        ({"hidden_size": 4096}, "and at most"),
        ({"intermediate_size": 4096}, "is above the teacher's"),
        ({"layers": [0, 9]}, "the teacher has 0 to"),
    ],
)
def test_what_the_teacher_does_not_have(
    make_encoder: Callable[..., Encoder], change: dict[str, object], message: str
) -> None:
    teacher = make_encoder("bert")
    sizes = replace(whole(teacher), **change)  # type: ignore[arg-type]
    with pytest.raises(SettingsError, match=message):
        prune(teacher, TEXTS, teacher.backbone.get_input_embeddings().weight, sizes)


def test_another_family_is_no_teacher(make_encoder: Callable[..., Encoder]) -> None:
    teacher = make_encoder("roberta")
    with pytest.raises(SettingsError, match="is no BERT"):
        prune(teacher, TEXTS, torch.zeros(9, 32), whole(make_encoder("bert")))


# --- batches --------------------------------------------------------------------------------------


def test_words_meet_the_teachers_states(
    make_encoder: Callable[..., Encoder], recipe: object, tmp_path: object
) -> None:
    """Every taught word of a batch has the state of the English word that it is linked to."""
    teacher = make_encoder("bert")
    tokenizer = teacher.tokenizer
    dictionary = Dictionary([Entry({"en": ("dog",), "de": ("cat",)})])
    corpus = Corpus(["the dog"], [Pair("de", "the cat", "the dog")])
    source = Source(corpus, dictionary, ["de"], {"pair": 1}, relatives=0.0)
    lessons = Teacher(teacher, 1, tmp_path)(source.english)  # type: ignore[arg-type]
    settings = Recipe.read(recipe)  # type: ignore[arg-type]
    batch = Batches(settings, source, tokenizer, lessons)(0)
    text = source.english.index(("the", "dog"))
    the, dog = lessons.states(text, np.array([0, 1])).float()
    expected = {"the": the, "dog": dog, "cat": dog}
    ids = {tokenizer.convert_tokens_to_ids(word): state for word, state in expected.items()}
    taught = batch.owners >= 0
    assert taught.sum() == 4 * len(batch.ids) == len(batch.states)
    for piece, owner in zip(batch.ids[taught].tolist(), batch.owners[taught], strict=True):
        assert torch.equal(batch.states[owner], ids[piece])


def test_words_are_cut_into_pieces_once(
    make_encoder: Callable[..., Encoder], monkeypatch: pytest.MonkeyPatch
) -> None:
    tokenizer = make_encoder("bert").tokenizer
    pieces = Pieces(tokenizer)
    words = ("the", "dog", "xdogx")
    (first,) = pieces([words])
    flat = [piece for word in first for piece in word]
    assert flat == tokenizer(" ".join(words), add_special_tokens=False)["input_ids"]
    monkeypatch.setattr(pieces, "tokenizer", None)
    assert pieces([("dog", "the")]) == [[first[1], first[0]]]
