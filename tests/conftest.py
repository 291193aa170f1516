"""Shared fixtures: tiny encoders with random weights, made on the spot; no network, no GPU."""

from __future__ import annotations

import os

os.environ["HF_HUB_OFFLINE"] = "1"  # before anything imports huggingface_hub
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch

from peftlab.encoders import Encoder, load_encoder, shape

MODEL_TYPES = ("bert", "roberta", "xlm-roberta")
WORDS = (
    *("a", "the", "old", "new", "red", "small", "good", "bad", "fine", "poor"),
    *("dog", "cat", "house", "film", "book", "river", "town", "child", "song", "garden"),
    *("is", "was", "sees", "likes", "reads", "finds", "sings", "walks", "and", "not", "."),
)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Let ``--support`` and ``--parity`` collect what the tests find about the methods."""
    parser.addoption("--support", metavar="FILE", help="merge the support tests' outcomes into it")
    parser.addoption("--parity", metavar="FILE", help="write the differences to other libraries")


def pytest_configure(config: pytest.Config) -> None:
    """Collect them if that was asked for."""
    for option, name in {"--support": "SupportRecorder", "--parity": "ParityRecorder"}.items():
        if path := config.getoption(option):
            recorder = getattr(import_module("tests.recording"), name)
            config.pluginmanager.register(recorder(Path(path).resolve()))


def tiny_tokenizer(model_type: str) -> Any:
    """Make a word-level tokenizer with the special tokens and templates of the model family."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    if model_type == "bert":
        special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
        pad, unk, cls, sep, mask = special
        pair, inputs = "{0} $A {1} $B:1 {1}:1", ["input_ids", "token_type_ids", "attention_mask"]
    else:
        special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
        cls, pad, sep, unk, mask = special
        pair, inputs = "{0} $A {1} {1} $B {1}", ["input_ids", "attention_mask"]
    vocabulary = {word: i for i, word in enumerate([*special, *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=unk))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{cls} $A {sep}",
        pair=pair.format(cls, sep),
        special_tokens=[(cls, vocabulary[cls]), (sep, vocabulary[sep])],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=pad,
        unk_token=unk,
        cls_token=cls,
        sep_token=sep,
        mask_token=mask,
        model_max_length=64,
        model_input_names=inputs,
    )


def tiny_config(model_type: str, **changes: Any) -> Any:
    """Return the configuration of a three-layer encoder, 128 wide."""
    from transformers import AutoConfig

    bert = model_type == "bert"
    sizes = {
        "vocab_size": 5 + len(WORDS),
        "hidden_size": 128,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "intermediate_size": 192,
        "max_position_embeddings": 64 if bert else 66,
        "type_vocab_size": 2 if bert else 1,
        "pad_token_id": 0 if bert else 1,
        "bos_token_id": None if bert else 0,
        "eos_token_id": None if bert else 2,
    }
    return AutoConfig.for_model(model_type, **(sizes | changes))


def tiny_backbone(model_type: str, seed: int = 0, **changes: Any) -> Any:
    """Make a backbone whose every parameter is random, biases and LayerNorms included."""
    from transformers import AutoModel

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        backbone = AutoModel.from_config(
            tiny_config(model_type, **changes), add_pooling_layer=False
        )
        with torch.no_grad():
            for parameter in backbone.parameters():
                parameter.add_(0.1 * torch.randn_like(parameter))
    return backbone.eval()


@pytest.fixture(params=MODEL_TYPES)
def model_type(request: pytest.FixtureRequest) -> str:
    """Every family of encoders in turn."""
    return request.param


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Return a function from a model type to a folder with a tiny encoder, as the hub has them."""
    made: dict[str, Path] = {}

    def folder(model_type: str) -> Path:
        if model_type not in made:
            made[model_type] = tmp_path_factory.mktemp(f"tiny-{model_type}")
            tiny_backbone(model_type).save_pretrained(made[model_type])
            tiny_tokenizer(model_type).save_pretrained(made[model_type])
        return made[model_type]

    return folder


@pytest.fixture
def make_encoder(tiny_folder: Callable[[str], Path]) -> Callable[..., Encoder]:
    """Return a function that loads a fresh tiny encoder: ``make_encoder("bert")``."""

    def make(model_type: str = "bert", *, attention: str = "sdpa") -> Encoder:
        return load_encoder(str(tiny_folder(model_type)), attention=attention)

    return make


@pytest.fixture
def encoder(make_encoder: Callable[..., Encoder], model_type: str) -> Encoder:
    """A fresh tiny encoder of every family."""
    return make_encoder(model_type)


@pytest.fixture(scope="session")
def meta_encoder() -> Callable[[str], Encoder]:
    """Return a function from a model's name to an encoder of its true shape, without weights."""

    def make(name: str) -> Encoder:
        return shape(name.removesuffix("-uncased"))

    return make


@pytest.fixture(scope="session")
def rows() -> list[dict[str, Any]]:
    """Labelled sentences of different lengths in the tiny encoders' words."""
    texts = (
        ("the film is good .", "good"),
        ("a bad book", "bad"),
        ("the old dog sees the small cat and walks .", "good"),
        ("poor song .", "bad"),
        ("the child likes the red garden and the new river .", "good"),
        ("not a fine town", "bad"),
    )
    return [{"text": text, "label": label} for text, label in texts]


@pytest.fixture
def toy_task(rows: list[dict[str, Any]]) -> Any:
    """A classification task on those sentences."""
    import peftlab as pl

    return pl.task({"train": rows, "dev": rows, "test": rows}, kind="classification", name="toy")


@pytest.fixture
def inputs(make_encoder: Callable[..., Encoder], model_type: str, rows: Any) -> dict[str, Any]:
    """Those sentences as a padded batch of ids, without labels."""
    tokenizer: Any = make_encoder(model_type).tokenizer
    return dict(tokenizer([row["text"] for row in rows], padding=True, return_tensors="pt"))


@pytest.fixture
def data_folder() -> Path:
    """The folder with real data; the test is skipped without it."""
    folder = os.environ.get("PEFTLAB_DATA")
    if not folder or not Path(folder).is_dir():
        pytest.skip("needs real data under PEFTLAB_DATA")
    return Path(folder)
