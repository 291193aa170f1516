"""The two stages: what one step of each computes, and at which rates it learns."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from peftlab.pretraining.batches import Batches
from peftlab.pretraining.examples import Source
from peftlab.pretraining.losses import sentence_loss
from peftlab.pretraining.recipe import Recipe
from peftlab.pretraining.stage import Losses, Stage
from peftlab.pretraining.student import Bag, Student
from peftlab.pretraining.teacher import pad
from peftlab.tasks.masking import mask_tokens
from peftlab.training.precision import autocast, resolve

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def bag_stage(
    recipe: Recipe,
    bag: Bag,
    source: Source,
    tokenizer: PreTrainedTokenizerBase,
    targets: Tensor,
    folder: Path,
    checkpoint_s: float,
) -> Stage:
    """Make the first stage: the bag learns to resemble the teacher in every language."""
    settings = recipe.bag

    def step_losses(step: int) -> Losses:
        rng = np.random.default_rng([recipe.seed, 1, step])
        examples = source.draw(settings.batch, rng)
        ids = tokenizer(
            [e.text for e in examples], truncation=True, max_length=128, add_special_tokens=False
        )["input_ids"]
        kept = [i for i, row in enumerate(ids) if row]
        index = torch.tensor([examples[i].target for i in kept])
        padded = pad([ids[i] for i in kept], -1)
        vectors = bag(padded, padded >= 0)
        loss, cosine = sentence_loss(
            vectors, targets[index], index, settings.temperature, settings.contrast
        )
        return {"loss": loss, "cosine": cosine}

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
    targets: Tensor,
    folder: Path,
    checkpoint_s: float,
) -> Stage:
    """Make the second stage: the encoder goes on from the bag, and fills masked pieces too.

    Pieces that are masked for the one loss serve the other as token dropout.
    """
    settings = recipe.encoder_stage
    precision, device = resolve("auto", torch.device("cpu")), torch.device("cpu")
    batches = Batches(recipe, source, tokenizer)
    special = torch.tensor(tokenizer.all_special_ids)

    def step_losses(step: int) -> Losses:
        ids, types, index = batches(step)
        mask = ids != tokenizer.pad_token_id
        hidden_ids, labels = mask_tokens(
            ids,
            torch.isin(ids, special),
            settings.mask_rate,
            tokenizer.mask_token_id,
            len(tokenizer),
        )
        with autocast(precision, device):
            hidden = student(hidden_ids, types, mask.long())
            masked = student.masked_loss(hidden, labels)
        taught = index >= 0
        vectors = student.pool(hidden, mask)[taught]
        sentence, cosine = sentence_loss(
            vectors, targets[index[taught]], index[taught], settings.temperature, settings.contrast
        )
        return {
            "loss": sentence + settings.masked * masked,
            "cosine": cosine,
            "masked": masked.detach(),
        }

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
