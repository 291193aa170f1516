"""From a recipe to an encoder on disk: the whole of pretraining, in the order it happens.

1. Read corpus and dictionary, align words. 2. Learn the tokenizer. 3. Let the teacher read the
English texts. 4. Train the bag of word pieces. 5. Cut the encoder out of the teacher. 6. Train it.
7. Write it.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from peftlab.encoders import load_encoder
from peftlab.pretraining.corpus import Corpus, read_corpus
from peftlab.pretraining.dictionary import Dictionary
from peftlab.pretraining.examples import Source
from peftlab.pretraining.recipe import Recipe
from peftlab.pretraining.stages import bag_stage, encoder_stage
from peftlab.pretraining.start import draw, english_shares, piece_vectors, prune
from peftlab.pretraining.student import Bag, Student
from peftlab.pretraining.teacher import Teacher
from peftlab.pretraining.tokenizer import ready_tokenizer, save_tokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

CALIBRATION = 256  # English sentences that show which parts of the teacher matter
COUNTED = 20000  # English sentences in which pieces are counted


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
        out: Folder that gets ``config.json``, ``model.safetensors`` (fp16, with the head for masked
            language modelling), the tokenizer and ``1_Pooling/config.json``. Other files in it
            stay.
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
    bag_source = Source(
        corpus, dictionary, settings.languages, settings.bag.shares, settings.relatives
    )
    source = bag_source.drawing(settings.encoder_stage.shares)
    texts = [*corpus.texts(), *dictionary.texts()]
    bag_key, key = settings.keys([text for _, text in texts])
    tokenizer = ready_tokenizer(work / bag_key / "tokenizer", texts, settings)
    teacher = load_encoder(settings.teacher)
    lessons = Teacher(teacher, settings.teacher_layer, work / "teacher")(source.english)
    prepared = time.perf_counter() - begin

    torch.manual_seed(settings.seed)
    width = teacher.anatomy.hidden_size
    bag = Bag(len(tokenizer), width, settings.bag.token_dropout)
    first = bag_stage(settings, bag, bag_source, tokenizer, lessons, work / bag_key, checkpoint_s)
    bag_curve = first.run()

    torch.manual_seed(settings.seed + 1)
    counts = _counts(tokenizer, corpus)
    if settings.encoder.from_teacher:
        shares = english_shares(counts)
        vectors = piece_vectors(bag.table.weight, shares, tokenizer, teacher)
        encoder, kept = prune(teacher, corpus.english[:CALIBRATION], vectors, settings.encoder)
    else:
        encoder, kept = draw(teacher, len(tokenizer), settings.encoder)
    frequency = torch.stack([each / each.sum() for each in counts.values()]).mean(0)
    student = Student(encoder, kept, width, frequency)
    second = encoder_stage(settings, student, source, tokenizer, lessons, work / key, checkpoint_s)
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


def _counts(tokenizer: PreTrainedTokenizerBase, corpus: Corpus) -> dict[str, Tensor]:
    """Count by language how often each piece occurs in the sentences."""
    texts: dict[str, list[str]] = {"en": corpus.english[:COUNTED]}
    for pair in corpus.pairs:
        texts.setdefault(pair.language, []).append(pair.text)
    counts = {}
    for language, found in texts.items():
        ids = tokenizer(found, truncation=True, max_length=128, add_special_tokens=False)
        flat = np.fromiter(chain.from_iterable(ids["input_ids"]), dtype=np.int64)
        counts[language] = torch.from_numpy(np.bincount(flat, minlength=len(tokenizer))).float()
    return counts


def _write(student: Student, tokenizer: PreTrainedTokenizerBase, out: Path) -> None:
    """Write the encoder beside its final place, then move file by file: none is ever half there."""
    temporary = out.with_name(f".{out.name}.{os.getpid()}")
    encoder = student.language_model().half()
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
