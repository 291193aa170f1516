"""From a recipe to an encoder on disk: the whole of pretraining, in the order it happens.

1. Read corpus and dictionary. 2. Learn the tokenizer. 3. Embed the English texts with the teacher
and fix the projection. 4. Train the bag of word pieces. 5. Train the encoder. 6. Write it.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from peftlab.encoders import load_encoder
from peftlab.pretraining.corpus import read_corpus
from peftlab.pretraining.dictionary import Dictionary
from peftlab.pretraining.examples import Source
from peftlab.pretraining.recipe import Recipe
from peftlab.pretraining.stages import bag_stage, encoder_stage
from peftlab.pretraining.student import Bag, Student
from peftlab.pretraining.teacher import Teacher, principal_axes
from peftlab.pretraining.tokenizer import ready_tokenizer, save_tokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def pretrain(
    recipe: Path | str,
    out: Path | str,
    work: Path | str | None = None,
    checkpoint_s: float = 60.0,
) -> dict[str, Any]:
    """Make an encoder as a recipe says.

    It can be killed at any moment; the same call goes on from the last checkpoint. With the same
    recipe, data, machine and versions the result is the same.

    Args:
        recipe: TOML file; ``book/experiments/pocket-encoder.toml`` is the shipped encoder's.
        out: Folder that gets ``config.json``, ``model.safetensors`` (fp16), the tokenizer and
            ``1_Pooling/config.json``. Other files in it stay.
        work: Folder for the teacher's embeddings and the checkpoints; ``.peftlab/pretraining`` here
            if not given. It can be deleted afterwards.
        checkpoint_s: Seconds between checkpoints.

    Returns:
        What was done: corpus sizes, parameters, seconds and curves of the stages.

    Raises:
        SettingsError: The recipe cannot work.
        DataError: A source is missing or damaged.
        CheckpointError: A checkpoint in the working folder is damaged.
        NonFiniteLossError: Training diverged.
    """
    settings, out = Recipe.read(Path(recipe)), Path(out)
    work = Path(work) if work is not None else Path(".peftlab") / "pretraining"
    begin = time.perf_counter()
    corpus, dictionary = read_corpus(settings.sources), Dictionary.read()
    bag_source, source = (
        Source(corpus, dictionary, settings.languages, shares, settings.relatives)
        for shares in (settings.bag.shares, settings.encoder_stage.shares)
    )
    texts = [*corpus.texts(), *dictionary.texts()]
    bag_key, key = settings.keys([text for _, text in texts])
    tokenizer = ready_tokenizer(work / bag_key / "tokenizer", texts, settings)
    embeddings = Teacher(load_encoder(settings.teacher), work / "teacher")(source.english)
    mean, axes = principal_axes(embeddings, settings.encoder.hidden_size)
    targets = (embeddings - mean) @ axes
    prepared = time.perf_counter() - begin

    torch.manual_seed(settings.seed)
    bag = Bag(len(tokenizer), settings.encoder.hidden_size, settings.bag.token_dropout)
    first = bag_stage(settings, bag, bag_source, tokenizer, targets, work / bag_key, checkpoint_s)
    bag_curve = first.run()

    torch.manual_seed(settings.seed + 1)
    frequency = _frequencies(tokenizer, source.english[:20000] + [p.text for p in corpus.pairs])
    student = Student(_config(settings, tokenizer), bag.table.weight.detach().clone(), frequency)
    second = encoder_stage(settings, student, source, tokenizer, targets, work / key, checkpoint_s)
    curve = second.run()

    _write(student, tokenizer, out)
    return {
        "recipe": key,
        "english": len(source.english),
        "pairs": len(corpus.pairs),
        "dictionary": len(dictionary.entries),
        "parameters": sum(p.numel() for p in student.encoder.parameters()),
        "seconds": {"prepare": prepared, "bag": first.seconds, "encoder": second.seconds},
        "curves": {"bag": bag_curve, "encoder": curve},
    }


def _config(recipe: Recipe, tokenizer: PreTrainedTokenizerBase) -> Any:
    from transformers import BertConfig

    sizes, dropout = recipe.encoder, recipe.encoder_stage.dropout
    return BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=sizes.hidden_size,
        num_hidden_layers=sizes.layers,
        num_attention_heads=sizes.heads,
        intermediate_size=sizes.intermediate_size,
        max_position_embeddings=sizes.max_length,
        hidden_dropout_prob=dropout,
        attention_probs_dropout_prob=dropout,
        pad_token_id=tokenizer.pad_token_id,
    )


def _frequencies(tokenizer: PreTrainedTokenizerBase, texts: list[str]) -> Tensor:
    ids = tokenizer(texts, truncation=True, max_length=128)["input_ids"]
    counts = np.bincount(np.concatenate([np.array(row) for row in ids]), minlength=len(tokenizer))
    return torch.from_numpy(counts).float()


def _write(student: Student, tokenizer: PreTrainedTokenizerBase, out: Path) -> None:
    """Write the encoder beside its final place, then move file by file: none is ever half there."""
    temporary = out.with_name(f".{out.name}.{os.getpid()}")
    encoder = student.encoder.half()
    encoder.config.hidden_dropout_prob = encoder.config.attention_probs_dropout_prob = 0.1
    encoder.save_pretrained(temporary)
    save_tokenizer(tokenizer, temporary)
    (temporary / "1_Pooling").mkdir()
    pooling = {
        "word_embedding_dimension": encoder.config.hidden_size,
        "pooling_mode_cls_token": False,
        "pooling_mode_mean_tokens": True,
        "pooling_mode_max_tokens": False,
    }
    (temporary / "1_Pooling" / "config.json").write_text(json.dumps(pooling, indent=2) + "\n")
    for path in sorted(p for p in temporary.rglob("*") if p.is_file()):
        place = out / path.relative_to(temporary)
        place.parent.mkdir(parents=True, exist_ok=True)
        os.replace(path, place)
    shutil.rmtree(temporary)
