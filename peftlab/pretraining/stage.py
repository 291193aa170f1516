"""One stage of training: a loop that can be killed at any moment and goes on where it was.

The step number alone fixes the batch and the random state, so a checkpoint is the weights, AdamW's
moments, the step, and the curve. It is written to a temporary file first and then renamed.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from peftlab.errors import CheckpointError, NonFiniteLossError
from peftlab.files import replacing

Losses = dict[str, Tensor]  # "loss" is what is minimised; the others are for the log


class Stage:
    """Train a module for a fixed number of steps.

    Args:
        name: Names the checkpoint and the lines of the log.
        module: What is trained.
        groups: AdamW's parameter groups, each with its ``lr``.
        step_losses: Computes the losses of one step.
        steps: How many steps.
        warmup: Part of them in which the rates rise from 0; then they fall to 0 linearly.
        folder: Where the checkpoint goes; it belongs to one recipe and its data.
        seed: Fixes dropout and masks.
        checkpoint_s: Seconds between checkpoints.
        log: Gets a line now and then.
    """

    def __init__(
        self,
        name: str,
        module: nn.Module,
        groups: list[dict[str, object]],
        step_losses: Callable[[int], Losses],
        *,
        steps: int,
        warmup: float,
        folder: Path,
        seed: int,
        checkpoint_s: float = 60.0,
        log: Callable[[str], None] = print,
    ) -> None:
        self.name, self.module, self.step_losses = name, module, step_losses
        self.steps, self.warmup, self.seed = steps, max(1, int(warmup * steps)), seed
        self.path, self.checkpoint_s, self.log = folder / f"{name}.safetensors", checkpoint_s, log
        self.optimiser = torch.optim.AdamW(groups, betas=(0.9, 0.98), weight_decay=0.01, fused=True)
        self.schedule = torch.optim.lr_scheduler.LambdaLR(self.optimiser, self._factor)
        self.step, self.seconds = 0, 0.0
        self.curve: list[dict[str, float]] = []

    def _factor(self, step: int) -> float:
        if step < self.warmup:
            return (step + 1) / self.warmup
        return max(0.0, (self.steps - step) / max(1, self.steps - self.warmup))

    def run(self) -> list[dict[str, float]]:
        """Train to the end; return the curve, one entry a step.

        Raises:
            NonFiniteLossError: The loss became infinite or not a number.
            CheckpointError: The checkpoint is damaged.
        """
        self._restore()
        self.module.train()
        saved = begin = time.perf_counter()
        before = self.seconds
        while self.step < self.steps:
            torch.manual_seed(self.seed * 1_000_003 + self.step)
            losses = self.step_losses(self.step)
            entry = {name: float(value.detach()) for name, value in losses.items()}
            if not torch.isfinite(losses["loss"]):
                raise NonFiniteLossError(
                    f"The loss of the {self.name} stage is {entry['loss']} at step {self.step}: "
                    "lower the learning rate in the recipe."
                )
            self.optimiser.zero_grad(set_to_none=True)
            losses["loss"].backward()
            nn.utils.clip_grad_norm_(self.module.parameters(), 1.0)
            self.optimiser.step()
            self.schedule.step()
            self.step += 1
            self.curve.append(entry)
            now = time.perf_counter()
            self.seconds = before + now - begin
            if self.step % 50 == 0 or self.step == self.steps:
                self._report()
            if now - saved >= self.checkpoint_s or self.step == self.steps:
                self._save()
                saved = time.perf_counter()
        return self.curve

    def _report(self) -> None:
        recent = self.curve[-50:]
        means = ", ".join(f"{k} {sum(e[k] for e in recent) / len(recent):.3f}" for k in recent[-1])
        self.log(f"{self.name} stage: step {self.step}/{self.steps}, {self.seconds:.0f} s, {means}")

    def _named(self) -> dict[str, nn.Parameter]:
        return {name: p for name, p in self.module.named_parameters() if p.requires_grad}

    def _save(self) -> None:
        from safetensors.torch import save_file

        tensors: dict[str, Tensor] = {}
        for name, parameter in self._named().items():
            tensors[f"weight/{name}"] = parameter.detach()
            for moment, value in self.optimiser.state.get(parameter, {}).items():
                tensors[f"{moment}/{name}"] = torch.as_tensor(value)
        progress = {"step": self.step, "seconds": self.seconds, "curve": self.curve}
        with replacing(self.path) as temporary:
            save_file(
                {name: tensor.contiguous() for name, tensor in tensors.items()},
                temporary,
                metadata={"progress": json.dumps(progress)},
            )

    def _restore(self) -> None:
        from safetensors import SafetensorError, safe_open

        if not self.path.is_file():
            return
        try:
            with safe_open(self.path, framework="pt") as file:
                header = file.metadata()
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except (SafetensorError, OSError) as error:
            raise CheckpointError(
                f"The checkpoint {self.path} cannot be read ({error}): delete it to train the "
                f"{self.name} stage again."
            ) from error
        for name, parameter in self._named().items():
            parameter.data.copy_(tensors.pop(f"weight/{name}"))
            moments = {
                k.split("/", 1)[0]: v for k, v in tensors.items() if k.split("/", 1)[1] == name
            }
            if moments:
                self.optimiser.state[parameter] = moments
        progress = json.loads(header["progress"])
        self.step, self.seconds, self.curve = (
            progress["step"],
            progress["seconds"],
            progress["curve"],
        )
        for group, initial in zip(self.optimiser.param_groups, self.schedule.base_lrs, strict=True):
            group["lr"] = initial * self._factor(self.step)
        self.schedule.last_epoch = self.step
