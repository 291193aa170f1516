"""One cell measured: every method built on one backbone, counted, weighed and timed in turns."""

from __future__ import annotations

import gc
import os
import random
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from statistics import median
from typing import Any, cast

import torch
from pydantic import JsonValue

from peftlab import methods
from peftlab.costs import ways
from peftlab.costs.capacity import largest_batches
from peftlab.costs.plan import Rounds
from peftlab.costs.step import Batch, Pass, build, encoder_of, parameters, random_batch
from peftlab.encoders import SHAPES, Encoder, shape
from peftlab.errors import OutOfMemoryError, SettingsError
from peftlab.methods.work import work
from peftlab.results.records.costs import (
    COMPILED,
    MERGED,
    Candidate,
    CostRecord,
    CostSettings,
    Flops,
)
from peftlab.results.records.run import Git
from peftlab.tasks.heads import Head
from peftlab.timing import NoisyTiming, cost, energy, flops, machine, memory, quiet
from peftlab.timing.capacity import out_of_memory, release
from peftlab.timing.ceilings import ceilings
from peftlab.timing.clock import clock
from peftlab.timing.marks import Marks
from peftlab.training.precision import has_bf16
from peftlab.training.workload import attention_kernel

SEED = 0


@dataclass
class _Ready:
    """A method that is built, with what is known of it before it is timed."""

    run: Pass
    call: Callable[[], object]
    found: dict[str, Any]


def measure(
    settings: CostSettings, rounds: Rounds | None = None, experiment: str = ""
) -> CostRecord:
    """Measure one cell.

    Args:
        settings: The cell and its methods.
        rounds: How long is measured.
        experiment: Name of the experiment file.

    Returns:
        The record. A method that did not fit into memory, or that cannot be run in another way, has
        an error in it and no times.

    Raises:
        OutOfMemoryError: The baseline does not fit, or not all methods at once.
        SettingsError: The encoder does not take such texts, or the device has no bf16.
        TimingError: Other processes use the GPU.

    Warns:
        NoisyTiming: Other programs use the CPU, or the samples spread widely.
    """
    rounds = rounds or Rounds()
    device = torch.device(settings.device)
    _check_length(settings)
    _check_precision(settings, device)
    if device.type == "cuda":
        machine.refuse_shared()
    before = machine.describe() | {"load_average": os.getloadavg()[0]}
    if device.type != "meta":
        before["cores_busy"] = _watch()
    joules: dict[str, JsonValue] = {}
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(SEED)
        if settings.mode == "capacity":
            candidates = largest_batches(settings)
        else:
            candidates, joules = _compare(settings, rounds)
    return CostRecord(
        id=settings.id,
        experiment=experiment,
        settings=settings,
        candidates=candidates,
        joules=joules,
        ceilings={} if device.type == "meta" else _ceilings(device, torch.get_num_threads()),
        machine=before | {"after": machine.clocks()},
        versions=machine.versions(),
        git=Git(**machine.git()),
    )


@cache
def _ceilings(device: torch.device, threads: int) -> dict[str, JsonValue]:
    """Measure what a device reaches at most with so many threads, once a process."""
    return ceilings(device).as_dict()


def _check_length(settings: CostSettings) -> None:
    """Refuse texts that an encoder of known shape does not take, prompts included."""
    if settings.encoder not in SHAPES:
        return
    most = shape(settings.encoder).anatomy.max_length
    for label, entry in settings.methods.items():
        extra = methods.get(entry).extra_tokens
        if settings.length + extra > most:
            raise SettingsError(
                f"{settings.length} tokens and the {extra} vectors of {label!r} are more than the "
                f"{most} positions of {settings.encoder!r}: choose shorter texts."
            )


def _check_precision(settings: CostSettings, device: torch.device) -> None:
    """Refuse a number format that the device would emulate."""
    if settings.precision == "bf16" and not has_bf16(device):
        raise SettingsError(
            f"{settings.processor or settings.device} has no instructions for bf16 matrices and "
            "would emulate them: measure fp32 here, or take another device."
        )


def _watch() -> float | None:
    """Return the share of the cores that other programs use; warn if it is large."""
    share = quiet.cores_busy()
    if share is not None and share > quiet.QUIET:
        warnings.warn(
            f"Other programs use {100 * share:.0f} % of this machine's cores, and what is timed "
            "beside them means little: close them, and measure again.",
            NoisyTiming,
            stacklevel=3,
        )
    return share


def _compare(
    settings: CostSettings, rounds: Rounds
) -> tuple[dict[str, Candidate], dict[str, JsonValue]]:
    """Measure the methods beside each other; return what they cost, and why energy is not known."""
    ready, failed = _prepare(settings, encoder_of(settings))
    if settings.baseline in failed:
        raise OutOfMemoryError(
            f"The baseline {settings.baseline!r} cannot be measured on {settings.batch} × "
            f"{settings.length} tokens ({failed[settings.baseline].error}); choose a smaller cell."
        )
    reason = ""
    if settings.device != "meta":
        try:
            _time(settings, ready, rounds)
            if rounds.energy:
                reason = _energy(settings, ready)
        except RuntimeError as error:
            if not out_of_memory(error):
                raise
            ready.clear()
            release(error)
            raise OutOfMemoryError(
                f"The methods do not fit into memory beside each other on {settings.batch} × "
                f"{settings.length} tokens ({str(error).splitlines()[0]}); choose a smaller cell, "
                "or fewer methods."
            ) from None
    found = {
        label: failed[label] if label in failed else Candidate(**ready[label].found)
        for label in settings.methods
    }
    return found, {"reason": reason} if reason else {}


def _prepare(
    settings: CostSettings, encoder: Encoder
) -> tuple[dict[str, _Ready], dict[str, Candidate]]:
    """Build, count and weigh every method; return those that run, and why others do not."""
    batch = random_batch(encoder, settings.batch, settings.length)
    ready, failed = {}, {}
    if any(ways.way_of(label) == COMPILED for label in settings.methods):
        torch.compiler.reset()  # it compiles a function for so many modules and no more
    for label in settings.methods:
        try:
            ready[label] = _ready(settings, encoder, batch, label)
        except SettingsError as error:
            if not ways.way_of(label):
                raise
            failed[label] = Candidate(error=str(error))
        except RuntimeError as error:
            if not out_of_memory(error):
                raise
            release(error)
            failed[label] = Candidate(error=str(error).splitlines()[0])
    return ready, failed


def _ready(settings: CostSettings, encoder: Encoder, batch: Batch, label: str) -> _Ready:
    """Build, count and weigh one method; apart, so that one that does not fit leaves nothing."""
    training, merged = settings.mode == "train", label.endswith(MERGED)
    model = build(encoder, settings.methods[label], SEED, own=training or merged)
    found: dict[str, Any] = {"parameters": parameters(model)}
    if not training:
        model.flatten()
    if merged:
        model.merge()
    way = ways.way_of(label)
    if any(map(ways.way_of, settings.methods)):  # what is compared has the same mask: none
        batch = ways.unmasked(model, batch)
    run = Pass(model, batch, settings.precision)
    found["flops"] = _flops(settings, run, merged=merged)
    if way:
        return _Ready(run, ways.other_way(run, way, training=training), found)
    if training and settings.device != "meta":
        found["memory"] = memory.split(run.forward, run.optimiser, model, batch.values()).as_dict()
    return _Ready(run, run if training else run.infer, found)


def _time(settings: CostSettings, ready: dict[str, _Ready], rounds: Rounds) -> None:
    """Time the methods in turns and put the samples into what was found."""
    training = settings.mode == "train"
    timed = cost(
        {label: each.call for label, each in ready.items()},
        settings.baseline,
        warmup=rounds.warmup,
        min_rounds=rounds.min_rounds,
        min_seconds=rounds.min_seconds,
        clock=clock(settings.device),
        # a forward pass is served one at a time, so each is a sample and is waited for
        window_seconds=None if training else 0.0,
    )
    for label, each in ready.items():
        each.found |= {
            "seconds": list(timed.seconds[label]),
            "warmup": list(timed.warmup[label]),
            "calls": timed.calls[label],
            "busy": timed.busy[label],
        }
    if training:
        _take_apart({n: r for n, r in ready.items() if r.call is r.run}, settings, rounds)


def _energy(settings: CostSettings, ready: dict[str, _Ready]) -> str:
    """Measure the energy of each method by itself; return why it is not known, or ``""``."""
    reasons = []
    for each in ready.values():
        seconds = median(each.found["seconds"])
        each.found["joules"], reason = energy.of_call(each.call, seconds, settings.device)
        reasons.append(reason)
    return next(filter(None, reasons), "")


def _take_apart(ready: dict[str, _Ready], settings: CostSettings, rounds: Rounds) -> None:
    """Note when the phases of a step end, and time steps without the weights' gradients."""
    order = random.Random(SEED)
    marks = {label: Marks(each.run.model.device) for label, each in ready.items()}
    gc.disable()
    try:
        for _ in range(rounds.parts):
            for label in order.sample(list(ready), len(ready)):
                ready[label].run.marks = marks[label]
                ready[label].run()
                ready[label].run.marks = None
    finally:
        gc.enable()
    whole = {
        label: r.run.activation for label, r in ready.items() if not r.run.model.method.partial
    }
    activation = cost(
        whole,
        settings.baseline,
        warmup=1,
        min_rounds=max(2, rounds.parts),
        min_seconds=0,
        clock=clock(settings.device),
        busy=False,
    )
    for label, each in ready.items():
        each.found["phases"] = marks[label].seconds()
        if label in whole:
            each.found["activation"] = list(activation.seconds[label])


def _flops(settings: CostSettings, run: Pass, *, merged: bool) -> Flops:
    """Count a call and work it out in closed form."""
    training, model = settings.mode == "train", run.model
    counted = flops.count(run.forward if training else run.infer)
    run.optimiser.zero_grad(set_to_none=True)
    closed = work(
        model.encoder.anatomy,
        None if merged else model.method,
        settings.batch,
        settings.length,
        head=cast(Head, model.head),
        training=training,
        kernel=attention_kernel(model),
    )
    return Flops(
        counted_forward=counted.forward,
        counted_backward=counted.backward,
        forward=closed.forward,
        activation_gradient=closed.activation_gradient,
        weight_gradient=closed.weight_gradient,
        hugging_face=flops.hf_total_flos(model, settings.tokens) if training else None,
    )
