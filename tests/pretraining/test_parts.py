"""The parts of pretraining: examples, teacher, masks, losses, recipe, scores."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from peftlab.encoders import Encoder
from peftlab.errors import SettingsError
from peftlab.pretraining.corpus import Corpus, Pair
from peftlab.pretraining.dictionary import Dictionary, Entry
from peftlab.pretraining.evaluate import cross_lingual_scores, pos_scores
from peftlab.pretraining.examples import Source
from peftlab.pretraining.losses import sentence_losses, word_loss
from peftlab.pretraining.recipe import Recipe
from peftlab.pretraining.student import Bag
from peftlab.pretraining.teacher import Teacher, read
from peftlab.tasks.masking import mask_tokens

LANGUAGES = {"en", "de", "es", "fr", "it", "pt", "nl", "da", "no", "cs", "ru", "tr"}


# --- examples -------------------------------------------------------------------------------------


def source(shares: dict[str, float]) -> Source:
    pairs = [Pair("de", "Der Hund", "The dog"), Pair("swe", "Hunden", "The dog")]
    corpus = Corpus(["The dog", "A cat"], pairs, {"en": ["The dog. A cat."], "de": ["Ein Hund."]})
    dictionary = Dictionary([Entry({"en": ("dog", "dogs"), "de": ("Hund", "Hunde")})])
    return Source(corpus, dictionary, ["de"], shares, relatives=0.0)


def test_every_kind_has_the_target_of_its_english_side() -> None:
    rng = np.random.default_rng(0)
    dog, cat, hund = ("the", "dog"), ("a", "cat"), ("der", "hund")
    expected = {
        "english": {((dog,), dog), ((cat,), cat)},
        "translation": {((hund,), dog)},  # relatives are never drawn here
        "word": {((("hund",),), ("dog",)), ((("hunde",),), ("dogs",))},
        "pair": {((hund, dog), dog), ((dog, hund), dog)},
    }
    for kind, wanted in expected.items():
        made = source({kind: 1})
        drawn = {
            (tuple(segment.words for segment in e.segments), made.english[e.target])
            for e in made.draw(60, rng)
        }
        assert drawn == wanted
    made = source({"switched": 1})
    assert (("the", "hund"), 0) in {(e.segments[0].words, e.target) for e in made.draw(60, rng)}
    assert {e.target for e in source({"paragraph": 1}).draw(20, rng)} == {-1}


def test_words_of_a_translation_are_linked_to_their_english_words() -> None:
    example = source({"translation": 1}).draw(1, np.random.default_rng(0))[0]
    assert example.segments[0].links.tolist() == [0, 1]  # the dictionary knows the dog


def test_shares_must_be_known() -> None:
    with pytest.raises(SettingsError, match="share to 'poem'"):
        source({"poem": 1})
    with pytest.raises(SettingsError, match="one must be above"):
        source({"english": 0})


# --- teacher --------------------------------------------------------------------------------------


def test_reading_together_equals_reading_alone(make_encoder: Callable[..., Encoder]) -> None:
    encoder = make_encoder("bert")
    texts = [
        ("the", "dog"),
        ("a", "cat", "sees", "the", "old", "river", "and", "a", "small", "garden"),
        ("song",),
    ]
    together, words = read(encoder, texts, layer=1)
    for text, vector, states in zip(texts, together, words, strict=True):
        ids = encoder.tokenizer(list(text), is_split_into_words=True, return_tensors="pt")
        with torch.no_grad():
            alone = encoder.backbone(**ids, output_hidden_states=True)
        assert torch.allclose(vector, alone.last_hidden_state.mean(1)[0], atol=0.05)  # bf16
        places = ids.word_ids()
        for i, state in enumerate(states):
            own = [p for p, word in enumerate(places) if word == i]
            assert torch.allclose(state.float(), alone.hidden_states[1][0, own].mean(0), atol=0.05)
        assert len(states) == len(text)


def test_teacher_reads_each_text_once(
    make_encoder: Callable[..., Encoder], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = make_encoder("bert")
    dog, cat, song = ("the", "dog"), ("a", "cat"), ("a", "long", "song")
    first = Teacher(encoder, 1, tmp_path)([dog, cat, dog])
    assert torch.equal(first.sentences[0], first.sentences[2])
    assert not torch.equal(first.sentences[0], first.sentences[1])
    assert torch.allclose(first.sentences.norm(dim=1), torch.ones(3))
    asked: list[tuple[str, ...]] = []

    def counting(encoder: Encoder, texts: list[tuple[str, ...]], layer: int) -> object:
        asked.extend(texts)
        return read(encoder, texts, layer)

    monkeypatch.setattr("peftlab.pretraining.teacher.read", counting)
    again = Teacher(encoder, 1, tmp_path)([cat, song, dog])
    assert asked == [song]
    assert torch.equal(again.sentences[0], first.sentences[1])
    assert again.places[:, 2].tolist() == [2, 3, 2]
    for text, words in enumerate([cat, song, dog]):
        states = read(encoder, [words], 1)[1][0]
        assert torch.allclose(again.states(text, np.array([1, 0])), states[[1, 0]], atol=0.05)


# --- student --------------------------------------------------------------------------------------


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


def test_losses_equal_their_formulas() -> None:
    torch.manual_seed(0)
    s, t = torch.randn(4, 8), torch.randn(4, 8)
    likeness, ranking, cosine = sentence_losses(s, t, torch.arange(4), temperature=0.1)
    sims = torch.stack([torch.stack([F.cosine_similarity(a, b, dim=0) for b in t]) for a in s])
    nce = -torch.stack([(sims[i, i] / 0.1) - (sims[i] / 0.1).exp().sum().log() for i in range(4)])
    assert torch.allclose(cosine, sims.diagonal().mean(), atol=1e-6)
    assert torch.allclose(likeness, 1 - sims.diagonal().mean(), atol=1e-6)
    assert torch.allclose(ranking, nce.mean(), atol=1e-5)
    assert torch.allclose(word_loss(s, t), 1 - sims.diagonal().mean(), atol=1e-6)
    nothing = torch.empty(0, 8, requires_grad=True)
    assert word_loss(nothing, nothing) == 0


def test_equal_texts_are_not_each_others_negatives() -> None:
    t = torch.eye(3)[[0, 0, 1]]
    known = sentence_losses(t, t, torch.tensor([0, 0, 1]), 0.05)[1]
    unknown = sentence_losses(t, t, torch.tensor([0, 1, 2]), 0.05)[1]
    assert known < 1e-6 < unknown


# --- recipe and scores ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("seed = 3", "", "'seed' is missing"),
        ("batch = 24", 'batch = "many"', "batch is 'many'"),
        ("words = 1.0", "words = 1.0\nhats = 1", "'hats' is not a setting"),
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


def test_a_recipe_says_only_what_differs_from_its_base(recipe: Path) -> None:
    other = recipe.with_name("other.toml")
    other.write_text(
        f'base = "{recipe.name}"\nseed = 4\n[bag]\nsteps = 5\nshares = {{ word = 0 }}\n'
    )
    base, found = Recipe.read(recipe), Recipe.read(other)
    assert (found.seed, found.bag.steps, found.bag.batch) == (4, 5, base.bag.batch)
    assert found.bag.shares == base.bag.shares | {"word": 0}
    assert found.encoder_stage == base.encoder_stage
    other.write_text('base = "none.toml"')
    with pytest.raises(SettingsError, match=r"no recipe file .*none\.toml"):
        Recipe.read(other)


RECIPES = sorted(
    path
    for pattern in ("*-encoder*.toml", "encoder-ablations/*.toml")
    for path in (Path(__file__).parents[2] / "book" / "experiments").glob(pattern)
)


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_recipes_of_the_book_are_valid(path: Path) -> None:
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


def test_parts_of_speech_are_found_where_the_states_tell_them(
    write_rows: Callable[..., Path],
) -> None:
    from peftlab.pretraining.evaluate import POS

    rows = [{"tokens": [f"w{i}", f"w{i + 1}"], "pos_tags": [i % 3, (i + 1) % 3]} for i in range(30)]
    for language in ("en", *POS):
        write_rows(f"udpos/{language}/test", rows)
    write_rows("udpos/en/train", rows)

    def telling(texts: list[tuple[str, ...]]) -> list[torch.Tensor]:
        return [torch.eye(3)[[int(word[1:]) % 3 for word in words]] for words in texts]

    def cut(texts: list[tuple[str, ...]]) -> list[torch.Tensor]:
        return [torch.zeros(1, 3) for _ in texts]

    assert pos_scores(telling)["mean"] == pos_scores(telling)["en"] == 1.0
    assert pos_scores(cut)["mean"] == pytest.approx(1 / 3)
