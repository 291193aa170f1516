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

from peftlab.pretraining.corpus import read_corpus
from peftlab.pretraining.dictionary import Dictionary
from peftlab.pretraining.examples import Example, Source
from peftlab.pretraining.losses import sentence_loss
from peftlab.pretraining.recipe import Recipe
from peftlab.pretraining.stage import Losses, Stage
from peftlab.pretraining.student import Bag, Student, mask_tokens
from peftlab.pretraining.teacher import Teacher, pad, principal_axes
from peftlab.pretraining.tokenizer import train_tokenizer
from peftlab.training.precision import autocast, resolve

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

POOL = 16  # batches drawn at once, so that examples of one length can share a batch


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
        CheckpointError: The working folder holds another recipe's checkpoint.
        NonFiniteLossError: Training diverged.
    """
    from peftlab.encoders import load_encoder

    recipe, out = Recipe.read(Path(recipe)), Path(out)
    work = Path(work) if work is not None else Path(".peftlab") / "pretraining"
    begin = time.perf_counter()
    corpus, dictionary = read_corpus(recipe.sources), Dictionary.read()
    make_source = lambda shares: Source(  # noqa: E731
        corpus, dictionary, recipe.languages, shares, recipe.relatives
    )
    bag_source, source = make_source(recipe.bag.shares), make_source(recipe.encoder_stage.shares)
    key = recipe.key([*source.english, *(pair.text for pair in corpus.pairs)])
    sizes = recipe.encoder
    words = [
        (lang, f) for e in dictionary.entries for lang, forms in e.forms.items() for f in forms
    ]
    folder = work / key
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = train_tokenizer(
        [*corpus.texts(), *words],
        sizes.vocabulary,
        sizes.max_length,
        sizes.english_share,
        recipe.seed,
        folder,
    )
    teacher = Teacher(load_encoder(recipe.teacher), work / "teacher")
    embeddings = teacher(source.english)
    mean, axes = principal_axes(embeddings, sizes.hidden_size)
    targets = (embeddings - mean) @ axes
    prepared = time.perf_counter() - begin

    torch.manual_seed(recipe.seed)
    bag = Bag(len(tokenizer), sizes.hidden_size, recipe.bag.token_dropout)
    bag_stage = _bag_stage(recipe, bag, bag_source, tokenizer, targets, folder, key)
    bag_curve = bag_stage.run()

    torch.manual_seed(recipe.seed + 1)
    frequency = _frequencies(tokenizer, source.english[:20000] + [p.text for p in corpus.pairs])
    student = Student(_config(recipe, tokenizer), bag.table.weight.detach().clone(), frequency)
    stage = _encoder_stage(recipe, student, source, tokenizer, targets, folder, key)
    curve = stage.run()

    _write(student, tokenizer, out)
    return {
        "recipe_key": key,
        "english": len(source.english),
        "pairs": len(corpus.pairs),
        "dictionary": len(dictionary.entries),
        "parameters": sum(p.numel() for p in student.encoder.parameters()),
        "seconds": {
            "prepare": prepared,
            "bag": bag_stage.seconds,
            "encoder": stage.seconds,
        },
        "curves": {"bag": bag_curve, "encoder": curve},
    }


def _bag_stage(
    recipe: Recipe,
    bag: Bag,
    source: Source,
    tokenizer: PreTrainedTokenizerBase,
    targets: Tensor,
    folder: Path,
    key: str,
) -> Stage:
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
        key=key,
        seed=recipe.seed,
    )


def _encoder_stage(
    recipe: Recipe,
    student: Student,
    source: Source,
    tokenizer: PreTrainedTokenizerBase,
    targets: Tensor,
    folder: Path,
    key: str,
) -> Stage:
    settings = recipe.encoder_stage
    precision, device = resolve("auto", torch.device("cpu")), torch.device("cpu")
    batches = _Batches(recipe, source, tokenizer)
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
        key=key,
        seed=recipe.seed,
    )


class _Batches:
    """Batches of about equally many tokens; examples of similar length share one."""

    def __init__(self, recipe: Recipe, source: Source, tokenizer: PreTrainedTokenizerBase) -> None:
        self.seed, self.settings = recipe.seed, recipe.encoder_stage
        self.source, self.tokenizer = source, tokenizer
        self.number, self.pool = -1, []  # type: ignore[var-annotated]

    def __call__(self, step: int) -> tuple[Tensor, Tensor, Tensor]:
        """Return ids [B, L], token types [B, L] and target indices [B] of a step."""
        number, place = divmod(step, POOL)
        if number != self.number:
            self.number, self.pool = (
                number,
                self._fill(np.random.default_rng([self.seed, 2, number])),
            )
        rows = self.pool[place]
        return (
            pad([row["ids"] for row in rows], self.tokenizer.pad_token_id),
            pad([row["types"] for row in rows]),
            torch.tensor([row["target"] for row in rows]),
        )

    def _fill(self, rng: np.random.Generator) -> list[list[dict[str, Any]]]:
        rows: list[dict[str, Any]] = []
        wanted = POOL * self.settings.tokens
        while wanted > 0:
            for example in self._encode(self.source.draw(256, rng)):
                rows.append(example)
                wanted -= len(example["ids"])
        rows.sort(key=lambda row: len(row["ids"]))
        ends = np.cumsum([len(row["ids"]) for row in rows])
        cuts = np.searchsorted(ends, ends[-1] * np.arange(1, POOL) / POOL).tolist()
        pool = [rows[a:b] for a, b in zip([0, *cuts], [*cuts, len(rows)], strict=True)]
        return [pool[i] for i in rng.permutation(POOL)]

    def _encode(self, examples: list[Example]) -> list[dict[str, Any]]:
        texts = [(e.text, e.second) if e.second else e.text for e in examples]
        encoded = self.tokenizer(texts, truncation=True, max_length=self.settings.max_length)
        return [
            {"ids": ids, "types": types, "target": example.target}
            for example, ids, types in zip(
                examples, encoded["input_ids"], encoded["token_type_ids"], strict=True
            )
        ]


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
    tokenizer.save_pretrained(temporary)
    for extra in ("special_tokens_map.json", "vocab.txt"):
        (temporary / extra).unlink(missing_ok=True)
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
