"""One cell measured: every method built on one backbone, counted, weighed and timed in turns."""

from __future__ import annotations

import gc
import os
import random
from dataclasses import asdict, dataclass
from typing import Any, cast

import torch
from pydantic import JsonValue

from peftlab import methods
from peftlab.costs.plan import Rounds
from peftlab.costs.step import Batch, Pass, build, random_batch
from peftlab.encoders import SHAPES, Encoder, load_encoder, shape
from peftlab.errors import OutOfMemoryError, SettingsError
from peftlab.methods.work import work
from peftlab.models import Model, summary
from peftlab.results.costs import MERGED, Candidate, CostRecord, CostSettings, Flops
from peftlab.results.record import Git, Parameters
from peftlab.tasks.heads import Head
from peftlab.timing import cost, energy, flops, machine, memory
from peftlab.timing.capacity import out_of_memory, release
from peftlab.timing.ceilings import ceilings
from peftlab.timing.clock import clock
from peftlab.timing.marks import Marks

SEED = 0


@dataclass
class _Ready:
    """A method that is built, with what is known of it before it is timed."""

    run: Pass
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
        The record. A method that did not fit into memory has an error in it and no times.

    Raises:
        OutOfMemoryError: The baseline does not fit.
        TimingError: Other processes use the GPU.
    """
    rounds = rounds or Rounds()
    _check_length(settings)
    device = torch.device(settings.device)
    if device.type == "cuda":
        machine.refuse_shared()
    before = machine.describe() | {"load_average": os.getloadavg()[0]}
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(SEED)
        encoder = _encoder(settings, device)
        ready, failed = _prepare(settings, encoder)
        if settings.baseline in failed:
            raise OutOfMemoryError(
                f"The baseline {settings.baseline!r} cannot be measured on {settings.batch} × "
                f"{settings.length} tokens ({failed[settings.baseline].error}); choose a smaller "
                "cell."
            )
        joules = {} if device.type == "meta" else _time(settings, ready, rounds)
    return CostRecord(
        id=settings.id,
        experiment=experiment,
        settings=settings,
        candidates={
            label: failed[label] if label in failed else Candidate(**ready[label].found)
            for label in settings.methods
        },
        joules=joules,
        ceilings={} if device.type == "meta" else ceilings(device).as_dict(),
        machine=before | {"after": machine.clocks()},
        versions=machine.versions(),
        git=Git(**machine.git()),
    )


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


def _encoder(settings: CostSettings, device: torch.device) -> Encoder:
    """Build the backbone that all methods share, on its device."""
    if settings.encoder in SHAPES:
        # what has no values cannot be asked whether it is padded; eager attention does not ask, and
        # has the same products
        attention = "eager" if device.type == "meta" else settings.attention
        encoder = shape(settings.encoder, settings.device, attention)
        if device.type == "meta":
            config: Any = encoder.backbone.config
            config.pad_token_id = None  # or transformers looks for padding among the ids
    else:
        encoder = load_encoder(settings.encoder, attention=settings.attention)
        backbone: Any = encoder.backbone
        backbone.to(device)
    if settings.checkpointing:
        encoder.recompute()
    return encoder


def _prepare(
    settings: CostSettings, encoder: Encoder
) -> tuple[dict[str, _Ready], dict[str, Candidate]]:
    """Build, count and weigh every method; return those that fit, and why others do not."""
    batch = random_batch(encoder, settings.batch, settings.length)
    ready, failed = {}, {}
    for label in settings.methods:
        try:
            ready[label] = _ready(settings, encoder, batch, label)
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
    found: dict[str, Any] = {"parameters": Parameters(**_sizes(model))}
    if not training:
        model.flatten()
    if merged:
        model.merge()
    run = Pass(model, batch, settings.precision)
    found["flops"] = _flops(settings, run, merged=merged)
    if training and settings.device != "meta":
        found["memory"] = memory.split(run.forward, run.optimiser, model, batch.values()).as_dict()
    return _Ready(run, found)


def _sizes(model: Model) -> dict[str, int]:
    """Return the parameters of a model as a record has them."""
    counted, counts = summary(model), model.method.counts(model.encoder.anatomy)
    return asdict(counts) | {"head": counted.head, "backbone": counted.backbone}


def _time(settings: CostSettings, ready: dict[str, _Ready], rounds: Rounds) -> dict[str, JsonValue]:
    """Time the methods in turns, put the samples into what was found, and return the energy."""
    training = settings.mode == "train"
    calls = {label: r.run if training else r.run.infer for label, r in ready.items()}
    with energy.meter(settings.device) as meter:
        timed = cost(
            calls,
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
        _take_apart(ready, settings, rounds)
    return meter.as_dict()


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
        # on a CPU attention with dropout is two products; a GPU has a kernel for it
        kernel="fused" if settings.device == "cuda" and settings.attention == "sdpa" else "math",
    )
    return Flops(
        counted_forward=counted.forward,
        counted_backward=counted.backward,
        forward=closed.forward,
        activation_gradient=closed.activation_gradient,
        weight_gradient=closed.weight_gradient,
        hugging_face=flops.hf_total_flos(model, settings.tokens) if training else None,
    )
