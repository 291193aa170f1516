"""The training loop: one readable loop for every method, resumable and exactly repeatable.

It knows batches, AdamW and evaluation. It knows nothing about how a method works: it trains what
the model says is trainable.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from peftlab.errors import DataError, NonFiniteLossError, OutOfMemoryError, SettingsError
from peftlab.methods.base import Part
from peftlab.tasks.base import Feature, Task
from peftlab.tasks.multi import MultiTask, joined
from peftlab.timing.capacity import out_of_memory, release
from peftlab.timing.phases import Phases
from peftlab.training import batches, state, workload
from peftlab.training.evaluation import encode, pad_token, scored
from peftlab.training.mixture import Mixture
from peftlab.training.precision import Resolved, autocast, resolve
from peftlab.training.progress import ProgressBar
from peftlab.training.settings import TrainSettings

if TYPE_CHECKING:
    from peftlab.models import Model


@dataclass
class Trained:
    """What a finished run leaves behind, besides the trained weights in the model.

    Attributes:
        settings: What was asked for.
        precision: The number format that was used.
        losses: Mean training loss of every optimiser step.
        rates: Learning rate of every step.
        evaluations: Step, epoch and metrics of every evaluation on the development split.
        best_step: Step whose weights the model now has (if ``keep_best``).
        tokens: Tokens trained on: ``real``, and ``padded`` with padding counted.
        flops: Of all training steps: see :func:`peftlab.training.workload.total`.
        earlier: Seconds by phase that earlier, interrupted attempts took.
    """

    settings: TrainSettings
    precision: Resolved
    losses: list[float]
    rates: list[float]
    evaluations: list[dict[str, Any]]
    best_step: int
    tokens: dict[str, int]
    flops: int | None
    earlier: dict[str, float]


def learning_rate(
    step: int, total: int, settings: TrainSettings, peak: float | None = None
) -> float:
    """Return the rate of a step: linear from 0 over the warm-up, then down to 0 or constant.

    Args:
        step: Optimiser step, from 0.
        total: Steps of the whole run.
        settings: Peak rate, warm-up share and schedule.
        peak: Another peak rate than that of the settings.
    """
    peak = settings.learning_rate if peak is None else peak
    warm = math.ceil(settings.warmup_ratio * total)
    if step < warm:
        return peak * (step + 1) / warm
    if settings.schedule == "constant":
        return peak
    return peak * (total - step) / max(1, total - warm)


def parts_of(model: nn.Module) -> list[Part]:
    """Return every part that a method has added, and the parts inside parts."""
    return [module for module in model.modules() if isinstance(module, Part)]


def penalised(model: nn.Module) -> list[Part]:
    """Return the parts that add something to the training loss."""
    return [part for part in parts_of(model) if type(part).penalty is not Part.penalty]


def penalty(parts: Sequence[Part]) -> Tensor | float:
    """Return what parts add to the training loss now."""
    terms = (part.penalty() for part in parts)
    return sum((term for term in terms if term is not None), 0.0)


def optimiser_for(model: nn.Module, settings: TrainSettings) -> torch.optim.AdamW:
    """Return AdamW over what trains; vectors (biases, LayerNorm) have no weight decay.

    Parameters with a rate of their own (:attr:`peftlab.methods.base.Part.rates`) are in groups of
    their own, with that rate as ``peak``.

    Raises:
        SettingsError: Nothing trains.
    """
    peaks = {
        id(part.get_parameter(name)): peak
        for part in parts_of(model)
        for name, peak in part.rates.items()
    }
    trained = [p for p in model.parameters() if p.requires_grad]
    if not trained:
        raise SettingsError(
            "Nothing of the model trains, neither its method nor its head: choose another method, "
            "or let the pretrained head train with train_head=True."
        )
    groups: list[dict[str, Any]] = []
    for peak in (None, *dict.fromkeys(peaks.values())):
        same = [p for p in trained if peaks.get(id(p)) == peak]
        own = {} if peak is None else {"peak": peak}
        groups += [
            {"params": [p for p in same if p.dim() > 1], "weight_decay": settings.weight_decay}
            | own,
            {"params": [p for p in same if p.dim() <= 1], "weight_decay": 0.0} | own,
        ]
    return torch.optim.AdamW(
        [g for g in groups if g["params"]], lr=settings.learning_rate, fused=True
    )


def fit(
    model: Model,
    task: Task | Sequence[Task],
    settings: TrainSettings,
    *,
    clock: Phases | None = None,
    folder: Path | None = None,
    key: str = "",
    show_progress: bool | None = None,
    on_step: Callable[[int], object] | None = None,
) -> Trained:
    """Train what a model declares trainable on a task's training split.

    With several tasks every batch is of one of them, with the shares that
    :class:`peftlab.tasks.multi.MultiTask` gives; the mean of their main metrics selects.

    The caller's random state is left alone. With a folder, the run writes checkpoints there and
    continues from the last one: its loss curve is then the same as without the interruption.

    Args:
        model: Is trained in place and left in evaluation mode.
        task: Its ``train`` split trains, its ``dev`` split selects.
        settings: Every knob.
        clock: Phases are timed on it; a new one by default.
        folder: Where checkpoints go; none are written without it.
        key: Identity of the run; a checkpoint of another run is refused.
        show_progress: Whether to draw a progress bar; by default where a person watches.
        on_step: Called with the number of steps done after every optimiser step.

    Returns:
        Curve, evaluations, tokens and times.

    Raises:
        DataError: The training split is empty, or the task is not what the head was made for.
        NonFiniteLossError: The loss became infinite or not a number.
        OutOfMemoryError: The device has too little memory; names a batch that fits.
        CheckpointError: The folder holds a checkpoint of another run, or a damaged one.
    """
    clock = clock or Phases()
    with torch.random.fork_rng(devices=[model.device] if model.device.type == "cuda" else []):
        torch.manual_seed(settings.seed)
        run = _Run(model, joined(task), settings, clock, folder, key, show_progress, on_step)
        try:
            return run.to_the_end()
        finally:
            run.bar.close()
            model.eval()


class _Run:
    """One run in progress: the state that its steps share."""

    def __init__(
        self,
        model: Model,
        task: Task,
        settings: TrainSettings,
        clock: Phases,
        folder: Path | None,
        key: str,
        show_progress: bool | None,
        on_step: Callable[[int], object] | None,
    ) -> None:
        self.on_step = on_step
        self.model, self.task, self.settings, self.clock = model, task, settings, clock
        self.folder, self.key = folder, key
        self.precision = resolve(settings.precision, model.device)
        self.pad_id = pad_token(model)
        with clock("tokenise"):
            self.features = encode(model, task, "train", settings.max_length)
            self.dev_rows = task.rows("dev")
            self.dev = encode(model, task, "dev", settings.max_length)
        if not self.features:
            raise DataError(f"The training split of {task.name!r} is empty; nothing can be learnt.")
        temperature = task.temperature if isinstance(task, MultiTask) else 1.0
        self.mixture = Mixture(self.features, settings.batch_size, temperature, settings.seed)
        self.steps_per_epoch = self.mixture.size
        self.total = settings.epochs * self.steps_per_epoch
        if settings.max_steps:
            self.total = min(self.total, settings.max_steps)
        self.evaluate_every = settings.evaluate_every or self.steps_per_epoch
        self.optimiser = optimiser_for(model, settings)
        self.penalised = penalised(model)
        self.best: dict[str, Tensor] = {}
        self.progress = state.Progress()
        if folder is not None:
            with clock("checkpoint"):
                found = state.restore(folder, key, model, self.optimiser)
            if found:
                self.progress, self.best = found
        self.earlier = dict(self.progress.seconds)
        self.saved_at = time.monotonic()
        self.pending: list[Tensor] = []
        self.epoch_plan: tuple[int, list[list[int]]] = (-1, [])
        dev_tokens = sum(batches.length(f) for f in self.dev)
        self.bar = ProgressBar(
            steps=self.total,
            evaluations=math.ceil(self.total / self.evaluate_every),
            step_work=3 * sum(self.mixture.lengths) / self.steps_per_epoch,
            evaluation_work=dev_tokens,
            done=self.progress.step,
            label=f"{task.name} · {model.method.name}",
            show=show_progress,
        )

    def to_the_end(self) -> Trained:
        """Advance from evaluation to evaluation until the last step or the early stop."""
        progress, settings = self.progress, self.settings
        phase = "warm-up"  # the first step of a process pays for allocation and caches
        while progress.step < self.total and not self._is_stale():
            until = progress.step + 1 if phase == "warm-up" else self._next_evaluation()
            with self.clock(phase):
                self._advance(until)
            phase = "train"
            if progress.step == self.total or progress.step % self.evaluate_every == 0:
                with self.clock("validation"):
                    self._validate()
            if self._checkpoint_is_due():
                self._save()
        if settings.keep_best and self.best:
            with torch.no_grad():
                for name, tensor in state.trained(self.model).items():
                    tensor.copy_(self.best[name])
        return Trained(
            settings=settings,
            precision=self.precision,
            losses=progress.losses,
            rates=[learning_rate(s, self.total, settings) for s in range(progress.step)],
            evaluations=progress.evaluations,
            best_step=progress.best_step if settings.keep_best else progress.step,
            tokens=progress.tokens,
            flops=workload.total(self.model, progress),
            earlier=self.earlier,
        )

    def _next_evaluation(self) -> int:
        here = self.progress.step // self.evaluate_every
        return min((here + 1) * self.evaluate_every, self.total)

    def _is_stale(self) -> bool:
        return bool(self.settings.patience) and self.progress.stale >= self.settings.patience

    def _checkpoint_is_due(self) -> bool:
        if self.folder is None:
            return False
        return time.monotonic() - self.saved_at >= self.settings.checkpoint_seconds

    def _advance(self, until: int) -> None:
        """Do optimiser steps until a step number, or until a checkpoint is due."""
        self.model.train()
        while self.progress.step < until:
            self._step(self._rows(self.progress.step))
            self.progress.step += 1
            self.bar.step()
            if self.on_step is not None:
                self.on_step(self.progress.step)
            if len(self.pending) >= 20:
                self._flush()
            if self._checkpoint_is_due():
                break
        self._flush()

    def _rows(self, step: int) -> list[int]:
        epoch, position = divmod(step, self.steps_per_epoch)
        if self.epoch_plan[0] != epoch:
            self.epoch_plan = (epoch, self.mixture.epoch(epoch))
        return self.epoch_plan[1][position]

    def _step(self, rows: list[int]) -> None:
        """Do one optimiser step on the given rows."""
        settings = self.settings
        step = self.progress.step
        for group in self.optimiser.param_groups:
            group["lr"] = learning_rate(step, self.total, settings, group.get("peak"))
        features = [batches.varied(self.features[i], settings.seed, step, i) for i in rows]
        size = math.ceil(len(rows) / settings.accumulation)
        loss = torch.zeros((), device=self.model.device)
        for start in range(0, len(rows), size):
            part = features[start : start + size]
            try:
                loss += self._backward(part, share=_weight(part) / _weight(features))
            except RuntimeError as error:
                raise self._explained(error, part) from error
        try:
            if settings.max_grad_norm:
                trained = [p for g in self.optimiser.param_groups for p in g["params"]]
                nn.utils.clip_grad_norm_(trained, settings.max_grad_norm)
            self.optimiser.step()  # makes its state in the first step
        except RuntimeError as error:
            raise self._explained(error, features[:size]) from error
        self.optimiser.zero_grad(set_to_none=True)
        self.pending.append(loss)

    def _backward(self, features: Sequence[Feature], share: float = 1.0) -> Tensor:
        batch = batches.to_device(batches.collate(features, self.pad_id), self.model.device)
        real, padded = batches.token_counts(features, [range(len(features))])
        self.progress.tokens["real"] += real
        self.progress.tokens["padded"] += padded
        workload.note(self.progress, self.model, batch)
        with autocast(self.precision, self.model.device):
            loss = (self.model(batch).loss + penalty(self.penalised)) * share
        loss.backward()
        return loss.detach().float()

    def _flush(self) -> None:
        """Read the losses of the last steps from the device, all at once, and check them."""
        for value in torch.stack(self.pending).tolist() if self.pending else []:
            if not math.isfinite(value):
                step = len(self.progress.losses)
                raise NonFiniteLossError(
                    f"The loss of {self.task.name!r} became {value} at step {step} with learning "
                    f"rate {self.settings.learning_rate:g}; choose a lower rate"
                    + (" or precision='fp32'." if self.precision == "bf16" else ".")
                )
            self.progress.losses.append(value)
        self.pending = []

    def _validate(self) -> None:
        """Score the development split and remember the weights if they are the best so far."""
        progress = self.progress
        if not self.dev:
            return
        found = scored(self.model, self.task, self.dev_rows, self.dev, precision=self.precision)
        metrics = found.metrics
        progress.evaluations.append(
            {
                "step": progress.step,
                "epoch": progress.step / self.steps_per_epoch,
                "metrics": metrics,
            }
        )
        score = metrics[self.task.main_metric]
        if score > progress.best_score:
            progress.best_score, progress.best_step, progress.stale = score, progress.step, 0
            if self.settings.keep_best:
                self.best = {n: t.clone() for n, t in state.trained(self.model).items()}
        else:
            progress.stale += 1
        above = self.settings.patience_above
        if above is not None and progress.best_score <= above:
            progress.stale = 0
        self.bar.evaluation(metrics, progress.losses)

    def _save(self) -> None:
        assert self.folder is not None
        with self.clock("checkpoint"):
            self.progress.seconds = added(self.earlier, self.clock.seconds())
            state.save(self.folder, self.key, self.model, self.optimiser, self.progress, self.best)
        self.saved_at = time.monotonic()

    def _explained(self, error: RuntimeError, features: Sequence[Feature]) -> Exception:
        """Turn an out-of-memory error into one that names a batch that fits."""
        if not out_of_memory(error):
            return error
        release(error)
        longest = max(map(batches.length, features))
        size = len(features) // 2
        while size:
            self.optimiser.zero_grad(set_to_none=True)
            try:
                self._backward(features[:size])
                self.optimiser.step()  # whose state may be what does not fit; the run ends anyway
                break
            except RuntimeError as smaller:
                release(smaller)
                size //= 2
        advice = (
            f"{size} rows fit: set batch_size={size}, or accumulation="
            f"{math.ceil(self.settings.batch_size / size)} for the same arithmetic"
            if size
            else "not even one row fits, with the optimiser's moments of what trains: choose a "
            "shorter max_length, a method that trains less or a smaller encoder"
        )
        return OutOfMemoryError(
            f"A batch of {len(features)} rows of {longest} tokens does not fit into the memory of "
            f"{self.model.device}; {advice}."
        )


def _weight(features: Sequence[Feature]) -> int:
    """Return over how many labels the loss of some rows is a mean; 1 where there are none."""
    return max(1, sum(map(batches.label_count, features)))


def added(first: dict[str, float], second: dict[str, float]) -> dict[str, float]:
    """Add seconds phase by phase."""
    return {k: first.get(k, 0.0) + second.get(k, 0.0) for k in {**first, **second}}
