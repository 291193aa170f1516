"""The two stages: what one step of each computes, and at which rates it learns."""

from __future__ import annotations

from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from peftlab.pretraining.batches import Batches, Pieces
from peftlab.pretraining.examples import Source
from peftlab.pretraining.losses import sentence_losses, word_loss
from peftlab.pretraining.recipe import Recipe
from peftlab.pretraining.stage import Losses, Stage
from peftlab.pretraining.student import Bag, Student
from peftlab.pretraining.teacher import Lessons, mean_pool, pad
from peftlab.tasks.masking import mask_tokens
from peftlab.training.precision import autocast, resolve

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def bag_stage(
    recipe: Recipe,
    bag: Bag,
    source: Source,
    tokenizer: PreTrainedTokenizerBase,
    lessons: Lessons,
    folder: Path,
    checkpoint_s: float,
) -> Stage:
    """Make the first stage: the bag learns to resemble the teacher in every language."""
    settings, pieces = recipe.bag, Pieces(tokenizer)

    def step_losses(step: int) -> Losses:
        rng = np.random.default_rng([recipe.seed, 1, step])
        examples = source.draw(settings.batch, rng)
        texts = pieces(example.segments[0].words for example in examples)
        ids = [list(chain.from_iterable(words)) for words in texts]
        kept = [i for i, row in enumerate(ids) if row]
        index = torch.tensor([examples[i].target for i in kept])
        padded = pad([ids[i] for i in kept], -1)
        vectors = bag(padded, padded >= 0)
        likeness, ranking, cosine = sentence_losses(
            vectors, lessons.sentences[index], index, settings.temperature
        )
        return {"loss": likeness + settings.contrast * ranking, "cosine": cosine}

    return Stage(
        "bag",
        bag,
        [{"params": list(bag.parameters()), "lr": settings.learning_rate, "weight_decay": 0.0}],
        step_losses,
        steps=settings.steps,
        warmup=settings.warmup,
        folder=folder,
        seed=recipe.seed,
        checkpoint_s=checkpoint_s,
    )


def encoder_stage(
    recipe: Recipe,
    student: Student,
    source: Source,
    tokenizer: PreTrainedTokenizerBase,
    lessons: Lessons,
    folder: Path,
    checkpoint_s: float,
) -> Stage:
    """Make the second stage: the encoder learns sentences, words and masked pieces at once.

    Pieces that are masked for the one loss serve the others as token dropout. A loss of weight 0 is
    not computed.
    """
    settings = recipe.encoder_stage
    precision, device = resolve("auto", torch.device("cpu")), torch.device("cpu")
    batches = Batches(recipe, source, tokenizer, lessons)
    special = torch.tensor(tokenizer.all_special_ids)

    def step_losses(step: int) -> Losses:
        batch = batches(step)
        mask = batch.ids != tokenizer.pad_token_id
        ids, labels = mask_tokens(
            batch.ids,
            torch.isin(batch.ids, special),
            settings.mask_rate,
            tokenizer.mask_token_id,
            len(tokenizer),
        )
        parts: Losses = {}
        with autocast(precision, device):
            hidden = student(ids, batch.types, mask.long())
            if settings.masked:
                parts["masked"] = settings.masked * student.masked_loss(hidden, labels)
        hidden = hidden.float()
        if settings.words:
            parts["words"] = settings.words * word_loss(
                student.words(hidden, batch.owners, len(batch.states)), batch.states
            )
        log: Losses = {}
        if settings.sentence:
            taught = batch.targets >= 0
            index = batch.targets[taught]
            likeness, ranking, log["cosine"] = sentence_losses(
                mean_pool(hidden, mask)[taught],
                lessons.sentences[index][:, student.kept],
                index,
                settings.temperature,
            )
            parts["sentence"] = settings.sentence * (likeness + settings.contrast * ranking)
        return {"loss": torch.stack(list(parts.values())).sum(), **parts, **log}

    table = student.encoder.embeddings.word_embeddings.weight
    matrices = [p for p in student.parameters() if p.ndim > 1 and p is not table]
    vectors = [p for p in student.parameters() if p.ndim == 1]
    return Stage(
        "encoder",
        student,
        [
            {"params": matrices, "lr": settings.learning_rate},
            {"params": vectors, "lr": settings.learning_rate, "weight_decay": 0.0},
            {"params": [table], "lr": settings.embedding_learning_rate, "weight_decay": 0.0},
        ],
        step_losses,
        steps=settings.steps,
        warmup=settings.warmup,
        folder=folder,
        seed=recipe.seed,
        checkpoint_s=checkpoint_s,
    )
