"""The parts of pretraining: corpus, dictionary, examples, teacher, take-over, masks, losses."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from peftlab.encoders import Encoder
from peftlab.errors import DataError, SettingsError
from peftlab.pretraining.corpus import (
    Corpus,
    Pair,
    detokenise,
    plain_english,
    questions,
    read_corpus,
    read_rows,
    sentences,
)
from peftlab.pretraining.dictionary import Dictionary, Entry
from peftlab.pretraining.evaluate import cross_lingual_scores
from peftlab.pretraining.examples import Source
from peftlab.pretraining.losses import sentence_loss
from peftlab.pretraining.recipe import Recipe
from peftlab.pretraining.student import Bag, Student
from peftlab.pretraining.teacher import Teacher, embed, principal_axes
from peftlab.tasks.masking import mask_tokens

LANGUAGES = {"en", "de", "es", "fr", "it", "pt", "nl", "da", "no", "cs", "ru", "tr"}


# --- corpus ---------------------------------------------------------------------------------------


def test_sentences_and_detokenise() -> None:
    text = 'He came in 1990. Then he left. "Why?" Она ушла! Вот и всё.'
    assert sentences(text)[:2] == ["He came in 1990.", "Then he left."]
    assert sentences(text)[-1] == "Вот и всё."
    assert detokenise(" 1 @,@ 000 men 's ( tall ) house . ") == "1,000 men's (tall) house."


def test_unknown_words_and_headings_are_left_out() -> None:
    rows = [{"text": "A <unk> dog ."}, {"text": " = = Career = = "}, {"text": "A dog . A cat ."}]
    assert plain_english(rows) == ["A dog.", "A cat."]


def test_questions_pair_by_id_and_contexts_only_when_counts_match() -> None:
    def row(number: str, context: str, text: str) -> dict[str, object]:
        answer = {"text": [text], "answer_start": [context.index(text)]}
        return {"id": number, "context": context, "question": f"{text}?", "answers": answer}

    english = [row("1", "A dog. Red.", "Red"), row("2", "One. Two.", "Two")]
    german = [row("2", "Eins. Zwei.", "Zwei"), row("9", "Neun.", "Neun")]
    found = questions("de", german, english, parallel_contexts=True)
    assert [(p.text, p.english) for p in found] == [
        ("Zwei?", "Two?"),
        ("Zwei", "Two"),
        ("Eins.", "One."),
        ("Zwei.", "Two."),
    ]
    found = questions("de", german, english, parallel_contexts=False)
    assert ("Zwei.", "Two.") in [(p.text, p.english) for p in found]
    assert ("Eins.", "One.") not in [(p.text, p.english) for p in found]


def test_missing_data_is_a_sentence(
    monkeypatch: pytest.MonkeyPatch, write_rows: Callable[..., Path]
) -> None:
    with pytest.raises(DataError, match="PEFTLAB_DATA has no tatoeba/deu"):
        read_corpus({"tatoeba": ["deu"]})
    write_rows("tatoeba/deu/validation", []).write_bytes(b"no gzip")
    with pytest.raises(DataError, match="cannot be read"):
        read_rows("tatoeba/deu", "validation")
    with pytest.raises(DataError, match="names a source 'bible'"):
        read_corpus({"bible": ["deu"]})
    monkeypatch.delenv("PEFTLAB_DATA")
    with pytest.raises(DataError, match="set PEFTLAB_DATA to a folder"):
        read_corpus({"tatoeba": ["deu"]})


# --- dictionary -----------------------------------------------------------------------------------


def test_shipped_dictionary_is_well_formed() -> None:
    dictionary = Dictionary.read()
    assert len(dictionary.entries) > 500
    for entry in dictionary.entries:
        assert set(entry.forms) == LANGUAGES
        assert all("\t" not in f and f == f.strip() for fs in entry.forms.values() for f in fs)
    filled = [bool(forms) for entry in dictionary.entries for forms in entry.forms.values()]
    assert np.mean(filled) > 0.99


def test_switching_replaces_whole_words_and_matches_forms() -> None:
    dictionary = Dictionary(
        [
            Entry({"en": ("to see", "sees"), "de": ("sehen", "sieht")}),
            Entry({"en": ("dog",), "de": ("Hund", "Köter")}),
            Entry({"en": ("good morning",), "de": ("guten Morgen",)}),
        ]
    )
    rng = np.random.default_rng(0)
    found = {dictionary.switch("He sees the dog's dogma, dog!", "de", 1.0, rng) for _ in range(30)}
    assert found == {"He sieht the dog's dogma, Hund!", "He sieht the dog's dogma, Köter!"}
    assert dictionary.switch("He sees.", "de", 0.0, rng) == "He sees."
    assert dictionary.switch("He sees.", "xx", 1.0, rng) == "He sees."


@pytest.mark.parametrize(
    ("text", "message"), [("en\tde\na\tb\tc\n", "line 2 has 3 columns"), (None, "holds no dict")]
)
def test_bad_dictionary(tmp_path: Path, text: str | None, message: str) -> None:
    if text is not None:
        (tmp_path / "words.tsv").write_text(text)
    with pytest.raises(DataError, match=message):
        Dictionary.read(tmp_path)


# --- examples -------------------------------------------------------------------------------------


def source(shares: dict[str, float]) -> Source:
    pairs = [Pair("de", "Der Hund", "The dog"), Pair("swe", "Hunden", "The dog")]
    corpus = Corpus(["The dog", "A cat"], pairs, {"en": ["The dog. A cat."], "de": ["Ein Hund."]})
    dictionary = Dictionary([Entry({"en": ("dog", "dogs"), "de": ("Hund", "Hunde")})])
    return Source(corpus, dictionary, ["de"], shares, relatives=0.0)


def test_every_kind_has_the_target_of_its_english_side() -> None:
    rng = np.random.default_rng(0)
    expected = {
        "english": {("The dog", "", "The dog"), ("A cat", "", "A cat")},
        "translation": {("Der Hund", "", "The dog")},  # relatives are never drawn here
        "word": {("Hund", "", "dog"), ("Hunde", "", "dogs")},
        "pair": {("Der Hund", "The dog", "The dog"), ("The dog", "Der Hund", "The dog")},
    }
    for kind, triples in expected.items():
        made = source({kind: 1})
        drawn = made.draw(60, rng)
        assert {(e.text, e.second, made.english[e.target]) for e in drawn} == triples
    made = source({"switched": 1})
    assert ("The Hund", 0) in {(e.text, e.target) for e in made.draw(60, rng)}
    assert {e.target for e in source({"paragraph": 1}).draw(20, rng)} == {-1}


def test_shares_must_be_known() -> None:
    with pytest.raises(SettingsError, match="share to 'poem'"):
        source({"poem": 1})
    with pytest.raises(SettingsError, match="one must be above"):
        source({"english": 0})


# --- teacher --------------------------------------------------------------------------------------


def test_embed_equals_one_by_one(make_encoder: Callable[..., Encoder]) -> None:
    encoder = make_encoder("bert")
    texts = ["the dog", "a cat sees the old river and a small garden", "song"]
    together = embed(encoder, texts)
    for text, vector in zip(texts, together, strict=True):
        ids = encoder.tokenizer(text, return_tensors="pt")
        with torch.no_grad():
            alone = encoder.backbone(**ids).last_hidden_state.mean(1)[0]
        assert torch.allclose(vector, alone, atol=0.05)  # bf16 where the processor has it


def test_teacher_computes_each_text_once(
    make_encoder: Callable[..., Encoder], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = make_encoder("bert")
    first = Teacher(encoder, tmp_path)(["the dog", "a cat", "the dog"])
    assert torch.equal(first[0], first[2]) and not torch.equal(first[0], first[1])
    assert torch.allclose(first.norm(dim=1), torch.ones(3), atol=1e-2)
    asked: list[str] = []

    def counting(encoder: Encoder, texts: list[str]) -> torch.Tensor:
        asked.extend(texts)
        return embed(encoder, texts)

    monkeypatch.setattr("peftlab.pretraining.teacher.embed", counting)
    again = Teacher(encoder, tmp_path)(["a cat", "a song", "the dog"])
    assert asked == ["a song"]
    assert torch.equal(again[0], first[1]) and torch.equal(again[2], first[0])


def test_principal_axes_are_those_of_numpy() -> None:
    data = torch.randn(200, 6, dtype=torch.float64) @ torch.diag(
        torch.tensor([9.0, 5, 3, 1, 1, 1]).double()
    )
    mean, axes = principal_axes(data.float(), 3)
    _, _, reference = np.linalg.svd((data - data.mean(0)).numpy())
    assert np.allclose(np.abs(axes.numpy()), np.abs(reference[:3].T), atol=1e-3)
    assert torch.allclose(mean, data.mean(0).float(), atol=1e-5)
    with pytest.raises(SettingsError, match="above the teacher's 6"):
        principal_axes(data.float(), 7)
    with pytest.raises(DataError, match="4 English sentences cannot fix 6"):
        principal_axes(data[:4].float(), 6)


# --- student --------------------------------------------------------------------------------------


def test_encoder_takes_over_from_the_bag() -> None:
    """Before any training the encoder's mean pool points where the bag's vector does."""
    from transformers import BertConfig

    torch.manual_seed(0)
    bag = Bag(100, 64, dropout=0.0).eval()
    bag.table.weight.data *= torch.rand(100, 1) * 3  # words differ in weight
    config = BertConfig(
        vocab_size=100, hidden_size=64, num_hidden_layers=3, num_attention_heads=4,
        intermediate_size=128, max_position_embeddings=32,
    )  # fmt: skip
    student = Student(config, bag.table.weight.detach(), torch.ones(100)).eval()
    ids = torch.randint(5, 100, (40, 12))
    mask = torch.ones_like(ids)
    with torch.no_grad():
        wanted = bag(ids, mask.bool())
        found = student.pool(student(ids, torch.zeros_like(ids), mask), mask)
    centred = F.cosine_similarity(found - found.mean(0), wanted - wanted.mean(0))
    assert centred.mean() > 0.9
    assert found[:, -1].abs().max() < 1  # the carried constant is gone


def test_bag_ignores_padding_and_never_drops_everything() -> None:
    bag = Bag(10, 4, dropout=0.999).train()
    ids = torch.tensor([[1, 2, 3], [4, -1, -1]])
    vectors = bag(ids, ids >= 0)
    assert torch.isfinite(vectors).all()
    assert torch.allclose(vectors[1], bag.table.weight[4])
    assert torch.allclose(bag.eval()(ids, ids >= 0)[0], bag.table.weight[1:4].mean(0))


def test_masks_spare_special_tokens_and_mark_what_they_hide() -> None:
    torch.manual_seed(0)
    ids = torch.randint(5, 50, (200, 20))
    special = torch.zeros_like(ids, dtype=torch.bool)
    special[:, 0] = True
    changed, labels = mask_tokens(ids, special, 0.15, mask_id=4, vocabulary=50)
    chosen = labels >= 0
    assert not chosen[:, 0].any()
    assert torch.equal(labels[chosen], ids[chosen])
    assert torch.equal(changed[~chosen], ids[~chosen])
    assert 0.13 < chosen[:, 1:].float().mean() < 0.17
    assert 0.75 < (changed[chosen] == 4).float().mean() < 0.85


def test_sentence_loss_equals_its_formula() -> None:
    torch.manual_seed(0)
    s, t = torch.randn(4, 8), torch.randn(4, 8)
    loss, cosine = sentence_loss(s, t, torch.arange(4), temperature=0.1, contrast=0.5)
    sims = torch.stack([torch.stack([F.cosine_similarity(a, b, dim=0) for b in t]) for a in s])
    nce = -torch.stack([(sims[i, i] / 0.1) - (sims[i] / 0.1).exp().sum().log() for i in range(4)])
    assert torch.allclose(cosine, sims.diagonal().mean(), atol=1e-6)
    assert torch.allclose(loss, 1 - sims.diagonal().mean() + 0.5 * nce.mean(), atol=1e-5)


def test_equal_texts_are_not_each_others_negatives() -> None:
    t = torch.eye(3)[[0, 0, 1]]
    args = {"temperature": 0.05, "contrast": 1.0}
    known, _ = sentence_loss(t, t, torch.tensor([0, 0, 1]), **args)
    unknown, _ = sentence_loss(t, t, torch.tensor([0, 1, 2]), **args)
    assert known < 1e-6 < unknown


# --- recipe and scores ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("seed = 3", "", "'seed' is missing"),
        ("batch = 24", 'batch = "many"', "batch is 'many'"),
        ("heads = 2", "heads = 2\nhats = 1", "'hats' is not a setting"),
        ("seed = 3", "seed = ", "not valid TOML"),
    ],
)
def test_bad_recipe(recipe: Path, old: str, new: str, message: str) -> None:
    recipe.write_text(recipe.read_text().replace(old, new))
    with pytest.raises(SettingsError, match=message):
        Recipe.read(recipe)


def test_missing_recipe(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="no recipe file"):
        Recipe.read(tmp_path / "none.toml")


def test_shipped_recipe_is_valid() -> None:
    path = Path(__file__).parents[2] / "book" / "experiments" / "pocket-encoder.toml"
    assert set(Recipe.read(path).languages) == LANGUAGES - {"en"}


def test_scores_of_a_language_blind_and_a_blind_encoder(write_rows: Callable[..., Path]) -> None:
    """Vectors of meaning alone score 1 in every language; constant ones the majority."""
    from peftlab.pretraining.evaluate import SIB, XSID

    for lang in ("en", *XSID):
        rows = [{"text": f"{lang} {i % 3}", "intent": str(i % 3)} for i in range(30)]
        write_rows(f"xsid/{lang}/test", rows)
        write_rows(f"xsid/{lang}/validation", rows)
    for code in ("eng_Latn", *SIB.values()):
        rows = [{"index_id": i, "text": f"{code} {i}", "category": str(i % 2)} for i in range(8)]
        write_rows(f"sib200/{code}/train", rows)
        write_rows(f"sib200/{code}/test", rows)
    seen = cross_lingual_scores(
        lambda texts: torch.eye(8)[[int(text.split()[1]) for text in texts]]
    )
    assert seen["xsid"]["mean"] == seen["sib200"]["mean"] == seen["retrieval"]["mean"] == 1.0
    blind = cross_lingual_scores(lambda texts: torch.ones(len(texts), 4))
    assert blind["xsid"]["mean"] == blind["xsid"]["majority"] == pytest.approx(1 / 3)
    assert blind["retrieval"]["mean"] == pytest.approx(1 / 8)
