"""Training throughput of our loop against the Hugging Face Trainer: examples a second.

Both train the same encoder with a linear head, on the same rows, with the same batch size, number
of steps, optimiser and number format. Tokenising, set-up and the first two steps are left out on
both sides; evaluation and saving are off. ``trainer-padded-128`` pads every row to 128 tokens, as
the papers' scripts do; ``trainer-dynamic`` groups rows by length and pads to the longest.
"""

from __future__ import annotations

import random
import tempfile
import warnings
from collections.abc import Callable, Sequence
from dataclasses import fields
from time import perf_counter
from typing import Any, cast

import torch
from tqdm.auto import tqdm

from peftlab.models import Model
from peftlab.models import model as build
from peftlab.results.records.benches import Row
from peftlab.tasks import task as find_task
from peftlab.tasks.base import Feature, Task
from peftlab.timing.compare import Comparison
from peftlab.training import TrainSettings, batches
from peftlab.training.loop import fit
from peftlab.training.precision import resolve

ENCODER = "sentence-transformers/all-MiniLM-L6-v2"
TASKS = {"sst2": "glue/sst2", "mrpc": "glue/mrpc"}
BATCH, STEPS, WARM_UP, ROUNDS = 32, 16, 2, 5
RATE = 3e-5
LONGEST = 128
UNIT = "examples/s, more is better"

Timed = Callable[[], float]


class StepTimes:
    """Notes when each optimiser step ended."""

    def __init__(self) -> None:
        self.ends: list[float] = []

    def note(self, *_: object) -> None:
        """A step has ended now."""
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self.ends.append(perf_counter())

    def seconds(self) -> float:
        """Return seconds from the end of the warm-up to the end of the last step."""
        return self.ends[-1] - self.ends[WARM_UP - 1]


def run(rounds: int = ROUNDS, steps: int = STEPS) -> list[Row]:
    """Measure SST-2 and MRPC; about ten minutes on two cores.

    Args:
        rounds: Rounds, each with one run of every candidate in random order.
        steps: Optimiser steps a run, warm-up included.

    Returns:
        Our examples a second over the rival's, with the 95 % interval over rounds.
    """
    rows = []
    for name, task_name in TASKS.items():
        comparison = compare(task_name, rounds, steps)
        for rival in ("trainer-padded-128", "trainer-dynamic"):
            ratio = comparison.ratio(rival, against="peftlab")
            rows.append(Row(name=name, against=rival, unit=UNIT, **ratio._asdict()))
    return rows


def compare(task_name: str, rounds: int, steps: int) -> Comparison:
    """Time the three candidates on one task, interleaved."""
    task = find_task(task_name).limit(train=BATCH * steps, dev=1)
    candidates: dict[str, Timed] = {
        "peftlab": lambda: _ours(task, steps),
        "trainer-padded-128": lambda: _trainer(task, steps, padded=True),
        "trainer-dynamic": lambda: _trainer(task, steps, padded=False),
    }
    seconds: dict[str, list[float]] = {name: [] for name in candidates}
    warm_up: dict[str, list[float]] = {name: [timed()] for name, timed in candidates.items()}
    order = random.Random(0)
    for _ in tqdm(range(rounds), desc=task_name, disable=None):
        for name in order.sample(list(candidates), len(candidates)):
            seconds[name].append(candidates[name]())
    return Comparison(seconds, warm_up, baseline="peftlab")


def _model(task: Task) -> Model:
    model = build(ENCODER, task, "full", seed=0)
    return model.to("cuda" if torch.cuda.is_available() else "cpu")


def _ours(task: Task, steps: int) -> float:
    """Train with our loop and return the seconds of its steady steps."""
    times = StepTimes()
    settings = TrainSettings(
        learning_rate=RATE,
        epochs=1,
        batch_size=BATCH,
        max_length=LONGEST,
        max_steps=steps,
        # dev is one row and is scored after the last step, outside the timed steps
        evaluate_every=steps,
        keep_best=False,
    )
    fit(_model(task), task, settings, show_progress=False, on_step=times.note)
    return times.seconds()


def _trainer(task: Task, steps: int, *, padded: bool) -> float:
    """Train with the Hugging Face Trainer and return the seconds of its steady steps."""
    from transformers import Trainer, TrainerCallback, TrainingArguments
    from transformers.utils import logging

    logging.set_verbosity_error()
    model = _model(task)
    tokenizer = model.encoder.tokenizer
    assert tokenizer is not None
    features = task.encode(task.rows("train"), tokenizer, LONGEST)
    times = StepTimes()

    class Note(TrainerCallback):
        def on_step_end(self, *args: Any, **kwargs: Any) -> None:
            times.note()

    grouped = (
        {"group_by_length": True}
        if "group_by_length" in {f.name for f in fields(TrainingArguments)}
        else {"train_sampling_strategy": "group_by_length"}
    )
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        arguments = TrainingArguments(
            folder,
            max_steps=steps,
            per_device_train_batch_size=BATCH,
            learning_rate=RATE,
            weight_decay=0.01,
            warmup_steps=steps // 10,
            max_grad_norm=1.0,
            bf16=resolve("auto", model.device) == "bf16",
            use_cpu=model.device.type == "cpu",
            logging_strategy="no",
            save_strategy="no",
            report_to=[],
            disable_tqdm=True,
            remove_unused_columns=False,
            **({} if padded else grouped),
        )
        trainer = Trainer(
            model=Returning(model),
            args=arguments,
            train_dataset=cast(Any, features),
            data_collator=Padding(int(cast(int, tokenizer.pad_token_id)), LONGEST if padded else 0),
            callbacks=[Note()],
        )
        trainer.remove_callback(_printer())
        trainer.train()
    return times.seconds()


def _printer() -> Any:
    from transformers.trainer_callback import PrinterCallback

    return PrinterCallback


class Returning(torch.nn.Module):
    """Our model with the signature that the Trainer expects."""

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.model = model

    def forward(self, **batch: Any) -> dict[str, Any]:
        """Return loss and logits by name."""
        logits, loss = self.model(batch)
        return {"loss": loss, "logits": logits}


class Padding:
    """Pads rows to the longest of the batch, and to at least a fixed length."""

    def __init__(self, pad_id: int, at_least: int) -> None:
        self.pad_id, self.at_least = pad_id, at_least

    def __call__(self, features: Sequence[Feature]) -> batches.Batch:
        """Make a batch."""
        batch = batches.collate(features, self.pad_id)
        missing = self.at_least - batch["input_ids"].shape[1]
        if missing > 0:
            for name in ("input_ids", "attention_mask", "token_type_ids"):
                if name in batch:
                    fill = self.pad_id if name == "input_ids" else 0
                    batch[name] = torch.nn.functional.pad(batch[name], (0, missing), value=fill)
        return batch
